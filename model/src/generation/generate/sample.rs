//! The loop of sampling and of greedy search: every sequence is extended by one token per decode step.

use super::{Generated, GenerationLoop, Progress};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::generation::sample::TokenSampler;
use crate::generation::strategy::Sampler;
use crate::session::Tokens;
use crate::weights::Random;

impl<M: Decoder + ?Sized> GenerationLoop<'_, '_, M> {
    /// Samples the sequences of every prompt.
    pub(super) fn sample(mut self, sampler: Sampler) -> Result<Vec<Vec<Generated>>> {
        let (slots_per_prompt, vocabulary) = (self.slots_per_prompt, self.step.vocabulary);
        self.prefill()?;
        let slots = 0..self.prompts.len() * slots_per_prompt;
        for slot in slots.clone().filter(|slot| slot % slots_per_prompt != 0) {
            self.step.session.copy_sequence(slot / slots_per_prompt * slots_per_prompt, slot)?;
        }
        let prompts = &self.prompts;
        let mut ids: Vec<Vec<u32>> =
            slots.clone().map(|slot| prompts[slot / slots_per_prompt].clone()).collect();
        let mut randoms: Vec<Random> =
            slots.clone().map(|slot| Random::stream(sampler.seed, slot % slots_per_prompt)).collect();
        let (mut token_sampler, mut row) = (TokenSampler::default(), vec![0.0; vocabulary]);
        // The running sequences, each with the index of its row of logits. After prefill the sequences of a prompt
        // share a row.
        let mut running: Vec<(usize, usize)> = slots.map(|slot| (slot, slot / slots_per_prompt)).collect();
        'steps: while !running.is_empty() {
            let mut next = Vec::with_capacity(running.len());
            for (slot, logits_row) in running {
                let prompt = slot / slots_per_prompt;
                row.copy_from_slice(&self.step.logits[logits_row * vocabulary..][..vocabulary]);
                self.processors[prompt].apply(&ids[slot], &mut row);
                let token = token_sampler.sample(&row, &sampler, &mut randoms[slot]);
                ids[slot].push(token);
                let progress = Progress::Token { prompt, sequence: slot % slots_per_prompt, token };
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
                self.step.append(&slots, Tokens::padded(&tokens, slots.len(), 1))?;
            }
        }
        let mut results = vec![Vec::with_capacity(slots_per_prompt); self.prompts.len()];
        for (slot, ids) in ids.into_iter().enumerate() {
            results[slot / slots_per_prompt].push(self.generated(slot / slots_per_prompt, ids, None));
        }
        Ok(results)
    }
}
