//! The bounds of operations on rows: softmax, the norms, the embedding gather and the rotary embedding.

use super::{Bound, TINY, U, gamma};
use crate::oracle;

/// The most roundings of a term in a sum of `count` terms in 16 lanes, which are then added by halves.
fn sum_depth(count: usize) -> f64 {
    (count.div_ceil(16) + 4) as f64
}

/// A row of softmax: the operands as stored.
#[derive(Debug, Clone, Copy)]
pub struct SoftmaxRow<'a> {
    /// The scores before scaling.
    pub x: &'a [f64],
    /// Multiplies the scores.
    pub scale: f64,
    /// Added to the scaled scores.
    pub bias: Option<&'a [f64]>,
    /// Which columns are visible.
    pub visible: &'a [bool],
}

/// The bounds of a row of softmax whose exponential is accurate to `exp` units in the last place.
///
/// A score is rounded after scaling and again after the bias; the maximum is one of the scores. Subtracting it rounds once.
/// The exponential turns the absolute error d of that difference into a relative error `e^d - 1`, and adds its own: a unit in
/// the last place is at most 2 [`U`] of the value. The sum is off by the weighted mean of these errors and by adding; its
/// inverse and the product with it round three times with storage.
pub fn softmax(row: SoftmaxRow<'_>, exp: f64) -> Vec<Bound> {
    let scaled = row.x.iter().map(|x| x * row.scale);
    let scores: Vec<f64> = match row.bias {
        Some(bias) => scaled.zip(bias).map(|(x, bias)| x + bias).collect(),
        None => scaled.collect(),
    };
    let exact = oracle::softmax(&scores, row.visible);
    let seen = || (0..scores.len()).filter(|j| row.visible[*j]);
    let largest = seen().map(|j| scores[j]).fold(f64::NEG_INFINITY, f64::max);
    let score_error = |j: usize| {
        let scaled = (row.x[j] * row.scale).abs();
        U * (scaled + if row.bias.is_some() { scores[j].abs() + scaled } else { 0.0 }) + TINY
    };
    let finite = seen().filter(|j| scores[*j].is_finite());
    let largest_error = finite.map(score_error).fold(0.0, f64::max);
    let relative = |j: usize| {
        let shift = score_error(j) + largest_error;
        (shift + U * ((scores[j] - largest).abs() + shift)).exp_m1() + 2.0 * U * exp
    };
    // The error of the sum: the mean of the terms' errors, weighted by their share, and the error of adding.
    let weighted = |j: usize| if exact[j] > 0.0 { exact[j] * relative(j) } else { 0.0 };
    let sum = seen().map(weighted).sum::<f64>() + gamma(sum_depth(scores.len()));
    let bound = |j: usize| {
        let error = if row.visible[j] && exact[j] > 0.0 {
            exact[j] * ((1.0 + relative(j)) * (1.0 + sum) / (1.0 - sum) * (1.0 + gamma(3.0)) - 1.0)
        } else {
            0.0
        };
        Bound { exact: exact[j], error: if row.visible[j] { error + 4.0 * TINY } else { 0.0 } }
    };
    (0..scores.len()).map(bound).collect()
}

/// Which normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Layer normalisation, which subtracts the mean.
    Layer,
    /// RMS normalisation, which does not.
    Rms,
}

/// A row of a normalisation: the operands as stored.
#[derive(Debug, Clone, Copy)]
pub struct NormRow<'a> {
    /// The row.
    pub x: &'a [f64],
    /// Multiplies each column.
    pub gamma: Option<&'a [f64]>,
    /// Added to each column.
    pub beta: Option<&'a [f64]>,
    /// Added to the variance or mean square.
    pub epsilon: f64,
}

