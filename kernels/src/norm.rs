//! Layer normalisation and RMS normalisation over rows.
//!
//! [`layer_norm_rows`] (Ba et al., arXiv:1607.06450): `y = (x - mean) / sqrt(var + eps) * gamma + beta` with the biased
//! variance. [`rms_norm_rows`] (Zhang and Sennrich, arXiv:1910.07467): `y = x / sqrt(mean(x^2) + eps) * gamma`. Residuals
//! are added by the epilogue of the product before the norm.
//!
//! All arithmetic is f32 whatever the storage type. The variance is computed in a second pass around the mean, so it does
//! not cancel. Sums are kept in 16 lanes and added in a fixed order: a row's result depends on that row alone.

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
        // SAFETY: shares are disjoint rows, and the output is not used otherwise.
        let out = unsafe { op.out.block(rows.clone(), 0..cols) };
        let x = op.x.block(rows, 0..cols);
        ctx.run(Norm::<T, CENTRE>(NormRows { x, out, ..*op }));
    });
}

/// Rows that are normalised together: their sums do not wait for each other, and gamma and beta are read once.
const ROWS_TOGETHER: usize = 4;

/// The kernel: layer normalisation if `CENTRE`, RMS normalisation otherwise.
struct Norm<'a, T, const CENTRE: bool>(NormRows<'a, T>);

impl<T: Elem, const CENTRE: bool> Kernel for Norm<'_, T, CENTRE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let rows = self.0.x.rows();
        let together = rows / ROWS_TOGETHER * ROWS_TOGETHER;
        for first in (0..together).step_by(ROWS_TOGETHER) {
            self.rows::<S, ROWS_TOGETHER>(s, first);
        }
        for first in together..rows {
            self.rows::<S, 1>(s, first);
        }
    }
}

impl<T: Elem, const CENTRE: bool> Norm<'_, T, CENTRE> {
    /// Normalises ROWS rows from `first` on.
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize>(&mut self, s: S, first: usize) {
        let op = &mut self.0;
        let cols = op.x.cols();
        let x = RowBlock::<T, ROWS>::of(op.x, first);
        let mut centres = [s.splat(0.0); ROWS];
        if CENTRE {
            let sums = x.sums(s, None);
            for (centre, sum) in centres.iter_mut().zip(sums) {
                *centre = s.splat(s.sum(sum) / cols as f32);
            }
        }
        let mut scales = x.sums(s, Some(centres));
        for scale in &mut scales {
            *scale = s.splat(1.0 / (s.sum(*scale) / cols as f32 + op.epsilon).sqrt());
        }
        let whole = cols / LANES;
        for i in 0..whole {
            let affine = Affine::at(s, op.gamma, op.beta, i * LANES);
            for row in 0..ROWS {
                let y = s.mul(s.sub(x.vector(s, row, i), centres[row]), scales[row]);
                mem::store(s, op.out.row_mut(first + row), i * LANES, affine.apply(s, y));
            }
        }
        if whole * LANES < cols {
            let affine = Affine::at(s, op.gamma, op.beta, whole * LANES);
            for row in 0..ROWS {
                let y = s.mul(s.sub(x.tail(s, row), centres[row]), scales[row]);
                mem::store(s, op.out.row_mut(first + row), whole * LANES, affine.apply(s, y));
            }
        }
    }
}

/// Scale and shift of 16 columns.
struct Affine<S: Simd> {
    gamma: Option<S::F32>,
    beta: Option<S::F32>,
}

impl<S: Simd> Affine<S> {
    #[inline(always)]
    fn at(s: S, gamma: Option<AnySlice<'_>>, beta: Option<AnySlice<'_>>, at: usize) -> Affine<S> {
        Affine { gamma: load(s, gamma, at), beta: load(s, beta, at) }
    }

    #[inline(always)]
    fn apply(&self, s: S, y: S::F32) -> S::F32 {
        let y = if let Some(gamma) = self.gamma { s.mul(y, gamma) } else { y };
        if let Some(beta) = self.beta { s.add(y, beta) } else { y }
    }
}

/// Loads 16 columns of an optional row. Not a closure in `map`, which may be left out of line with its loads.
#[inline(always)]
fn load<S: Simd>(s: S, row: Option<AnySlice<'_>>, at: usize) -> Option<S::F32> {
    Some(mem::load_any(s, row?, at))
}

/// ROWS rows of a matrix, in whole vectors and a tail.
#[derive(Clone, Copy)]
struct RowBlock<'a, T, const ROWS: usize> {
    /// The same number of vectors of each row.
    vectors: [&'a [[T; LANES]]; ROWS],
    tail: [&'a [T]; ROWS],
}

impl<'a, T: Elem, const ROWS: usize> RowBlock<'a, T, ROWS> {
    #[inline(always)]
    fn of(m: MatRef<'a, T>, first: usize) -> Self {
        let (mut vectors, mut tail): ([&[[T; LANES]]; ROWS], [&[T]; ROWS]) = ([&[]; ROWS], [&[]; ROWS]);
        let count = m.cols() / LANES;
        for row in 0..ROWS {
            let (whole, last) = m.row(first + row).as_chunks();
            (vectors[row], tail[row]) = (&whole[..count], last);
        }
        RowBlock { vectors, tail }
    }

    /// A whole vector of a row.
    #[inline(always)]
    fn vector<S: Simd>(&self, s: S, row: usize, i: usize) -> S::F32 {
        mem::load(s, &self.vectors[row][i], 0)
    }

    /// The tail of a row, padded with zeros.
    #[inline(always)]
    fn tail<S: Simd>(&self, s: S, row: usize) -> S::F32 {
        mem::load(s, self.tail[row], 0)
    }

    /// Sums each row in 16 lanes, or the squares of its distances from a centre.
    #[inline(always)]
    fn sums<S: Simd>(&self, s: S, centres: Option<[S::F32; ROWS]>) -> [S::F32; ROWS] {
        let mut sums = [s.splat(0.0); ROWS];
        for i in 0..self.vectors[0].len() {
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = s.add(*sum, square(s, self.vector(s, row, i), centres, row));
            }
        }
        let tail = self.tail[0].len();
        if tail > 0 {
            for (row, sum) in sums.iter_mut().enumerate() {
                // Missing columns are zero before the centre is subtracted, but not after.
                let mut squares = [0.0; LANES];
                mem::store(s, &mut squares, 0, square(s, self.tail(s, row), centres, row));
                squares[tail..].fill(0.0);
                *sum = s.add(*sum, mem::load(s, &squares, 0));
            }
        }
        sums
    }
}

/// The square of the distance from a row's centre; without centres, `t` itself.
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
