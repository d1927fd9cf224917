//! The steps of sampling and of greedy search: every running sequence is extended by one token.

use core::ops::ControlFlow;

use super::{Generated, GenerationLoop, Progress, Watcher};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::generation::sample::TokenSampler;
use crate::generation::scores::log_softmax_at;
use crate::generation::strategy::Sampler;
use crate::session::Tokens;
use crate::weights::Random;

/// The sequences of all prompts, by their KV slots.
pub(super) struct Sampling {
    sampler: Sampler,
    token_sampler: TokenSampler,
    sequences: Vec<Sequence>,
    /// The running sequences, each with the index of its row of logits. After prefill the sequences of a prompt share a
    /// row.
    running: Vec<(usize, usize)>,
    /// Scratch: the processed logits of a sequence.
    row: Vec<f32>,
}

struct Sequence {
    ids: Vec<u32>,
    log_probabilities: Vec<f32>,
    random: Random,
}

impl<M: Decoder + ?Sized> GenerationLoop<'_, '_, M> {
    /// Decodes the prompts, and copies them to the slots of all sequences.
    pub(super) fn start_sampling(&mut self, sampler: Sampler) -> Result<Sampling> {
        let slots_per_prompt = self.slots_per_prompt;
        self.prefill()?;
        let slots = 0..self.prompts.len() * slots_per_prompt;
        for slot in slots.clone().filter(|slot| slot % slots_per_prompt != 0) {
            self.step.session.copy_sequence(slot / slots_per_prompt * slots_per_prompt, slot)?;
        }
        let sequence = |slot: usize| Sequence {
            ids: self.prompts[slot / slots_per_prompt].clone(),
            log_probabilities: Vec::new(),
            random: Random::stream(sampler.seed, slot % slots_per_prompt),
        };
        Ok(Sampling {
            sampler,
            token_sampler: TokenSampler::default(),
            sequences: slots.clone().map(sequence).collect(),
            running: slots.map(|slot| (slot, slot / slots_per_prompt)).collect(),
            row: vec![0.0; self.step.vocabulary],
        })
    }

    /// Chooses a token for every running sequence, and decodes those of the sequences that go on.
    pub(super) fn sample(&mut self, sampling: &mut Sampling, watch: Watcher<'_>) -> Result<ControlFlow<()>> {
        let vocabulary = self.step.vocabulary;
        let mut next = Vec::with_capacity(sampling.running.len());
        for (slot, logits_row) in std::mem::take(&mut sampling.running) {
            let prompt = slot / self.slots_per_prompt;
            let row = &mut sampling.row;
            row.copy_from_slice(&self.step.logits[logits_row * vocabulary..][..vocabulary]);
            let sequence = &mut sampling.sequences[slot];
            self.processors[prompt].apply(&sequence.ids, row);
            let chosen = sampling.token_sampler.sample(row, &sampling.sampler, &mut sequence.random);
            let token = chosen.token;
            sequence.ids.push(token);
            if self.wants_log_probabilities() {
                let of_argmax = || log_softmax_at(row, token as usize);
                sequence.log_probabilities.push(chosen.probability.map_or_else(of_argmax, |p| p.ln() as f32));
            }
            if !self.has_ended(prompt, &sequence.ids) {
                next.push((slot, next.len()));
            }
            let progress = Progress::Token { prompt, sequence: slot % self.slots_per_prompt, token };
            if watch(progress).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if next.is_empty() {
            return Ok(ControlFlow::Break(()));
        }
        let slots: Vec<usize> = next.iter().map(|(slot, _)| *slot).collect();
        let last = |slot: &usize| sampling.sequences[*slot].ids.last().copied();
        let tokens: Vec<u32> = slots.iter().filter_map(last).collect();
        self.step.append(&slots, Tokens::padded(&tokens, slots.len(), 1))?;
        sampling.running = next;
        Ok(ControlFlow::Continue(()))
    }

    pub(super) fn sampled(self, sampling: Sampling) -> Vec<Vec<Generated>> {
        let mut results = vec![Vec::with_capacity(self.slots_per_prompt); self.prompts.len()];
        for (slot, sequence) in sampling.sequences.into_iter().enumerate() {
            let prompt = slot / self.slots_per_prompt;
            results[prompt].push(Generated {
                ids: sequence.ids,
                prompt_len: self.prompts[prompt].len(),
                score: None,
                log_probabilities: sequence.log_probabilities,
            });
        }
        results
    }
}
