//! The loop of a beam search: [`BeamState`] selects hypotheses, this loop decodes them and moves their KV slots.

use super::{Generated, GenerationLoop, Progress};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::generation::beam::BeamState;
use crate::generation::strategy::{BeamRule, BeamSearch};
use crate::session::Tokens;

impl<M: Decoder + ?Sized> GenerationLoop<'_, '_, M> {
    /// Runs a beam search for every prompt.
    pub(super) fn beam(mut self, search: BeamSearch) -> Result<Vec<Vec<Generated>>> {
        let (slots_per_prompt, vocabulary) = (self.slots_per_prompt, self.step.vocabulary);
        self.prefill()?;
        let eos = &self.config.eos_token_ids;
        let mut beams: Vec<BeamState> = (self.prompts.iter().zip(&self.max_lengths))
            .map(|(prompt, max_length)| BeamState::new(&search, prompt, *max_length, eos))
            .collect();
        // The KV slots of each prompt's running beams; empty once its search is over.
        let mut slots: Vec<Vec<usize>> =
            (0..beams.len()).map(|prompt| vec![prompt * slots_per_prompt]).collect();
        loop {
            let mut from = 0;
            for (prompt, (beams, slots)) in beams.iter_mut().zip(&mut slots).enumerate() {
                if slots.is_empty() {
                    continue;
                }
                let len = slots.len() * vocabulary;
                let logits = &mut self.step.logits[from..from + len];
                from += len;
                if beams.advance(logits, &mut self.processors[prompt]) {
                    slots.clear();
                } else {
                    let all = prompt * slots_per_prompt..(prompt + 1) * slots_per_prompt;
                    *slots = self.step.reorder_cache(all, slots, beams.parents())?;
                }
            }
            let running: Vec<usize> = slots.concat();
            if running.is_empty() || (self.watch)(Progress::Step).is_break() {
                break;
            }
            let tokens: Vec<u32> = (beams.iter().zip(&slots))
                .flat_map(|(beams, slots)| (0..slots.len()).filter_map(|i| beams.sequence(i).last().copied()))
                .collect();
            self.step.append(&running, Tokens::padded(&tokens, running.len(), 1))?;
        }
        let mut results = Vec::with_capacity(beams.len());
        for (prompt, beams) in beams.into_iter().enumerate() {
            let found = beams.finalize().into_iter().take(self.config.num_return_sequences);
            let found = found.map(|found| {
                let mut ids = found.ids;
                if let BeamRule::KerasHub { .. } = search.rule {
                    self.truncate_at_eos(prompt, &mut ids);
                }
                self.generated(prompt, ids, Some(found.score))
            });
            results.push(found.collect::<Vec<_>>());
        }
        for (prompt, found) in results.iter().enumerate() {
            for (sequence, found) in found.iter().enumerate() {
                for token in found.new_ids() {
                    if (self.watch)(Progress::Token { prompt, sequence, token: *token }).is_break() {
                        return Ok(results);
                    }
                }
            }
        }
        Ok(results)
    }

    /// Drops the tokens after the first end token that follows the prompt.
    fn truncate_at_eos(&self, prompt: usize, ids: &mut Vec<u32>) {
        let start = self.prompts[prompt].len();
        let end = ids.iter().skip(start).position(|id| self.config.eos_token_ids.contains(id));
        if let Some(end) = end {
            ids.truncate(start + end + 1);
        }
    }
}
