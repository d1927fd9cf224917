//! From sums to the output: bias, activation, gating product, residual, one rounding, and the turn of a
//! transposed tile.

use core::ops::Range;

use super::{Part, Product};
use crate::activation::Activation;
use crate::elem::Elem;
use crate::elem::private::Storage;
use crate::isa::{Kernel, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatMut, AnySlice, MatMut, MatRef, any};

/// Whether the rows of a block of sums are rows of the output, or its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orientation {
    /// A row of sums is a row of the output.
    Straight,
    /// A row of sums is a column of the output.
    Turned,
}

/// Sums of a block of the output, before the epilogue.
pub(crate) struct Sums<'a> {
    pub(crate) orientation: Orientation,
    /// Rows and columns of the output; columns are counted within the part.
    pub(crate) m: Range<usize>,
    pub(crate) n: Range<usize>,
    /// Elements between rows of sums: a multiple of 16.
    pub(crate) stride: usize,
    /// A block of sums for each part that is multiplied into the result, one after the other.
    pub(crate) data: &'a mut [f32],
    /// Elements between those blocks.
    pub(crate) block: usize,
}

/// Finishes `sums` of the parts `group`, whose first column in the output is `column`, and stores them.
///
/// # Safety
/// No other thread may use these elements of the output.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(
    s: S,
    product: &Product<'_>,
    group: &[Part<'_>],
    column: usize,
    sums: Sums<'_>,
) {
    s.call(&mut Finish { product, group, column, sums });
}

/// See [`finish`].
struct Finish<'a, 'b> {
    product: &'a Product<'b>,
    group: &'a [Part<'b>],
    column: usize,
    sums: Sums<'a>,
}

/// By reference, as a copy would read with wide loads what was just written with narrow stores: it would wait until
/// those have left the core, which is after all that comes before them, the tile unit's products included.
impl Kernel for &mut Finish<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Finish { product, group, column, sums } = self;
        any!(AnyMatMut, &product.out, out => {
            let (rows, columns) = (sums.m.clone(), *column + sums.n.start..*column + sums.n.end);
            let residual = product.residual.and_then(Storage::typed);
            let residual = residual.map(|residual: MatRef<'_, _>| residual.block(rows.clone(), columns.clone()));
            // SAFETY: the contract of `finish`, which alone makes these.
            let mut out = unsafe { out.block(rows, columns) };
            match sums.orientation {
                Orientation::Straight => store(s, sums, group, residual, &mut out),
                Orientation::Turned => store_turned(s, sums, group, residual, &mut out),
            }
        });
    }
}

/// The bias, if any, of a lone sum without an activation, which is finished as it is stored.
fn plain<'a>(group: &[Part<'a>]) -> Option<Option<AnySlice<'a>>> {
    match group {
        [] => Some(None),
        [Part { activation: Activation::Identity, bias, .. }] => Some(*bias),
        _ => None,
    }
}

/// Applies bias and activation of part `p` to its sums in place, whose rows are rows of the output, and multiplies them
/// into the first part's.
#[inline(always)]
fn activate<S: Simd>(s: S, part: &Part<'_>, p: usize, sums: &mut Sums<'_>) {
    let lanes = sums.n.len().next_multiple_of(LANES);
    for i in 0..sums.m.len() {
        let (first, own) = sums.data.split_at_mut(p * sums.block);
        let row = &mut own[i * sums.stride..][..lanes];
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

/// `y` with the 16 columns from `at` on of a row's residual.
#[inline(always)]
fn added<S: Simd, C: Elem>(s: S, y: S::F32, residual: Option<&[C]>, at: usize) -> S::F32 {
    if let Some(residual) = residual { s.add(y, mem::load(s, residual, at)) } else { y }
}

/// Stores sums of some parts whose rows are rows of the output.
#[inline(always)]
fn store<S: Simd, C: Elem>(
    s: S,
    sums: &mut Sums<'_>,
    group: &[Part<'_>],
    residual: Option<MatRef<'_, C>>,
    out: &mut MatMut<'_, C>,
) {
    let bias = match plain(group) {
        Some(bias) => bias,
        None => {
            for (p, part) in group.iter().enumerate() {
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
            mem::store(s, to, at, added(s, y, residual, at));
        }
    }
}

/// Stores sums whose rows are columns of the output.
pub(crate) struct StoreTurned<'a> {
    pub(crate) sums: &'a Sums<'a>,
    pub(crate) out: AnyMatMut<'a>,
}

impl Kernel for StoreTurned<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        any!(AnyMatMut, &mut self.out, out => {
            store_turned(s, self.sums, &[], None, out);
        });
    }
}

/// The block of the output's rows from `i` and columns from `at` on, of part `p` of the sums, which lie turned, with its
/// bias.
#[inline(always)]
fn turned<S: Simd>(
    s: S,
    sums: &Sums<'_>,
    (p, bias): (usize, Option<AnySlice<'_>>),
    (i, at): (usize, usize),
) -> [S::F32; LANES] {
    // The block's rows lie `stride` apart; the last of them ends where this slice does.
    let end = (at + LANES - 1) * sums.stride + i + LANES;
    let from = &sums.data[p * sums.block..][at * sums.stride + i..end];
    // SAFETY: 16 elements from each multiple of the stride are in `from`.
    let mut block = unsafe { s.load_turned(from.as_ptr().cast(), sums.stride * size_of::<f32>()) };
    if let Some(bias) = bias {
        let bias = mem::load_any(s, bias, sums.n.start + at);
        for y in &mut block {
            *y = s.add(*y, bias);
        }
    }
    block
}

/// The same of the product of all parts, activated.
#[inline(always)]
fn product_turned<S: Simd>(s: S, sums: &Sums<'_>, group: &[Part<'_>], at: (usize, usize)) -> [S::F32; LANES] {
    let mut block = [s.splat(1.0); LANES];
    for (p, part) in group.iter().enumerate() {
        let mut values = [0.0; LANES * LANES];
        for (lane, y) in turned(s, sums, (p, part.bias), at).into_iter().enumerate() {
            mem::store(s, &mut values, lane * LANES, y);
        }
        part.activation.apply(s, &mut values);
        for (lane, y) in block.iter_mut().enumerate() {
            *y = s.mul(*y, mem::load(s, &values, lane * LANES));
        }
    }
    block
}

/// Stores sums of some parts whose rows are columns of the output, 16 x 16 at a time.
#[inline(always)]
fn store_turned<S: Simd, C: Elem>(
    s: S,
    sums: &Sums<'_>,
    group: &[Part<'_>],
    residual: Option<MatRef<'_, C>>,
    out: &mut MatMut<'_, C>,
) {
    let (rows, cols) = (out.rows(), out.cols());
    let plain = plain(group);
    for i in (0..rows).step_by(LANES) {
        for at in (0..cols).step_by(LANES) {
            let mut block = match plain {
                Some(bias) => turned(s, sums, (0, bias), (i, at)),
                None => product_turned(s, sums, group, (i, at)),
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
                    mem::store(s, out.row_mut(i + lane), at, added(s, y, residual, at));
                }
            }
        }
    }
}
