//! The text of tokens as they come.

use crate::error::Result;
use crate::tokenizer::{SpecialTokens, Tokenizer};

/// Decodes the tokens of a sequence into pieces of text, none of which ends inside a character. Together the pieces are
/// the text of all tokens, without special ones.
#[derive(Debug)]
pub(super) struct Pieces<'t> {
    tokenizer: &'t Tokenizer,
    ids: Vec<u32>,
    /// The text of the pieces so far.
    text: String,
}

impl<'t> Pieces<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Pieces<'t> {
        Pieces { tokenizer, ids: Vec::new(), text: String::new() }
    }

    /// Takes the next token, and returns the text that has become certain.
    pub(super) fn step(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, SpecialTokens::Without)?;
        // A character may need several tokens; while it is incomplete, the text ends in a replacement character.
        Ok(self.piece(text.trim_end_matches('\u{fffd}')))
    }

    /// The rest of the text.
    pub(super) fn finish(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids, SpecialTokens::Without)?;
        Ok(self.piece(&text))
    }

    fn piece(&mut self, text: &str) -> String {
        let piece = text.strip_prefix(&self.text).unwrap_or_default().to_owned();
        self.text.push_str(&piece);
        piece
    }
}
