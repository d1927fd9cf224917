//! Beam search: the hypotheses of highest score, several at a time.
//!
//! The score of a running hypothesis is the sum of the log-probabilities of its new tokens. There are two rules
//! ([`BeamRule`]).
//!
//! transformers': the best continuations of all running hypotheses, at least twice `num_beams` of them, are visited
//! in order of score. A continuation that ends, by an end token or at the maximum length, leaves the running beams;
//! if it is among the best `num_beams`, it becomes one of at most `num_beams` finished hypotheses, with the score
//! `sum / (number of new tokens)^length_penalty`. The best `num_beams` continuations that do not end are the next
//! running beams.
//!
//! With [`Continuations::Drawn`](super::Continuations::Drawn) continuations are drawn without replacement instead of
//! selected. The groups of [`Continuations::Diverse`](super::Continuations::Diverse) have a search of their own,
//! `diverse`.
//!
//! KerasHub's: the best `num_beams` continuations are the next running beams whether they have ended or not, until
//! all of them have.
//!
//! # Numerics
//! Sums are f32, added in the order of the tokens. Continuations of equal score are ordered by beam, then by token. A
//! continuation of score minus infinity or NaN is never taken, so there may be fewer running hypotheses than beams: at
//! the start the prompt is the only one. The libraries start with `num_beams` copies of the prompt instead, all but one
//! of which have the score -1e9; where there are fewer hypotheses than beams, their results contain copies and ours are
//! fewer.

mod diverse;
mod hypothesis;

use super::config::{GenerationConfig, LogProbabilities};
use super::filters::Candidates;
use super::processors::LogitsProcessors;
use super::sample::uniform;
use super::scores::{TopKSelector, log_softmax};
use super::stop::StoppingCriterion;
use super::strategy::{BeamRule, BeamSearch, Continuations, EarlyStopping};
use crate::weights::Random;
use diverse::DiverseState;
use hypothesis::{Beam, NextBeams};

pub(crate) use hypothesis::Hypothesis;

/// The state of the search of one prompt: a beam search, or a diverse one.
pub(crate) trait HypothesisSearch {
    /// Number of running beams: at least 1.
    #[cfg(test)]
    fn running(&self) -> usize;

    /// The tokens of running beam `i`; empty when there is no such beam.
    fn sequence(&self, i: usize) -> &[u32];

    /// For each running beam the index of the beam of the previous step that it continues.
    fn parents(&self) -> &[usize];

    /// Extends the running beams by one token and returns whether the search is over, in which case
    /// [`HypothesisSearch::parents`] is meaningless. `logits` is `[running beams, vocabulary]` and is overwritten by the
    /// processed log-probabilities.
    fn advance(
        &mut self,
        logits: &mut [f32],
        processors: &mut LogitsProcessors<'_>,
        stop: Option<&dyn StoppingCriterion>,
    ) -> bool;

    /// The hypotheses found, best first: at least one, at most `num_beams`. When none has finished, because the caller
    /// stopped early or no score was finite, the running ones.
    fn finalize(self: Box<Self>) -> Vec<Hypothesis>;
}

/// The search for continuations of `prompt`, up to `max_length` tokens including the prompt.
pub(crate) fn start<'c>(
    search: &BeamSearch,
    prompt: &[u32],
    max_length: usize,
    config: &'c GenerationConfig,
) -> Box<dyn HypothesisSearch + 'c> {
    match search.continuations {
        Continuations::Diverse { groups, penalty } => {
            Box::new(DiverseState::new(search, (groups, penalty), prompt, max_length, config))
        }
        Continuations::Best | Continuations::Drawn { .. } => {
            Box::new(BeamState::new(search, prompt, max_length, config))
        }
    }
}

/// The state of the beam search of one prompt.
#[derive(Debug)]
pub(crate) struct BeamState<'c> {
    search: BeamSearch,
    config: &'c GenerationConfig,
    prompt_len: usize,
    max_length: usize,
    /// The running hypotheses, best first.
    running: Vec<Beam>,
    /// For each running beam the index of the beam of the previous step that it continues.
    parents: Vec<usize>,
    /// The finished hypotheses, best first.
    finished: Vec<Hypothesis>,
    selector: TopKSelector,
    /// The continuations that are considered in a step, best first: score and index in the logits of all beams.
    continuations: Vec<(f32, usize)>,
    /// Scratch of the filters of drawn continuations.
    filtered: Candidates,
    random: Random,
    /// Beams of the previous step, whose allocations the next step reuses.
    spare: Vec<Beam>,
    done: bool,
}

