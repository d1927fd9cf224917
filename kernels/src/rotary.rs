//! Rotary position embedding: the two halves of each head are rotated by angles that grow with the position (Su et al.,
//! arXiv:2104.09864), so that a product of a query and a key depends on their distance.
//!
//! Element `i` of the first half and element `i` of the second half are a point in the plane, as in GPT-NeoX and
//! transformers. The paper pairs neighbouring elements instead, which differs in the order of columns only. With
//! `a = position * theta^(-2i / dim)`:
//!
//! `x'[i] = x[i] cos a - x[i + dim/2] sin a` and `x'[i + dim/2] = x[i + dim/2] cos a + x[i] sin a`
//!
//! Angles, cosines and sines are computed in f64 and rounded to f32 once. The rotation is in f32: both products are
//! rounded, then their sum, then the stored value. So all levels give the same bits.

use crate::ctx::Ctx;
use crate::elem::Elem;
use crate::error::{Expected, Result, check, outside};
use crate::isa::{Kernel, LANES, Simd};
use crate::mem;
use crate::view::{MatMut, MatRef};

/// Fills `[positions, dim]` with, for each position, the cosines of its `dim / 2` angles, then their sines.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when there are not as many rows as positions,
/// [`Error::Range`](crate::Error::Range) for an odd number of columns.
pub fn rotary_angles(positions: &[u32], theta: f64, mut out: MatMut<'_, f32>) -> Result<()> {
    const NAME: &str = "rotary_angles";
    check(NAME, "rows of the output", positions.len(), out.rows())?;
    let half = half(NAME, out.cols())?;
    for (i, position) in positions.iter().enumerate() {
        let (cosines, sines) = out.row_mut(i).split_at_mut(half);
        for (i, (cosine, sine)) in cosines.iter_mut().zip(sines).enumerate() {
            let frequency = theta.powf(-(i as f64) / half as f64);
            let (sin, cos) = (f64::from(*position) * frequency).sin_cos();
            (*cosine, *sine) = (cos as f32, sin as f32);
        }
    }
    Ok(())
}

/// Operands of [`rotary_rows`]. Heads are as wide as `angles`.
#[derive(Debug)]
pub struct RotaryRows<'a, T> {
    /// The rows whose heads are rotated in place. The first head starts at the first column.
    pub x: MatMut<'a, T>,
    /// `[rows, dim]`, as [`rotary_angles`] computes them for the position of each row.
    pub angles: MatRef<'a, f32>,
    /// Number of groups of heads.
    pub groups: usize,
    /// Columns from the first head of a group to that of the next.
    pub step: usize,
    /// Number of heads that are rotated in each group, side by side from its first.
    pub heads: usize,
}

/// Rotates heads of every row by the row's angles.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when shapes disagree, [`Error::Range`](crate::Error::Range) when the width of a
/// head is odd, groups overlap, or the last one reaches
/// outside; nothing is written then.
pub fn rotary_rows<T: Elem>(ctx: &Ctx, op: RotaryRows<'_, T>) -> Result<()> {
    const NAME: &str = "rotary_rows";
    check(NAME, "rows of the angles", op.x.rows(), op.angles.rows())?;
    half(NAME, op.angles.cols())?;
    let width = op.heads.saturating_mul(op.angles.cols());
    if op.groups == 0 || width == 0 {
        return Ok(());
    }
    if op.groups > 1 && op.step < width {
        return outside(NAME, "columns from a group to the next", Expected::AtLeast(width), op.step);
    }
    let end = (op.groups - 1).saturating_mul(op.step).saturating_add(width);
    if end > op.x.cols() {
        return outside(NAME, "columns of the rows", Expected::AtLeast(end), op.x.cols());
    }
    ctx.run(op);
    Ok(())
}

/// Half the width of a head.
fn half(operation: &'static str, dim: usize) -> Result<usize> {
    let half = dim / 2;
    if 2 * half != dim {
        return outside(operation, "columns of the angles", Expected::MultipleOf(2), dim);
    }
    Ok(half)
}

impl<T: Elem> Kernel for RotaryRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let dim = self.angles.cols();
        for i in 0..self.x.rows() {
            let (cosines, sines) = self.angles.row(i).split_at(dim / 2);
            let row = self.x.row_mut(i);
            for group in 0..self.groups {
                let heads = &mut row[group * self.step..][..self.heads * dim];
                for head in heads.chunks_exact_mut(dim) {
                    let (first, second) = head.split_at_mut(dim / 2);
                    for at in (0..dim / 2).step_by(LANES) {
                        let (cos, sin) = (mem::load(s, cosines, at), mem::load(s, sines, at));
                        let (x, y) = (mem::load(s, first, at), mem::load(s, second, at));
                        mem::store(s, first, at, s.sub(s.mul(x, cos), s.mul(y, sin)));
                        mem::store(s, second, at, s.add(s.mul(y, cos), s.mul(x, sin)));
                    }
                }
            }
        }
    }
}
