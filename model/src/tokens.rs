//! Batches of token ids: padded with a mask, or ragged with lengths; both become the same ragged [`Rows`].

use core::ops::Range;

use rachis_kernels::Span;

use crate::error::{Error, Result, request, try_reserve};

/// A batch of token sequences, borrowed from the caller.
///
/// Padded: `ids` is `[batch, seq]` and an optional mask of the same shape says which positions are real (1) or
/// padding (0), on either side or in the middle. Ragged: the sequences lie behind one another and `lengths` says
/// where each ends. Real positions keep their place in the sequence; padding is not computed.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    ids: &'a [u32],
    shape: Shape<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Shape<'a> {
    Padded { batch: usize, seq: usize, mask: Option<&'a [u8]> },
    Ragged { lengths: &'a [usize] },
}

impl<'a> Tokens<'a> {
    /// A `[batch, seq]` batch without padding.
    pub fn padded(ids: &'a [u32], batch: usize, seq: usize) -> Self {
        Self { ids, shape: Shape::Padded { batch, seq, mask: None } }
    }

    /// A `[batch, seq]` batch with a padding mask of the same shape: 1 is a real token, 0 is padding.
    pub fn with_mask(ids: &'a [u32], batch: usize, seq: usize, padding_mask: &'a [u8]) -> Self {
        Self { ids, shape: Shape::Padded { batch, seq, mask: Some(padding_mask) } }
    }

    /// Sequences behind one another, the i-th of `lengths[i]` tokens.
    pub fn ragged(ids: &'a [u32], lengths: &'a [usize]) -> Self {
        Self { ids, shape: Shape::Ragged { lengths } }
    }

    /// Number of sequences.
    pub fn batch(&self) -> usize {
        match self.shape {
            Shape::Padded { batch, .. } => batch,
            Shape::Ragged { lengths } => lengths.len(),
        }
    }

    /// All ids, padding included.
    pub fn ids(&self) -> &'a [u32] {
        self.ids
    }

    /// Calls `visit` with the range of ids of each sequence and its part of the mask.
    fn for_each(&self, mut visit: impl FnMut(Range<usize>, Option<&'a [u8]>) -> Result<()>) -> Result<()> {
        match self.shape {
            Shape::Padded { batch, seq, mask } => {
                let expected = batch.saturating_mul(seq);
                length("token_ids", self.ids.len(), expected)?;
                if let Some(mask) = mask {
                    length("padding_mask", mask.len(), expected)?;
                }
                (0..batch).try_for_each(|i| {
                    let range = i * seq..(i + 1) * seq;
                    visit(range.clone(), mask.map(|mask| &mask[range]))
                })
            }
            Shape::Ragged { lengths } => {
                let total = lengths.iter().try_fold(0usize, |sum, len| sum.checked_add(*len));
                length("token_ids", self.ids.len(), total.unwrap_or(usize::MAX))?;
                let mut start = 0;
                lengths.iter().try_for_each(|len| {
                    start += len;
                    visit(start - len..start, None)
                })
            }
        }
    }
}

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
pub(crate) struct Rows {
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

impl Rows {
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
        self.total = tokens.ids.len();
        if tokens.batch() == 0 {
            return Err(request("batch", 0, "at least one sequence"));
        }
        if u32::try_from(tokens.ids.len()).is_err() {
            return Err(request("number of tokens", tokens.ids.len(), "at most 2^32 - 1"));
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
                let id = tokens.ids[at];
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

fn length(what: &str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(request(format!("length of {what}"), found, expected)) }
}
