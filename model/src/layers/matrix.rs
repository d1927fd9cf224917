//! Matrices of activations in working memory.
//!
//! Rows start an odd number of cache lines apart, so that those of a column are spread over all sets of a cache. If they
//! were as far apart as they are wide, 32 columns of 128 rows of 3072 numbers would meet in two of 64 sets, and drive out
//! of the first level what a product is about to use.

use rachis_kernels::{Elem, MatMut, MatRef, reuse};

use crate::error::Result;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Elements from the start of a row of so many to that of the next one.
fn stride<T>(width: usize) -> usize {
    ((width * size_of::<T>()).div_ceil(LINE) | 1) * (LINE / size_of::<T>())
}

/// Elements of memory that a matrix takes, whatever it is stored as.
pub(crate) fn matrix_len([rows, width]: [usize; 2]) -> usize {
    rows * stride::<f32>(width)
}

/// The matrix of this shape at the start of `memory`.
pub(crate) fn matrix(memory: &[f32], [rows, width]: [usize; 2]) -> Result<MatRef<'_, f32>> {
    Ok(MatRef::with_stride(memory, rows, width, stride::<f32>(width))?)
}

/// The same, stored as `T`.
pub(crate) fn matrix_as<T: Elem>(memory: &mut [f32], [rows, width]: [usize; 2]) -> Result<MatRef<'_, T>> {
    Ok(MatRef::with_stride(reuse::<T>(memory), rows, width, stride::<T>(width))?)
}

/// The same, to be written.
pub(crate) fn matrix_mut<T: Elem>(memory: &mut [f32], [rows, width]: [usize; 2]) -> Result<MatMut<'_, T>> {
    Ok(MatMut::with_stride(reuse::<T>(memory), rows, width, stride::<T>(width))?)
}

#[cfg(test)]
mod tests {
    use rachis_kernels::bf16;

    use super::*;

    #[test]
    fn rows_are_an_odd_number_of_lines_apart_and_fit() {
        for width in 1..2000 {
            let (wide, narrow) = (stride::<f32>(width), stride::<bf16>(width));
            assert!(wide >= width && narrow >= width);
            assert!(wide % 32 == 16 && narrow % 64 == 32, "{width}: {wide} {narrow}");
            assert!(2 * wide >= narrow);
        }
        let mut memory = vec![0.0; matrix_len([3, 48])];
        assert_eq!(memory.len(), 3 * 48);
        assert!(matrix_mut::<bf16>(&mut memory, [3, 48]).is_ok());
        assert!(matrix(&memory, [4, 48]).is_err());
    }
}
