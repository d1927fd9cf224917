//! KerasHub's samplers by name.

use core::fmt;
use core::str::FromStr;

use super::strategy::{BeamSearch, ContrastiveSearch, Sampler, Strategy};
use crate::config::field;
use crate::error::{Error, Result};

/// A sampler of KerasHub, with the defaults of its constructor.
///
/// It is spelled as KerasHub's `keras_hub.samplers.get` takes it, `top_k`, or as the class, `TopKSampler`
/// ([`FromStr`]); [`Display`](fmt::Display) writes the former. Its [`Strategy`] has seed 0.
///
/// ```
/// use rachis::generation::{KerasSampler, Sampler, Strategy};
///
/// let strategy: Strategy = "top_k".parse::<KerasSampler>()?.into();
/// assert_eq!(strategy, Sampler::top_k(5).into());
/// # Ok::<(), rachis::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KerasSampler {
    /// `greedy`, `GreedySampler()`.
    Greedy,
    /// `random`, `RandomSampler()`.
    Random,
    /// `top_k`, `TopKSampler(k=5)`.
    TopK,
    /// `top_p`, `TopPSampler(p=0.1)`.
    TopP,
    /// `beam`, `BeamSampler(num_beams=5)`.
    Beam,
    /// `contrastive`, `ContrastiveSampler(k=5, alpha=0.6)`.
    Contrastive,
}

impl KerasSampler {
    /// All samplers, in the order of their declaration.
    pub const ALL: [KerasSampler; 6] = [
        KerasSampler::Greedy,
        KerasSampler::Random,
        KerasSampler::TopK,
        KerasSampler::TopP,
        KerasSampler::Beam,
        KerasSampler::Contrastive,
    ];

    /// The name, such as `top_k`.
    pub fn name(self) -> &'static str {
        match self {
            KerasSampler::Greedy => "greedy",
            KerasSampler::Random => "random",
            KerasSampler::TopK => "top_k",
            KerasSampler::TopP => "top_p",
            KerasSampler::Beam => "beam",
            KerasSampler::Contrastive => "contrastive",
        }
    }

    /// The class, such as `TopKSampler`.
    pub fn class_name(self) -> &'static str {
        match self {
            KerasSampler::Greedy => "GreedySampler",
            KerasSampler::Random => "RandomSampler",
            KerasSampler::TopK => "TopKSampler",
            KerasSampler::TopP => "TopPSampler",
            KerasSampler::Beam => "BeamSampler",
            KerasSampler::Contrastive => "ContrastiveSampler",
        }
    }
}

impl From<KerasSampler> for Strategy {
    fn from(sampler: KerasSampler) -> Self {
        match sampler {
            KerasSampler::Greedy => Sampler::greedy().into(),
            KerasSampler::Random => Sampler::random().into(),
            KerasSampler::TopK => Sampler::top_k(5).into(),
            KerasSampler::TopP => Sampler::top_p(0.1).into(),
            KerasSampler::Beam => BeamSearch::keras(5).into(),
            KerasSampler::Contrastive => ContrastiveSearch::default().into(),
        }
    }
}

impl fmt::Display for KerasSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KerasSampler {
    type Err = Error;

    fn from_str(name: &str) -> Result<KerasSampler> {
        let found = KerasSampler::ALL.into_iter().find(|s| [s.name(), s.class_name()].contains(&name));
        found.ok_or_else(|| field("sampler", name, "greedy, random, top_k, top_p, beam or contrastive"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::SamplingMethod;

    #[test]
    fn names_and_defaults_are_keras_hubs() {
        let strategy = |name: &str| Strategy::from(name.parse::<KerasSampler>().unwrap());
        let sample = |name| match strategy(name) {
            Strategy::Sample(Sampler { method, temperature: 1.0, seed: 0 }) => method,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(sample("GreedySampler"), SamplingMethod::Greedy);
        assert_eq!(sample("RandomSampler"), SamplingMethod::Random);
        assert_eq!(sample("TopKSampler"), SamplingMethod::TopK { k: 5 });
        assert_eq!(sample("top_p"), SamplingMethod::TopP { p: 0.1, k: None });
        assert_eq!(strategy("beam"), BeamSearch::keras(5).into());
        let contrastive = ContrastiveSearch { k: 5, alpha: 0.6, temperature: 1.0 };
        assert_eq!(strategy("contrastive"), contrastive.into());
        let message = "speculative".parse::<KerasSampler>().unwrap_err().to_string();
        assert!(message.starts_with("config: sampler is speculative, expected greedy, "), "{message}");
    }

    #[test]
    fn names_round_trip() {
        for sampler in KerasSampler::ALL {
            assert_eq!(sampler.to_string().parse::<KerasSampler>().unwrap(), sampler);
            assert_eq!(sampler.class_name().parse::<KerasSampler>().unwrap(), sampler);
        }
    }
}
