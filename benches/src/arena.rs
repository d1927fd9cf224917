//! Weights to multiply by: many copies of every matrix in one piece of memory, filled once for a whole run.
//!
//! Each copy starts the same number of elements off a 64-byte boundary, because tensors in files start anywhere.
//! Cycling through the copies finds the weights cold.

use bytemuck::{cast_slice, cast_slice_mut};
use clap::ValueEnum;
use rachis_kernels::{AnySlice, bf16, f16};

use crate::shape::Shape;

/// What weights are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// float32
    F32,
    /// bfloat16
    Bf16,
    /// float16
    F16,
}

impl Dtype {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        }
    }
}

/// Bytes of a cache line, to which the memory is aligned.
const LINE: usize = 64;

/// The memory for weights of one storage type.
pub struct Arena {
    data: Vec<f32>,
    /// The first element of `data` on a 64-byte boundary.
    start: usize,
    dtype: Dtype,
    misalign: usize,
}

impl Arena {
    /// At least `bytes` of weights, each matrix `misalign` elements off a 64-byte boundary.
    pub fn new(dtype: Dtype, bytes: usize, misalign: usize) -> Arena {
        let slack = 2 * LINE + misalign * dtype.bytes();
        let mut data = vec![0.0f32; (bytes + slack).div_ceil(4)];
        let start = data.as_ptr().align_offset(LINE).min(data.len());
        let values = values(PERIOD);
        match dtype {
            Dtype::F32 => repeat(&values, &mut data[start..]),
            Dtype::Bf16 => {
                let values: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
                repeat(&values, cast_slice_mut(&mut data[start..]));
            }
            Dtype::F16 => {
                let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                repeat(&values, cast_slice_mut(&mut data[start..]));
            }
        }
        Arena { data, start, dtype, misalign }
    }

    /// What the weights are stored as.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Elements between a 64-byte boundary and the start of the weights.
    pub fn misalign(&self) -> usize {
        self.misalign
    }

    /// How many matrices of this shape there are.
    pub fn copies(&self, shape: Shape) -> usize {
        let elements = (self.data.len() - self.start) * 4 / self.dtype.bytes();
        (elements - self.misalign) / self.pitch(shape)
    }

    /// One of them.
    ///
    /// # Panics
    /// When `copy` is not below [`Arena::copies`].
    pub fn weights(&self, shape: Shape, copy: usize) -> AnySlice<'_> {
        let data = &self.data[self.start..];
        let start = self.misalign + copy * self.pitch(shape);
        let range = start..start + shape.weights();
        match self.dtype {
            Dtype::F32 => AnySlice::F32(&data[range]),
            Dtype::Bf16 => AnySlice::Bf16(&cast_slice(data)[range]),
            Dtype::F16 => AnySlice::F16(&cast_slice(data)[range]),
        }
    }

    /// The first `bytes` of the memory, or all of it, for measuring how fast it can be read.
    pub fn bytes(&self, bytes: usize) -> &[f32] {
        let data = &self.data[self.start..];
        &data[..(bytes / 4).min(data.len())]
    }

    /// The memory of one of `shares` equal parts of a matrix, to within an element of f32.
    ///
    /// # Panics
    /// When `copy` is not below [`Arena::copies`].
    pub fn share(&self, shape: Shape, copy: usize, shares: usize) -> &[f32] {
        let bytes = self.dtype.bytes();
        let start = (self.misalign + copy * self.pitch(shape)) * bytes / 4;
        let len = (shape.weights() * bytes / 4 / shares).max(1);
        &self.data[self.start..][start..start + len]
    }

    /// Elements from the start of a matrix to that of the next.
    fn pitch(&self, shape: Shape) -> usize {
        shape.weights().next_multiple_of(LINE / self.dtype.bytes())
    }
}

/// After how many elements the values repeat: a prime, so that no two rows of a matrix are equal.
const PERIOD: usize = 1009;

/// Numbers between -1/2 and 1/2, the same in every run.
pub fn values(count: usize) -> Vec<f32> {
    let half = (PERIOD / 2) as f32;
    (0..count).map(|i| ((i % PERIOD * 7919 % PERIOD) as f32 - half) / PERIOD as f32).collect()
}

fn repeat<T: Copy>(values: &[T], out: &mut [T]) {
    for out in out.chunks_mut(values.len()) {
        out.copy_from_slice(&values[..out.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { m: 1, n: 7, k: 11 };

    fn address(weights: AnySlice<'_>) -> usize {
        match weights {
            AnySlice::F32(data) => data.as_ptr().addr(),
            AnySlice::Bf16(data) => data.as_ptr().addr(),
            AnySlice::F16(data) => data.as_ptr().addr(),
        }
    }

    #[test]
    fn every_copy_starts_as_far_off_a_line_as_asked() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            for misalign in [0, 1, 4, 15] {
                let arena = Arena::new(dtype, 5000, misalign);
                assert!(arena.copies(SHAPE) * SHAPE.weights() * dtype.bytes() > 3000);
                for copy in 0..arena.copies(SHAPE) {
                    let weights = arena.weights(SHAPE, copy);
                    assert_eq!(weights.len(), SHAPE.weights());
                    assert_eq!(address(weights) % LINE, misalign * dtype.bytes(), "{dtype:?} {misalign}");
                }
            }
        }
    }

    #[test]
    fn a_share_is_inside_its_matrix() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            let arena = Arena::new(dtype, 5000, 4);
            let (weights, share) = (arena.weights(SHAPE, 2), arena.share(SHAPE, 2, 2));
            assert_eq!(share.as_ptr().addr(), address(weights));
            assert_eq!(share.len(), SHAPE.weights() * dtype.bytes() / 8);
            let one = Shape { m: 1, n: 1, k: 1 };
            assert_eq!(arena.share(one, arena.copies(one) - 1, 4).len(), 1, "never empty");
        }
    }

    #[test]
    fn memory_for_one_matrix_holds_one() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            let arena = Arena::new(dtype, SHAPE.weights() * dtype.bytes(), 31);
            assert!(arena.copies(SHAPE) >= 1, "{dtype:?}");
        }
    }

    #[test]
    fn all_storage_types_hold_the_same_numbers() {
        let first = |dtype| match Arena::new(dtype, 5000, 4).weights(SHAPE, 1) {
            AnySlice::F32(data) => data.to_vec(),
            AnySlice::Bf16(data) => data.iter().map(|x| x.to_f32()).collect(),
            AnySlice::F16(data) => data.iter().map(|x| x.to_f32()).collect(),
        };
        // A matrix of 77 elements takes 80 of f32, 96 of the others.
        let exact = values(4 + 96 + SHAPE.weights());
        for (dtype, start, error) in
            [(Dtype::F32, 84, 0.0), (Dtype::Bf16, 100, 1e-2), (Dtype::F16, 100, 1e-3)]
        {
            for (got, want) in first(dtype).iter().zip(&exact[start..]) {
                assert!((got - want).abs() <= error * want.abs(), "{dtype:?}: {got} {want}");
            }
        }
    }
}
