//! Beam search: the most likely sequences, several at a time.
//!
//! Two rules ([`BeamRule`]). transformers': of all continuations of all running sequences the best are looked at in
//! order. One that ends, by an end token or at the maximum length, leaves the search; if it is among the best
//! `num_beams`, it enters a pool of as many, with its score divided by a power of the number of new tokens. The best
//! that do not end run on. KerasHub's: the best continuations run on whether they have ended or not, until all have.
//!
//! Sums are f32, added in the order of the tokens. Continuations of equal score are ordered by beam, then by token,
//! and none is ever taken that has a score of minus infinity or NaN: there may be fewer running sequences than beams,
//! as there are at the start, where the prompt is the only one. The libraries start with copies of it that have a
//! score of -1e9 instead; where there are fewer sequences than beams, their results have copies and ours are fewer.

use super::processors::Processors;
use super::scores::{Best, log_softmax};
use super::strategy::{BeamRule, BeamSearch, EarlyStopping};

/// The search of one prompt.
#[derive(Debug)]
pub(crate) struct Beams {
    search: BeamSearch,
    prompt: usize,
    max_length: usize,
    eos: Vec<u32>,
    running: Vec<Beam>,
    /// The running beam that each one continues.
    parents: Vec<usize>,
    /// What has ended, best first.
    pool: Vec<Hypothesis>,
    best: Best,
    /// Beams of the step before, for their memory.
    spare: Vec<Beam>,
    done: bool,
}

/// A sequence that a search has found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hypothesis {
    /// Its tokens, the prompt's first. KerasHub's run on after an end token.
    pub(crate) ids: Vec<u32>,
    /// What sequences are compared by.
    pub(crate) score: f32,
    /// Whether there is an end token after the prompt.
    pub(crate) finished: bool,
}

#[derive(Debug, Default)]
struct Beam {
    ids: Vec<u32>,
    score: f32,
    /// Whether there is an end token after the prompt.
    ended: bool,
}

impl Beams {
    /// The search for what follows `prompt`, up to `max_length` tokens in all.
    pub(crate) fn new(search: &BeamSearch, prompt: &[u32], max_length: usize, eos: &[u32]) -> Beams {
        let start = Beam { ids: prompt.to_vec(), score: 0.0, ended: false };
        Beams {
            search: *search,
            prompt: prompt.len(),
            max_length,
            eos: eos.to_vec(),
            running: vec![start],
            parents: vec![0],
            pool: Vec::new(),
            best: Best::default(),
            spare: Vec::new(),
            done: search.num_beams == 0 || prompt.len() >= max_length,
        }
    }

    /// Number of running sequences: at least 1.
    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Running sequence `i`, empty when there is none.
    pub(crate) fn sequence(&self, i: usize) -> &[u32] {
        self.running.get(i).map_or(&[], |beam| &beam.ids)
    }

    /// For each running sequence which one before the last step it continues.
    pub(crate) fn parents(&self) -> &[usize] {
        &self.parents
    }

    /// Extends the running sequences by a token. `logits` has a row for each and becomes its processed
    /// log-probabilities. Whether the search is over: then there are no [`Beams::parents`].
    pub(crate) fn advance(&mut self, logits: &mut [f32], processors: &mut Processors<'_>) -> bool {
        let vocabulary = logits.len() / self.running.len().max(1);
        if self.done || vocabulary == 0 {
            self.done = true;
            return true;
        }
        self.best.reset(self.candidates());
        for (i, (beam, row)) in self.running.iter().zip(logits.chunks_exact_mut(vocabulary)).enumerate() {
            if let BeamRule::KerasHub { temperature } = self.search.rule {
                row.iter_mut().for_each(|x| *x /= temperature);
            }
            log_softmax(row);
            processors.apply(&beam.ids, row);
            row.iter().zip(i * vocabulary..).for_each(|(x, index)| self.best.offer(beam.score + x, index));
        }
        self.done = match self.search.rule {
            BeamRule::HuggingFace { length_penalty, early_stopping } => {
                self.step_pooled(vocabulary, length_penalty, early_stopping)
            }
            BeamRule::KerasHub { .. } => self.step_together(vocabulary),
        };
        self.done
    }

