//! Row-wise softmax with scale, additive bias and mask in one call.
//!
//! `y[i][j] = e^(t[i][j] - max_j t[i][j]) / sum_j e^(...)` with `t = scale * x + bias` over the visible columns. Three
//! passes over a row that stays in the first-level cache: maximum, exponentials and their sum, division. All arithmetic is
//! f32. Sums are kept in 16 lanes and added in a fixed order, so a row's result depends on that row alone.
//!
//! A masked column is exactly 0. A row without a visible column is all zeros. A NaN or +inf among the visible columns makes
//! the row's visible columns NaN; -inf gives 0 (a row of -inf alone gives NaN, as 0/0 does).
//!
//! [`attention`](crate::attention()) has an online softmax of its own, block of keys by block of keys, and does not call
//! this. It is for programs that need the probabilities themselves: of logits, of classifiers, of router scores.

use crate::ctx::Ctx;
use crate::elem::Elem;
use crate::error::{Result, check};
use crate::isa::{Kernel, LANES, Simd};
use crate::math::exp_lanes;
use crate::mem;
use crate::view::{MatMut, MatRef};

/// Which columns a row may see.
#[derive(Debug, Clone, Copy, Default)]
pub enum Mask<'a> {
    /// Every column.
    #[default]
    None,
    /// The columns that are `true`, for every row.
    Columns(&'a [bool]),
    /// Row `i` sees the columns `0 ..= first + i`: queries that start at position `first` of the keys.
    Causal {
        /// The last column that row 0 sees.
        first: usize,
    },
    /// The columns that are `true` in the same row of a matrix of the same shape.
    Rows(MatRef<'a, bool>),
}

/// Operands of [`softmax_rows`].
#[derive(Debug)]
pub struct SoftmaxRows<'a, T> {
    /// Scores in, probabilities out.
    pub x: MatMut<'a, T>,
    /// Multiplies the scores before the bias is added.
    pub scale: f32,
    /// Added to the scaled scores, of the same shape.
    pub bias: Option<MatRef<'a, f32>>,
    /// Which columns are visible.
    pub mask: Mask<'a>,
}

/// Replaces every row of `x` by its softmax.
///
/// # Errors
/// [`crate::Error::Shape`] when bias or mask have another shape than `x`.
pub fn softmax_rows<T: Elem>(ctx: &Ctx, op: SoftmaxRows<'_, T>) -> Result<()> {
    const NAME: &str = "softmax_rows";
    let (rows, cols) = (op.x.rows(), op.x.cols());
    if let Some(bias) = &op.bias {
        check(NAME, "rows of the bias", rows, bias.rows())?;
        check(NAME, "columns of the bias", cols, bias.cols())?;
    }
    match op.mask {
        Mask::None | Mask::Causal { .. } => {}
        Mask::Columns(mask) => check(NAME, "length of the mask", cols, mask.len())?,
        Mask::Rows(mask) => {
            check(NAME, "rows of the mask", rows, mask.rows())?;
            check(NAME, "columns of the mask", cols, mask.cols())?;
        }
    }
    if cols > 0 {
        ctx.run(op);
    }
    Ok(())
}

impl<T: Elem> Kernel for SoftmaxRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        for i in 0..self.x.rows() {
            let bias = self.bias.as_ref().map(|bias| bias.row(i));
            let (visible, mask) = match self.mask {
                Mask::None => (self.x.cols(), None),
                Mask::Causal { first } => {
                    (first.saturating_add(i).saturating_add(1).min(self.x.cols()), None)
                }
                Mask::Columns(mask) => (self.x.cols(), Some(mask)),
                Mask::Rows(mask) => (self.x.cols(), Some(mask.row(i))),
            };
            let (row, hidden) = self.x.row_mut(i).split_at_mut(visible);
            softmax_row(s, row, self.scale, bias, mask);
            hidden.fill(T::default());
        }
    }
}

/// Softmax of one row over the columns whose `mask` is true.
#[inline(always)]
fn softmax_row<S: Simd, T: Elem>(
    s: S,
    row: &mut [T],
    scale: f32,
    bias: Option<&[f32]>,
    mask: Option<&[bool]>,
) {
    let (zero, lowest, scale) = (s.splat(0.0), s.splat(f32::NEG_INFINITY), s.splat(scale));
    let len = row.len();
    let mut largest = lowest;
    for (at, x) in pieces(row) {
        let seen = visible_lanes(s, len, mask, at);
        largest = s.max(keep(s, seen, score(s, x, scale, bias, at), lowest), largest);
    }
    let largest = s.splat(s.largest(largest));
    let mut sum = zero;
    for (at, x) in pieces(row) {
        let seen = visible_lanes(s, len, mask, at);
        let e = keep(s, seen, exp_lanes(s, s.sub(score(s, x, scale, bias, at), largest)), zero);
        sum = s.add(sum, e);
        if T::EXACT {
            mem::store(s, x, 0, e);
        }
    }
    let inverse = s.splat(1.0 / s.sum(sum));
    for (at, x) in pieces(row) {
        let e = if T::EXACT {
            mem::load(s, x, 0)
        } else {
            // Storing the exponentials would round them twice.
            exp_lanes(s, s.sub(score(s, x, scale, bias, at), largest))
        };
        let seen = visible_lanes(s, len, mask, at);
        mem::store(s, x, 0, keep(s, seen, s.mul(e, inverse), zero));
    }
}

/// The row in pieces of 16 columns, with the first column of each.
#[inline(always)]
fn pieces<T>(row: &mut [T]) -> impl Iterator<Item = (usize, &mut [T])> {
    row.chunks_mut(LANES).enumerate().map(|(i, piece)| (i * LANES, piece))
}

/// The lanes of `x` that are visible, and those of `other` elsewhere. `None` means that all are visible.
#[inline(always)]
fn keep<S: Simd>(s: S, seen: Option<S::Mask>, x: S::F32, other: S::F32) -> S::F32 {
    if let Some(seen) = seen { s.select(seen, x, other) } else { x }
}

/// `scale * x + bias` at 16 columns.
#[inline(always)]
fn score<S: Simd, T: Elem>(s: S, x: &[T], scale: S::F32, bias: Option<&[f32]>, at: usize) -> S::F32 {
    let x = s.mul(mem::load(s, x, 0), scale);
    if let Some(bias) = bias { s.add(x, mem::load(s, bias, at)) } else { x }
}

/// Which of the columns `at .. at + 16` are visible; `None` if all are.
#[inline(always)]
fn visible_lanes<S: Simd>(s: S, len: usize, mask: Option<&[bool]>, at: usize) -> Option<S::Mask> {
    let mut lanes = [0.0; LANES];
    match mask {
        Some(mask) => {
            for (lane, seen) in lanes.iter_mut().zip(&mask[at..len]) {
                *lane = f32::from(u8::from(*seen));
            }
        }
        None if at + LANES <= len => return None,
        None => lanes[..len - at].fill(1.0),
    }
    Some(s.lt(s.splat(0.0), mem::load(s, &lanes, 0)))
}
