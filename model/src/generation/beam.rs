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
//! KerasHub's: the best `num_beams` continuations are the next running beams whether they have ended or not, until
//! all of them have.
//!
//! # Numerics
//! Sums are f32, added in the order of the tokens. Continuations of equal score are ordered by beam, then by token. A
//! continuation of score minus infinity or NaN is never taken, so there may be fewer running hypotheses than beams: at
//! the start the prompt is the only one. The libraries start with `num_beams` copies of the prompt instead, all but one
//! of which have the score -1e9; where there are fewer hypotheses than beams, their results contain copies and ours are
//! fewer.

use super::processors::LogitsProcessors;
use super::scores::{TopKSelector, log_softmax};
use super::strategy::{BeamRule, BeamSearch, EarlyStopping};

/// The state of the beam search of one prompt.
#[derive(Debug)]
pub(crate) struct BeamState {
    search: BeamSearch,
    prompt_len: usize,
    max_length: usize,
    eos_token_ids: Vec<u32>,
    /// The running hypotheses, best first.
    running: Vec<Beam>,
    /// For each running beam the index of the beam of the previous step that it continues.
    parents: Vec<usize>,
    /// The finished hypotheses, best first.
    finished: Vec<Hypothesis>,
    selector: TopKSelector,
    /// Beams of the previous step, whose allocations the next step reuses.
    spare: Vec<Beam>,
    done: bool,
}

/// A hypothesis that a search returns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hypothesis {
    /// Its tokens, the prompt's first. Under KerasHub's rule tokens may follow the end token.
    pub(crate) ids: Vec<u32>,
    /// The score that hypotheses are ordered by.
    pub(crate) score: f32,
    /// Whether there is an end token after the prompt.
    pub(crate) has_eos: bool,
}

/// A running hypothesis.
#[derive(Debug, Default)]
struct Beam {
    ids: Vec<u32>,
    /// Sum of the log-probabilities of the new tokens.
    score: f32,
    /// Whether there is an end token after the prompt.
    has_eos: bool,
}

impl BeamState {
    /// The search for continuations of `prompt`, up to `max_length` tokens including the prompt.
    pub(crate) fn new(search: &BeamSearch, prompt: &[u32], max_length: usize, eos: &[u32]) -> BeamState {
        let start = Beam { ids: prompt.to_vec(), score: 0.0, has_eos: false };
        BeamState {
            search: *search,
            prompt_len: prompt.len(),
            max_length,
            eos_token_ids: eos.to_vec(),
            running: vec![start],
            parents: vec![0],
            finished: Vec::new(),
            selector: TopKSelector::default(),
            spare: Vec::new(),
            done: search.num_beams == 0 || prompt.len() >= max_length,
        }
    }

    /// Number of running beams: at least 1.
    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// The tokens of running beam `i`; empty when there is no such beam.
    pub(crate) fn sequence(&self, i: usize) -> &[u32] {
        self.running.get(i).map_or(&[], |beam| &beam.ids)
    }

    /// For each running beam the index of the beam of the previous step that it continues.
    pub(crate) fn parents(&self) -> &[usize] {
        &self.parents
    }

    /// Extends the running beams by one token and returns whether the search is over, in which case
    /// [`BeamState::parents`] is meaningless. `logits` is `[running beams, vocabulary]` and is overwritten by the
    /// processed log-probabilities.
    pub(crate) fn advance(&mut self, logits: &mut [f32], processors: &mut LogitsProcessors<'_>) -> bool {
        let vocabulary = logits.len() / self.running.len().max(1);
        if self.done || vocabulary == 0 {
            self.done = true;
            return true;
        }
        self.selector.reset(self.num_candidates());
        for (i, (beam, row)) in self.running.iter().zip(logits.chunks_exact_mut(vocabulary)).enumerate() {
            if let BeamRule::KerasHub { temperature } = self.search.rule {
                row.iter_mut().for_each(|x| *x /= temperature);
            }
            log_softmax(row);
            processors.apply(&beam.ids, row);
            row.iter()
                .zip(i * vocabulary..)
                .for_each(|(x, index)| self.selector.offer(beam.score + x, index));
        }
        self.done = match self.search.rule {
            BeamRule::HuggingFace { length_penalty, early_stopping } => {
                self.step_hugging_face(vocabulary, length_penalty, early_stopping)
            }
            BeamRule::KerasHub { .. } => self.step_keras_hub(vocabulary),
        };
        self.done
    }

