//! The loop of a contrastive search: every candidate is decoded in a copy of its sequence's KV slot, since the choice
//! compares the candidates' hidden states.

use rachis_kernels::MatRef;

use super::{Generated, GenerationLoop, Progress};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::generation::contrastive::select_candidate;
use crate::generation::sample::TokenSampler;
use crate::generation::strategy::ContrastiveSearch;
use crate::session::Tokens;

/// The sequence of a prompt.
struct Sequence {
    ids: Vec<u32>,
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
    /// Runs a contrastive search for every prompt.
    pub(super) fn contrastive(mut self, search: ContrastiveSearch) -> Result<Vec<Vec<Generated>>> {
        let (slots_per_prompt, vocabulary) = (self.slots_per_prompt, self.step.vocabulary);
        let mut token_sampler = TokenSampler::default();
        let mut sequences = Vec::new();
        // Prefill of one prompt at a time, since the hidden states of all of its tokens are needed.
        for (prompt, ids) in self.prompts.iter().enumerate() {
            let output = self.step.model.decode(
                self.step.session,
                &[prompt * slots_per_prompt],
                Tokens::padded(ids, 1, ids.len()),
            )?;
            let states = output.sequence(0);
            let all: Vec<f32> = (0..states.rows()).flat_map(|i| states.row(i).iter().copied()).collect();
            let hidden = states.cols();
            let mut logits = vec![0.0; vocabulary];
            let last = MatRef::new(&all[all.len() - hidden..], 1, hidden)?;
            self.step.model.logits(self.step.session, last, &mut logits)?;
            let slot = prompt * slots_per_prompt;
            sequences.push(Sequence { ids: ids.clone(), states: all, logits, slot, done: false });
        }
        'steps: while sequences.iter().any(|sequence| !sequence.done) {
            let mut candidates = Vec::new();
            for (prompt, sequence) in sequences.iter_mut().enumerate().filter(|(_, sequence)| !sequence.done)
            {
                self.processors[prompt].apply(&sequence.ids, &mut sequence.logits);
                let top = token_sampler.top_k(&sequence.logits, slots_per_prompt - 1, search.temperature);
                sequence.done = top.is_empty();
                let slots = prompt * slots_per_prompt..(prompt + 1) * slots_per_prompt;
                let free = slots.filter(|slot| *slot != sequence.slot);
                for (slot, (token, probability)) in free.zip(top) {
                    self.step.session.copy_sequence(sequence.slot, slot)?;
                    candidates.push(Candidate { prompt, row: candidates.len(), slot, token, probability });
                }
                if sequence.ids.len() + 1 >= self.max_lengths[prompt] {
                    sequence.done = true;
                }
            }
            if candidates.is_empty() {
                break;
            }
            let slots: Vec<usize> = candidates.iter().map(|candidate| candidate.slot).collect();
            let tokens: Vec<u32> = candidates.iter().map(|candidate| candidate.token).collect();
            self.step.append(&slots, Tokens::padded(&tokens, slots.len(), 1))?;
            let hidden = self.step.states.len() / candidates.len();
            for of_prompt in candidates.chunk_by(|a, b| a.prompt == b.prompt) {
                let (prompt, first) = (of_prompt[0].prompt, of_prompt[0].row);
                let sequence = &mut sequences[prompt];
                let probabilities: Vec<f32> =
                    of_prompt.iter().map(|candidate| candidate.probability).collect();
                let states = &self.step.states[first * hidden..][..of_prompt.len() * hidden];
                let best = select_candidate(&probabilities, states, &sequence.states, hidden, search.alpha);
                let Candidate { slot, token, .. } = of_prompt[best];
                sequence.states.extend_from_slice(&states[best * hidden..][..hidden]);
                let logits = &self.step.logits[(first + best) * vocabulary..][..vocabulary];
                sequence.logits.copy_from_slice(logits);
                sequence.ids.push(token);
                sequence.slot = slot;
                sequence.done |= self.config.eos_token_ids.contains(&token);
                if (self.watch)(Progress::Token { prompt, sequence: 0, token }).is_break() {
                    break 'steps;
                }
            }
        }
        Ok(sequences
            .into_iter()
            .enumerate()
            .map(|(prompt, sequence)| vec![self.generated(prompt, sequence.ids, None)])
            .collect())
    }
}
