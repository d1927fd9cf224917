//! Weights: many copies of every matrix in one piece of memory, which is filled once for a whole run.
//!
//! Each copy starts the same number of elements after a 64-byte boundary, because tensors in files start anywhere. A loop over
//! the copies finds the weights cold.

use bytemuck::{cast_slice, cast_slice_mut};
use rachis_kernels::{AnySlice, Dtype, bf16, f16};
use rachis_testkit::shapes::GemmShape;

/// The short name of a storage type on kprobe's command line, in reports and in records: `f32`, `bf16` or `f16`.
pub fn short_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Float32 => "f32",
        Dtype::Bfloat16 => "bf16",
        Dtype::Float16 => "f16",
    }
}

/// The storage type with this [`short_name`].
///
/// # Errors
/// When there is none.
pub fn by_short_name(name: &str) -> Result<Dtype, String> {
    let named = Dtype::ALL.into_iter().find(|dtype| short_name(*dtype) == name);
    named.ok_or_else(|| format!("dtype {name}: expected f32, bf16 or f16"))
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
    /// At least `bytes` of weights, with each matrix `misalign` elements after a 64-byte boundary.
    pub fn new(dtype: Dtype, bytes: usize, misalign: usize) -> Arena {
        let slack = 2 * LINE + misalign * dtype.size_of();
        let mut data = vec![0.0f32; (bytes + slack).div_ceil(4)];
        let start = data.as_ptr().align_offset(LINE).min(data.len());
        let values = values(PERIOD);
        match dtype {
            Dtype::Float32 => repeat(&values, &mut data[start..]),
            Dtype::Bfloat16 => {
                let values: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
                repeat(&values, cast_slice_mut(&mut data[start..]));
            }
            Dtype::Float16 => {
                let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                repeat(&values, cast_slice_mut(&mut data[start..]));
            }
        }
        Arena { data, start, dtype, misalign }
    }

    /// The storage type of the weights.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Elements from a 64-byte boundary to the start of the weights.
    pub fn misalign(&self) -> usize {
        self.misalign
    }

    /// The number of matrices of this shape.
    pub fn copies(&self, shape: GemmShape) -> usize {
        let elements = (self.data.len() - self.start) * 4 / self.dtype.size_of();
        (elements - self.misalign) / self.pitch(shape)
    }

    /// A matrix of this shape.
    ///
    /// # Panics
    /// When `copy` is not below [`Arena::copies`].
    pub fn weights(&self, shape: GemmShape, copy: usize) -> AnySlice<'_> {
        let data = &self.data[self.start..];
        let start = self.misalign + copy * self.pitch(shape);
        let range = start..start + shape.weights();
        match self.dtype {
            Dtype::Float32 => AnySlice::F32(&data[range]),
            Dtype::Bfloat16 => AnySlice::Bf16(&cast_slice(data)[range]),
            Dtype::Float16 => AnySlice::F16(&cast_slice(data)[range]),
        }
    }

    /// The first `bytes` of the memory, or all of it if it is shorter, to measure how fast it can be read.
    pub fn bytes(&self, bytes: usize) -> &[f32] {
        let data = &self.data[self.start..];
        &data[..(bytes / 4).min(data.len())]
    }

    /// The memory of one of `shares` equal parts of a matrix, rounded to elements of f32.
    ///
    /// # Panics
    /// When `copy` is not below [`Arena::copies`].
    pub fn share(&self, shape: GemmShape, copy: usize, shares: usize) -> &[f32] {
        let bytes = self.dtype.size_of();
        let start = (self.misalign + copy * self.pitch(shape)) * bytes / 4;
        let len = (shape.weights() * bytes / 4 / shares).max(1);
        &self.data[self.start..][start..start + len]
    }

    /// Elements from the start of a matrix to the start of the next.
    fn pitch(&self, shape: GemmShape) -> usize {
        shape.weights().next_multiple_of(LINE / self.dtype.size_of())
    }
}

/// The number of elements after which the values repeat: a prime, so that no two rows of a matrix are equal.
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

    const SHAPE: GemmShape = GemmShape { m: 1, n: 7, k: 11 };

    fn address(weights: AnySlice<'_>) -> usize {
        match weights {
            AnySlice::F32(data) => data.as_ptr().addr(),
            AnySlice::Bf16(data) => data.as_ptr().addr(),
            AnySlice::F16(data) => data.as_ptr().addr(),
        }
    }

    #[test]
    fn every_copy_starts_at_the_given_distance_from_a_cache_line() {
        for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16] {
            for misalign in [0, 1, 4, 15] {
                let arena = Arena::new(dtype, 5000, misalign);
                assert!(arena.copies(SHAPE) * SHAPE.weights() * dtype.size_of() > 3000);
                for copy in 0..arena.copies(SHAPE) {
                    let weights = arena.weights(SHAPE, copy);
                    assert_eq!(weights.len(), SHAPE.weights());
                    assert_eq!(address(weights) % LINE, misalign * dtype.size_of(), "{dtype:?} {misalign}");
                }
            }
        }
    }

    #[test]
    fn short_names_round_trip_and_others_are_errors() {
        for dtype in Dtype::ALL {
            assert_eq!(by_short_name(short_name(dtype)), Ok(dtype));
        }
        assert_eq!(by_short_name("f64"), Err("dtype f64: expected f32, bf16 or f16".to_owned()));
    }

    #[test]
    fn a_share_lies_inside_its_matrix() {
        for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16] {
            let arena = Arena::new(dtype, 5000, 4);
            let (weights, share) = (arena.weights(SHAPE, 2), arena.share(SHAPE, 2, 2));
            assert_eq!(share.as_ptr().addr(), address(weights));
            assert_eq!(share.len(), SHAPE.weights() * dtype.size_of() / 8);
            let one = GemmShape { m: 1, n: 1, k: 1 };
            assert_eq!(arena.share(one, arena.copies(one) - 1, 4).len(), 1, "never empty");
        }
    }

    #[test]
    fn memory_for_one_matrix_holds_one() {
        for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16] {
            let arena = Arena::new(dtype, SHAPE.weights() * dtype.size_of(), 31);
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
            [(Dtype::Float32, 84, 0.0), (Dtype::Bfloat16, 100, 1e-2), (Dtype::Float16, 100, 1e-3)]
        {
            for (got, want) in first(dtype).iter().zip(&exact[start..]) {
                assert!((got - want).abs() <= error * want.abs(), "{dtype:?}: {got} {want}");
            }
        }
    }
}
