//! One token after the other, each sequence for itself.

use super::{Generated, Generation, Progress};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::generation::sample::Picker;
use crate::generation::strategy::Sampler;
use crate::session::Tokens;
use crate::weights::Random;

impl<M: Decoder + ?Sized> Generation<'_, '_, M> {
    /// One token after the other, each sequence for itself.
    pub(super) fn sample(mut self, sampler: Sampler) -> Result<Vec<Vec<Generated>>> {
        let (width, vocabulary) = (self.width, self.decoding.vocabulary);
        self.prefill()?;
        let slots = 0..self.prompts.len() * width;
        for slot in slots.clone().filter(|slot| slot % width != 0) {
            self.decoding.session.copy_sequence(slot / width * width, slot)?;
        }
        let prompts = &self.prompts;
        let mut ids: Vec<Vec<u32>> = slots.clone().map(|slot| prompts[slot / width].clone()).collect();
        let mut randoms: Vec<Random> =
            slots.clone().map(|slot| Random::stream(sampler.seed, slot % width)).collect();
        let (mut picker, mut row) = (Picker::default(), vec![0.0; vocabulary]);
        // Running sequences with the row of their logits.
        let mut running: Vec<(usize, usize)> = slots.map(|slot| (slot, slot / width)).collect();
        'steps: while !running.is_empty() {
            let mut next = Vec::with_capacity(running.len());
            for (slot, of) in running {
                let prompt = slot / width;
                row.copy_from_slice(&self.decoding.logits[of * vocabulary..][..vocabulary]);
                self.processors[prompt].apply(&ids[slot], &mut row);
                let token = picker.pick(&row, &sampler, &mut randoms[slot]);
                ids[slot].push(token);
                let progress = Progress::Token { prompt, sequence: slot % width, token };
                if (self.watch)(progress).is_break() {
                    break 'steps;
                }
                if !self.is_last(prompt, ids[slot].len(), token) {
                    next.push((slot, next.len()));
                }
            }
            running = next;
            if !running.is_empty() {
                let slots: Vec<usize> = running.iter().map(|(slot, _)| *slot).collect();
                let tokens: Vec<u32> = slots.iter().filter_map(|slot| ids[*slot].last().copied()).collect();
                self.decoding.append(&slots, Tokens::padded(&tokens, slots.len(), 1))?;
            }
        }
        let mut results = vec![Vec::with_capacity(width); self.prompts.len()];
        for (slot, ids) in ids.into_iter().enumerate() {
            results[slot / width].push(self.result(slot / width, ids, None));
        }
        Ok(results)
    }
}
