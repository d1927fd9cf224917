//! From a batch to the rows that a forward pass computes. Below this file there is neither padding nor a mask.

use rachis_kernels::Span;

use super::{Extent, Tokens};
use crate::error::{RequestError, Result, try_reserve};

/// Whether the first position of a sequence is computed when it is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Yes: BERT's pooled output is read there whatever the mask says. A first position that is padding is a query,
    /// but not a key.
    Always,
    /// No, as at every other position.
    IfReal,
}

/// What precedes the new tokens of a sequence.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Prefix {
    /// Number of positions, padding included.
    pub(crate) positions: usize,
    /// Number of real tokens.
    pub(crate) tokens: usize,
}

/// What token ids and positions must be less than.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) vocabulary: usize,
    pub(crate) positions: usize,
}

/// The rows that a forward pass computes: every real token of the batch, sequence after sequence.
#[derive(Debug, Default)]
pub(crate) struct RowLayout {
    /// The index of each row's token in the caller's ids.
    pub(crate) id_index: Vec<u32>,
    /// Each row's position in its sequence.
    pub(crate) positions: Vec<u32>,
    /// Number of real tokens before each row's in its sequence.
    pub(crate) real_before: Vec<u32>,
    /// Each row's token id.
    pub(crate) ids: Vec<u32>,
    /// The rows of each sequence: all of them are queries, the real tokens among them are keys.
    pub(crate) spans: Vec<Span>,
    /// Number of the caller's ids, padding included.
    pub(crate) num_ids: usize,
}

impl RowLayout {
    /// Lays out `tokens`, in the memory of the layout before.
    pub(crate) fn fill(&mut self, tokens: Tokens<'_>, limits: Limits, first: First) -> Result<()> {
        self.fill_after(tokens, limits, first, |_| Prefix::default())
    }

    /// Lays out `tokens` that continue sequences: `prefix(i)` precedes those of sequence `i`.
    pub(crate) fn fill_after(
        &mut self,
        tokens: Tokens<'_>,
        limits: Limits,
        first: First,
        prefix: impl Fn(usize) -> Prefix,
    ) -> Result<()> {
        self.id_index.clear();
        self.positions.clear();
        self.real_before.clear();
        self.ids.clear();
        self.spans.clear();
        self.num_ids = tokens.ids().len();
        if tokens.batch() == 0 {
            return Err(RequestError::EmptyBatch.into());
        }
        if u32::try_from(tokens.ids().len()).is_err() {
            return Err(RequestError::TokenCount { found: tokens.ids().len() }.into());
        }
        tokens.for_each(|range, mask| {
            let sequence = self.spans.len();
            let prefix = prefix(sequence);
            let found = prefix.positions.saturating_add(range.len());
            if found > limits.positions {
                return Err(RequestError::SequenceLength { sequence, found, max: limits.positions }.into());
            }
            let start = self.ids.len();
            let mut keys = start;
            for (position, at) in range.enumerate() {
                let real = match mask.map_or(1, |mask| mask[position]) {
                    0 => false,
                    1 => true,
                    found => return Err(RequestError::PaddingMask { sequence, found }.into()),
                };
                if !real && (position > 0 || first == First::IfReal) {
                    continue;
                }
                let id = tokens.ids()[at];
                if id as usize >= limits.vocabulary {
                    let vocabulary_size = limits.vocabulary;
                    return Err(RequestError::TokenId { sequence, id, vocabulary_size }.into());
                }
                if !real {
                    keys += 1;
                }
                self.id_index.push(at as u32);
                self.positions.push((prefix.positions + position) as u32);
                self.real_before.push((prefix.tokens + self.ids.len() - start) as u32);
                self.ids.push(id);
            }
            if keys == self.ids.len() {
                return Err(RequestError::NoRealToken { sequence }.into());
            }
            self.spans.push(Span { queries: start..self.ids.len(), keys: keys..self.ids.len() });
            Ok(())
        })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The rows, and a bound on their positions.
    pub(crate) fn extent(&self) -> Extent {
        let positions = self.positions.iter().max().map_or(0, |last| *last as usize + 1);
        Extent { rows: self.len(), positions }
    }

    /// Allocates for `batch` sequences of `seq` tokens, so that filling allocates nothing.
    pub(crate) fn try_reserve(&mut self, batch: usize, seq: usize) -> Result<()> {
        let rows = batch.saturating_mul(seq);
        for list in [&mut self.id_index, &mut self.positions, &mut self.real_before, &mut self.ids] {
            try_reserve(list, rows)?;
        }
        try_reserve(&mut self.spans, batch)
    }
}
