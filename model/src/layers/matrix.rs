//! Matrices of activations in working memory.
//!
//! Rows start an odd number of cache lines apart, so that the lines of a column are spread over all sets of a cache. If
//! the distance were the width, 32 columns of 128 rows of 3072 numbers would fall into two of 64 sets, and drive what a
//! product is about to use out of the first-level cache.

use rachis_kernels::{Elem, MatMut, MatRef, reuse};

use crate::error::Result;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Elements from the start of one row of `width` elements to the start of the next.
fn stride<T>(width: usize) -> usize {
    ((width * size_of::<T>()).div_ceil(LINE) | 1) * (LINE / size_of::<T>())
}

/// Elements of f32 that a matrix takes, whatever type its elements are stored as.
pub(crate) fn matrix_len([rows, width]: [usize; 2]) -> usize {
    rows * stride::<f32>(width)
}

/// The matrix of this shape at the start of `memory`.
pub(crate) fn matrix(memory: &[f32], [rows, width]: [usize; 2]) -> Result<MatRef<'_, f32>> {
    Ok(MatRef::with_stride(memory, rows, width, stride::<f32>(width))?)
}

/// The matrix of this shape at the start of `memory`, its elements stored as `T`.
pub(crate) fn matrix_as<T: Elem>(memory: &mut [f32], [rows, width]: [usize; 2]) -> Result<MatRef<'_, T>> {
    Ok(MatRef::with_stride(reuse::<T>(memory), rows, width, stride::<T>(width))?)
}

/// The writable matrix of this shape at the start of `memory`, its elements stored as `T`.
pub(crate) fn matrix_mut<T: Elem>(memory: &mut [f32], [rows, width]: [usize; 2]) -> Result<MatMut<'_, T>> {
    Ok(MatMut::with_stride(reuse::<T>(memory), rows, width, stride::<T>(width))?)
}

#[cfg(test)]
mod tests {
    use rachis_kernels::bf16;

    use super::*;

    #[test]
    fn row_strides_are_an_odd_number_of_lines_and_hold_a_row() {
        for width in 1..2000 {
            let (of_f32, of_bf16) = (stride::<f32>(width), stride::<bf16>(width));
            assert!(of_f32 >= width && of_bf16 >= width);
            assert!(of_f32 % 32 == 16 && of_bf16 % 64 == 32, "{width}: {of_f32} {of_bf16}");
            assert!(2 * of_f32 >= of_bf16);
        }
        let mut memory = vec![0.0; matrix_len([3, 48])];
        assert_eq!(memory.len(), 3 * 48);
        assert!(matrix_mut::<bf16>(&mut memory, [3, 48]).is_ok());
        assert!(matrix(&memory, [4, 48]).is_err());
    }
}