/// The bounds of a row of layer or RMS normalisation.
///
/// The mean is off by adding the terms and dividing; a centred value by that and a rounding. The variance is the mean of
/// squares of such values, with the error of a square `(c + e)^2 - c^2 = e (2 c + e)`, and of adding them. The inverse
/// of its root is evaluated at the least variance within that error, where it is steepest.
pub fn norm(row: NormRow<'_>, norm: Norm) -> Vec<Bound> {
    let count = row.x.len();
    let terms = row.x;
    let gain: Vec<f64> = row.gamma.map_or_else(|| vec![1.0; count], <[f64]>::to_vec);
    let shift: Vec<f64> = row.beta.map_or_else(|| vec![0.0; count], <[f64]>::to_vec);
    let exact = match norm {
        Norm::Layer => oracle::layer_norm(terms, &gain, &shift, row.epsilon),
        Norm::Rms => oracle::rms_norm(terms, &gain, &shift, row.epsilon),
    };
    let average = |f: &dyn Fn(usize) -> f64| (0..count).map(f).sum::<f64>() / count as f64;
    let depth = gamma(sum_depth(count) + 2.0);
    let (mean, mean_error) = match norm {
        Norm::Layer => (average(&|j| terms[j]), average(&|j| terms[j].abs() * depth) + TINY),
        Norm::Rms => (0.0, 0.0),
    };
    let centred = |j: usize| (terms[j] - mean).abs();
    let centred_error = |j: usize| mean_error + U * (centred(j) + mean_error);
    let square = average(&|j| centred(j) * centred(j));
    let square_error = average(&|j| {
        let (c, e) = (centred(j), centred_error(j));
        e * (2.0 * c + e) + depth * (c + e) * (c + e)
    }) + TINY;
    let spread = square + row.epsilon;
    let scale = 1.0 / spread.sqrt();
    let low = (square - square_error).max(0.0) + row.epsilon;
    // The steep side of 1/sqrt. Its own three roundings, and one of adding epsilon.
    let scale_error = (1.0 / low.sqrt()) * (1.0 + gamma(4.0)) - scale;
    let bound = |j: usize| {
        let (c, e) = (centred(j), centred_error(j));
        let product = (e * scale + (c + e) * scale_error) * gain[j].abs();
        let value = c * scale * gain[j].abs() + product;
        let scaled = product + gamma(2.0) * value + TINY * (2.0 + gain[j].abs());
        Bound { exact: exact[j], error: scaled + U * (exact[j].abs() + scaled) }
    };
    (0..count).map(bound).collect()
}

/// The bound of an element of an embedding gather: `value * scale`, and if there is a sum so far that plus it.
///
/// A scale of 1 multiplies exactly, so a plain gather only converts. Otherwise the product is rounded once, and the sum of
/// both once more; rounding the product is allowed for twice in a sum, since the error is itself rounded.
pub fn embed(value: f64, scale: f64, sum_so_far: Option<f64>) -> Bound {
    let scaled = value * scale;
    match sum_so_far {
        None if scale == 1.0 => Bound::exactly(scaled),
        None => Bound { exact: scaled, error: U * scaled.abs() },
        Some(sum) => {
            let exact = sum + scaled;
            Bound { exact, error: 2.0 * U * scaled.abs() + U * exact.abs() }
        }
    }
}

/// How far the cosine or sine of a rotary angle may be off before it is rounded to f32: both the kernel and the oracle
/// compute angles of up to thousands of radians in f64, in two ways. A relative error of a few units of 2^-53 of an angle
/// of 2048 is about 1e-12; the logarithm and the exponential of the oracle multiply it by about ten.
pub const ROTARY_ANGLE: f64 = 2e-11;

/// The bound of an element of a rotated pair `(x, y)`, whose exact value is `exact`: each of the two products is rounded,
/// and their sum. The products together are at most `(|x| + |y|) max(|cos|, |sin|)`.
pub fn rotary(exact: f64, (x, y): (f64, f64), (cos, sin): (f64, f64)) -> Bound {
    let products = (x.abs() + y.abs()) * cos.abs().max(sin.abs());
    Bound { exact, error: U * (products + exact.abs()) * (1.0 + 4.0 * U) + 2.0 * TINY }
}
