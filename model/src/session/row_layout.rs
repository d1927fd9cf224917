//! The rows that a forward pass computes for a batch of tokens.

use rachis_kernels::Span;

use super::Tokens;
use crate::error::{Result, request, try_reserve};

/// Whether the first position of a sequence is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Even when it is padding, since BERT's pooled output is read there whatever the mask says: it asks like any
    /// other token, but is not a key.
    Always,
    /// Like any other.
    IfReal,
}

/// What precedes the tokens of a sequence.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Start {
    /// Positions, padding included.
    pub(crate) position: usize,
    /// Real tokens.
    pub(crate) count: usize,
}

/// The rows that a forward pass computes: every real token of the batch, sequence after sequence.
#[derive(Debug, Default)]
pub(crate) struct RowLayout {
    /// Where each row's token stands in the caller's ids.
    pub(crate) source: Vec<u32>,
    /// Each row's position in its sequence.
    pub(crate) positions: Vec<u32>,
    /// Number of real tokens before each row's in its sequence.
    pub(crate) counts: Vec<u32>,
    /// Each row's token.
    pub(crate) ids: Vec<u32>,
    /// Each sequence's rows: all are queries; keys are the real tokens among them.
    pub(crate) spans: Vec<Span>,
    /// Number of the caller's ids, padding included.
    pub(crate) total: usize,
}

impl RowLayout {
    /// Lays out `tokens`, reusing memory. `vocabulary` and `positions` bound ids and sequence lengths.
    pub(crate) fn fill(&mut self, tokens: Tokens<'_>, limits: (usize, usize), first: First) -> Result<()> {
        self.fill_after(tokens, limits, first, |_| Start::default())
    }

    /// The same for tokens that follow others: `starts` says what precedes those of a sequence.
    pub(crate) fn fill_after(
        &mut self,
        tokens: Tokens<'_>,
        (vocabulary, positions): (usize, usize),
        first: First,
        starts: impl Fn(usize) -> Start,
    ) -> Result<()> {
        self.source.clear();
        self.positions.clear();
        self.counts.clear();
        self.ids.clear();
        self.spans.clear();
        self.total = tokens.ids().len();
        if tokens.batch() == 0 {
            return Err(request("batch", 0, "at least one sequence"));
        }
        if u32::try_from(tokens.ids().len()).is_err() {
            return Err(request("number of tokens", tokens.ids().len(), "at most 2^32 - 1"));
        }
        tokens.for_each(|range, mask| {
            let sequence = self.spans.len();
            let what = |part: &str| format!("{part} of sequence {sequence}");
            let before = starts(sequence);
            let length = before.position.saturating_add(range.len());
            if length > positions {
                return Err(request(what("length"), length, format!("at most {positions}")));
            }
            let start = self.ids.len();
            let mut keys = start;
            for (position, at) in range.enumerate() {
                let real = match mask.map_or(1, |mask| mask[position]) {
                    0 => false,
                    1 => true,
                    other => return Err(request(what("padding_mask"), other, "0 or 1")),
                };
                if !real && (position > 0 || first == First::IfReal) {
                    continue;
                }
                let id = tokens.ids()[at];
                if id as usize >= vocabulary {
                    return Err(request(what("token id"), id, format!("less than {vocabulary}")));
                }
                if !real {
                    keys += 1;
                }
                self.source.push(at as u32);
                self.positions.push((before.position + position) as u32);
                self.counts.push((before.count + self.ids.len() - start) as u32);
                self.ids.push(id);
            }
            if keys == self.ids.len() {
                return Err(request(what("number of real tokens"), 0, "at least 1"));
            }
            self.spans.push(Span { queries: start..self.ids.len(), keys: keys..self.ids.len() });
            Ok(())
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// What all positions are less than.
    pub(crate) fn end(&self) -> usize {
        self.positions.iter().max().map_or(0, |last| *last as usize + 1)
    }

    /// Grows for `batch` sequences of `seq` tokens, so that filling allocates nothing.
    pub(crate) fn try_reserve(&mut self, batch: usize, seq: usize) -> Result<()> {
        let rows = batch.saturating_mul(seq);
        for list in [&mut self.source, &mut self.positions, &mut self.counts, &mut self.ids] {
            try_reserve(list, rows)?;
        }
        try_reserve(&mut self.spans, batch)
    }
}
