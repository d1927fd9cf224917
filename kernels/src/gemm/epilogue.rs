//! The epilogue: from sums to the output. Bias, activation, gating product, residual, one rounding, and the transposition
//! of sums whose rows are columns of the output.

use core::ops::Range;

use super::{Part, Product};
use crate::activation::Activation;
use crate::elem::Elem;
use crate::elem::private::Stored;
use crate::isa::{Kernel, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatMut, AnySlice, MatMut, MatRef, any};

/// What a row of sums is in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orientation {
    /// A row.
    RowMajor,
    /// A column.
    Transposed,
}

/// Sums of a block of the output, before the epilogue.
pub(crate) struct Sums<'a> {
    pub(crate) orientation: Orientation,
    /// Rows of the output.
    pub(crate) m: Range<usize>,
    /// Columns of the output, counted within the part.
    pub(crate) n: Range<usize>,
    /// Elements from row to row of the sums: a multiple of 16.
    pub(crate) stride: usize,
    /// For each part that is multiplied into the result, a block of sums.
    pub(crate) data: &'a mut [f32],
    /// Elements from one part's block to the next.
    pub(crate) part_len: usize,
}

/// Runs the epilogue on the sums of `parts`, which are fused into one result whose first column in the output is `column`,
/// and stores it.
///
/// # Safety
/// No other thread may use these elements of the output.
#[inline(always)]
pub(crate) unsafe fn epilogue<S: Simd>(
    s: S,
    product: &Product<'_>,
    parts: &[Part<'_>],
    column: usize,
    sums: Sums<'_>,
) {
    s.call(&mut Epilogue { product, parts, column, sums });
}

/// See [`epilogue`].
struct Epilogue<'a, 'b> {
    product: &'a Product<'b>,
    parts: &'a [Part<'b>],
    column: usize,
    sums: Sums<'a>,
}

/// By reference: copying the struct would read with wide loads what narrow stores have just written. Such a load cannot be
/// forwarded and waits until the stores have left the core, behind everything before them, AMX products included.
impl Kernel for &mut Epilogue<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Epilogue { product, parts, column, sums } = self;
        any!(AnyMatMut, &product.out, out => {
            let (rows, columns) = (sums.m.clone(), *column + sums.n.start..*column + sums.n.end);
            let residual = product.residual.and_then(Stored::typed);
            let residual = residual.map(|residual: MatRef<'_, _>| residual.block(rows.clone(), columns.clone()));
            // SAFETY: the contract of `epilogue`, which alone makes these.
            let mut out = unsafe { out.block(rows, columns) };
            match sums.orientation {
                Orientation::RowMajor => store_row_major(s, sums, parts, residual, &mut out),
                Orientation::Transposed => store_transposed(s, sums, parts, residual, &mut out),
            }
        });
    }
}

/// The bias (if any) of a single part without activation, which can be added while the sums are stored; `None` for all
/// else.
fn bias_only<'a>(parts: &[Part<'a>]) -> Option<Option<AnySlice<'a>>> {
    match parts {
        [] => Some(None),
        [Part { activation: Activation::Identity, bias, .. }] => Some(*bias),
        _ => None,
    }
}

/// Applies bias and activation of part `p` to its row-major sums in place, and multiplies them into those of the first
/// part.
#[inline(always)]
fn activate<S: Simd>(s: S, part: &Part<'_>, p: usize, sums: &mut Sums<'_>) {
    let lanes = sums.n.len().next_multiple_of(LANES);
    for i in 0..sums.m.len() {
        let (first, this) = sums.data.split_at_mut(p * sums.part_len);
        let row = &mut this[i * sums.stride..][..lanes];
        if let Some(bias) = part.bias {
            for at in (0..lanes).step_by(LANES) {
                let y = s.add(mem::load(s, row, at), mem::load_any(s, bias, sums.n.start + at));
                mem::store(s, row, at, y);
            }
        }
        part.activation.apply(s, row);
        if p > 0 {
            let product = &mut first[i * sums.stride..][..lanes];
            for at in (0..lanes).step_by(LANES) {
                let y = s.mul(mem::load(s, product, at), mem::load(s, row, at));
                mem::store(s, product, at, y);
            }
        }
    }
}

/// `y` plus the 16 columns from `at` on of a row's residual, if there is one.
#[inline(always)]
fn add_residual<S: Simd, C: Elem>(s: S, y: S::F32, residual: Option<&[C]>, at: usize) -> S::F32 {
    if let Some(residual) = residual { s.add(y, mem::load(s, residual, at)) } else { y }
}

