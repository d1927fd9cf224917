//! exp and tanh on vectors, with error bounds that a test checks over every f32.
//!
//! | function | error bound, in units in the last place | at `Scalar` | special values |
//! |---|---|---|---|
//! | [`exp`] | 1.03 | 1 | NaN to NaN, +inf to +inf, -inf to 0; overflow above 88.72, gradual underflow |
//! | [`tanh`] | 1.34 | 1.34 | NaN to NaN, +-inf to +-1, keeps the sign of zero |
//!
//! The bounds are the measured worst cases, rounded up; [`Level::Scalar`](crate::Level::Scalar) has its own
//! because it rounds between multiplication and addition. The method is the usual one: reduce the argument,
//! evaluate a minimax polynomial, scale back. The coefficients come from `scripts/fit_polynomials.py`.

use core::marker::PhantomData;

use crate::ctx::Ctx;
use crate::error::{Result, check};
use crate::isa::{Kernel, LANES, Simd};
use crate::mem;

/// `y[i] = e^x[i]`.
///
/// # Errors
/// [`crate::Error::Shape`] when the lengths differ.
pub fn exp(ctx: &Ctx, x: &[f32], y: &mut [f32]) -> Result<()> {
    map::<Exp>(ctx, "exp", x, y)
}

/// `y[i] = tanh(x[i])`.
///
/// # Errors
/// [`crate::Error::Shape`] when the lengths differ.
pub fn tanh(ctx: &Ctx, x: &[f32], y: &mut [f32]) -> Result<()> {
    map::<Tanh>(ctx, "tanh", x, y)
}

/// e^x in every lane.
#[inline(always)]
pub(crate) fn exp_lanes<S: Simd>(s: S, x: S::F32) -> S::F32 {
    /// (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2, in r.
    const EXP: [f32; 5] = [0.0013939538, 0.008368822, 0.041666415, 0.1666652, 0.5];
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    const LN2_HIGH: f32 = 0.693_359_4; // ten bits, so that n * LN2_HIGH is exact
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Beyond these the result is infinite or zero anyway. NaN passes: it is the second operand.
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    let n = s.sub(s.mul_add(x, s.splat(core::f32::consts::LOG2_E), s.splat(ROUND)), s.splat(ROUND));
    let r = s.mul_add(n, s.splat(-LN2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    let y = s.mul_add(polynomial(s, r, EXP), s.mul(r, r), r);
    s.scale(s.add(y, s.splat(1.0)), n)
}

/// tanh(x) in every lane.
#[inline(always)]
pub(crate) fn tanh_lanes<S: Simd>(s: S, x: S::F32) -> S::F32 {
    /// (tanh(x) - x) / x^3 on |x| <= 0.625, in x^2.
    const TANH: [f32; 6] = [0.0021576358, -0.008195086, 0.02170875, -0.053948462, 0.13333222, -0.3333333];
    let a = s.abs(x);
    let square = s.mul(x, x);
    let near = s.mul_add(s.mul(square, polynomial(s, square, TANH)), a, a);
    let far = s.add(exp_lanes(s, s.add(a, a)), s.splat(1.0));
    let far = s.sub(s.splat(1.0), s.div(s.splat(2.0), far));
    s.with_sign(s.select(s.lt(a, s.splat(0.625)), near, far), x)
}

/// The largest argument of [`normal_tail_lanes`].
pub(crate) const NORMAL_END: f32 = 5.5;

/// The upper tail probability of the standard normal distribution, for `a` from 0 to [`NORMAL_END`]: within 1.1e-7, and zero
/// at the end, where it is 1.9e-8. A polynomial alone takes half the time of an exponential and a division; the
/// coefficients are the best uniform fit to the distance from 1/2.
#[inline(always)]
pub(crate) fn normal_tail_lanes<S: Simd>(s: S, a: S::F32) -> S::F32 {
    /// (1/2 - tail(a)) / a, in 2 (a / NORMAL_END)^2 - 1.
    const DISTANCE: [f32; 16] = [
        -0.00023641714,
        0.00063155976,
        -0.00052913406,
        0.00072010426,
        -0.0024186468,
        0.0046217833,
        -0.006819912,
        0.0102278255,
        -0.014999078,
        0.020364568,
        -0.02604826,
        0.03207026,
        -0.038792785,
        0.04773763,
        -0.064172335,
        0.12855193,
    ];
    let t = s.mul_add(s.mul(a, a), s.splat(2.0 / (NORMAL_END * NORMAL_END)), s.splat(-1.0));
    let tail = s.mul_add(s.sub(s.splat(0.0), a), polynomial(s, t, DISTANCE), s.splat(0.5));
    // At the end the polynomial is below zero by less than its error.
    s.max(s.splat(0.0), tail)
}

/// A polynomial by Horner's rule, highest coefficient first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F32, coefficients: [f32; N]) -> S::F32 {
    let mut y = s.splat(coefficients[0]);
    for c in &coefficients[1..] {
        y = s.mul_add(y, x, s.splat(*c));
    }
    y
}

/// A function of one vector. A type and not a closure, as a closure may be left out of line.
pub(crate) trait Unary {
    /// The function. Implementations must be `#[inline(always)]`.
    fn eval<S: Simd>(s: S, x: S::F32) -> S::F32;
}

/// Defines a type for the function `$lanes`.
macro_rules! unary {
    ($name:ident, $lanes:ident) => {
        struct $name;
        impl $crate::math::Unary for $name {
            #[inline(always)]
            fn eval<S: Simd>(s: S, x: S::F32) -> S::F32 {
                $lanes(s, x)
            }
        }
    };
}
pub(crate) use unary;
unary!(Exp, exp_lanes);
unary!(Tanh, tanh_lanes);

struct Map<'a, U> {
    x: &'a [f32],
    y: &'a mut [f32],
    function: PhantomData<U>,
}

impl<U: Unary> Kernel for Map<'_, U> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for at in (0..self.x.len()).step_by(LANES) {
            mem::store(s, self.y, at, U::eval(s, mem::load(s, self.x, at)));
        }
    }
}

fn map<U: Unary>(ctx: &Ctx, operation: &'static str, x: &[f32], y: &mut [f32]) -> Result<()> {
    check(operation, "length of the output", x.len(), y.len())?;
    ctx.run(Map::<U> { x, y, function: PhantomData });
    Ok(())
}
