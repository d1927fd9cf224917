//! Which token comes next: the strategies that a caller can choose from, by transformers' and KerasHub's terms.

use crate::config::{LARGEST_TABLE, field, rate, within};
use crate::error::Result;

/// How sequences are searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// One token after the other, each chosen by itself.
    Sample(Sampler),
    /// The most likely sequence, among several that are kept at every step.
    Beam(BeamSearch),
    /// The most likely of a few tokens that do not repeat what is there.
    Contrastive(Contrastive),
}

/// How one token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Among which tokens.
    pub choice: Choice,
    /// What logits are divided by before they become probabilities; the greedy choice does not depend on it.
    pub temperature: f32,
    /// Where the random numbers start. The same seed gives the same tokens; there is no other source of chance.
    pub seed: u64,
}

/// Among which tokens a sampler chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// The likeliest one, the first of several.
    Greedy,
    /// All.
    Random,
    /// The likeliest ones.
    TopK {
        /// How many.
        k: usize,
    },
    /// KerasHub's nucleus: the likeliest one, and those with at most `p` of the probability before them.
    TopP {
        /// The share of the probability of all tokens.
        p: f32,
        /// No more tokens than this.
        k: Option<usize>,
    },
    /// transformers' filters: of the `top_k` likeliest tokens the fewest with `top_p` of *their* probability.
    Filtered {
        /// No more tokens than this.
        top_k: Option<usize>,
        /// The share; 1 keeps all.
        top_p: f32,
    },
}

/// A beam search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamSearch {
    /// How many sequences are kept.
    pub num_beams: usize,
    /// What ends a sequence and the search.
    pub rule: BeamRule,
}

/// Whose beam search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BeamRule {
    /// transformers': sequences that end leave the search, and the best of them are the result.
    HuggingFace {
        /// The sum of log-probabilities is divided by the number of new tokens to this power.
        length_penalty: f32,
        /// When to stop looking for better ones.
        early_stopping: EarlyStopping,
    },
    /// KerasHub's: sequences are extended until all have ended, and sums of log-probabilities are compared.
    KerasHub {
        /// What logits are divided by.
        temperature: f32,
    },
}

/// When a search stops that has found as many ended sequences as it has beams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EarlyStopping {
    /// At once: `true`.
    AtOnce,
    /// When the best running one, ending now, would not be better than the worst of them: `false`.
    #[default]
    WhenUnlikely,
    /// The same, but with a positive length penalty the running one is taken to last to the maximum: `"never"`.
    WhenImpossible,
}

/// A contrastive search (Su et al., "A Contrastive Framework for Neural Text Generation", 2022).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contrastive {
    /// The number of likeliest tokens that are considered.
    pub k: usize,
    /// The weight of being different, 0 to 1; the rest is the weight of being likely.
    pub alpha: f32,
    /// What logits are divided by before they become probabilities.
    pub temperature: f32,
}

impl Strategy {
    /// KerasHub's sampler of this name, with KerasHub's defaults and seed 0: `greedy`, `random`, `top_k`, `top_p`,
    /// `beam` or `contrastive`, or the class, such as `TopKSampler`.
    pub fn from_name(name: &str) -> Option<Strategy> {
        match name {
            "greedy" | "GreedySampler" => Some(Sampler::greedy().into()),
            "random" | "RandomSampler" => Some(Sampler::random().into()),
            "top_k" | "TopKSampler" => Some(Sampler::top_k(5).into()),
            "top_p" | "TopPSampler" => Some(Sampler::top_p(0.1).into()),
            "beam" | "BeamSampler" => Some(Strategy::Beam(BeamSearch::keras(5))),
            "contrastive" | "ContrastiveSampler" => Some(Strategy::Contrastive(Contrastive::default())),
            _ => None,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the first field that is out of range.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Strategy::Sample(Sampler { choice, temperature, .. }) => {
                positive("temperature", temperature)?;
                match choice {
                    Choice::Greedy | Choice::Random => Ok(()),
                    Choice::TopK { k } => within("top_k", k, LARGEST_TABLE),
                    Choice::TopP { p, k } | Choice::Filtered { top_k: k, top_p: p } => {
                        k.map_or(Ok(()), |k| within("top_k", k, LARGEST_TABLE))?;
                        let fits = p > 0.0 && p <= 1.0;
                        if fits { Ok(()) } else { Err(field("top_p", p, "more than 0, at most 1")) }
                    }
                }
            }
            Strategy::Beam(BeamSearch { num_beams, rule }) => {
                within("num_beams", num_beams, MOST_SEQUENCES)?;
                match rule {
                    BeamRule::KerasHub { temperature } => positive("temperature", temperature),
                    BeamRule::HuggingFace { length_penalty, .. } if length_penalty.is_finite() => Ok(()),
                    BeamRule::HuggingFace { length_penalty, .. } => {
                        Err(field("length_penalty", length_penalty, "a finite number"))
                    }
                }
            }
            Strategy::Contrastive(Contrastive { k, alpha, temperature }) => {
                within("k", k, MOST_SEQUENCES)?;
                rate("alpha", alpha)?;
                positive("temperature", temperature)
            }
        }
    }

    /// The most sequences that the strategy can return for one prompt.
    pub(crate) fn most_sequences(&self) -> usize {
        match self {
            Strategy::Beam(search) => search.num_beams,
            Strategy::Contrastive(_) | Strategy::Sample(Sampler { choice: Choice::Greedy, .. }) => 1,
            Strategy::Sample(_) => MOST_SEQUENCES,
        }
    }
}

