//! How far a result may be from the exact one. Every tolerance of the kernel and model tests is here, with its derivation;
//! the limits of the golden files are measured, and in `fixtures/tolerances.json`.
//!
//! A [`Bound`] is the exact value and an absolute error *before* the result is rounded for storage. A stored result is
//! accepted when it is the rounding of some number within the bound, so half precision, subnormals and overflow need no
//! allowance of their own, and an exact zero with no error admits nothing but zero.
//!
//! Rules for special values: where the exact value is NaN the result must be NaN; where it is an infinity, that infinity;
//! elsewhere NaN is refused, and an infinity accepted only when a number within the bound rounds to it.
//!
//! The bounds use the standard model of rounding (Higham, *Accuracy and Stability of Numerical Algorithms*, chapters 2 and
//! 3): each operation has a relative error of at most [`U`] or, if it underflows, an absolute error of at most [`TINY`], and
//! n of them in a row have one of at most `gamma(n) = n U / (1 - n U)`.

mod attention;
mod gemm;
mod rows;

pub use attention::{AttentionRow, attention};
pub use gemm::{Sums, gemm};
pub use rows::{Norm, NormRow, ROTARY_ANGLE, SoftmaxRow, embed, norm, rotary, softmax};

use crate::oracle::Activation;
use crate::storage::{Storage, exponent, power_of_two};

/// Unit roundoff of f32: half of the distance from 1 to the next number.
pub const U: f64 = 1.0 / (1 << 24) as f64;

/// Unit roundoff of bf16, which has 8 significant bits.
pub const BF16_U: f64 = 1.0 / (1 << 8) as f64;

/// The smallest subnormal f32: what an operation may lose to underflow, twice over.
pub const TINY: f64 = f64::from_bits((1023 - 149) << 52);

/// The smallest normal f32, 2^-126. Instructions for bf16 take smaller numbers for zero.
pub const SMALLEST_NORMAL: f64 = f32::MIN_POSITIVE as f64;

/// The documented error of a vector function, in units in the last place: measured over all f32 (`math_exhaustive`), and
/// rounded up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ulps {
    /// At levels with fused multiply-add.
    pub fused: f64,
    /// At the level without.
    pub scalar: f64,
}

/// The error of exp.
pub const EXP: Ulps = Ulps { fused: 1.03, scalar: 1.0 };
/// The error of tanh.
pub const TANH: Ulps = Ulps { fused: 1.34, scalar: 1.34 };

/// An activation is within this times |x| of its definition, or within the smallest subnormal: the kernels' contract,
/// measured over all f32 (`math_exhaustive`), and rounded up.
pub const ACTIVATION: f64 = 2.6e-7;

/// What a model whose weights are rounded to bf16 as well may be off by, in units of what rounding the activations alone
/// costs.
///
/// The limit that it multiplies was measured on the library's own bf16 run with weights that are bf16 already: all of that
/// error comes from one operand of each product, the activations. A product of operands with relative errors `a` and `w` is
/// off by `a + w + a w`, and both are roundings to bf16, with the same bound [`BF16_U`]. So rounding both operands costs at
/// most twice as much as rounding one, but for `a w`, which is 1/256 of it. Measured on the fixtures, rounding the weights
/// alone costs 0.70 (BERT) and 0.86 (T5) of that limit: `weight_rounding_only` in `fixtures/tolerances.json`.
pub const BOTH_OPERANDS_ROUNDED: f64 = 2.0;

/// An exact value, and how far a result may be from it before storage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// The exact value.
    pub exact: f64,
    /// The absolute error; ignored where the exact value is not finite.
    pub error: f64,
}

impl Bound {
    /// The bound that admits nothing but the correctly rounded value.
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

/// `(1 + u)^n - 1`, bounded: the relative error of n roundings in a row.
fn gamma(n: f64) -> f64 {
    n * U / (1.0 - n * U)
}

/// The bound of an activation of a value that is exact.
pub fn activation(activation: Activation, x: f64) -> Bound {
    let error = match activation {
        Activation::Identity | Activation::Relu => 0.0,
        _ => ACTIVATION * x.abs() + TINY,
    };
    Bound { exact: activation.eval(x), error: if x.is_finite() { error } else { 0.0 } }
}

#[cfg(test)]
mod tests;
