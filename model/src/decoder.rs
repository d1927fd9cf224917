//! The trait of models that write token by token. What it does to a session is in `session/decoding.rs`.

use rachis_kernels::MatRef;

use crate::error::Result;
use crate::session::{Model, SequenceOutput, Session, Tokens};

pub(crate) mod private {
    use crate::layers::{LogitsHead, Stack};
    use crate::session::Identity;

    /// The stacks of a model that decodes.
    pub trait DecoderStacks {
        /// The stack that reads the source, if the model has one.
        fn encoder(&self) -> Option<&Stack>;
        /// The stack that writes.
        fn decoder(&self) -> &Stack;
        /// The layer from the decoder's output to logits.
        fn head(&self) -> &LogitsHead;
        /// The largest number of positions of a sequence.
        fn positions(&self) -> usize;
    }

    /// A model that can be told from others of the same sizes.
    pub trait Identified {
        fn identity(&self) -> &Identity;
    }
}

use private::{DecoderStacks, Identified};

/// A model that writes a token at a time: [`OptBackbone`](crate::OptBackbone),
/// [`FalconBackbone`](crate::FalconBackbone), [`BartBackbone`](crate::BartBackbone) and
/// [`T5Backbone`](crate::T5Backbone).
///
/// [`Session::start`] allocates a cache for some sequences. [`Decoder::decode`] then appends tokens to any of them: the
/// prompt at once (prefill), later one token at a time, through the same code. Sequences may have different lengths,
/// and may start and end at any time. The output has the bits of a forward pass over all of the sequence's tokens,
/// however they were divided into calls, unless the cache stores keys and values in less precision.
pub trait Decoder: Model + DecoderStacks + Identified {
    /// Number of logits of a position.
    fn vocabulary_size(&self) -> usize {
        self.head().vocabulary_size()
    }

    /// Whether the model has an encoder, whose sources [`Decoder::encode`] reads.
    fn has_encoder(&self) -> bool {
        self.encoder().is_some()
    }

    /// The largest number of positions of a sequence.
    fn max_positions(&self) -> usize {
        self.positions()
    }

    /// Reads sources and caches what the decoder attends to. Sources are shared evenly, in order: of `n` sequences and
    /// `m` sources, each `n / m` consecutive sequences attend to one source. Returns a vector for every token of the
    /// sources.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) when the model has no encoder, the session was not started for it, or
    /// the sources do not fit. A call that fails after that check forgets the sources of earlier calls.
    fn encode<'s>(&self, session: &'s mut Session<'_>, sources: Tokens<'_>) -> Result<SequenceOutput<'s>> {
        session.encode(self, sources)
    }

    /// Appends tokens to sequences: the `i`-th sequence of `tokens` to number `sequences[i]`. Returns a vector for
    /// every new token.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) when the session was not started for this model, a sequence is named
    /// twice, or would grow beyond the cache's capacity or the model's positions. On any error the sequences stay as
    /// they were.
    fn decode<'s>(
        &self,
        session: &'s mut Session<'_>,
        sequences: &[usize],
        tokens: Tokens<'_>,
    ) -> Result<SequenceOutput<'s>> {
        session.decode(self, sequences, tokens)
    }

    /// Writes the logits `[rows, vocabulary_size]` of rows of the decoder's output: of all rows, or only of those that
    /// are needed, such as the last row of each sequence. Copy the rows out of the session first.
    ///
    /// # Errors
    /// When the shapes disagree.
    fn logits(&self, session: &mut Session<'_>, rows: MatRef<'_, f32>, logits: &mut [f32]) -> Result<()> {
        session.logits(self, rows, logits)
    }
}

impl<M: Model + DecoderStacks + Identified + ?Sized> Decoder for M {}
