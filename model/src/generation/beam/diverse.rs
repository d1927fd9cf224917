//! Diverse beam search (Vijayakumar et al., 2018), by the rules of transformers 4.44, the last version that has it.
//!
//! The beams are divided into groups of equal size, each of which is a beam search. In every step the groups choose their
//! continuations one after the other, and the score of a token is lowered for each beam of an earlier group that has
//! chosen it in this step. The beams of a group that is done count as if they chose padding.
//!
//! A group differs from a beam search of transformers 5: it is done when the best continuation of a step, ended or not,
//! is not better than the worst finished hypothesis; and at the maximum length its running hypotheses compete with the
//! finished ones. A hypothesis that ends by any of several end tokens ends with the first of them.

use super::hypothesis::{Beam, Hypothesis, NextBeams};
use super::{BeamRule, BeamSearch, EarlyStopping, HypothesisSearch};
use crate::generation::config::{GenerationConfig, LogProbabilities};
use crate::generation::processors::LogitsProcessors;
use crate::generation::scores::{TopKSelector, log_softmax};
use crate::generation::stop::StoppingCriterion;

/// The state of the diverse beam search of one prompt.
#[derive(Debug)]
pub(super) struct DiverseState<'c> {
    config: &'c GenerationConfig,
    prompt_len: usize,
    max_length: usize,
    /// Number of beams of a group.
    group_size: usize,
    penalty: f32,
    length_penalty: f32,
    early_stopping: EarlyStopping,
    groups: Vec<Group>,
    /// For each running beam the row of the logits that it continues. The running beams are those of the groups that are
    /// not done, one after the other; at the start all groups have the prompt as their only one, and share its row.
    parents: Vec<usize>,
    selector: TopKSelector,
    /// Scratch: the scores of a group.
    scores: Vec<f32>,
}

/// The beam search of a group.
#[derive(Debug)]
struct Group {
    running: Vec<Beam>,
    /// The first of the rows of logits of its running beams.
    first_row: usize,
    /// In the order in which they were found.
    finished: Vec<Hypothesis>,
    done: bool,
}

impl<'c> DiverseState<'c> {
    pub(super) fn new(
        search: &BeamSearch,
        (groups, penalty): (usize, f32),
        prompt: &[u32],
        max_length: usize,
        config: &'c GenerationConfig,
    ) -> DiverseState<'c> {
        let (length_penalty, early_stopping) = match search.rule {
            BeamRule::HuggingFace { length_penalty, early_stopping } => (length_penalty, early_stopping),
            BeamRule::KerasHub { .. } => (0.0, EarlyStopping::False),
        };
        let done = prompt.len() >= max_length;
        let group = |_| Group { running: vec![Beam::of(prompt)], first_row: 0, finished: Vec::new(), done };
        DiverseState {
            config,
            prompt_len: prompt.len(),
            max_length,
            group_size: search.num_beams / groups.max(1),
            penalty,
            length_penalty,
            early_stopping,
            groups: (0..groups).map(group).collect(),
            parents: vec![0],
            selector: TopKSelector::default(),
            scores: Vec::new(),
        }
    }

    /// The score of a hypothesis with this sum of log-probabilities.
    fn penalised(&self, sum: f32, new_tokens: usize) -> f32 {
        (f64::from(sum) / (new_tokens as f64).powf(f64::from(self.length_penalty))) as f32
    }

    /// Extends the beams of group `i` by one token. `chosen` has the tokens of the earlier groups in this step.
    fn step(
        &mut self,
        i: usize,
        logits: &[f32],
        vocabulary: usize,
        (chosen, processors): (&[u32], &mut LogitsProcessors<'_>),
        stop: Option<&dyn StoppingCriterion>,
    ) {
        let Some(mut group) = self.groups.get_mut(i).map(std::mem::take) else { return };
        let rows = group.first_row * vocabulary..(group.first_row + group.running.len()) * vocabulary;
        self.scores.clear();
        self.scores.extend_from_slice(logits.get(rows).unwrap_or_default());
        let eos = &self.config.eos_token_ids;
        self.selector.reset((1 + eos.len()).max(2).saturating_mul(self.group_size));
        let rows = group.running.iter_mut().zip(self.scores.chunks_exact_mut(vocabulary)).zip(0..);
        for ((beam, row), i) in rows {
            log_softmax(row);
            processors.apply_with(beam.ids(), row, |row| penalise(chosen, self.penalty, row));
            if self.config.renormalize_logits {
                log_softmax(row);
            }
            if self.config.log_probabilities == LogProbabilities::Chosen {
                beam.normalise(row);
            }
            let score = beam.score();
            row.iter().zip(i * vocabulary..).for_each(|(x, at)| self.selector.offer(score + x, at));
        }
        let length = group.running.first().map_or(0, |beam| beam.ids().len()) + 1;
        let new_tokens = length.saturating_sub(self.prompt_len);
        let continuations = self.selector.sorted().to_vec();
        let (mut beams, mut parents) = (Vec::new(), Vec::new());
        let mut next = NextBeams::new(&mut beams, &mut parents);
        for (rank, (score, at)) in continuations.iter().enumerate() {
            let (parent, token) = (at / vocabulary, (at % vocabulary) as u32);
            let Some(beam) = group.running.get(parent) else { continue };
            let is_eos = eos.contains(&token);
            if !is_eos && !beam.is_stopped_by(stop, token) {
                if next.len() < self.group_size {
                    next.push(parent, beam, (token, self.scores.get(*at)), *score);
                }
            } else if rank < self.group_size {
                // transformers writes the first end token, whichever it was.
                let end = if is_eos { eos.first().copied().unwrap_or(token) } else { token };
                let found = beam.finished((end, self.scores.get(*at)), self.penalised(*score, new_tokens));
                group.add(found, self.group_size);
            }
        }
        let best = continuations.first().map_or(f32::NEG_INFINITY, |(score, _)| *score);
        if next.commit().is_none() {
            group.done = true;
        } else {
            group.running = beams;
            group.done = self.is_done(&group, best, new_tokens);
        }
        self.parents.extend(parents.iter().map(|parent| group.first_row + parent));
        if let Some(to) = self.groups.get_mut(i) {
            *to = group;
        }
    }

    /// Whether no running hypothesis of a group can become better than its finished ones.
    fn is_done(&self, group: &Group, best: f32, new_tokens: usize) -> bool {
        if group.finished.len() < self.group_size {
            return false;
        }
        let tokens = match self.early_stopping {
            EarlyStopping::True => return true,
            EarlyStopping::Never if self.length_penalty > 0.0 => self.max_length - self.prompt_len,
            EarlyStopping::Never | EarlyStopping::False => new_tokens,
        };
        let attainable = self.penalised(best, tokens);
        !group.finished.iter().any(|found| found.score < attainable)
    }
}

