//! The inputs and outputs of any backbone.

use crate::architectures::bert::{BertInputs, BertOutput};
use crate::architectures::seq2seq::{Seq2SeqInputs, Seq2SeqOutput};
use crate::error::RequestError;
use crate::session::{SequenceOutput, Tokens};

/// The inputs of a [`Backbone`](crate::Backbone).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum BackboneInputs<'a> {
    /// Tokens: for a decoder alone, or for BERT with all segment ids zero.
    Tokens(Tokens<'a>),
    /// Tokens and segment ids, for BERT.
    Bert(BertInputs<'a>),
    /// Tokens of the encoder and of the decoder, for BART and T5.
    Seq2Seq(Seq2SeqInputs<'a>),
}

/// The output of a [`Backbone`](crate::Backbone), in the session's memory.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum BackboneOutput<'s> {
    /// The output of a decoder alone: Falcon or OPT.
    Sequence(SequenceOutput<'s>),
    /// The output of BERT.
    Bert(BertOutput<'s>),
    /// The output of an encoder and a decoder: BART or T5.
    Seq2Seq(Seq2SeqOutput<'s>),
}

impl<'s> BackboneOutput<'s> {
    /// A vector for every token: of the decoder, if the model has one.
    pub fn sequence_output(&self) -> SequenceOutput<'s> {
        match self {
            BackboneOutput::Sequence(output) => *output,
            BackboneOutput::Bert(output) => output.sequence_output,
            BackboneOutput::Seq2Seq(output) => output.decoder_sequence_output,
        }
    }
}

impl<'a> BackboneInputs<'a> {
    /// The inputs of a model without an encoder.
    pub(super) fn tokens(self) -> Result<Tokens<'a>, RequestError> {
        match self {
            BackboneInputs::Tokens(tokens) => Ok(tokens),
            _ => Err(self.mismatch("tokens alone")),
        }
    }

    /// The inputs of BERT.
    pub(super) fn bert(self) -> Result<BertInputs<'a>, RequestError> {
        match self {
            BackboneInputs::Tokens(tokens) => Ok(BertInputs { tokens, segment_ids: None }),
            BackboneInputs::Bert(inputs) => Ok(inputs),
            BackboneInputs::Seq2Seq(_) => Err(self.mismatch("tokens, with or without segment ids")),
        }
    }

    /// The inputs of an encoder and a decoder.
    pub(super) fn seq2seq(self) -> Result<Seq2SeqInputs<'a>, RequestError> {
        match self {
            BackboneInputs::Seq2Seq(inputs) => Ok(inputs),
            _ => Err(self.mismatch("tokens of an encoder and of a decoder")),
        }
    }

    fn mismatch(self, expected: &'static str) -> RequestError {
        let found = match self {
            BackboneInputs::Tokens(_) => "tokens alone",
            BackboneInputs::Bert(_) => "tokens and segment ids",
            BackboneInputs::Seq2Seq(_) => "tokens of an encoder and of a decoder",
        };
        RequestError::InputKind { found, expected }
    }
}

impl<'a> From<Tokens<'a>> for BackboneInputs<'a> {
    fn from(tokens: Tokens<'a>) -> Self {
        BackboneInputs::Tokens(tokens)
    }
}

impl<'a> From<BertInputs<'a>> for BackboneInputs<'a> {
    fn from(inputs: BertInputs<'a>) -> Self {
        BackboneInputs::Bert(inputs)
    }
}

impl<'a> From<Seq2SeqInputs<'a>> for BackboneInputs<'a> {
    fn from(inputs: Seq2SeqInputs<'a>) -> Self {
        BackboneInputs::Seq2Seq(inputs)
    }
}