impl<'c> BeamState<'c> {
    pub(crate) fn new(
        search: &BeamSearch,
        prompt: &[u32],
        max_length: usize,
        config: &'c GenerationConfig,
    ) -> BeamState<'c> {
        let seed = match search.continuations {
            Continuations::Drawn { seed, .. } => seed,
            _ => 0,
        };
        BeamState {
            search: *search,
            config,
            prompt_len: prompt.len(),
            max_length,
            running: vec![Beam::of(prompt)],
            parents: vec![0],
            finished: Vec::new(),
            selector: TopKSelector::default(),
            continuations: Vec::new(),
            filtered: Candidates::default(),
            random: Random::stream(seed, 0),
            spare: Vec::new(),
            done: search.num_beams == 0 || prompt.len() >= max_length,
        }
    }

    /// Turns logits into processed log-probabilities, and selects the continuations of this step.
    fn select(&mut self, logits: &mut [f32], vocabulary: usize, processors: &mut LogitsProcessors<'_>) {
        for (beam, row) in self.running.iter_mut().zip(logits.chunks_exact_mut(vocabulary)) {
            if let BeamRule::KerasHub { temperature } = self.search.rule {
                row.iter_mut().for_each(|x| *x /= temperature);
            }
            log_softmax(row);
            processors.apply(beam.ids(), row);
            if let Continuations::Drawn { temperature, filters, .. } = self.search.continuations {
                row.iter_mut().for_each(|x| *x /= temperature);
                filters.apply(row, 1 + self.config.eos_token_ids.len(), &mut self.filtered);
            }
            if self.config.renormalize_logits {
                log_softmax(row);
            }
            if self.config.log_probabilities == LogProbabilities::Chosen {
                beam.normalise(row);
            }
        }
        self.selector.reset(self.num_candidates());
        let drawn = matches!(self.search.continuations, Continuations::Drawn { .. });
        let rows = self.running.iter().zip(logits.chunks_exact(vocabulary)).zip(0..);
        for ((beam, row), i) in rows {
            for (x, index) in row.iter().zip(i * vocabulary..) {
                let score = beam.score() + x;
                if drawn && score > f32::NEG_INFINITY {
                    // The largest sums of scores and Gumbel noise are a draw without replacement (Vieira, 2014).
                    let noise = -(-(1.0 - uniform(&mut self.random)).ln()).ln();
                    self.selector.offer((f64::from(score) + noise) as f32, index);
                } else {
                    self.selector.offer(score, index);
                }
            }
        }
        self.continuations.clear();
        self.continuations.extend_from_slice(self.selector.sorted());
        if drawn {
            let running = &self.running;
            for (score, index) in &mut self.continuations {
                let beam = running.get(*index / vocabulary).map_or(0.0, Beam::score);
                *score = beam + logits.get(*index).copied().unwrap_or(f32::NEG_INFINITY);
            }
            self.continuations.sort_unstable_by(super::scores::order);
        }
    }

    /// Number of continuations to select: so many that at least `num_beams` of them do not end, since each beam has one
    /// continuation per end token that does.
    fn num_candidates(&self) -> usize {
        let per_beam = match self.search.rule {
            BeamRule::HuggingFace { .. } => (1 + self.config.eos_token_ids.len()).max(2),
            BeamRule::KerasHub { .. } => 1,
        };
        per_beam.saturating_mul(self.search.num_beams)
    }

    /// One step of transformers' rule; returns whether the search is over.
    fn step_hugging_face(
        &mut self,
        logits: &[f32],
        (length_penalty, early): (f32, EarlyStopping),
        stop: Option<&dyn StoppingCriterion>,
    ) -> bool {
        let num_beams = self.search.num_beams;
        let vocabulary = logits.len() / self.running.len().max(1);
        let length = self.sequence(0).len() + 1;
        // The rounding of transformers: the power in f64, the quotient in f32.
        let penalised = |score: f32, new_tokens: usize| {
            score / (new_tokens as f64).powf(f64::from(length_penalty)) as f32
        };
        let new_tokens = length - self.prompt_len;
        let mut next = NextBeams::new(&mut self.spare, &mut self.parents);
        for (rank, (score, index)) in self.continuations.iter().enumerate() {
            let (parent, token) = (index / vocabulary, (index % vocabulary) as u32);
            let Some(beam) = self.running.get(parent) else { continue };
            let is_eos = self.config.eos_token_ids.contains(&token);
            let ends = is_eos || length >= self.max_length || beam.is_stopped_by(stop, token);
            if !ends {
                if next.len() < num_beams {
                    next.push(parent, beam, (token, logits.get(*index)), *score);
                }
            } else if rank < num_beams {
                let score = penalised(*score, new_tokens);
                let found = beam.finished((token, logits.get(*index)), score);
                // Behind finished hypotheses of equal score; NaN, from 0 / 0, goes last.
                let at = self.finished.partition_point(|old| old.score >= score || score.is_nan());
                self.finished.insert(at, found);
                self.finished.truncate(num_beams);
            }
        }
        let Some(best_running_score) = next.commit() else { return true };
        std::mem::swap(&mut self.running, &mut self.spare);
        let full = self.finished.len() >= num_beams;
        if full && early == EarlyStopping::True {
            return true;
        }
        let hypothetical_tokens = match early {
            EarlyStopping::Never if length_penalty > 0.0 => self.max_length - self.prompt_len,
            _ => new_tokens,
        };
        let attainable = penalised(best_running_score, hypothetical_tokens);
        let worst_finished = self.finished.last().map(|found| found.score);
        let worst_finished = worst_finished.filter(|_| full).unwrap_or(UNFILLED_SCORE);
        // Not the same as `attainable <= worst_finished`: NaN ends the search.
        !matches!(attainable.partial_cmp(&worst_finished), Some(core::cmp::Ordering::Greater))
    }

    /// One step of KerasHub's rule; returns whether the search is over.
    fn step_keras_hub(&mut self, logits: &[f32], stop: Option<&dyn StoppingCriterion>) -> bool {
        let vocabulary = logits.len() / self.running.len().max(1);
        let mut next = NextBeams::new(&mut self.spare, &mut self.parents);
        for (score, index) in &self.continuations {
            let (parent, token) = (index / vocabulary, (index % vocabulary) as u32);
            if let Some(beam) = self.running.get(parent) {
                let ends = self.config.eos_token_ids.contains(&token) || beam.is_stopped_by(stop, token);
                next.push(parent, beam, (token, logits.get(*index)), *score);
                next.mark_ended(ends);
            }
        }
        if next.commit().is_none() {
            return true;
        }
        std::mem::swap(&mut self.running, &mut self.spare);
        self.running.iter().all(Beam::has_ended) || self.sequence(0).len() >= self.max_length
    }
}