/// Stores the results of row-major sums.
#[inline(always)]
fn store_row_major<S: Simd, C: Elem>(
    s: S,
    sums: &mut Sums<'_>,
    parts: &[Part<'_>],
    residual: Option<MatRef<'_, C>>,
    out: &mut MatMut<'_, C>,
) {
    let bias = match bias_only(parts) {
        Some(bias) => bias,
        None => {
            for (p, part) in parts.iter().enumerate() {
                activate(s, part, p, sums);
            }
            None
        }
    };
    for i in 0..out.rows() {
        let row = &sums.data[i * sums.stride..][..out.cols().next_multiple_of(LANES)];
        let residual = residual.map(|residual| residual.row(i));
        let to = out.row_mut(i);
        for at in (0..to.len()).step_by(LANES) {
            let y = mem::load(s, row, at);
            let y =
                if let Some(bias) = bias { s.add(y, mem::load_any(s, bias, sums.n.start + at)) } else { y };
            mem::store(s, to, at, add_residual(s, y, residual, at));
        }
    }
}

/// Stores transposed sums as they are.
pub(crate) struct StoreTransposed<'a> {
    pub(crate) sums: &'a Sums<'a>,
    pub(crate) out: AnyMatMut<'a>,
}

impl Kernel for StoreTransposed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        any!(AnyMatMut, &mut self.out, out => {
            store_transposed(s, self.sums, &[], None, out);
        });
    }
}

/// Loads and transposes 16 x 16 transposed sums of part `p`, and adds its bias: rows from `i` on and columns from `at` on of
/// the block of the output.
#[inline(always)]
fn load_transposed_block<S: Simd>(
    s: S,
    sums: &Sums<'_>,
    (p, bias): (usize, Option<AnySlice<'_>>),
    (i, at): (usize, usize),
) -> [S::F32; LANES] {
    // The block's rows lie `stride` apart; the last of them ends where this slice does.
    let end = (at + LANES - 1) * sums.stride + i + LANES;
    let from = &sums.data[p * sums.part_len..][at * sums.stride + i..end];
    // SAFETY: `from` has 16 elements from each of 16 multiples of the stride on.
    let mut block = unsafe { s.load_transposed(from.as_ptr().cast(), sums.stride * size_of::<f32>()) };
    if let Some(bias) = bias {
        let bias = mem::load_any(s, bias, sums.n.start + at);
        for y in &mut block {
            *y = s.add(*y, bias);
        }
    }
    block
}

/// [`load_transposed_block`] of all parts, each activated, multiplied element by element.
#[inline(always)]
fn load_activated_product<S: Simd>(
    s: S,
    sums: &Sums<'_>,
    parts: &[Part<'_>],
    at: (usize, usize),
) -> [S::F32; LANES] {
    let mut block = [s.splat(1.0); LANES];
    for (p, part) in parts.iter().enumerate() {
        let mut values = [0.0; LANES * LANES];
        for (lane, y) in load_transposed_block(s, sums, (p, part.bias), at).into_iter().enumerate() {
            mem::store(s, &mut values, lane * LANES, y);
        }
        part.activation.apply(s, &mut values);
        for (lane, y) in block.iter_mut().enumerate() {
            *y = s.mul(*y, mem::load(s, &values, lane * LANES));
        }
    }
    block
}

/// Stores the results of transposed sums, 16 x 16 at a time.
#[inline(always)]
fn store_transposed<S: Simd, C: Elem>(
    s: S,
    sums: &Sums<'_>,
    parts: &[Part<'_>],
    residual: Option<MatRef<'_, C>>,
    out: &mut MatMut<'_, C>,
) {
    let (rows, cols) = (out.rows(), out.cols());
    let bias_only = bias_only(parts);
    for i in (0..rows).step_by(LANES) {
        for at in (0..cols).step_by(LANES) {
            let mut block = match bias_only {
                Some(bias) => load_transposed_block(s, sums, (0, bias), (i, at)),
                None => load_activated_product(s, sums, parts, (i, at)),
            };
            if rows - i >= LANES && cols - at >= LANES {
                if let Some(residual) = residual {
                    let stride = residual.row_stride();
                    let from = residual.as_ptr().wrapping_add(i * stride + at);
                    for (lane, y) in block.iter_mut().enumerate() {
                        // SAFETY: the residual has the shape of `out`: 16 rows from `i` on, `row_stride` apart, and
                        // in each 16 elements from `at` on.
                        *y = s.add(*y, unsafe { C::load(s, from.add(lane * stride)) });
                    }
                }
                let stride = out.row_stride();
                let to = out.as_mut_ptr().wrapping_add(i * stride + at);
                for (lane, y) in block.into_iter().enumerate() {
                    // SAFETY: `out` has 16 rows from `i` on, `row_stride` apart, and in each 16 elements from `at`
                    // on.
                    unsafe { C::store(s, to.add(lane * stride), y) };
                }
            } else {
                for (lane, y) in block.into_iter().enumerate().take(rows - i) {
                    let residual = residual.map(|residual| residual.row(i + lane));
                    mem::store(s, out.row_mut(i + lane), at, add_residual(s, y, residual, at));
                }
            }
        }
    }
}
