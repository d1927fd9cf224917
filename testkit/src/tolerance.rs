//! How far a result may be from the exact one. Every tolerance of the kernel tests is here.
//!
//! A [`Bound`] is the exact value and an absolute error *before* the result is rounded for storage. A stored
//! result is accepted when it is the rounding of some number within the bound, so half precision, subnormals
//! and overflow need no allowance of their own, and an exact zero with no error admits nothing but zero.
//!
//! Rules for special values: where the exact value is NaN the result must be NaN; where it is an infinity, that
//! infinity; elsewhere NaN is refused, and an infinity accepted only when a number within the bound rounds to
//! it.

use crate::oracle::{self, Activation, Dot};
use crate::storage::{Storage, exponent, power_of_two};

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / (1 << 24) as f64;

/// The smallest subnormal f32: what an operation may lose to underflow, twice over.
pub const TINY: f64 = f64::from_bits((1023 - 149) << 52);

/// The documented error of a vector function, in units in the last place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ulps {
    /// At levels with fused multiply-add.
    pub fused: f64,
    /// At the level without.
    pub scalar: f64,
}

/// Of exp.
pub const EXP: Ulps = Ulps { fused: 1.03, scalar: 1.0 };
/// Of tanh.
pub const TANH: Ulps = Ulps { fused: 1.34, scalar: 1.34 };

/// An activation is within this times |x| of its definition, or within the smallest subnormal.
pub const ACTIVATION: f64 = 2.6e-7;

/// An exact value, and how far a result may be from it before storage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// The exact value.
    pub exact: f64,
    /// The absolute error; ignored where the exact value is not finite.
    pub error: f64,
}

impl Bound {
    /// Nothing but the correctly rounded value.
    pub fn exactly(exact: f64) -> Bound {
        Bound { exact, error: 0.0 }
    }

    /// Whether a stored result obeys the bound.
    ///
    /// # Panics
    /// When the bound is not a finite number of zero or more, which would accept anything.
    pub fn admits<T: Storage>(&self, got: T) -> bool {
        let got = got.to_f64();
        if self.exact.is_nan() {
            return got.is_nan();
        }
        if self.exact.is_infinite() {
            return got == self.exact;
        }
        assert!(self.error >= 0.0 && self.error.is_finite(), "not a bound: {self:?}");
        T::nearest(self.exact - self.error) <= got && got <= T::nearest(self.exact + self.error)
    }

    /// Fails when the result does not obey the bound; `place` says where it was found.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn check<T: Storage>(&self, got: T, place: impl FnOnce() -> String) {
        if !self.admits(got) {
            let off = (got.to_f64() - self.exact).abs();
            let Bound { exact, error } = self;
            panic!("{}: {} {got:?}, exact {exact:e}, off by {off:e}, allowed {error:e}", place(), T::NAME);
        }
    }
}

/// The error of an f32 result in units in the last place of the exact value; infinite where one of the two is
/// NaN and the other is not.
///
/// The unit never shrinks below the smallest subnormal, so near zero the error is counted in those. An infinite
/// result counts as `2^128` for an exact value below that, and is right for one above.
pub fn ulp_error(got: f32, exact: f64) -> f64 {
    let overflow = power_of_two(128);
    if got.is_nan() || exact.is_nan() {
        return if got.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got.is_infinite() && exact.abs() >= overflow {
        return if (got > 0.0) == (exact > 0.0) { 0.0 } else { f64::INFINITY };
    }
    if exact.is_infinite() {
        return f64::INFINITY;
    }
    let got = if got.is_infinite() { overflow.copysign(f64::from(got)) } else { f64::from(got) };
    let exponent = if exact == 0.0 { -126 } else { exponent(exact).clamp(-126, 127) };
    (got - exact).abs() / power_of_two(exponent - 23)
}

/// `(1 + u)^n - 1`, bounded: what n roundings can do.
fn gamma(n: f64) -> f64 {
    n * U / (1.0 - n * U)
}

/// How a matrix product sums.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// Products in a sum.
    pub terms: usize,
    /// The most roundings on the way of one of them.
    pub roundings: usize,
    /// The magnitude below which a term or a sum may be lost.
    pub smallest: f64,
}

/// The bound of a matrix product with its epilogue.
pub fn gemm(dot: &Dot, activation: Activation, sums: Sums) -> Bound {
    let Sums { terms, roundings, smallest } = sums;
    let lost = terms as f64 * smallest;
    let sum = if dot.sum.is_finite() { gamma(roundings as f64) * dot.magnitude + lost } else { 0.0 };
    let biased = sum + U * (dot.biased.abs() + sum);
    let activated = match activation {
        _ if dot.biased.is_infinite() => 0.0,
        Activation::Identity | Activation::Relu => biased,
        other => other.steepest() * biased + ACTIVATION * (dot.biased.abs() + biased) + TINY,
    };
    Bound { exact: dot.exact, error: activated + U * (dot.exact.abs() + activated) }
}

