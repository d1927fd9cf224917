//! Batches of token ids as callers give them: padded with a mask, or ragged with lengths.

use core::ops::Range;

use crate::error::{Result, check_len};

/// A batch of token sequences, borrowed from the caller.
///
/// - Padded: `ids` is `[batch, seq]`. An optional mask of the same shape says which positions are real (1) and which
///   are padding (0); padding may be on either side or in the middle.
/// - Ragged: `ids` are the sequences one after another, and `lengths` are their lengths.
///
/// Real tokens keep their position in the sequence. Padding is not computed, and its ids are not looked at.
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

    /// Sequences one after another, the `i`-th of `lengths[i]` tokens.
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

    /// Calls `visit` for each sequence, with the range of its ids and its part of the mask.
    pub(crate) fn for_each(
        &self,
        mut visit: impl FnMut(Range<usize>, Option<&'a [u8]>) -> Result<()>,
    ) -> Result<()> {
        match self.shape {
            Shape::Padded { batch, seq, mask } => {
                let expected = batch.saturating_mul(seq);
                check_len("token_ids", self.ids.len(), expected)?;
                if let Some(mask) = mask {
                    check_len("padding_mask", mask.len(), expected)?;
                }
                (0..batch).try_for_each(|i| {
                    let range = i * seq..(i + 1) * seq;
                    visit(range.clone(), mask.map(|mask| &mask[range]))
                })
            }
            Shape::Ragged { lengths } => {
                let total = lengths.iter().try_fold(0usize, |sum, len| sum.checked_add(*len));
                check_len("token_ids", self.ids.len(), total.unwrap_or(usize::MAX))?;
                let mut start = 0;
                lengths.iter().try_for_each(|len| {
                    start += len;
                    visit(start - len..start, None)
                })
            }
        }
    }
}
