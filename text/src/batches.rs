//! Many texts through a model: batches by a budget of tokens.
//!
//! Texts are sorted by length, the longest first, so that the largest batch comes first and the session's memory grows
//! once. Batches are ragged, without padding. The result of a text does not depend on its batch.

use rachis::{RequestError, Tokens};

use crate::error::{Error, Result};
use crate::tokenizer::Encoding;

/// Number of texts that are tokenized together: it bounds the memory of their tokens.
pub(crate) const WINDOW: usize = 1024;

/// Number of tokens of a batch of more than one text. A model cuts a batch into smaller ones for its caches, so a larger
/// number only costs memory.
const BUDGET: usize = 4096;

/// Texts of one forward pass.
pub(crate) struct Batch<'b> {
    /// The number of each text in the list that the batch was cut from.
    pub(crate) texts: &'b [usize],
    /// Token ids.
    pub(crate) tokens: Tokens<'b>,
    /// A segment for each token.
    pub(crate) segments: &'b [u32],
    /// Number of tokens of each text.
    pub(crate) lengths: &'b [usize],
}

/// Calls `run` with batches of these texts, of which the first is number `start` of the caller's.
pub(crate) fn for_each_batch(
    encodings: &[Encoding],
    start: usize,
    mut run: impl FnMut(Batch<'_>) -> Result<()>,
) -> Result<()> {
    let mut order: Vec<usize> = (0..encodings.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(encodings[*i].len()));
    let mut rest = order.as_slice();
    let (mut ids, mut segments, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(longest) = rest.first() {
        // All others are at most as long as the longest.
        let count = (BUDGET / encodings[*longest].len().max(1)).clamp(1, rest.len());
        let (texts, others) = rest.split_at(count);
        ids.clear();
        segments.clear();
        lengths.clear();
        for encoding in texts.iter().map(|i| &encodings[*i]) {
            ids.extend_from_slice(&encoding.ids);
            segments.extend_from_slice(&encoding.type_ids);
            lengths.push(encoding.len());
        }
        let tokens = Tokens::ragged(&ids, &lengths);
        let batch = Batch { texts, tokens, segments: &segments, lengths: &lengths };
        run(batch).map_err(|error| renumbered(error, |i| texts.get(i).map_or(i, |text| start + text)))?;
        rest = others;
    }
    Ok(())
}

/// An error about a sequence of a batch, with the number of the text that the sequence is.
fn renumbered(mut error: Error, text: impl Fn(usize) -> usize) -> Error {
    if let Error::Model(rachis::Error::Request(
        RequestError::SequenceLength { sequence, .. }
        | RequestError::NoRealToken { sequence }
        | RequestError::TokenId { sequence, .. },
    )) = &mut error
    {
        *sequence = text(*sequence);
    }
    error
}
