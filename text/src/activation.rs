//! The activation functions that files of sentence-transformers name, by the classes of torch.nn.

use std::fmt;
use std::str::FromStr;

use rachis::kernels::{self, Ctx, activate};

use crate::error::{Error, Result, clip, in_file};

/// An activation function: a class of torch.nn with its default arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Activation {
    /// x
    #[default]
    Identity,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// tanh(x)
    Tanh,
    /// max(x, 0)
    Relu,
    /// x, and 0.01 x below zero.
    LeakyRelu,
    /// x, and exp(x) - 1 below zero.
    Elu,
    /// x times the normal distribution function.
    Gelu,
    /// x sigmoid(x)
    Silu,
    /// x tanh(softplus(x))
    Mish,
    /// log(1 + exp(x))
    Softplus,
    /// exp(x), divided by the sum over the vector.
    Softmax,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Activation; 11] = [
        Activation::Identity,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Relu,
        Activation::LeakyRelu,
        Activation::Elu,
        Activation::Gelu,
        Activation::Silu,
        Activation::Mish,
        Activation::Softplus,
        Activation::Softmax,
    ];

    /// The name of the class in torch.nn, such as `Sigmoid`.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Identity => "Identity",
            Activation::Sigmoid => "Sigmoid",
            Activation::Tanh => "Tanh",
            Activation::Relu => "ReLU",
            Activation::LeakyRelu => "LeakyReLU",
            Activation::Elu => "ELU",
            Activation::Gelu => "GELU",
            Activation::Silu => "SiLU",
            Activation::Mish => "Mish",
            Activation::Softplus => "Softplus",
            Activation::Softmax => "Softmax",
        }
    }

    /// The activation of a class's full name, such as `torch.nn.modules.activation.Tanh`; `None` for a class outside
    /// of torch, which sentence-transformers does not load either: it takes the default of the place.
    pub(crate) fn of_class(file: &str, path: &str) -> Result<Option<Activation>> {
        if !path.starts_with("torch.") {
            return Ok(None);
        }
        let class = path.rsplit('.').next().unwrap_or_default();
        let known = Activation::ALL.into_iter().find(|known| known.name() == class);
        let unknown = || in_file(file, format_args!("activation {} is not implemented", clip(path)));
        known.map(Some).ok_or_else(unknown)
    }

    /// Applies the function to one vector.
    pub(crate) fn apply(self, ctx: &Ctx<'_>, x: &mut [f32]) {
        match self {
            Activation::Identity => {}
            Activation::Tanh => activate(ctx, kernels::Activation::Tanh, x),
            Activation::Relu => activate(ctx, kernels::Activation::Relu, x),
            Activation::Gelu => activate(ctx, kernels::Activation::GeluErf, x),
            Activation::Silu => activate(ctx, kernels::Activation::Silu, x),
            Activation::Sigmoid => map(x, |x| 1.0 / (1.0 + (-x).exp())),
            Activation::LeakyRelu => map(x, |x| if x < 0.0 { 0.01 * x } else { x }),
            Activation::Elu => map(x, |x| if x < 0.0 { x.exp_m1() } else { x }),
            Activation::Mish => map(x, |x| x * softplus(x).tanh()),
            Activation::Softplus => map(x, softplus),
            Activation::Softmax => softmax(x),
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Activation {
    type Err = Error;

    /// Parses the name of the class, in any case.
    fn from_str(name: &str) -> Result<Activation> {
        let unknown = || {
            let names = Activation::ALL.map(Activation::name).join(", ");
            Error::Request { what: "activation", found: clip(name), expected: format!("one of {names}") }
        };
        Activation::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(name)).ok_or_else(unknown)
    }
}

/// Scales `exp(x)` to the sum 1.
pub(crate) fn softmax(x: &mut [f32]) {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    map(x, |x| (x - f64::from(largest)).exp());
    let sum: f64 = x.iter().map(|x| f64::from(*x)).sum();
    map(x, |x| x / sum);
}

/// log(1 + exp(x)), without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn map(x: &mut [f32], f: impl Fn(f64) -> f64) {
    x.iter_mut().for_each(|x| *x = f(f64::from(*x)) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values by the definitions, to 7 digits.
    #[test]
    fn activations_have_the_values_of_torch() {
        let ctx = Ctx::detect();
        for (activation, at_minus_1, at_2) in [
            (Activation::Identity, -1.0, 2.0),
            (Activation::Sigmoid, 0.268_941_42, 0.880_797_1),
            (Activation::Tanh, -0.761_594_1, 0.964_027_6),
            (Activation::Relu, 0.0, 2.0),
            (Activation::LeakyRelu, -0.01, 2.0),
            (Activation::Elu, -0.632_120_56, 2.0),
            (Activation::Gelu, -0.158_655_25, 1.954_499_7),
            (Activation::Silu, -0.268_941_42, 1.761_594_2),
            (Activation::Mish, -0.303_401_47, 1.943_959),
            (Activation::Softplus, 0.313_261_7, 2.126_928),
            (Activation::Softmax, 0.047_425_87, 0.952_574_13),
        ] {
            let mut x = [-1.0, 2.0];
            activation.apply(&ctx, &mut x);
            let error = (x[0] - at_minus_1).abs().max((x[1] - at_2).abs());
            assert!(error < 1e-6, "{activation}: {x:?}");
            assert_eq!(activation.name().to_lowercase().parse::<Activation>().unwrap(), activation);
        }
    }

    #[test]
    fn classes_are_found_by_their_full_names() {
        let find = |path| Activation::of_class("config.json", path);
        assert_eq!(find("torch.nn.modules.linear.Identity").unwrap(), Some(Activation::Identity));
        assert_eq!(find("torch.nn.GELU").unwrap(), Some(Activation::Gelu));
        assert_eq!(find("mine.Sigmoid").unwrap(), None);
        let error = find("torch.nn.modules.activation.RReLU").unwrap_err().to_string();
        assert!(error.contains("RReLU") && error.starts_with("config.json"), "{error}");
        assert!("gelu2".parse::<Activation>().is_err());
    }
}