impl Group {
    /// Adds a finished hypothesis, in place of the worst one where there are enough.
    fn add(&mut self, found: Hypothesis, most: usize) {
        let worst = (0..).zip(&self.finished).min_by(|(_, a), (_, b)| a.score.total_cmp(&b.score));
        let worst = worst.map(|(i, worst): (usize, _)| (i, worst.score));
        match worst {
            Some((i, score)) if self.finished.len() >= most => {
                if found.score > score {
                    self.finished.remove(i);
                    self.finished.push(found);
                }
            }
            _ => self.finished.push(found),
        }
    }
}

impl Default for Group {
    fn default() -> Group {
        Group { running: Vec::new(), first_row: 0, finished: Vec::new(), done: true }
    }
}

/// Lowers the score of each token by `penalty` times how often it was chosen.
fn penalise(chosen: &[u32], penalty: f32, scores: &mut [f32]) {
    for (i, token) in chosen.iter().enumerate() {
        let again = chosen.iter().take(i).any(|earlier| earlier == token);
        let count = chosen.iter().filter(|other| *other == token).count();
        if let Some(score) = scores.get_mut(*token as usize)
            && !again
        {
            *score -= penalty * count as f32;
        }
    }
}

impl HypothesisSearch for DiverseState<'_> {
    #[cfg(test)]
    fn running(&self) -> usize {
        self.parents.len()
    }

    fn sequence(&self, i: usize) -> &[u32] {
        let running = self.groups.iter().filter(|group| !group.done).flat_map(|group| &group.running);
        running.map(Beam::ids).nth(i).unwrap_or_default()
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
        let vocabulary = logits.len() / self.parents.len().max(1);
        let padding = self.config.pad_token_id.or(self.config.eos_token_ids.first().copied());
        let mut chosen = Vec::new();
        self.parents.clear();
        for i in 0..self.groups.len() {
            let running = self.groups.get(i).is_some_and(|group| !group.done);
            if running && vocabulary > 0 {
                let kept = self.parents.len();
                self.step(i, logits, vocabulary, (&chosen, processors), stop);
                let Some(group) = self.groups.get_mut(i) else { continue };
                chosen.extend(group.running.iter().filter_map(|beam| beam.ids().last().copied()));
                if group.done {
                    self.parents.truncate(kept);
                } else {
                    group.first_row = kept;
                }
            } else {
                chosen.extend(padding.iter().cycle().take(self.group_size));
            }
        }
        self.parents.is_empty() || self.sequence(0).len() >= self.max_length
    }

    fn finalize(mut self: Box<Self>) -> Vec<Hypothesis> {
        let mut found = Vec::new();
        for mut group in std::mem::take(&mut self.groups) {
            if !group.done || group.finished.is_empty() {
                for beam in std::mem::take(&mut group.running) {
                    let mut open = beam.into_hypothesis();
                    let new_tokens = open.ids.len().saturating_sub(self.prompt_len);
                    open.score = if new_tokens > 0 { self.penalised(open.score, new_tokens) } else { 0.0 };
                    group.add(open, self.group_size);
                }
            }
            found.append(&mut group.finished);
        }
        // Of equal scores the one that was found last goes first, as in transformers.
        found.reverse();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found
    }
}
