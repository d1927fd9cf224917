//! Keys and values in memory: matrices of a stored type in a slice of f32.

use rachis_kernels::{AnyMatMut, AnyMatRef, Dtype, MatMut, MatRef, Precision, bf16, f16, reuse};

use crate::error::Result;

/// Elements of f32 that take as much memory as `len` elements of `dtype`.
pub(super) fn f32_len(dtype: Dtype, len: usize) -> usize {
    match dtype {
        Dtype::Float32 => len,
        Dtype::Bfloat16 | Dtype::Float16 => len.div_ceil(2),
    }
}

/// A matrix of cached rows: the keys of a layer, its values, or both side by side.
pub(crate) struct CachedKv<'a> {
    memory: &'a mut [f32],
    dtype: Dtype,
    shape: [usize; 2],
}

/// Keys and values of sequences, layer by layer: a matrix of keys, then a matrix of values.
pub(crate) struct SelfKv<'a> {
    memory: &'a mut [f32],
    dtype: Dtype,
    /// Of each matrix.
    shape: [usize; 2],
}

/// Keys and values of sources, layer by layer: one matrix with both side by side.
pub(crate) struct CrossKv<'a> {
    memory: &'a mut [f32],
    dtype: Dtype,
    /// Of each matrix.
    shape: [usize; 2],
    /// Number of matrices: one for each layer, or a single one that all layers use in turn.
    matrices: usize,
}

impl<'a> CachedKv<'a> {
    /// The matrix, writable.
    pub(crate) fn matrix_mut(&mut self) -> Result<AnyMatMut<'_>> {
        let CachedKv { memory, dtype, shape: [rows, cols] } = self;
        let (rows, cols) = (*rows, *cols);
        let len = rows * cols;
        Ok(match dtype {
            Dtype::Float32 => AnyMatMut::F32(MatMut::new(&mut memory[..len], rows, cols)?),
            Dtype::Bfloat16 => AnyMatMut::Bf16(MatMut::new(&mut reuse::<bf16>(memory)[..len], rows, cols)?),
            Dtype::Float16 => AnyMatMut::F16(MatMut::new(&mut reuse::<f16>(memory)[..len], rows, cols)?),
        })
    }

    /// The matrix, read only.
    pub(crate) fn into_ref(self) -> Result<AnyMatRef<'a>> {
        let CachedKv { memory, dtype, shape: [rows, cols] } = self;
        let len = rows * cols;
        Ok(match dtype {
            Dtype::Float32 => AnyMatRef::F32(MatRef::new(&memory[..len], rows, cols)?),
            Dtype::Bfloat16 => AnyMatRef::Bf16(MatRef::new(&reuse::<bf16>(memory)[..len], rows, cols)?),
            Dtype::Float16 => AnyMatRef::F16(MatRef::new(&reuse::<f16>(memory)[..len], rows, cols)?),
        })
    }

    /// The left half of the columns (keys) and the right half (values), read only.
    pub(crate) fn into_halves(self) -> Result<[AnyMatRef<'a>; 2]> {
        let half = self.shape[1] / 2;
        let matrix = self.into_ref()?;
        Ok([matrix.columns(0, half)?, matrix.columns(half, half)?])
    }
}

impl<'a> SelfKv<'a> {
    pub(super) fn new(memory: &'a mut [f32], dtype: Dtype, shape: [usize; 2]) -> SelfKv<'a> {
        SelfKv { memory, dtype, shape }
    }

    /// The keys and the values of a layer.
    pub(crate) fn layer(&mut self, layer: usize) -> [CachedKv<'_>; 2] {
        let (dtype, shape) = (self.dtype, self.shape);
        let len = f32_len(dtype, shape.iter().product());
        let (keys, values) = self.memory[2 * layer * len..][..2 * len].split_at_mut(len);
        [keys, values].map(|memory| CachedKv { memory, dtype, shape })
    }
}

impl<'a> CrossKv<'a> {
    pub(super) fn new(
        memory: &'a mut [f32],
        dtype: Dtype,
        shape: [usize; 2],
        matrices: usize,
    ) -> CrossKv<'a> {
        CrossKv { memory, dtype, shape, matrices }
    }

    /// One matrix that all layers use in turn, for `rows` rows of keys of `width` columns and as many of values.
    pub(crate) fn shared(
        memory: &'a mut [f32],
        precision: Precision,
        [rows, width]: [usize; 2],
    ) -> CrossKv<'a> {
        CrossKv::new(memory, precision.operand_dtype(), [rows, 2 * width], 1)
    }

    /// The keys and values of a layer.
    pub(crate) fn layer(&mut self, layer: usize) -> CachedKv<'_> {
        let (dtype, shape) = (self.dtype, self.shape);
        let len = f32_len(dtype, shape.iter().product());
        CachedKv { memory: &mut self.memory[layer % self.matrices * len..][..len], dtype, shape }
    }
}
