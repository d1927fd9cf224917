//! Views whose storage type is known at run time.

use core::ops::Range;

use super::{MatMut, MatRef};
use crate::dtype::Dtype;
use crate::elem::{Elem, bf16, f16};
use crate::error::Result;

/// A matrix whose storage type is known at run time: weights, for one.
#[derive(Debug, Clone, Copy)]
pub enum AnyMatRef<'a> {
    /// float32
    F32(MatRef<'a, f32>),
    /// bfloat16
    Bf16(MatRef<'a, bf16>),
    /// float16
    F16(MatRef<'a, f16>),
}

/// A writable matrix whose storage type is known at run time.
#[derive(Debug)]
pub enum AnyMatMut<'a> {
    /// float32
    F32(MatMut<'a, f32>),
    /// bfloat16
    Bf16(MatMut<'a, bf16>),
    /// float16
    F16(MatMut<'a, f16>),
}

/// A vector whose storage type is known at run time: biases, and the parameters of norms.
#[derive(Debug, Clone, Copy)]
pub enum AnySlice<'a> {
    /// float32
    F32(&'a [f32]),
    /// bfloat16
    Bf16(&'a [bf16]),
    /// float16
    F16(&'a [f16]),
}

/// Evaluates an expression with `$m` bound to the typed view or slice inside an `Any*` value.
macro_rules! any {
    ($any:ident, $value:expr, $m:ident => $body:expr) => {
        match $value {
            $crate::view::$any::F32($m) => $body,
            $crate::view::$any::Bf16($m) => $body,
            $crate::view::$any::F16($m) => $body,
        }
    };
}
pub(crate) use any;

impl<'a> AnyMatRef<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        any!(AnyMatRef, self, m => m.rows())
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        any!(AnyMatRef, self, m => m.cols())
    }

    /// The storage type.
    pub fn dtype(&self) -> Dtype {
        match self {
            AnyMatRef::F32(_) => Dtype::Float32,
            AnyMatRef::Bf16(_) => Dtype::Bfloat16,
            AnyMatRef::F16(_) => Dtype::Float16,
        }
    }

    /// The rows in the range.
    ///
    /// # Panics
    /// When the range is outside the matrix.
    pub fn rows_range(&self, rows: Range<usize>) -> AnyMatRef<'a> {
        any!(AnyMatRef, self, m => m.rows_range(rows).into())
    }

    /// The columns `start .. start + cols` of every row.
    ///
    /// # Errors
    /// [`Error::View`](crate::Error::View) when the range is outside the matrix.
    pub fn columns(&self, start: usize, cols: usize) -> Result<AnyMatRef<'a>> {
        any!(AnyMatRef, self, m => Ok(m.columns(start, cols)?.into()))
    }

    /// The block of these rows and columns.
    #[inline(always)]
    pub(crate) fn block(&self, rows: Range<usize>, cols: Range<usize>) -> AnyMatRef<'a> {
        any!(AnyMatRef, self, m => m.block(rows, cols).into())
    }
}

impl AnyMatMut<'_> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        any!(AnyMatMut, self, m => m.rows())
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        any!(AnyMatMut, self, m => m.cols())
    }

    /// The block of these rows and columns.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when a range is outside the matrix.
    pub fn block_mut(&mut self, rows: Range<usize>, columns: Range<usize>) -> Result<AnyMatMut<'_>> {
        any!(AnyMatMut, self, m => Ok(m.block_mut(rows, columns)?.into()))
    }

    /// The block of these rows and columns as a separate matrix.
    ///
    /// # Safety
    /// As [`MatMut::block`].
    pub(crate) unsafe fn block(&self, rows: Range<usize>, cols: Range<usize>) -> AnyMatMut<'_> {
        // SAFETY: the caller's contract.
        unsafe {
            match self {
                AnyMatMut::F32(m) => AnyMatMut::F32(m.block(rows, cols)),
                AnyMatMut::Bf16(m) => AnyMatMut::Bf16(m.block(rows, cols)),
                AnyMatMut::F16(m) => AnyMatMut::F16(m.block(rows, cols)),
            }
        }
    }
}

impl AnySlice<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        any!(AnySlice, self, s => s.len())
    }

    /// Whether the vector has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Elem> From<MatRef<'a, T>> for AnyMatRef<'a> {
    #[inline(always)]
    fn from(m: MatRef<'a, T>) -> Self {
        T::any(m)
    }
}

impl<'a, T: Elem> From<MatMut<'a, T>> for AnyMatMut<'a> {
    #[inline(always)]
    fn from(m: MatMut<'a, T>) -> Self {
        T::any_mut(m)
    }
}

macro_rules! from_typed {
    ($($t:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a [$t]> for AnySlice<'a> {
            fn from(s: &'a [$t]) -> Self { AnySlice::$variant(s) }
        }
    )*};
}
from_typed!(f32 => F32, bf16 => Bf16, f16 => F16);
