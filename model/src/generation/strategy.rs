//! Generation strategies and their parameters, by transformers' and KerasHub's terms.

mod beam_search;

use super::filters::{Filters, share};
use crate::config::{LARGEST_TABLE, field, rate, within};
use crate::error::Result;

pub use beam_search::{BeamRule, BeamSearch, Continuations, EarlyStopping};

/// The algorithm that chooses tokens: transformers' generation mode, KerasHub's sampler.
///
/// [`KerasSampler`](super::KerasSampler) has KerasHub's samplers by name.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Strategy {
    /// One token at a time from the distribution of the next token: transformers' greedy search and sampling,
    /// KerasHub's `GreedySampler`, `RandomSampler`, `TopKSampler` and `TopPSampler`.
    Sample(Sampler),
    /// Beam search: several hypotheses are extended at every step, and the ones of highest score are kept.
    Beam(BeamSearch),
    /// Contrastive search: a likely token whose hidden state differs from the states of the context.
    Contrastive(ContrastiveSearch),
}

/// How one token is chosen from the logits of a position.
///
/// Outside this crate, make one by a constructor such as [`Sampler::top_k`] and set its fields, or chain
/// [`Sampler::with_temperature`] and [`Sampler::with_seed`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Sampler {
    /// Which tokens are candidates, and whether one of them is drawn.
    pub method: SamplingMethod,
    /// `temperature` of transformers and KerasHub: probabilities are `softmax(logits / temperature)`. It does not
    /// change the greedy choice. The default is 1.
    pub temperature: f32,
    /// The seed of the random numbers, KerasHub's `seed`; the default is 0. The same seed gives the same tokens:
    /// there is no other source of randomness.
    pub seed: u64,
}

/// Which tokens are candidates for the next one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum SamplingMethod {
    /// The token of the highest logit, of equal ones the first: transformers' `do_sample=False` with one beam,
    /// KerasHub's `GreedySampler`.
    Greedy,
    /// A draw among all tokens: KerasHub's `RandomSampler`.
    Random,
    /// A draw among the `k` most probable tokens: KerasHub's `TopKSampler`.
    TopK {
        /// Number of candidates, `k`.
        k: usize,
    },
    /// A draw from the nucleus (Holtzman et al., 2020) of KerasHub's `TopPSampler`: tokens from the most to the least
    /// probable, each kept if the tokens before it have at most `p` of the probability of the *whole* vocabulary.
    TopP {
        /// The cumulative probability, `p`.
        p: f32,
        /// Upper limit of the number of candidates, `k`.
        k: Option<usize>,
    },
    /// A draw from what transformers' sampling arguments keep, with `do_sample=True`.
    Filtered(Filters),
}

/// The parameters of a contrastive search (Su et al., "A Contrastive Framework for Neural Text Generation", 2022),
/// KerasHub's `ContrastiveSampler`.
///
/// The next token is `argmax over v in top-k of (1 - alpha) * p(v) - alpha * max_j cos(h_v, h_j)`, where `p` is the
/// probability, `h_v` the hidden state of the candidate and `h_j` the hidden states of the context.
///
/// Outside this crate, make one by [`ContrastiveSearch::new`] and set its fields, or chain
/// [`ContrastiveSearch::with_temperature`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ContrastiveSearch {
    /// KerasHub's `k`, transformers' `top_k`: number of candidates.
    pub k: usize,
    /// KerasHub's `alpha`, transformers' `penalty_alpha`: weight of the degeneration penalty, 0 to 1. At 0 the search
    /// is greedy.
    pub alpha: f32,
    /// KerasHub's `temperature`: logits are divided by it before the softmax.
    pub temperature: f32,
}

impl Strategy {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the first field that is out of range.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Strategy::Sample(Sampler { method, temperature, .. }) => {
                positive("temperature", temperature)?;
                match method {
                    SamplingMethod::Greedy | SamplingMethod::Random => Ok(()),
                    SamplingMethod::TopK { k } => within("top_k", k, LARGEST_TABLE),
                    SamplingMethod::TopP { p, k } => {
                        k.map_or(Ok(()), |k| within("top_k", k, LARGEST_TABLE))?;
                        share("top_p", p)
                    }
                    SamplingMethod::Filtered(filters) => filters.validate(),
                }
            }
            Strategy::Beam(search) => search.validate(),
            Strategy::Contrastive(ContrastiveSearch { k, alpha, temperature }) => {
                within("k", k, MAX_SEQUENCES)?;
                rate("alpha", alpha)?;
                positive("temperature", temperature)
            }
        }
    }

    /// The largest `num_return_sequences` that the strategy allows.
    pub(crate) fn max_return_sequences(&self) -> usize {
        match self {
            Strategy::Beam(search) => search.num_beams,
            Strategy::Contrastive(_) | Strategy::Sample(Sampler { method: SamplingMethod::Greedy, .. }) => 1,
            Strategy::Sample(_) => MAX_SEQUENCES,
        }
    }
}

impl Default for Strategy {
    /// Greedy search, transformers' default.
    fn default() -> Self {
        Sampler::greedy().into()
    }
}

impl From<Sampler> for Strategy {
    fn from(sampler: Sampler) -> Self {
        Strategy::Sample(sampler)
    }
}

impl From<BeamSearch> for Strategy {
    fn from(search: BeamSearch) -> Self {
        Strategy::Beam(search)
    }
}

impl From<ContrastiveSearch> for Strategy {
    fn from(search: ContrastiveSearch) -> Self {
        Strategy::Contrastive(search)
    }
}

impl Sampler {
    /// A sampler of this method, with temperature 1 and seed 0.
    pub fn new(method: SamplingMethod) -> Sampler {
        Sampler { method, temperature: 1.0, seed: 0 }
    }

