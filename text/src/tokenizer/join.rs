//! Tokens as the words of a text: what tasks ask that show tokens to a reader.

use tokenizers::{Decoder, ModelWrapper};

use super::{Dialect, Tokenizer, contained};
use crate::error::Result;

impl Tokenizer {
    /// Whether encodings have offsets.
    pub(crate) fn has_offsets(&self) -> bool {
        matches!(self.dialect, Dialect::None)
    }

    /// Whether the vocabulary marks tokens that continue a word, as WordPiece's `##` does.
    pub(crate) fn marks_continuations(&self) -> bool {
        match (&self.dialect, self.library.get_model()) {
            (Dialect::Pieces(_), _) => false,
            (_, ModelWrapper::WordPiece(model)) => !model.continuing_subword_prefix.is_empty(),
            (_, ModelWrapper::BPE(model)) => {
                model.continuing_subword_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty())
            }
            _ => false,
        }
    }

    /// The text of tokens, as the vocabulary spells them: transformers' `convert_tokens_to_string`.
    pub(crate) fn join(&self, tokens: &[&str]) -> Result<String> {
        let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        match self.library.get_decoder() {
            Some(decoder) => contained("tokenizer", || decoder.decode(tokens)),
            None => Ok(tokens.join(" ")),
        }
    }
}
