//! Borrowed matrices: a slice, two dimensions and a row stride, checked once when they are made.

use core::marker::PhantomData;
use core::ops::Range;
use core::ptr::NonNull;

use crate::elem::{Elem, bf16, f16};
use crate::error::{Error, Result};

/// A read-only row-major matrix inside a slice. Columns are contiguous; rows are `row_stride` elements apart.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

/// A writable row-major matrix inside a slice. Rows must not overlap.
///
/// It owns its elements only, not the gaps between its rows, so that one matrix can be cut into blocks that
/// several threads write.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: NonNull<T>,
    rows: usize,
    cols: usize,
    row_stride: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: a `MatMut` is an exclusive borrow of its elements, like `&mut [T]`; sending it sends that borrow.
unsafe impl<T: Send> Send for MatMut<'_, T> {}
// SAFETY: a shared `MatMut` only gives read access to its elements, like `&&mut [T]`.
unsafe impl<T: Sync> Sync for MatMut<'_, T> {}

/// A matrix whose storage type is known at run time, as weights are.
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

/// A vector whose storage type is known at run time: biases and the parameters of a norm.
#[derive(Debug, Clone, Copy)]
pub enum AnySlice<'a> {
    /// float32
    F32(&'a [f32]),
    /// bfloat16
    Bf16(&'a [bf16]),
    /// float16
    F16(&'a [f16]),
}

fn check_view(len: usize, rows: usize, cols: usize, row_stride: usize, overlap: bool) -> Result<()> {
    let error = Error::View { rows, cols, row_stride, len };
    if !overlap && row_stride < cols && rows > 1 {
        return Err(error);
    }
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let end = (rows - 1).checked_mul(row_stride).and_then(|start| start.checked_add(cols));
    if end.is_some_and(|end| end <= len) { Ok(()) } else { Err(error) }
}

fn check_range(start: &'static str, end: &'static str, range: &Range<usize>, len: usize) -> Result<()> {
    let outside = |what, expected, found| Err(Error::Shape { operation: "block", what, expected, found });
    if range.end > len {
        return outside(end, len, range.end);
    }
    if range.start > range.end {
        return outside(start, range.end, range.start);
    }
    Ok(())
}

impl<T> Default for MatRef<'_, T> {
    /// The matrix without elements.
    fn default() -> Self {
        Self { data: &[], rows: 0, cols: 0, row_stride: 0 }
    }
}

impl<'a, T> MatRef<'a, T> {
    /// A `rows x cols` matrix packed without gaps.
    ///
    /// # Errors
    /// [`Error::View`] when it does not fit in `data`.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self> {
        Self::with_stride(data, rows, cols, cols)
    }

    /// A `rows x cols` matrix whose rows start every `row_stride` elements (any stride, also 0).
    ///
    /// # Errors
    /// [`Error::View`] when it does not fit in `data`.
    pub fn with_stride(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Result<Self> {
        check_view(data.len(), rows, cols, row_stride, true)?;
        Ok(Self { data, rows, cols, row_stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements between the starts of two rows.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Row `i`.
    ///
    /// # Panics
    /// When `i >= rows`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [T] {
        assert!(i < self.rows);
        if self.cols == 0 { &[] } else { &self.data[i * self.row_stride..][..self.cols] }
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }

    /// A matrix without gaps that fills `data`, whose length the caller has computed.
    pub(crate) fn packed(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert!(data.len() == rows * cols);
        Self { data, rows, cols, row_stride: cols }
    }

    /// The given rows.
    ///
    /// # Panics
    /// When the range is outside the matrix.
    pub fn rows_range(&self, rows: Range<usize>) -> MatRef<'a, T> {
        self.block(rows, 0..self.cols)
    }

    /// The block of the given rows and columns.
    pub(crate) fn block(&self, rows: Range<usize>, cols: Range<usize>) -> MatRef<'a, T> {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        assert!(cols.start <= cols.end && cols.end <= self.cols);
        let empty = rows.is_empty() || cols.is_empty();
        let start = if empty { 0 } else { rows.start * self.row_stride + cols.start };
        MatRef { data: &self.data[start..], rows: rows.len(), cols: cols.len(), row_stride: self.row_stride }
    }

    /// The columns `start .. start + cols` of every row.
    ///
    /// # Errors
    /// [`Error::View`] when the range is outside the matrix.
    pub fn columns(&self, start: usize, cols: usize) -> Result<Self> {
        if start > self.cols || cols > self.cols - start {
            let (rows, row_stride) = (self.rows, self.row_stride);
            return Err(Error::View { rows, cols: start.saturating_add(cols), row_stride, len: self.cols });
        }
        Self::with_stride(self.data.get(start..).unwrap_or(&[]), self.rows, cols, self.row_stride)
    }
}

impl<'a, T> MatMut<'a, T> {
    /// A `rows x cols` matrix packed without gaps.
    ///
    /// # Errors
    /// [`Error::View`] when it does not fit in `data`.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self> {
        Self::with_stride(data, rows, cols, cols)
    }

    /// A `rows x cols` matrix whose rows start every `row_stride >= cols` elements.
    ///
    /// # Errors
    /// [`Error::View`] when it does not fit in `data` or its rows would overlap.
    pub fn with_stride(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Result<Self> {
        check_view(data.len(), rows, cols, row_stride, false)?;
        let data = NonNull::from(data).cast::<T>();
        Ok(Self { data, rows, cols, row_stride, lifetime: PhantomData })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements between the starts of two rows.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Row `i`.
    ///
    /// # Panics
    /// When `i >= rows`.
    #[inline(always)]
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        assert!(i < self.rows);
        if self.cols == 0 {
            return &mut [];
        }
        // SAFETY: the constructor checked that row `i < rows` lies inside the slice that is borrowed for 'a;
        // `&mut self` makes this the only access to this matrix's elements.
        unsafe { core::slice::from_raw_parts_mut(self.data.as_ptr().add(i * self.row_stride), self.cols) }
    }

    /// Row `i`, read only.
    ///
    /// # Panics
    /// When `i >= rows`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &[T] {
        assert!(i < self.rows);
        if self.cols == 0 {
            return &[];
        }
        // SAFETY: as in `row_mut`, with `&self` for a shared access.
        unsafe { core::slice::from_raw_parts(self.data.as_ptr().add(i * self.row_stride), self.cols) }
    }

    /// Where the first row starts; for what need not be there.
    pub(crate) fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }

    /// Where the first row starts, for accesses to elements of several rows.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_ptr()
    }

    /// A shorter borrow of the same matrix.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { lifetime: PhantomData, ..*self }
    }

    /// The block of the given rows and columns.
    ///
    /// # Errors
    /// [`Error::Shape`] when a range is outside the matrix.
    pub fn block_mut(&mut self, rows: Range<usize>, columns: Range<usize>) -> Result<MatMut<'_, T>> {
        check_range("start of the rows, at most", "end of the rows, at most", &rows, self.rows)?;
        check_range("start of the columns, at most", "end of the columns, at most", &columns, self.cols)?;
        // SAFETY: the block borrows `self` exclusively.
        Ok(unsafe { self.block(rows, columns) })
    }

    /// The block of the given rows and columns as a matrix of its own.
    ///
    /// # Safety
    /// While the block lives, its elements must be reached through it alone: blocks in use at the same time
    /// must not overlap, and `self` must not be read or written.
    pub(crate) unsafe fn block(&self, rows: Range<usize>, cols: Range<usize>) -> MatMut<'_, T> {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        assert!(cols.start <= cols.end && cols.end <= self.cols);
        if rows.is_empty() || cols.is_empty() {
            return MatMut { rows: rows.len(), cols: cols.len(), lifetime: PhantomData, ..*self };
        }
        // SAFETY: the first element of a block that is not empty lies inside the slice.
        let data = unsafe { self.data.add(rows.start * self.row_stride + cols.start) };
        MatMut { data, rows: rows.len(), cols: cols.len(), lifetime: PhantomData, ..*self }
    }
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

    /// The given rows.
    ///
    /// # Panics
    /// When the range is outside the matrix.
    pub fn rows_range(&self, rows: Range<usize>) -> AnyMatRef<'a> {
        any!(AnyMatRef, self, m => m.rows_range(rows).into())
    }

    /// The columns `start .. start + cols` of every row.
    ///
    /// # Errors
    /// [`Error::View`] when the range is outside the matrix.
    pub fn columns(&self, start: usize, cols: usize) -> Result<AnyMatRef<'a>> {
        any!(AnyMatRef, self, m => Ok(m.columns(start, cols)?.into()))
    }

    /// The block of the given rows and columns.
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

    /// The block of the given rows and columns.
    ///
    /// # Errors
    /// [`Error::Shape`] when a range is outside the matrix.
    pub fn block_mut(&mut self, rows: Range<usize>, columns: Range<usize>) -> Result<AnyMatMut<'_>> {
        any!(AnyMatMut, self, m => Ok(m.block_mut(rows, columns)?.into()))
    }

    /// The block of the given rows and columns as a matrix of its own.
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

    /// Whether there are none.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_that_do_not_fit_are_refused() {
        let data = [0.0f32; 10];
        assert!(MatRef::new(&data, 2, 5).is_ok());
        assert!(MatRef::with_stride(&data, 3, 2, 4).is_ok());
        assert!(MatRef::with_stride(&data, 3, 3, 4).is_err());
        assert!(MatRef::with_stride(&data, usize::MAX, 2, usize::MAX).is_err());
        assert!(MatRef::new(&data, usize::MAX, 0).is_ok());
        let mut data = [0.0f32; 10];
        assert!(MatMut::with_stride(&mut data, 2, 4, 3).is_err());
        assert!(MatMut::with_stride(&mut data, 2, 4, 6).is_ok());
    }

    #[test]
    fn columns_stay_inside() {
        let data: Vec<f32> = (0..12u8).map(f32::from).collect();
        let m = MatRef::new(&data, 3, 4).unwrap();
        let c = m.columns(1, 2).unwrap();
        assert_eq!(c.row(2), &[9.0, 10.0]);
        assert!(m.columns(3, 2).is_err());
        assert!(m.columns(usize::MAX, 1).is_err());
        assert_eq!(m.columns(4, 0).unwrap().row(1), &[] as &[f32]);
    }
}
