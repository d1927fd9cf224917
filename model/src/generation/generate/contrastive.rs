//! The steps of a contrastive search: every candidate is decoded in a copy of its sequence's KV slot, since the choice
//! compares the candidates' hidden states.

use core::ops::ControlFlow;

use rachis_kernels::MatRef;

use super::{Generated, GenerationLoop, Progress, Watcher};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::generation::contrastive::select_candidate;
use crate::generation::sample::TokenSampler;
use crate::generation::strategy::ContrastiveSearch;
use crate::session::Tokens;

/// The sequences of all prompts.
pub(super) struct Contrasting {
    search: ContrastiveSearch,
    token_sampler: TokenSampler,
    sequences: Vec<Sequence>,
}

/// The sequence of a prompt.
struct Sequence {
    ids: Vec<u32>,
    log_probabilities: Vec<f32>,
    /// `[ids.len(), hidden]`: the hidden states of all tokens.
    states: Vec<f32>,
    /// The logits of the next token.
    logits: Vec<f32>,
    /// Its KV slot.
    slot: usize,
    done: bool,
}

/// A candidate for the next token of a sequence.
struct Candidate {
    prompt: usize,
    /// Its row of the decode step's states and logits.
    row: usize,
    /// The KV slot in which it is decoded.
    slot: usize,
    token: u32,
    probability: f32,
}

impl<M: Decoder + ?Sized> GenerationLoop<'_, '_, M> {
    /// Decodes the prompts, one at a time, since the hidden states of all of their tokens are needed.
    pub(super) fn start_contrastive(&mut self, search: ContrastiveSearch) -> Result<Contrasting> {
        let mut sequences = Vec::new();
        for (prompt, ids) in self.prompts.iter().enumerate() {
            let slot = prompt * self.slots_per_prompt;
            let tokens = Tokens::padded(ids, 1, ids.len());
            let output = self.step.model.decode(self.step.session, &[slot], tokens)?;
            let states = output.sequence(0);
            let all: Vec<f32> = (0..states.rows()).flat_map(|i| states.row(i).iter().copied()).collect();
            let hidden = states.cols();
            let mut logits = vec![0.0; self.step.vocabulary];
            let last = MatRef::new(&all[all.len() - hidden..], 1, hidden)?;
            self.step.model.logits(self.step.session, last, &mut logits)?;
            sequences.push(Sequence {
                ids: ids.clone(),
                log_probabilities: Vec::new(),
                states: all,
                logits,
                slot,
                done: false,
            });
        }
        Ok(Contrasting { search, token_sampler: TokenSampler::default(), sequences })
    }

    /// Extends every running sequence by one token.
    pub(super) fn contrast(
        &mut self,
        contrasting: &mut Contrasting,
        watch: Watcher<'_>,
    ) -> Result<ControlFlow<()>> {
        let (slots_per_prompt, vocabulary) = (self.slots_per_prompt, self.step.vocabulary);
        let Contrasting { search, token_sampler, sequences } = contrasting;
        let mut candidates = Vec::new();
        let running = sequences.iter_mut().enumerate().filter(|(_, sequence)| !sequence.done);
        for (prompt, sequence) in running {
            self.processors[prompt].apply(&sequence.ids, &mut sequence.logits);
            let top = token_sampler.top_k(&sequence.logits, slots_per_prompt - 1, search.temperature);
            sequence.done = top.is_empty();
            let slots = prompt * slots_per_prompt..(prompt + 1) * slots_per_prompt;
            let free = slots.filter(|slot| *slot != sequence.slot);
            for (slot, (token, probability)) in free.zip(top) {
                self.step.session.copy_sequence(sequence.slot, slot)?;
                candidates.push(Candidate { prompt, row: candidates.len(), slot, token, probability });
            }
        }
        if candidates.is_empty() {
            return Ok(ControlFlow::Break(()));
        }
        let slots: Vec<usize> = candidates.iter().map(|candidate| candidate.slot).collect();
        let tokens: Vec<u32> = candidates.iter().map(|candidate| candidate.token).collect();
        self.step.append(&slots, Tokens::padded(&tokens, slots.len(), 1))?;
        let hidden = self.step.states.len() / candidates.len();
        for of_prompt in candidates.chunk_by(|a, b| a.prompt == b.prompt) {
            let (prompt, first) = (of_prompt[0].prompt, of_prompt[0].row);
            let sequence = &mut sequences[prompt];
            let probabilities: Vec<f32> = of_prompt.iter().map(|candidate| candidate.probability).collect();
            let states = &self.step.states[first * hidden..][..of_prompt.len() * hidden];
            let best = select_candidate(&probabilities, states, &sequence.states, hidden, search.alpha);
            let Candidate { slot, token, probability, .. } = of_prompt[best];
            sequence.states.extend_from_slice(&states[best * hidden..][..hidden]);
            let logits = &self.step.logits[(first + best) * vocabulary..][..vocabulary];
            sequence.logits.copy_from_slice(logits);
            sequence.ids.push(token);
            sequence.slot = slot;
            sequence.done = self.has_ended(prompt, &sequence.ids);
            if self.wants_log_probabilities() {
                sequence.log_probabilities.push(probability.ln());
            }
            if watch(Progress::Token { prompt, sequence: 0, token }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let over = sequences.iter().all(|sequence| sequence.done);
        Ok(if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    pub(super) fn contrasted(self, contrasting: Contrasting) -> Vec<Vec<Generated>> {
        let generated = contrasting.sequences.into_iter().zip(&self.prompts).map(|(sequence, prompt)| {
            vec![Generated {
                ids: sequence.ids,
                prompt_len: prompt.len(),
                score: None,
                log_probabilities: sequence.log_probabilities,
            }]
        });
        generated.collect()
    }
}