    /// What was found, best first: at most as many as there are beams, at least one. When nothing has ended, since
    /// the search was left early or no score was finite, these are the running sequences.
    pub(crate) fn finish(self) -> Vec<Hypothesis> {
        let running = self.running.into_iter();
        let mut found = self.pool;
        if found.is_empty() {
            found.extend(running.map(|Beam { ids, score, ended }| Hypothesis {
                ids,
                score,
                finished: ended,
            }));
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        found
    }

    /// How many continuations are looked at: enough that as many as there are beams do not end.
    fn candidates(&self) -> usize {
        let per_beam = match self.search.rule {
            BeamRule::HuggingFace { .. } => (1 + self.eos.len()).max(2),
            BeamRule::KerasHub { .. } => 1,
        };
        per_beam.saturating_mul(self.search.num_beams)
    }

    fn step_pooled(&mut self, vocabulary: usize, length_penalty: f32, early: EarlyStopping) -> bool {
        let most = self.search.num_beams;
        let length = self.sequence(0).len() + 1;
        // The same rounding as transformers': the power in f64, the quotient in f32.
        let normalised =
            |score: f32, length: usize| score / (length as f64).powf(f64::from(length_penalty)) as f32;
        let new = length - self.prompt;
        let mut next = Next::new(&mut self.spare, &mut self.parents);
        for (rank, (score, index)) in self.best.sorted().iter().enumerate() {
            let (parent, token) = (index / vocabulary, (index % vocabulary) as u32);
            let Some(beam) = self.running.get(parent) else { continue };
            let ends = self.eos.contains(&token);
            if !ends && length < self.max_length {
                if next.len < most {
                    next.push(parent, beam, token, *score, false);
                }
            } else if rank < most {
                let ids = beam.ids.iter().copied().chain([token]).collect();
                let found = Hypothesis { ids, score: normalised(*score, new), finished: ends };
                // After those of the same score; NaN, of a quotient of zeros, last.
                let at = self.pool.partition_point(|old| old.score >= found.score || found.score.is_nan());
                self.pool.insert(at, found);
                self.pool.truncate(most);
            }
        }
        let Some(best) = next.finish() else { return true };
        std::mem::swap(&mut self.running, &mut self.spare);
        let full = self.pool.len() >= most;
        if full && early == EarlyStopping::AtOnce {
            return true;
        }
        let hoped = match early {
            EarlyStopping::WhenImpossible if length_penalty > 0.0 => self.max_length - self.prompt,
            _ => new,
        };
        let worst = self.pool.last().map(|found| found.score).filter(|_| full).unwrap_or(EMPTY);
        // Not the same as `<=`: NaN ends the search.
        !matches!(normalised(best, hoped).partial_cmp(&worst), Some(core::cmp::Ordering::Greater))
    }

    fn step_together(&mut self, vocabulary: usize) -> bool {
        let mut next = Next::new(&mut self.spare, &mut self.parents);
        for (score, index) in self.best.sorted() {
            let (parent, token) = (index / vocabulary, (index % vocabulary) as u32);
            if let Some(beam) = self.running.get(parent) {
                next.push(parent, beam, token, *score, self.eos.contains(&token));
            }
        }
        if next.finish().is_none() {
            return true;
        }
        std::mem::swap(&mut self.running, &mut self.spare);
        self.running.iter().all(|beam| beam.ended) || self.sequence(0).len() >= self.max_length
    }
}

/// The score of an empty place in transformers' pool.
const EMPTY: f32 = -1.0e9;

/// The running beams of the next step while they are chosen, in the memory of old ones.
struct Next<'b> {
    beams: &'b mut Vec<Beam>,
    parents: &'b mut Vec<usize>,
    len: usize,
}

impl<'b> Next<'b> {
    fn new(beams: &'b mut Vec<Beam>, parents: &'b mut Vec<usize>) -> Next<'b> {
        parents.clear();
        Next { beams, parents, len: 0 }
    }

    fn push(&mut self, parent: usize, beam: &Beam, token: u32, score: f32, ends: bool) {
        if self.len == self.beams.len() {
            self.beams.push(Beam::default());
        }
        if let Some(to) = self.beams.get_mut(self.len) {
            to.ids.clone_from(&beam.ids);
            to.ids.push(token);
            (to.score, to.ended) = (score, beam.ended || ends);
            self.parents.push(parent);
            self.len += 1;
        }
    }

    /// Drops the memory that was not needed. The score of the best, if there is any.
    fn finish(self) -> Option<f32> {
        self.beams.truncate(self.len);
        self.beams.first().map(|beam| beam.score)
    }
}

#[cfg(test)]
mod tests;
