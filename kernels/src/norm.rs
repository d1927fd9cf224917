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
use crate::view::{AnySlice, MatMut, MatRef};

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
        let rows = NormRows { x, residual, out, ..*op };
        match residual {
            Some(_) => ctx.run(Norm::<T, CENTRE, true>(rows)),
            None => ctx.run(Norm::<T, CENTRE, false>(rows)),
        }
    });
}

/// Rows that are normalised together: their sums do not wait for each other, and scale and shift are read once.
const TOGETHER: usize = 4;

/// Of `x + residual`, if there is a residual.
struct Norm<'a, T, const CENTRE: bool, const RESIDUAL: bool>(NormRows<'a, T>);

impl<T: Elem, const CENTRE: bool, const RESIDUAL: bool> Kernel for Norm<'_, T, CENTRE, RESIDUAL> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let rows = self.0.x.rows();
        let together = rows / TOGETHER * TOGETHER;
        for first in (0..together).step_by(TOGETHER) {
            self.rows::<S, TOGETHER>(s, first);
        }
        for first in together..rows {
            self.rows::<S, 1>(s, first);
        }
    }
}

impl<T: Elem, const CENTRE: bool, const RESIDUAL: bool> Norm<'_, T, CENTRE, RESIDUAL> {
    /// Normalises some rows from `first` on.
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize>(&mut self, s: S, first: usize) {
        let op = &mut self.0;
        let cols = op.x.cols();
        let x = Rows::<T, ROWS>::of(op.x, first);
        let residual = op.residual.filter(|_| RESIDUAL).map_or(x, |residual| Rows::of(residual, first));
        let terms = Terms::<T, ROWS, RESIDUAL> { x, residual };
        let mut centres = [s.splat(0.0); ROWS];
        if CENTRE {
            let sums = terms.sums(s, None);
            for (centre, sum) in centres.iter_mut().zip(sums) {
                *centre = s.splat(s.sum(sum) / cols as f32);
            }
        }
        let mut scales = terms.sums(s, Some(centres));
        for scale in &mut scales {
            *scale = s.splat(1.0 / (s.sum(*scale) / cols as f32 + op.epsilon).sqrt());
        }
        let whole = cols / LANES;
        for i in 0..whole {
            let learned = Learned::at(s, op.gamma, op.beta, i * LANES);
            for row in 0..ROWS {
                let y = s.mul(s.sub(terms.whole(s, row, i), centres[row]), scales[row]);
                mem::store(s, op.out.row_mut(first + row), i * LANES, learned.apply(s, y));
            }
        }
        if whole * LANES < cols {
            let learned = Learned::at(s, op.gamma, op.beta, whole * LANES);
            for row in 0..ROWS {
                let y = s.mul(s.sub(terms.rest(s, row), centres[row]), scales[row]);
                mem::store(s, op.out.row_mut(first + row), whole * LANES, learned.apply(s, y));
            }
        }
    }
}

/// Scale and shift of 16 columns.
struct Learned<S: Simd> {
    gamma: Option<S::F32>,
    beta: Option<S::F32>,
}

impl<S: Simd> Learned<S> {
    #[inline(always)]
    fn at(s: S, gamma: Option<AnySlice<'_>>, beta: Option<AnySlice<'_>>, at: usize) -> Learned<S> {
        Learned { gamma: load(s, gamma, at), beta: load(s, beta, at) }
    }

    #[inline(always)]
    fn apply(&self, s: S, y: S::F32) -> S::F32 {
        let y = if let Some(gamma) = self.gamma { s.mul(y, gamma) } else { y };
        if let Some(beta) = self.beta { s.add(y, beta) } else { y }
    }
}

/// 16 columns of a row that there may be. Not a closure in `map`, which may be left out of line, and its loads with it.
#[inline(always)]
fn load<S: Simd>(s: S, row: Option<AnySlice<'_>>, at: usize) -> Option<S::F32> {
    Some(mem::load_any(s, row?, at))
}

/// Some rows of a matrix, in whole vectors and the rest.
#[derive(Clone, Copy)]
struct Rows<'a, T, const ROWS: usize> {
    /// As many of each.
    whole: [&'a [[T; LANES]]; ROWS],
    rest: [&'a [T]; ROWS],
}

impl<'a, T, const ROWS: usize> Rows<'a, T, ROWS> {
    #[inline(always)]
    fn of(m: MatRef<'a, T>, first: usize) -> Self {
        let (mut whole, mut rest): ([&[[T; LANES]]; ROWS], [&[T]; ROWS]) = ([&[]; ROWS], [&[]; ROWS]);
        let count = m.cols() / LANES;
        for row in 0..ROWS {
            let (vectors, last) = m.row(first + row).as_chunks();
            (whole[row], rest[row]) = (&vectors[..count], last);
        }
        Rows { whole, rest }
    }
}

/// Some rows of `x + residual`.
struct Terms<'a, T, const ROWS: usize, const RESIDUAL: bool> {
    x: Rows<'a, T, ROWS>,
    residual: Rows<'a, T, ROWS>,
}

impl<T: Elem, const ROWS: usize, const RESIDUAL: bool> Terms<'_, T, ROWS, RESIDUAL> {
    /// A whole vector of a row.
    #[inline(always)]
    fn whole<S: Simd>(&self, s: S, row: usize, i: usize) -> S::F32 {
        let t = mem::load(s, &self.x.whole[row][i], 0);
        if RESIDUAL { s.add(t, mem::load(s, &self.residual.whole[row][i], 0)) } else { t }
    }

    /// The rest of a row, and zeros.
    #[inline(always)]
    fn rest<S: Simd>(&self, s: S, row: usize) -> S::F32 {
        let t = mem::load(s, self.x.rest[row], 0);
        if RESIDUAL { s.add(t, mem::load(s, self.residual.rest[row], 0)) } else { t }
    }

    /// The sums of each row in 16 lanes, or of the squares of its distances from a centre.
    #[inline(always)]
    fn sums<S: Simd>(&self, s: S, centres: Option<[S::F32; ROWS]>) -> [S::F32; ROWS] {
        let mut sums = [s.splat(0.0); ROWS];
        for i in 0..self.x.whole[0].len() {
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = s.add(*sum, square(s, self.whole(s, row, i), centres, row));
            }
        }
        let rest = self.x.rest[0].len();
        if rest > 0 {
            for (row, sum) in sums.iter_mut().enumerate() {
                // Missing columns hold zero before the centre is taken off, not after it.
                let mut kept = [0.0; LANES];
                mem::store(s, &mut kept, 0, square(s, self.rest(s, row), centres, row));
                kept[rest..].fill(0.0);
                *sum = s.add(*sum, mem::load(s, &kept, 0));
            }
        }
        sums
    }
}

/// The square of the distance from a row's centre, or without one `t` itself.
#[inline(always)]
fn square<S: Simd, const ROWS: usize>(
    s: S,
    t: S::F32,
    centres: Option<[S::F32; ROWS]>,
    row: usize,
) -> S::F32 {
    let Some(centres) = centres else { return t };
    let t = s.sub(t, centres[row]);
    s.mul(t, t)
}
