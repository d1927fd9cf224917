//! Borrowed matrices: a slice, two dimensions and a row stride, checked once when they are made.
//!
//! [`MatRef`] and [`MatMut`] know their storage type at compile time; `any` has the views that know it at run time.

mod any;

pub(crate) use any::any;
pub use any::{AnyMatMut, AnyMatRef, AnySlice};

use core::marker::PhantomData;
use core::ops::Range;
use core::ptr::NonNull;

use crate::error::{Error, Expected, Result, outside};

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
/// It borrows its elements only, not the gaps between its rows, so that one matrix can be cut into blocks that several
/// threads write.
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
    if range.end > len {
        return outside("block", end, Expected::AtMost(len), range.end);
    }
    if range.start > range.end {
        return outside("block", start, Expected::AtMost(range.end), range.start);
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

    /// A matrix without gaps that fills `data`.
    ///
    /// # Panics
    /// When `data` has another length.
    pub(crate) fn packed(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert!(data.len() == rows * cols);
        Self { data, rows, cols, row_stride: cols }
    }

    /// The rows in the range.
    ///
    /// # Panics
    /// When the range is outside the matrix.
    pub fn rows_range(&self, rows: Range<usize>) -> MatRef<'a, T> {
        self.block(rows, 0..self.cols)
    }

    /// The block of these rows and columns.
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

    /// The start of the first row, for prefetches.
    pub(crate) fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }

    /// The start of the first row, for accesses to elements of several rows.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_ptr()
    }

    /// A shorter borrow of the same matrix.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { lifetime: PhantomData, ..*self }
    }

    /// The block of these rows and columns.
    ///
    /// # Errors
    /// [`Error::Shape`] when a range is outside the matrix.
    pub fn block_mut(&mut self, rows: Range<usize>, columns: Range<usize>) -> Result<MatMut<'_, T>> {
        check_range("start of the rows, at most", "end of the rows, at most", &rows, self.rows)?;
        check_range("start of the columns, at most", "end of the columns, at most", &columns, self.cols)?;
        // SAFETY: the block borrows `self` exclusively.
        Ok(unsafe { self.block(rows, columns) })
    }

    /// The block of these rows and columns as a separate matrix.
    ///
    /// # Safety
    /// While the block lives, its elements must be accessed through it alone: blocks in use at the same time must not
    /// overlap, and `self` must not be read or written.
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