impl HypothesisSearch for BeamState<'_> {
    #[cfg(test)]
    fn running(&self) -> usize {
        self.running.len()
    }

    fn sequence(&self, i: usize) -> &[u32] {
        self.running.get(i).map_or(&[], Beam::ids)
    }

    fn parents(&self) -> &[usize] {
        &self.parents
    }

    fn advance(
        &mut self,
        logits: &mut [f32],
        processors: &mut LogitsProcessors<'_>,
        stop: Option<&dyn StoppingCriterion>,
    ) -> bool {
        let vocabulary = logits.len() / self.running.len().max(1);
        if self.done || vocabulary == 0 {
            self.done = true;
            return true;
        }
        self.select(logits, vocabulary, processors);
        self.done = match self.search.rule {
            BeamRule::HuggingFace { length_penalty, early_stopping } => {
                self.step_hugging_face(logits, (length_penalty, early_stopping), stop)
            }
            BeamRule::KerasHub { .. } => self.step_keras_hub(logits, stop),
        };
        self.done
    }

    fn finalize(self: Box<Self>) -> Vec<Hypothesis> {
        let mut found = self.finished;
        if found.is_empty() {
            found.extend(self.running.into_iter().map(Beam::into_hypothesis));
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        found
    }
}

/// The score of transformers' finished hypotheses that are not filled yet.
const UNFILLED_SCORE: f32 = -1.0e9;

#[cfg(test)]
mod tests;
