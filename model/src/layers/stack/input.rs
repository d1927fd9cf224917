//! The input of a stack: the rows of a call, and the keys and values that they attend to beside their own.

use core::ops::Range;

use rachis_kernels::{AttentionMask, MatRef};

use crate::layers::attention::{CrossAttentionArgs, SelfAttentionArgs};
use crate::layers::micro_batch::{MicroBatchSpans, clip_spans};
use crate::layers::positions::{KeyRows, PreparedPositions};
use crate::session::{CrossCache, RowLayout, SelfCache};

/// What a stack runs on.
pub(crate) struct StackInput<'a> {
    pub(crate) rows: &'a RowLayout,
    /// The segment of each row, where the embeddings have segments.
    pub(crate) segments: &'a [u32],
    /// Keys and values of earlier calls.
    pub(crate) cache: Option<SelfCache<'a>>,
    /// The sources that layers attend to.
    pub(crate) cross: Option<CrossInput<'a>>,
}

/// The sources that a stack attends to.
pub(crate) struct CrossInput<'a> {
    /// The encoder's output. `None` when its keys and values are in the cache already.
    pub(crate) states: Option<MatRef<'a, f32>>,
    pub(crate) cache: CrossCache<'a>,
}

impl<'a> StackInput<'a> {
    /// Rows that attend to one another.
    pub(crate) fn of(rows: &'a RowLayout) -> StackInput<'a> {
        StackInput { rows, segments: &[], cache: None, cross: None }
    }

    /// Whether sequences can go through a layer independently: no thread writes what another reads.
    pub(super) fn is_independent(&self) -> bool {
        self.cache.is_none() && self.cross.is_none()
    }

    /// The rows that keys lie in.
    pub(super) fn key_rows(&self) -> KeyRows {
        if self.cache.is_some() { KeyRows::Cached } else { KeyRows::Call }
    }

    /// The arguments of a layer's attentions for a micro-batch.
    pub(super) fn attention_args<'s>(
        &'s mut self,
        layer: usize,
        micro_batch: &Range<usize>,
        positions: PreparedPositions<'s>,
        mask: AttentionMask,
        spans: &'s mut MicroBatchSpans,
    ) -> (SelfAttentionArgs<'s>, Option<CrossAttentionArgs<'s>>) {
        match &self.cache {
            None => clip_spans(&self.rows.spans, micro_batch, micro_batch.start, &mut spans.own),
            Some(cache) => clip_spans(cache.spans, micro_batch, 0, &mut spans.own),
        }
        let cache = self.cache.as_mut().map(|cache| cache.kv.layer(layer));
        let cross = self.cross.as_mut().map(|cross| {
            clip_spans(cross.cache.spans, micro_batch, 0, &mut spans.cross);
            CrossAttentionArgs {
                // The first micro-batch writes the keys and values of all sources.
                states: cross.states.filter(|_| micro_batch.start == 0),
                spans: &spans.cross,
                kv: cross.cache.kv.layer(layer),
            }
        });
        let PreparedPositions { bias, rotary } = positions;
        (SelfAttentionArgs { spans: &spans.own, mask, bias, rotary, cache }, cross)
    }
}