impl Default for Strategy {
    /// Greedy, as in transformers.
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

impl From<Contrastive> for Strategy {
    fn from(search: Contrastive) -> Self {
        Strategy::Contrastive(search)
    }
}

impl Sampler {
    /// The likeliest token.
    pub fn greedy() -> Sampler {
        Sampler { choice: Choice::Greedy, temperature: 1.0, seed: 0 }
    }

    /// Any token, as likely as the model says.
    pub fn random() -> Sampler {
        Sampler { choice: Choice::Random, ..Sampler::greedy() }
    }

    /// One of the `k` likeliest tokens.
    pub fn top_k(k: usize) -> Sampler {
        Sampler { choice: Choice::TopK { k }, ..Sampler::greedy() }
    }

    /// One of KerasHub's nucleus.
    pub fn top_p(p: f32) -> Sampler {
        Sampler { choice: Choice::TopP { p, k: None }, ..Sampler::greedy() }
    }

    /// One of what transformers' filters leave.
    pub fn filtered(top_k: Option<usize>, top_p: f32) -> Sampler {
        Sampler { choice: Choice::Filtered { top_k, top_p }, ..Sampler::greedy() }
    }
}

impl BeamSearch {
    /// transformers', with its defaults: length penalty 1, [`EarlyStopping::WhenUnlikely`].
    pub fn new(num_beams: usize) -> BeamSearch {
        let early_stopping = EarlyStopping::default();
        BeamSearch { num_beams, rule: BeamRule::HuggingFace { length_penalty: 1.0, early_stopping } }
    }

    /// KerasHub's.
    pub fn keras(num_beams: usize) -> BeamSearch {
        BeamSearch { num_beams, rule: BeamRule::KerasHub { temperature: 1.0 } }
    }
}

impl EarlyStopping {
    /// The value that transformers calls `name`: `true`, `false` or `never`.
    pub fn from_name(name: &str) -> Option<EarlyStopping> {
        match name {
            "true" => Some(EarlyStopping::AtOnce),
            "false" => Some(EarlyStopping::WhenUnlikely),
            "never" => Some(EarlyStopping::WhenImpossible),
            _ => None,
        }
    }
}

impl Default for Contrastive {
    /// KerasHub's: 5 tokens, weight 0.6.
    fn default() -> Self {
        Contrastive { k: 5, alpha: 0.6, temperature: 1.0 }
    }
}

/// The most sequences that are generated from one prompt side by side.
const MOST_SEQUENCES: usize = 1 << 10;

/// Checks a factor.
pub(crate) fn positive(name: &'static str, value: f32) -> Result<()> {
    let fits = value.is_finite() && value > 0.0;
    if fits { Ok(()) } else { Err(field(name, value, "a finite number, more than 0")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_and_defaults_of_keras_hub() {
        let sample = |name| match Strategy::from_name(name) {
            Some(Strategy::Sample(Sampler { choice, temperature: 1.0, seed: 0 })) => choice,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(sample("GreedySampler"), Choice::Greedy);
        assert_eq!(sample("RandomSampler"), Choice::Random);
        assert_eq!(sample("TopKSampler"), Choice::TopK { k: 5 });
        assert_eq!(sample("top_p"), Choice::TopP { p: 0.1, k: None });
        assert_eq!(Strategy::from_name("beam"), Some(BeamSearch::keras(5).into()));
        let contrastive = Contrastive { k: 5, alpha: 0.6, temperature: 1.0 };
        assert_eq!(Strategy::from_name("contrastive"), Some(contrastive.into()));
        assert_eq!(Strategy::from_name("speculative"), None);
    }

    #[test]
    fn fields_out_of_range_are_named() {
        let penalty = |length_penalty| {
            let early_stopping = EarlyStopping::AtOnce;
            BeamSearch { num_beams: 2, rule: BeamRule::HuggingFace { length_penalty, early_stopping } }
        };
        let cases: [(Strategy, &str); 13] = [
            (Sampler { temperature: 0.0, ..Sampler::random() }.into(), "temperature"),
            (Sampler { temperature: f32::INFINITY, ..Sampler::greedy() }.into(), "temperature"),
            (Sampler { temperature: f32::NAN, ..Sampler::greedy() }.into(), "temperature"),
            (Sampler::top_k(0).into(), "top_k"),
            (Sampler::top_p(0.0).into(), "top_p"),
            (Sampler::filtered(None, 1.5).into(), "top_p"),
            (Sampler::filtered(None, f32::NAN).into(), "top_p"),
            (Sampler::filtered(Some(0), 1.0).into(), "top_k"),
            (BeamSearch::new(0).into(), "num_beams"),
            (BeamSearch::new(1 << 40).into(), "num_beams"),
            (penalty(f32::NAN).into(), "length_penalty"),
            (Contrastive { alpha: 1.1, ..Contrastive::default() }.into(), "alpha"),
            (Contrastive { k: 0, ..Contrastive::default() }.into(), "k"),
        ];
        for (strategy, name) in cases {
            let message = strategy.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("config: {name} is ")), "{message}");
        }
        for strategy in [penalty(-1.0).into(), Sampler::filtered(Some(50), 1.0).into(), Strategy::default()] {
            strategy.validate().unwrap();
        }
    }
}
