//! Running and finished hypotheses of a beam search.

use crate::generation::scores::log_sum_exp;
use crate::generation::stop::StoppingCriterion;

/// A hypothesis that a search returns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hypothesis {
    /// Its tokens, the prompt's first. Under KerasHub's rule tokens may follow the one that ends it.
    pub(crate) ids: Vec<u32>,
    /// The score that hypotheses are ordered by.
    pub(crate) score: f32,
    /// The log-probabilities of the new tokens, if they are computed.
    pub(crate) log_probabilities: Vec<f32>,
    /// The length at which it ended, if it is not the last token that ends it.
    pub(crate) end: Option<usize>,
}

/// A running hypothesis.
#[derive(Debug, Default)]
pub(super) struct Beam {
    ids: Vec<u32>,
    /// Sum of the scores of the new tokens.
    score: f32,
    /// The length at which it ended first, where ended hypotheses go on.
    end: Option<usize>,
    /// The log-probabilities of the new tokens, if they are computed.
    log_probabilities: Vec<f32>,
    /// What normalises the scores of the next token, if log-probabilities are computed.
    log_sum: Option<f32>,
}

impl Beam {
    /// The hypothesis that is the prompt.
    pub(super) fn of(prompt: &[u32]) -> Beam {
        Beam { ids: prompt.to_vec(), ..Beam::default() }
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub(super) fn score(&self) -> f32 {
        self.score
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Notes what normalises the processed scores of the next token.
    pub(super) fn normalise(&mut self, scores: &[f32]) {
        let (max, log_sum) = log_sum_exp(scores);
        self.log_sum = Some(max + log_sum);
    }

    /// Whether a criterion ends the hypothesis with `token`.
    pub(super) fn is_stopped_by(&self, stop: Option<&dyn StoppingCriterion>, token: u32) -> bool {
        stop.is_some_and(|stop| {
            let ids: Vec<u32> = self.ids.iter().copied().chain([token]).collect();
            stop.is_met(&ids)
        })
    }

    /// The hypothesis of this score that ends with `token`, whose processed score is given.
    pub(super) fn finished(&self, token: (u32, Option<&f32>), score: f32) -> Hypothesis {
        let mut beam = Beam::default();
        beam.continue_with(self, token, score);
        beam.into_hypothesis()
    }

    pub(super) fn into_hypothesis(self) -> Hypothesis {
        let Beam { ids, score, end, log_probabilities, .. } = self;
        Hypothesis { ids, score, log_probabilities, end }
    }

    /// Becomes `beam` and `token`, in the present allocations.
    fn continue_with(&mut self, beam: &Beam, (token, processed): (u32, Option<&f32>), score: f32) {
        self.ids.clone_from(&beam.ids);
        self.ids.push(token);
        self.log_probabilities.clone_from(&beam.log_probabilities);
        if let (Some(log_sum), Some(processed)) = (beam.log_sum, processed) {
            self.log_probabilities.push(processed - log_sum);
        }
        (self.score, self.end, self.log_sum) = (score, beam.end, None);
    }
}

/// The running beams of the next step while they are collected, in the allocations of old ones.
pub(super) struct NextBeams<'b> {
    beams: &'b mut Vec<Beam>,
    parents: &'b mut Vec<usize>,
    len: usize,
}

impl<'b> NextBeams<'b> {
    pub(super) fn new(beams: &'b mut Vec<Beam>, parents: &'b mut Vec<usize>) -> NextBeams<'b> {
        parents.clear();
        NextBeams { beams, parents, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds the continuation of a beam by a token, whose processed score is given.
    pub(super) fn push(&mut self, parent: usize, beam: &Beam, token: (u32, Option<&f32>), score: f32) {
        if self.len == self.beams.len() {
            self.beams.push(Beam::default());
        }
        if let Some(to) = self.beams.get_mut(self.len) {
            to.continue_with(beam, token, score);
            self.parents.push(parent);
            self.len += 1;
        }
    }

    /// Notes whether the last beam ends here, if it has not ended before.
    pub(super) fn mark_ended(&mut self, ends: bool) {
        if let Some(last) = self.len.checked_sub(1).and_then(|last| self.beams.get_mut(last))
            && ends
        {
            last.end = last.end.or(Some(last.ids.len()));
        }
    }

    /// Drops old beams that were not overwritten, and returns the score of the best new one, if there is any.
    pub(super) fn commit(self) -> Option<f32> {
        self.beams.truncate(self.len);
        self.beams.first().map(|beam| beam.score)
    }
}
