//! Beam search: the likeliest sequences, several at a time.

use super::{Generated, Generation, Progress};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::generation::beam::Beams;
use crate::generation::strategy::{BeamRule, BeamSearch};
use crate::session::Tokens;

impl<M: Decoder + ?Sized> Generation<'_, '_, M> {
    /// The likeliest sequences, several at a time.
    pub(super) fn beam(mut self, search: BeamSearch) -> Result<Vec<Vec<Generated>>> {
        let (width, vocabulary) = (self.width, self.decoding.vocabulary);
        self.prefill()?;
        let eos = &self.config.eos_token_ids;
        let mut beams: Vec<Beams> = (self.prompts.iter().zip(&self.limits))
            .map(|(prompt, limit)| Beams::new(&search, prompt, *limit, eos))
            .collect();
        // The slots of a prompt's running beams; of one that is done, none.
        let mut slots: Vec<Vec<usize>> = (0..beams.len()).map(|prompt| vec![prompt * width]).collect();
        loop {
            let mut from = 0;
            for (prompt, (beams, slots)) in beams.iter_mut().zip(&mut slots).enumerate() {
                if slots.is_empty() {
                    continue;
                }
                let len = slots.len() * vocabulary;
                let logits = &mut self.decoding.logits[from..from + len];
                from += len;
                if beams.advance(logits, &mut self.processors[prompt]) {
                    slots.clear();
                } else {
                    let all = prompt * width..(prompt + 1) * width;
                    *slots = self.decoding.follow(all, slots, beams.parents())?;
                }
            }
            let running: Vec<usize> = slots.concat();
            if running.is_empty() || (self.watch)(Progress::Step).is_break() {
                break;
            }
            let tokens: Vec<u32> = (beams.iter().zip(&slots))
                .flat_map(|(beams, slots)| (0..slots.len()).filter_map(|i| beams.sequence(i).last().copied()))
                .collect();
            self.decoding.append(&running, Tokens::padded(&tokens, running.len(), 1))?;
        }
        let mut results = Vec::with_capacity(beams.len());
        for (prompt, beams) in beams.into_iter().enumerate() {
            let found = beams.finish().into_iter().take(self.config.num_return_sequences);
            let found = found.map(|found| {
                let mut ids = found.ids;
                if let BeamRule::KerasHub { .. } = search.rule {
                    self.cut(prompt, &mut ids);
                }
                self.result(prompt, ids, Some(found.score))
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

    /// Drops what follows the first end token after the prompt.
    fn cut(&self, prompt: usize, ids: &mut Vec<u32>) {
        let start = self.prompts[prompt].len();
        let end = ids.iter().skip(start).position(|id| self.config.eos_token_ids.contains(id));
        if let Some(end) = end {
            ids.truncate(start + end + 1);
        }
    }
}
