//! Contrastive search: of the likeliest tokens the one whose state is least like those before.

use rachis_kernels::MatRef;

use super::{Generated, Generation, Progress};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::generation::contrastive::contrast;
use crate::generation::sample::Picker;
use crate::generation::strategy::Contrastive;
use crate::session::Tokens;

/// The sequence of a prompt.
struct Row {
    ids: Vec<u32>,
    /// Of every token.
    states: Vec<f32>,
    /// Of the next token.
    logits: Vec<f32>,
    slot: usize,
    done: bool,
}

/// A token that may come next in the sequence of a prompt.
struct Trial {
    prompt: usize,
    /// Its row of states and logits.
    row: usize,
    slot: usize,
    token: u32,
    probability: f32,
}

impl<M: Decoder + ?Sized> Generation<'_, '_, M> {
    /// Of the likeliest tokens the one whose state is least like those before.
    pub(super) fn contrastive(mut self, search: Contrastive) -> Result<Vec<Vec<Generated>>> {
        let (width, vocabulary) = (self.width, self.decoding.vocabulary);
        let mut picker = Picker::default();
        let mut rows = Vec::new();
        // Prompts one by one, since all of their states count.
        for (prompt, ids) in self.prompts.iter().enumerate() {
            let output = self.decoding.model.decode(
                self.decoding.session,
                &[prompt * width],
                Tokens::padded(ids, 1, ids.len()),
            )?;
            let states = output.sequence(0);
            let all: Vec<f32> = (0..states.rows()).flat_map(|i| states.row(i).iter().copied()).collect();
            let hidden = states.cols();
            let mut logits = vec![0.0; vocabulary];
            let last = MatRef::new(&all[all.len() - hidden..], 1, hidden)?;
            self.decoding.model.logits(self.decoding.session, last, &mut logits)?;
            rows.push(Row { ids: ids.clone(), states: all, logits, slot: prompt * width, done: false });
        }
        'steps: while rows.iter().any(|row| !row.done) {
            let mut trials = Vec::new();
            for (prompt, row) in rows.iter_mut().enumerate().filter(|(_, row)| !row.done) {
                self.processors[prompt].apply(&row.ids, &mut row.logits);
                let candidates = picker.candidates(&row.logits, width - 1, search.temperature);
                row.done = candidates.is_empty();
                let free = (prompt * width..(prompt + 1) * width).filter(|slot| *slot != row.slot);
                for (slot, (token, probability)) in free.zip(candidates) {
                    self.decoding.session.copy_sequence(row.slot, slot)?;
                    trials.push(Trial { prompt, row: trials.len(), slot, token, probability });
                }
                if row.ids.len() + 1 >= self.limits[prompt] {
                    row.done = true;
                }
            }
            if trials.is_empty() {
                break;
            }
            let slots: Vec<usize> = trials.iter().map(|trial| trial.slot).collect();
            let tokens: Vec<u32> = trials.iter().map(|trial| trial.token).collect();
            self.decoding.append(&slots, Tokens::padded(&tokens, slots.len(), 1))?;
            let hidden = self.decoding.states.len() / trials.len();
            for of_prompt in trials.chunk_by(|a, b| a.prompt == b.prompt) {
                let (prompt, first) = (of_prompt[0].prompt, of_prompt[0].row);
                let row = &mut rows[prompt];
                let probabilities: Vec<f32> = of_prompt.iter().map(|trial| trial.probability).collect();
                let states = &self.decoding.states[first * hidden..][..of_prompt.len() * hidden];
                let best = contrast(&probabilities, states, &row.states, hidden, search.alpha);
                let Trial { slot, token, .. } = of_prompt[best];
                row.states.extend_from_slice(&states[best * hidden..][..hidden]);
                let logits = &self.decoding.logits[(first + best) * vocabulary..][..vocabulary];
                row.logits.copy_from_slice(logits);
                row.ids.push(token);
                row.slot = slot;
                row.done |= self.config.eos_token_ids.contains(&token);
                if (self.watch)(Progress::Token { prompt, sequence: 0, token }).is_break() {
                    break 'steps;
                }
            }
        }
        Ok(rows
            .into_iter()
            .enumerate()
            .map(|(prompt, row)| vec![self.result(prompt, row.ids, None)])
            .collect())
    }
}
