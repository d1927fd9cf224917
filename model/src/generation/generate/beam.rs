//! The steps of a beam search: [`HypothesisSearch`] selects hypotheses, these steps decode them and move their KV slots.

use core::ops::ControlFlow;

use super::{Generated, GenerationLoop, Progress, Watcher};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::generation::beam::{self, Hypothesis, HypothesisSearch};
use crate::generation::strategy::BeamSearch;
use crate::session::Tokens;

/// The searches of all prompts.
pub(super) struct Searches<'g> {
    searches: Vec<Search<'g>>,
}

/// The search of a prompt.
struct Search<'g> {
    /// `None` once it is over.
    running: Option<Box<dyn HypothesisSearch + 'g>>,
    /// The KV slots of its running beams.
    slots: Vec<usize>,
    /// What it has found, once it is over.
    found: Vec<Hypothesis>,
}

impl<'g, M: Decoder + ?Sized> GenerationLoop<'g, '_, M> {
    /// Decodes the prompts.
    pub(super) fn start_beams(&mut self, search: &BeamSearch) -> Result<Searches<'g>> {
        self.prefill()?;
        let searches = self.prompts.iter().zip(&self.max_lengths).enumerate();
        let searches = searches.map(|(i, (prompt, max_length))| Search {
            running: Some(beam::start(search, prompt, *max_length, self.config)),
            slots: vec![i * self.slots_per_prompt],
            found: Vec::new(),
        });
        Ok(Searches { searches: searches.collect() })
    }

    /// Extends the hypotheses of every running search by one token. The tokens of what the searches have found are sent
    /// at the end.
    pub(super) fn search(&mut self, all: &mut Searches<'g>, watch: Watcher<'_>) -> Result<ControlFlow<()>> {
        let (slots_per_prompt, vocabulary) = (self.slots_per_prompt, self.step.vocabulary);
        let mut from = 0;
        let (mut running, mut tokens) = (Vec::new(), Vec::new());
        for (prompt, search) in all.searches.iter_mut().enumerate() {
            let Search { running: Some(beams), slots, .. } = search else { continue };
            let len = slots.len() * vocabulary;
            let logits = &mut self.step.logits[from..from + len];
            from += len;
            if beams.advance(logits, &mut self.processors[prompt], self.stop.as_deref()) {
                search.end();
                continue;
            }
            let owned = prompt * slots_per_prompt..(prompt + 1) * slots_per_prompt;
            *slots = self.step.reorder_cache(owned, slots, beams.parents())?;
            tokens.extend((0..slots.len()).filter_map(|i| beams.sequence(i).last().copied()));
            running.extend_from_slice(slots);
        }
        if !running.is_empty() && watch(Progress::Step).is_continue() {
            self.step.append(&running, Tokens::padded(&tokens, running.len(), 1))?;
            return Ok(ControlFlow::Continue(()));
        }
        for (prompt, search) in all.searches.iter_mut().enumerate() {
            let prompt_len = self.prompts[prompt].len();
            let found = search.end().iter().take(self.config.num_return_sequences);
            for (sequence, found) in found.enumerate() {
                let end = found.end.unwrap_or(found.ids.len());
                for token in found.ids.get(prompt_len..end).unwrap_or_default() {
                    if watch(Progress::Token { prompt, sequence, token: *token }).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Break(()))
    }

    pub(super) fn found(self, mut all: Searches<'g>) -> Vec<Vec<Generated>> {
        let found = all.searches.iter_mut().zip(&self.prompts).map(|(search, prompt)| {
            let found = search.end().drain(..).take(self.config.num_return_sequences);
            let generated = found.map(|mut found| {
                if let Some(end) = found.end {
                    found.ids.truncate(end);
                    found.log_probabilities.truncate(end - prompt.len());
                }
                Generated {
                    ids: found.ids,
                    prompt_len: prompt.len(),
                    score: Some(found.score),
                    log_probabilities: found.log_probabilities,
                }
            });
            generated.collect()
        });
        found.collect()
    }
}

impl Search<'_> {
    /// Ends the search, if it is running, and returns what it has found.
    fn end(&mut self) -> &mut Vec<Hypothesis> {
        if let Some(running) = self.running.take() {
            self.found = running.finalize();
        }
        &mut self.found
    }
}
