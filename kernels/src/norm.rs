//! Layer normalisation and RMS normalisation over rows, with an optional residual added first.
//!
//! [`layer_norm_rows`] (Ba et al., arXiv:1607.06450): `y = (t - mean) / sqrt(var + eps) * gamma + beta` with the
//! biased variance. [`rms_norm_rows`] (Zhang and Sennrich, arXiv:1910.07467): `y = t / sqrt(mean(t^2) + eps) *
//! gamma`. In both `t = x + residual`.
//!
//! All arithmetic is f32 whatever the storage; `t` is not rounded to the storage type in between. The variance
//! is taken in a second pass around the mean, so it does not cancel. Sums are kept in 16 lanes and added in a
//! fixed order: a row's result depends on nothing but that row.

use crate::ctx::Ctx;
use crate::elem::Elem;
use crate::error::{Result, check};
use crate::isa::{Kernel, LANES, Simd};
use crate::mem;
use crate::view::{AnySlice, MatMut, MatRef, any};

/// Operands of [`layer_norm_rows`] and [`rms_norm_rows`].
#[derive(Debug)]
pub struct NormRows<'a, T> {
    /// The rows to normalise.
    pub x: MatRef<'a, T>,
    /// Added to `x` first.
    pub residual: Option<MatRef<'a, T>>,
    /// Multiplies each column; `None` is all ones.
    pub gamma: Option<AnySlice<'a>>,
    /// Added to each column; `None` is all zeros.
    pub beta: Option<AnySlice<'a>>,
    /// Added to the variance or mean square.
    pub epsilon: f32,
    /// Where the result goes.
    pub out: MatMut<'a, T>,
}

/// Normalises every row to mean 0 and variance 1, then scales and shifts.
///
/// # Errors
/// [`crate::Error::Shape`] when an operand's shape differs from that of `x`.
pub fn layer_norm_rows<T: Elem>(ctx: &Ctx, op: NormRows<'_, T>) -> Result<()> {
    validate("layer_norm_rows", &op)?;
    run::<T, true>(ctx, &op);
    Ok(())
}

/// Divides every row by its root mean square, then scales (and shifts where there is a `beta`).
///
/// # Errors
/// [`crate::Error::Shape`] when an operand's shape differs from that of `x`.
pub fn rms_norm_rows<T: Elem>(ctx: &Ctx, op: NormRows<'_, T>) -> Result<()> {
    validate("rms_norm_rows", &op)?;
    run::<T, false>(ctx, &op);
    Ok(())
}

fn validate<T>(name: &'static str, op: &NormRows<'_, T>) -> Result<()> {
    let (rows, cols) = (op.x.rows(), op.x.cols());
    check(name, "rows of the output", rows, op.out.rows())?;
    check(name, "columns of the output", cols, op.out.cols())?;
    if let Some(residual) = &op.residual {
        check(name, "rows of the residual", rows, residual.rows())?;
        check(name, "columns of the residual", cols, residual.cols())?;
    }
    if let Some(gamma) = &op.gamma {
        check(name, "length of gamma", cols, gamma.len())?;
    }
    if let Some(beta) = &op.beta {
        check(name, "length of beta", cols, beta.len())?;
    }
    Ok(())
}

fn run<T: Elem, const CENTRE: bool>(ctx: &Ctx, op: &NormRows<'_, T>) {
    let cols = op.x.cols();
    ctx.for_each_share(op.x.rows(), cols, |rows| {
        // SAFETY: shares are rows of their own, and the output is not used otherwise.
        let out = unsafe { op.out.block(rows.clone(), 0..cols) };
        let x = op.x.block(rows.clone(), 0..cols);
        let residual = op.residual.map(|residual| residual.block(rows, 0..cols));
        ctx.run(Norm::<T, CENTRE>(NormRows { x, residual, out, ..*op }));
    });
}

struct Norm<'a, T, const CENTRE: bool>(NormRows<'a, T>);

impl<T: Elem, const CENTRE: bool> Kernel for Norm<'_, T, CENTRE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut op = self.0;
        let count = op.x.cols() as f32;
        for i in 0..op.x.rows() {
            let x = op.x.row(i);
            let residual = op.residual.as_ref().map(|residual| residual.row(i));
            let mean = if CENTRE { sum(s, x, residual, |t| t) / count } else { 0.0 };
            let centre = s.splat(mean);
            let squares = sum(s, x, residual, |t| s.mul(s.sub(t, centre), s.sub(t, centre)));
            let scale = s.splat(1.0 / (squares / count + op.epsilon).sqrt());
            let out = op.out.row_mut(i);
            for at in (0..x.len()).step_by(LANES) {
                let y = s.mul(s.sub(term(s, x, residual, at), centre), scale);
                let y = match op.gamma {
                    Some(gamma) => s.mul(y, any!(AnySlice, gamma, g => mem::load(s, g, at))),
                    None => y,
                };
                let y = match op.beta {
                    Some(beta) => s.add(y, any!(AnySlice, beta, b => mem::load(s, b, at))),
                    None => y,
                };
                mem::store(s, out, at, y);
            }
        }
    }
}

/// `x + residual` at 16 columns.
#[inline(always)]
fn term<S: Simd, T: Elem>(s: S, x: &[T], residual: Option<&[T]>, at: usize) -> S::F32 {
    let t = mem::load(s, x, at);
    if let Some(residual) = residual { s.add(t, mem::load(s, residual, at)) } else { t }
}

/// The sum of `f(x + residual)` over a row.
#[inline(always)]
fn sum<S: Simd, T: Elem>(s: S, x: &[T], residual: Option<&[T]>, f: impl Fn(S::F32) -> S::F32) -> f32 {
    let whole = x.len() / LANES * LANES;
    let mut total = s.splat(0.0);
    for at in (0..whole).step_by(LANES) {
        total = s.add(total, f(term(s, x, residual, at)));
    }
    if whole < x.len() {
        // Missing lanes hold zero before `f`, not after it.
        let mut kept = [0.0; LANES];
        mem::store(s, &mut kept, 0, f(term(s, x, residual, whole)));
        kept[x.len() - whole..].fill(0.0);
        total = s.add(total, mem::load(s, &kept, 0));
    }
    s.sum(total)
}
