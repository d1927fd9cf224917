//! What decoding does to a session.

use super::{CacheLayout, CacheOptions, Plan, Session};
use crate::decoder::Decoder;
use crate::error::{Result, request};
use crate::layers::Stack;

impl CacheLayout {
    /// The sizes of the keys and values that a decoder keeps.
    pub(crate) fn of(decoder: &Stack, cross: bool) -> CacheLayout {
        CacheLayout { layers: decoder.blocks.len(), width: decoder.config.attention.key_width(), cross }
    }
}

impl Session<'_> {
    /// Forgets all sequences and makes room for others, to be decoded by this model. Steps that add one token to
    /// each of them allocate nothing then.
    ///
    /// # Errors
    /// When the size is beyond the model's limits, or memory cannot be had.
    pub fn start(&mut self, model: &(impl Decoder + ?Sized), options: CacheOptions) -> Result<()> {
        let CacheOptions { sequences, capacity, .. } = options;
        if capacity > model.max_positions() {
            return Err(request("capacity", capacity, format!("at most {}", model.max_positions())));
        }
        let stack = model.decoder();
        self.compute_in(model.dtype());
        self.cache.start(CacheLayout::of(stack, model.has_encoder()), options, self.call.precision())?;
        let plan = Plan::of(stack, &self.call, (sequences, capacity));
        let head = model.head().scratch_len(&self.call, sequences);
        // Steps share every product.
        self.reserve_plan(Plan { scratch: plan.scratch.max(head), apart: (0, 0), ..plan }, (sequences, 1))
    }

    /// Forgets the tokens of a sequence.
    ///
    /// # Errors
    /// When there is no such sequence.
    pub fn clear_sequence(&mut self, sequence: usize) -> Result<()> {
        self.cache.clear(sequence)
    }

    /// Makes the sequence `to` a copy of `from`.
    ///
    /// # Errors
    /// When there is no such sequence, or the two have different sources.
    pub fn copy_sequence(&mut self, from: usize, to: usize) -> Result<()> {
        self.cache.copy(from, to)
    }
}