/// The bound of an activation of a value that is exact.
pub fn activation(activation: Activation, x: f64) -> Bound {
    let error = match activation {
        Activation::Identity | Activation::Relu => 0.0,
        _ => ACTIVATION * x.abs() + TINY,
    };
    Bound { exact: activation.eval(x), error: if x.is_finite() { error } else { 0.0 } }
}

/// Roundings on the way of a term through a sum in 16 lanes that are then halved.
fn sum_depth(count: usize) -> f64 {
    (count.div_ceil(16) + 4) as f64
}

/// One row of softmax: the operands as stored.
#[derive(Debug, Clone, Copy)]
pub struct SoftmaxRow<'a> {
    /// The scores before scaling.
    pub x: &'a [f64],
    /// Multiplies the scores.
    pub scale: f64,
    /// Added to the scaled scores.
    pub bias: Option<&'a [f64]>,
    /// Which columns count.
    pub visible: &'a [bool],
}

/// The bounds of a row of softmax whose exponential is good to `exp` units in the last place.
pub fn softmax(row: SoftmaxRow<'_>, exp: f64) -> Vec<Bound> {
    let scaled = row.x.iter().map(|x| x * row.scale);
    let scores: Vec<f64> = match row.bias {
        Some(bias) => scaled.zip(bias).map(|(x, bias)| x + bias).collect(),
        None => scaled.collect(),
    };
    let exact = oracle::softmax(&scores, row.visible);
    let seen = || (0..scores.len()).filter(|j| row.visible[*j]);
    let largest = seen().map(|j| scores[j]).fold(f64::NEG_INFINITY, f64::max);
    // The scores are rounded after scaling and after the bias.
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
    // The error of the sum is the mean of the terms' errors, weighted as they count, and of adding them.
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
    /// Around the mean.
    Layer,
    /// Around zero.
    Rms,
}

