//! Sequences that go through a model together.

use rachis::{BertInputs, Tokens};

use crate::tokenizer::Encoding;

/// Sequences join a batch until they have this many tokens together. That is enough for the products of a layer to be
/// as fast as they get, and bounds the working memory of a call by what its longest text needs.
const TOKENS: usize = 2048;

/// Sequences, one after another without padding.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    ids: Vec<u32>,
    segments: Vec<u32>,
    lengths: Vec<usize>,
}

impl Batch {
    /// Appends a sequence.
    pub(crate) fn push(&mut self, encoding: &Encoding) {
        self.ids.extend_from_slice(&encoding.ids);
        self.segments.extend_from_slice(&encoding.type_ids);
        self.lengths.push(encoding.len());
    }

    /// Whether no further sequence should join.
    pub(crate) fn is_full(&self) -> bool {
        self.ids.len() >= TOKENS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Number of sequences.
    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Number of tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.segments.clear();
        self.lengths.clear();
    }

    pub(crate) fn inputs(&self) -> BertInputs<'_> {
        BertInputs { tokens: Tokens::ragged(&self.ids, &self.lengths), segment_ids: Some(&self.segments) }
    }
}