    /// [`SamplingMethod::Greedy`].
    pub fn greedy() -> Sampler {
        Sampler::new(SamplingMethod::Greedy)
    }

    /// [`SamplingMethod::Random`].
    pub fn random() -> Sampler {
        Sampler::new(SamplingMethod::Random)
    }

    /// [`SamplingMethod::TopK`].
    pub fn top_k(k: usize) -> Sampler {
        Sampler::new(SamplingMethod::TopK { k })
    }

    /// [`SamplingMethod::TopP`], KerasHub's nucleus, without a limit of the number of candidates.
    pub fn top_p(p: f32) -> Sampler {
        Sampler::new(SamplingMethod::TopP { p, k: None })
    }

    /// [`SamplingMethod::Filtered`], transformers' sampling.
    pub fn filtered(filters: Filters) -> Sampler {
        Sampler::new(SamplingMethod::Filtered(filters))
    }

    /// Sets [`Sampler::temperature`].
    pub fn with_temperature(self, temperature: f32) -> Sampler {
        Sampler { temperature, ..self }
    }

    /// Sets [`Sampler::seed`].
    pub fn with_seed(self, seed: u64) -> Sampler {
        Sampler { seed, ..self }
    }
}

impl ContrastiveSearch {
    /// A search among `k` candidates with the weight `alpha` of the degeneration penalty, and temperature 1.
    pub fn new(k: usize, alpha: f32) -> ContrastiveSearch {
        ContrastiveSearch { k, alpha, temperature: 1.0 }
    }

    /// Sets [`ContrastiveSearch::temperature`].
    pub fn with_temperature(self, temperature: f32) -> ContrastiveSearch {
        ContrastiveSearch { temperature, ..self }
    }
}

impl Default for ContrastiveSearch {
    /// KerasHub's defaults: `k=5`, `alpha=0.6`.
    fn default() -> Self {
        ContrastiveSearch::new(5, 0.6)
    }
}

/// Upper limit of the number of sequences that are generated from one prompt at a time.
const MAX_SEQUENCES: usize = 1 << 10;

/// Checks that a value is finite and positive.
pub(crate) fn positive(name: &'static str, value: f32) -> Result<()> {
    let fits = value.is_finite() && value > 0.0;
    if fits { Ok(()) } else { Err(field(name, value, "a finite number, more than 0")) }
}

/// Checks that a value is finite.
pub(crate) fn finite(name: &'static str, value: f32) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(field(name, value, "a finite number")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_out_of_range_are_named() {
        let penalty = |length_penalty| {
            let early_stopping = EarlyStopping::True;
            BeamSearch::new(2).with_rule(BeamRule::HuggingFace { length_penalty, early_stopping })
        };
        let diverse = |groups, penalty| {
            BeamSearch::new(4).with_continuations(Continuations::Diverse { groups, penalty })
        };
        let filters = |change: fn(&mut Filters)| {
            let mut filters = Filters::new();
            change(&mut filters);
            Sampler::filtered(filters).into()
        };
        let cases: [(Strategy, &str); 23] = [
            (Sampler::random().with_temperature(0.0).into(), "temperature"),
            (Sampler::greedy().with_temperature(f32::INFINITY).into(), "temperature"),
            (Sampler::greedy().with_temperature(f32::NAN).into(), "temperature"),
            (Sampler::top_k(0).into(), "top_k"),
            (Sampler::top_p(0.0).into(), "top_p"),
            (filters(|f| f.top_p = 1.5), "top_p"),
            (filters(|f| f.top_p = f32::NAN), "top_p"),
            (filters(|f| f.top_k = Some(0)), "top_k"),
            (filters(|f| f.top_h = Some(0.0)), "top_h"),
            (filters(|f| f.min_p = Some(1.1)), "min_p"),
            (filters(|f| f.typical_p = 0.0), "typical_p"),
            (filters(|f| f.epsilon_cutoff = 1.0), "epsilon_cutoff"),
            (filters(|f| f.eta_cutoff = -0.1), "eta_cutoff"),
            (diverse(3, 1.0).into(), "num_beam_groups"),
            (diverse(8, 1.0).into(), "num_beam_groups"),
            (diverse(2, 0.0).into(), "diversity_penalty"),
            (diverse(2, 1.0).with_rule(BeamRule::KerasHub { temperature: 1.0 }).into(), "continuations"),
            (
                BeamSearch::new(2)
                    .with_continuations(Continuations::Drawn {
                        temperature: 0.0,
                        filters: Filters::new(),
                        seed: 0,
                    })
                    .into(),
                "temperature",
            ),
            (BeamSearch::new(0).into(), "num_beams"),
            (BeamSearch::new(1 << 40).into(), "num_beams"),
            (penalty(f32::NAN).into(), "length_penalty"),
            (ContrastiveSearch { alpha: 1.1, ..ContrastiveSearch::default() }.into(), "alpha"),
            (ContrastiveSearch { k: 0, ..ContrastiveSearch::default() }.into(), "k"),
        ];
        for (strategy, name) in cases {
            let message = strategy.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("config: {name} is ")), "{message}");
        }
        for strategy in [
            penalty(-1.0).into(),
            diverse(2, 0.5).into(),
            Sampler::filtered(Filters::new().with_top_k(50)).into(),
            Strategy::default(),
        ] {
            strategy.validate().unwrap();
        }
    }

    #[test]
    fn early_stopping_round_trips_through_its_spelling() {
        for value in EarlyStopping::ALL {
            assert_eq!(value.to_string().parse::<EarlyStopping>().unwrap(), value);
        }
        let message = "sometimes".parse::<EarlyStopping>().unwrap_err().to_string();
        assert_eq!(message, "config: early_stopping is sometimes, expected true, false or never");
    }
}
