//! Activation functions, element by element.
//!
//! "gelu" names two functions that differ by up to 4.7e-4, so neither is called that here: [`Activation::GeluErf`]
//! is the definition by the normal distribution, `x/2 (1 + erf(x / sqrt 2))`, and [`Activation::GeluTanh`] its
//! approximation `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))` (Hendrycks and Gimpel, arXiv:1606.08415).
//!
//! Every function is within `2.6e-7 |x|` of its definition, or within the smallest subnormal where that is more;
//! NaN gives NaN and infinities give the limits.

use core::fmt;
use core::str::FromStr;

use crate::ctx::Ctx;
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::isa::{Kernel, LANES, Simd};
use crate::math::{NORMAL_END, Unary, exp_lanes, normal_tail_lanes, tanh_lanes, unary};
use crate::mem;

/// An activation function, applied to each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Activation {
    /// x
    #[default]
    Identity,
    /// max(x, 0); NaN stays NaN
    Relu,
    /// x times the normal distribution function: the exact gelu
    GeluErf,
    /// The tanh approximation of gelu
    GeluTanh,
    /// x times sigmoid(x), also called swish
    Silu,
    /// x times sigmoid(1.702 x)
    QuickGelu,
    /// tanh(x)
    Tanh,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Activation; 7] = [
        Activation::Identity,
        Activation::Relu,
        Activation::GeluErf,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::QuickGelu,
        Activation::Tanh,
    ];

    /// Its name in configurations of Hugging Face's transformers, the first of several in this order: `linear`; `relu`;
    /// `gelu`, `gelu_python`; `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`; `silu`, `swish`; `quick_gelu`; `tanh`.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Activation::Identity => &["linear"],
            Activation::Relu => &["relu"],
            Activation::GeluErf => &["gelu", "gelu_python"],
            Activation::GeluTanh => &["gelu_new", "gelu_pytorch_tanh", "gelu_fast"],
            Activation::Silu => &["silu", "swish"],
            Activation::QuickGelu => &["quick_gelu"],
            Activation::Tanh => &["tanh"],
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Activation {
    type Err = Error;

    /// Any of the names that [`Activation::name`] lists.
    fn from_str(name: &str) -> Result<Activation> {
        let named = Activation::ALL.into_iter().find(|activation| activation.names().contains(&name));
        named.ok_or_else(|| Error::UnknownName {
            what: "activation",
            name: name.to_owned(),
            expected: "linear, relu, gelu, gelu_new, silu, quick_gelu, tanh",
        })
    }
}

/// Applies `activation` to every element of `x` in place.
pub fn activate<T: Elem>(ctx: &Ctx, activation: Activation, x: &mut [T]) {
    ctx.run(Activate { activation, x });
}

struct Activate<'a, T> {
    activation: Activation,
    x: &'a mut [T],
}

impl<T: Elem> Kernel for Activate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.activation.apply(s, self.x);
    }
}

impl Activation {
    /// Applies the function to every element in place.
    #[inline(always)]
    pub(crate) fn apply<S: Simd, T: Elem>(self, s: S, x: &mut [T]) {
        match self {
            Activation::Identity => {}
            Activation::Relu => map::<S, T, Relu>(s, x),
            Activation::GeluErf => map::<S, T, GeluErf>(s, x),
            Activation::GeluTanh => map::<S, T, GeluTanh>(s, x),
            Activation::Silu => map::<S, T, Silu>(s, x),
            Activation::QuickGelu => map::<S, T, QuickGelu>(s, x),
            Activation::Tanh => map::<S, T, Tanh>(s, x),
        }
    }
}

unary!(Relu, relu);
unary!(GeluErf, gelu_erf);
unary!(GeluTanh, gelu_tanh);
unary!(Silu, silu);
unary!(QuickGelu, quick_gelu);
unary!(Tanh, tanh_lanes);

/// `x[i] = f(x[i])`
#[inline(always)]
fn map<S: Simd, T: Elem, F: Unary>(s: S, x: &mut [T]) {
    let (whole, rest) = x.as_chunks_mut::<LANES>();
    for x in whole {
        let y = F::eval(s, mem::load(s, x, 0));
        mem::store(s, x, 0, y);
    }
    if !rest.is_empty() {
        mem::store(s, rest, 0, F::eval(s, mem::load(s, rest, 0)));
    }
}

/// `max(x, 0)`; NaN, the second operand, stays.
#[inline(always)]
fn relu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    s.max(s.splat(0.0), x)
}

/// `max(x, 0) - |x| tail(|x|)`, with the upper tail probability of the normal distribution: the definition without a branch.
#[inline(always)]
fn gelu_erf<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // At the cap the tail is zero; without the cap, infinity times zero would be NaN.
    let a = s.min(s.splat(NORMAL_END), s.abs(x));
    s.mul_add(s.sub(s.splat(0.0), a), normal_tail_lanes(s, a), s.max(s.splat(0.0), x))
}

/// `x sigmoid(2u)`, since `(1 + tanh u) / 2 = sigmoid(2u)`.
#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::F32) -> S::F32 {
    const TWICE: f32 = 1.595_769_2; // 2 sqrt(2/pi)
    let cubic = s.mul_add(s.mul(x, x), s.splat(0.044715 * TWICE), s.splat(TWICE));
    x_sigmoid(s, x, s.mul(x, cubic))
}

/// `x sigmoid(x)`
#[inline(always)]
fn silu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    x_sigmoid(s, x, x)
}

/// `x sigmoid(1.702 x)`
#[inline(always)]
fn quick_gelu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    x_sigmoid(s, x, s.mul(x, s.splat(1.702)))
}

/// `x / (1 + e^-u)`. Where `u` is so low that the exponential overflows, the result is zero.
#[inline(always)]
fn x_sigmoid<S: Simd>(s: S, x: S::F32, u: S::F32) -> S::F32 {
    let e = exp_lanes(s, s.sub(s.splat(0.0), u));
    let x = s.max(s.splat(-1e30), x); // -inf / inf would be NaN
    s.div(x, s.add(s.splat(1.0), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_activation() {
        for activation in Activation::ALL {
            for name in activation.names() {
                assert_eq!(name.parse::<Activation>(), Ok(activation), "{name}");
            }
            assert_eq!(activation.to_string(), activation.name());
        }
        assert!("gelu_2".parse::<Activation>().is_err());
    }
}