/// One row of a normalisation: the operands as stored.
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
    // The steep side of 1/sqrt; its own three roundings, and that of the sum under it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// In blocks of 256.
    fn sums(terms: usize) -> Sums {
        Sums { terms, roundings: terms.min(256) + terms / 256 + 1, smallest: TINY }
    }

    #[test]
    fn zero_admits_only_zero() {
        let zero = Bound::exactly(0.0);
        assert!(zero.admits(0.0f32) && zero.admits(-0.0f32));
        assert!(!zero.admits(f32::from_bits(1)) && !zero.admits(1.0f32) && !zero.admits(f32::NAN));
        assert!(!zero.admits(f16::from_bits(1)) && !zero.admits(bf16::from_bits(0x8001)));
        let loose = Bound { exact: 0.0, error: 1e-10 };
        assert!(loose.admits(9e-11f32) && !loose.admits(1.1e-10f32));
        assert!(loose.admits(f16::ZERO) && !loose.admits(f16::from_bits(1)));
    }

    #[test]
    fn special_values_must_match() {
        let nan = Bound { exact: f64::NAN, error: f64::NAN };
        assert!(nan.admits(f32::NAN) && !nan.admits(0.0f32) && !nan.admits(f32::INFINITY));
        let infinite = Bound { exact: f64::NEG_INFINITY, error: f64::INFINITY };
        assert!(infinite.admits(f32::NEG_INFINITY));
        assert!(!infinite.admits(f32::INFINITY) && !infinite.admits(f32::MIN) && !infinite.admits(f32::NAN));
        let finite = Bound { exact: 1.0, error: 1.0 };
        assert!(!finite.admits(f32::INFINITY) && !finite.admits(f32::NAN));
    }

    #[test]
    #[should_panic(expected = "not a bound")]
    fn an_infinite_error_is_refused() {
        Bound { exact: 1.0, error: f64::INFINITY }.admits(1.0f32);
    }

    #[test]
    fn storage_rounding_is_half_a_unit_and_no_more() {
        let third = Bound::exactly(1.0 / 3.0);
        for (bits, admitted) in [(0x3eaa, false), (0x3eab, true), (0x3eac, false)] {
            assert_eq!(third.admits(bf16::from_bits(bits)), admitted, "{bits:x}");
        }
        // A tie that an error of any size can tip.
        let tie = Bound { exact: 1.0 + 1.0 / 256.0, error: 1e-9 };
        assert!(tie.admits(bf16::from_bits(0x3f80)) && tie.admits(bf16::from_bits(0x3f81)));
        // Overflow only where a number within the bound rounds up to it.
        assert!(Bound::exactly(65520.0).admits(f16::INFINITY) && !Bound::exactly(65520.0).admits(f16::MAX));
        assert!(Bound::exactly(65519.0).admits(f16::MAX) && !Bound::exactly(65519.0).admits(f16::INFINITY));
        // Subnormals: the nearest multiple of 2^-24.
        let small = Bound::exactly(2.6 * power_of_two(-24));
        assert!(small.admits(f16::from_bits(3)) && !small.admits(f16::from_bits(2)));
    }

    #[test]
    fn units_in_the_last_place() {
        assert_eq!(ulp_error(1.0, 1.0), 0.0);
        assert_eq!(ulp_error(1.0 + f32::EPSILON, 1.0), 1.0);
        assert_eq!(ulp_error(1.0, 1.0 + f64::from(f32::EPSILON) / 2.0), 0.5);
        assert_eq!(ulp_error(0.0, 0.0), 0.0);
        assert_eq!(ulp_error(1.0, 0.0), power_of_two(149), "zero does not accept any value");
        assert_eq!(ulp_error(f32::from_bits(1), 0.0), 1.0);
        assert_eq!(ulp_error(0.0, power_of_two(-160)), power_of_two(-11));
        assert_eq!(ulp_error(f32::NAN, f64::NAN), 0.0);
        assert_eq!(ulp_error(f32::NAN, 1.0), f64::INFINITY);
        assert_eq!(ulp_error(1.0, f64::NAN), f64::INFINITY);
        assert_eq!(ulp_error(f32::INFINITY, f64::INFINITY), 0.0);
        assert_eq!(ulp_error(f32::INFINITY, f64::NEG_INFINITY), f64::INFINITY);
        assert_eq!(ulp_error(f32::INFINITY, f64::from(f32::MAX)), 1.0);
        assert_eq!(ulp_error(f32::INFINITY, 1e40), 0.0);
        assert!(ulp_error(f32::MAX, 1e40) > 1e6);
        assert_eq!(ulp_error(f32::MAX, f64::INFINITY), f64::INFINITY);
    }

    fn dot(a: f64, w: f64, activation: Activation) -> Dot {
        let (sum, magnitude) = (a * w, (a * w).abs());
        let activated = activation.eval(sum);
        Dot { sum, magnitude, biased: sum, activated, exact: activated }
    }

    #[test]
    fn a_product_is_bounded_by_its_magnitude_not_its_value() {
        let cancelled = Dot { sum: 0.0, magnitude: 100.0, biased: 0.0, activated: 0.0, exact: 0.0 };
        let bound = gemm(&cancelled, Activation::Identity, sums(256));
        assert!(bound.error >= 258.0 * U * 100.0 && bound.error < 259.0 * U * 100.0);
        // Blocks bound the growth: 4096 products take 256 + 16 + 1 roundings, not 4096.
        let long = gemm(&cancelled, Activation::Identity, sums(4096));
        assert!(long.error < 274.0 * U * 100.0);
        // Nothing times something is exactly nothing, but for underflow.
        let zero = gemm(&dot(0.0, 5.0, Activation::Identity), Activation::Identity, sums(1));
        assert!(zero.error <= 2.0 * TINY);
        assert_eq!(gemm(&dot(0.0, 0.0, Activation::Identity), Activation::Identity, sums(0)).error, 0.0);
    }

    #[test]
    fn a_product_with_special_values_has_a_finite_bound_or_none() {
        for activation in Activation::ALL {
            for (a, w) in
                [(f64::INFINITY, 1.0), (f64::NEG_INFINITY, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)]
            {
                let bound = gemm(&dot(a, w, activation), activation, sums(3));
                assert!(bound.exact.is_nan() || bound.exact.is_infinite() || bound.error <= 2.0 * U);
            }
        }
    }

    #[test]
    fn softmax_and_norm_bounds_are_a_few_units() {
        let x: Vec<f64> = (0..100).map(|i| f64::from(i % 7) - 3.0).collect();
        let row = SoftmaxRow { x: &x, scale: 0.5, bias: None, visible: &[true; 100] };
        for bound in softmax(row, 1.0) {
            assert!(bound.error > 5.0 * U * bound.exact && bound.error < 100.0 * U * bound.exact);
        }
        let hidden = softmax(SoftmaxRow { visible: &[false; 100], ..row }, 1.0);
        assert!(hidden.iter().all(|bound| *bound == Bound::exactly(0.0)));
        for kind in [Norm::Layer, Norm::Rms] {
            let row = NormRow { x: &x, gamma: None, beta: None, epsilon: 1e-5 };
            for bound in norm(row, kind) {
                assert!(bound.error > U * bound.exact.abs() && bound.error < 100.0 * U, "{bound:?}");
            }
        }
    }

    #[test]
    fn a_wrong_result_is_outside_the_bounds() {
        let x: Vec<f64> = (0..100).map(|i| f64::from(i % 7) - 3.0).collect();
        let row = NormRow { x: &x, gamma: None, beta: None, epsilon: 1e-5 };
        let off = norm(NormRow { epsilon: 1.1e-5, ..row }, Norm::Layer);
        let right = norm(row, Norm::Layer);
        // Even a wrong epsilon shows, small as it is against this variance... where the value is not zero.
        let shown =
            right.iter().zip(&off).filter(|(right, off)| (right.exact - off.exact).abs() > 0.0).count();
        assert!(shown > 50);
        let biased = x.iter().map(|x| x * 1.00001).collect::<Vec<_>>();
        let seen = SoftmaxRow { x: &x, scale: 1.0, bias: None, visible: &[true; 100] };
        let wrong = softmax(SoftmaxRow { x: &biased, ..seen }, 1.0);
        let admitted = softmax(seen, 1.0).iter().zip(&wrong).all(|(bound, w)| bound.admits(w.exact as f32));
        assert!(!admitted);
    }
}
