//! The parameters of a beam search.

use core::fmt;
use core::str::FromStr;

use super::{MAX_SEQUENCES, finite, positive};
use crate::config::{divisor, field, within};
use crate::error::{Error, Result};
use crate::generation::filters::Filters;

/// The parameters of a beam search.
///
/// Outside this crate, make one by [`BeamSearch::new`] or [`BeamSearch::keras`] and set its fields, or chain
/// [`BeamSearch::with_rule`] and [`BeamSearch::with_continuations`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BeamSearch {
    /// `num_beams` of transformers and KerasHub: the number of running hypotheses.
    pub num_beams: usize,
    /// How hypotheses are scored, and when the search stops.
    pub rule: BeamRule,
    /// Which continuations of the running hypotheses are considered.
    pub continuations: Continuations,
}

/// Which continuations of its running hypotheses a beam search considers. Under KerasHub's rule they are the best.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Continuations {
    /// Those of highest score.
    #[default]
    Best,
    /// Continuations that are drawn without replacement, with probabilities in proportion to the exponentials of their
    /// scores: transformers' `do_sample=True` with several beams. Scores are divided by the temperature, and then
    /// filtered.
    Drawn {
        /// `temperature`.
        temperature: f32,
        /// `top_k`, `top_p` and the like.
        filters: Filters,
        /// The seed of the random numbers.
        seed: u64,
    },
    /// Those of highest score, in groups of beams that avoid each other's tokens (Vijayakumar et al., "Diverse Beam
    /// Search", 2018), by the rules of transformers 4.44.
    Diverse {
        /// `num_beam_groups`: a divisor of the number of beams.
        groups: usize,
        /// `diversity_penalty`: subtracted from the score of a token for each beam of an earlier group that has chosen
        /// it in this step.
        penalty: f32,
    },
}

/// The beam search of one of the two libraries.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum BeamRule {
    /// transformers': a hypothesis that ends leaves the running beams and competes for the `num_beams` places among the
    /// finished hypotheses, by `sum of log-probabilities / (number of new tokens)^length_penalty`.
    HuggingFace {
        /// `length_penalty`: above 0 it favours longer hypotheses, since scores are negative; below 0 shorter ones.
        length_penalty: f32,
        /// `early_stopping`: when the search stops looking for better hypotheses.
        early_stopping: EarlyStopping,
    },
    /// KerasHub's `BeamSampler`: all beams are extended until each of them has an end token; hypotheses are compared by
    /// the sum of log-probabilities.
    KerasHub {
        /// `temperature`: logits are divided by it before the log-softmax.
        temperature: f32,
    },
}

/// transformers' `early_stopping`: when a beam search stops that has `num_beams` finished hypotheses.
///
/// It is spelled `true`, `false` or `never` ([`FromStr`], [`Display`](fmt::Display)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum EarlyStopping {
    /// transformers' `early_stopping=True`: at once.
    True,
    /// transformers' `early_stopping=False`, its default: when a better hypothesis is unlikely, which is when the best
    /// running one, scored at its present length, is not better than the worst finished one.
    #[default]
    False,
    /// transformers' `early_stopping="never"`: when no running hypothesis can become better than the worst finished
    /// one. With a positive length penalty the best running one is scored as if it had the maximum length, otherwise
    /// at its present length.
    Never,
}

impl BeamSearch {
    /// transformers' beam search with its defaults: `length_penalty=1.0`, `early_stopping=False`.
    pub fn new(num_beams: usize) -> BeamSearch {
        let early_stopping = EarlyStopping::default();
        let rule = BeamRule::HuggingFace { length_penalty: 1.0, early_stopping };
        BeamSearch { num_beams, rule, continuations: Continuations::Best }
    }

    /// KerasHub's beam search, with temperature 1.
    pub fn keras(num_beams: usize) -> BeamSearch {
        BeamSearch::new(num_beams).with_rule(BeamRule::KerasHub { temperature: 1.0 })
    }

    /// Sets [`BeamSearch::rule`].
    pub fn with_rule(self, rule: BeamRule) -> BeamSearch {
        BeamSearch { rule, ..self }
    }

    /// Sets [`BeamSearch::continuations`].
    pub fn with_continuations(self, continuations: Continuations) -> BeamSearch {
        BeamSearch { continuations, ..self }
    }

    pub(super) fn validate(&self) -> Result<()> {
        within("num_beams", self.num_beams, MAX_SEQUENCES)?;
        match self.rule {
            BeamRule::KerasHub { temperature } => positive("temperature", temperature)?,
            BeamRule::HuggingFace { length_penalty, .. } => finite("length_penalty", length_penalty)?,
        }
        match (self.continuations, self.rule) {
            (Continuations::Best, _) => Ok(()),
            (_, BeamRule::KerasHub { .. }) => {
                Err(field("continuations", "drawn or diverse", "the best, by KerasHub's rule"))
            }
            (Continuations::Drawn { temperature, filters, .. }, _) => {
                positive("temperature", temperature)?;
                filters.validate()
            }
            (Continuations::Diverse { groups, penalty }, _) => {
                within("num_beam_groups", groups, self.num_beams)?;
                divisor("num_beam_groups", groups, ("num_beams", self.num_beams))?;
                // transformers refuses 0, with which all groups would be the same.
                positive("diversity_penalty", penalty)
            }
        }
    }
}

impl EarlyStopping {
    /// All values, in the order of their declaration.
    pub const ALL: [EarlyStopping; 3] = [EarlyStopping::True, EarlyStopping::False, EarlyStopping::Never];

    /// The spelling of the value: `true`, `false` or `never`.
    pub fn name(self) -> &'static str {
        match self {
            EarlyStopping::True => "true",
            EarlyStopping::False => "false",
            EarlyStopping::Never => "never",
        }
    }
}

impl fmt::Display for EarlyStopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EarlyStopping {
    type Err = Error;

    fn from_str(name: &str) -> Result<EarlyStopping> {
        let found = EarlyStopping::ALL.into_iter().find(|value| value.name() == name);
        found.ok_or_else(|| field("early_stopping", name, "true, false or never"))
    }
}