    /// The hypotheses found, best first: at least one, at most `num_beams`. When none has finished, because the caller
    /// stopped early or no score was finite, the running ones.
    pub(crate) fn finalize(self) -> Vec<Hypothesis> {
        let running = self.running.into_iter();
        let mut found = self.finished;
        if found.is_empty() {
            found.extend(running.map(|Beam { ids, score, has_eos }| Hypothesis { ids, score, has_eos }));
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        found
    }

    /// Number of continuations to select: so many that at least `num_beams` of them do not end, since each beam has one
    /// continuation per end token that does.
    fn num_candidates(&self) -> usize {
        let per_beam = match self.search.rule {
            BeamRule::HuggingFace { .. } => (1 + self.eos_token_ids.len()).max(2),
            BeamRule::KerasHub { .. } => 1,
        };
        per_beam.saturating_mul(self.search.num_beams)
    }

    /// One step of transformers' rule; returns whether the search is over.
    fn step_hugging_face(&mut self, vocabulary: usize, length_penalty: f32, early: EarlyStopping) -> bool {
        let num_beams = self.search.num_beams;
        let length = self.sequence(0).len() + 1;
        // The rounding of transformers: the power in f64, the quotient in f32.
        let penalised = |score: f32, new_tokens: usize| {
            score / (new_tokens as f64).powf(f64::from(length_penalty)) as f32
        };
        let new_tokens = length - self.prompt_len;
        let mut next = NextBeams::new(&mut self.spare, &mut self.parents);
        for (rank, (score, index)) in self.selector.sorted().iter().enumerate() {
            let (parent, token) = (index / vocabulary, (index % vocabulary) as u32);
            let Some(beam) = self.running.get(parent) else { continue };
            let is_eos = self.eos_token_ids.contains(&token);
            if !is_eos && length < self.max_length {
                if next.len < num_beams {
                    next.push(parent, beam, token, *score, false);
                }
            } else if rank < num_beams {
                let ids = beam.ids.iter().copied().chain([token]).collect();
                let found = Hypothesis { ids, score: penalised(*score, new_tokens), has_eos: is_eos };
                // Behind finished hypotheses of equal score; NaN, from 0 / 0, goes last.
                let at =
                    self.finished.partition_point(|old| old.score >= found.score || found.score.is_nan());
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
    fn step_keras_hub(&mut self, vocabulary: usize) -> bool {
        let mut next = NextBeams::new(&mut self.spare, &mut self.parents);
        for (score, index) in self.selector.sorted() {
            let (parent, token) = (index / vocabulary, (index % vocabulary) as u32);
            if let Some(beam) = self.running.get(parent) {
                next.push(parent, beam, token, *score, self.eos_token_ids.contains(&token));
            }
        }
        if next.commit().is_none() {
            return true;
        }
        std::mem::swap(&mut self.running, &mut self.spare);
        self.running.iter().all(|beam| beam.has_eos) || self.sequence(0).len() >= self.max_length
    }
}

/// The score of transformers' finished hypotheses that are not filled yet.
const UNFILLED_SCORE: f32 = -1.0e9;

/// The running beams of the next step while they are collected, in the allocations of old ones.
struct NextBeams<'b> {
    beams: &'b mut Vec<Beam>,
    parents: &'b mut Vec<usize>,
    len: usize,
}

impl<'b> NextBeams<'b> {
    fn new(beams: &'b mut Vec<Beam>, parents: &'b mut Vec<usize>) -> NextBeams<'b> {
        parents.clear();
        NextBeams { beams, parents, len: 0 }
    }

    fn push(&mut self, parent: usize, beam: &Beam, token: u32, score: f32, is_eos: bool) {
        if self.len == self.beams.len() {
            self.beams.push(Beam::default());
        }
        if let Some(to) = self.beams.get_mut(self.len) {
            to.ids.clone_from(&beam.ids);
            to.ids.push(token);
            (to.score, to.has_eos) = (score, beam.has_eos || is_eos);
            self.parents.push(parent);
            self.len += 1;
        }
    }

    /// Drops old beams that were not overwritten, and returns the score of the best new one, if there is any.
    fn commit(self) -> Option<f32> {
        self.beams.truncate(self.len);
        self.beams.first().map(|beam| beam.score)
    }
}

#[cfg(test)]
mod tests;
