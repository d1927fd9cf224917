//! From token ids to text, token by token.
//!
//! There is one path: [`Tokenizer::decode`] puts all ids through a [`DecodeStream`], so the pieces of a stream together
//! are what it returns. Each [`Step`] holds back only what later tokens may change.

use super::cleanup::CleanUp;
use super::decoder::{Held, Step};
use super::{SpecialTokens, Tokenizer};
use crate::error::Result;

/// How token ids become text: with special tokens, and spaces as the directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// Whether special tokens are kept.
    pub special_tokens: SpecialTokens,
    /// Whether spaces are cleaned up.
    pub clean_up: CleanUpSpaces,
}

/// Whether decoding removes spaces before punctuation and English contractions: transformers'
/// `clean_up_tokenization_spaces`, which it ignores for BPE. A KerasHub preset has no such step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CleanUpSpaces {
    /// As the directory says.
    #[default]
    Directory,
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl DecodeOptions {
    /// With special tokens, and spaces as the directory says.
    pub fn new() -> DecodeOptions {
        DecodeOptions::default()
    }

    /// Sets [`DecodeOptions::special_tokens`].
    pub fn with_special_tokens(self, special_tokens: SpecialTokens) -> DecodeOptions {
        DecodeOptions { special_tokens, ..self }
    }

    /// Sets [`DecodeOptions::clean_up`].
    pub fn with_clean_up(self, clean_up: CleanUpSpaces) -> DecodeOptions {
        DecodeOptions { clean_up, ..self }
    }
}

impl From<SpecialTokens> for DecodeOptions {
    fn from(special_tokens: SpecialTokens) -> DecodeOptions {
        DecodeOptions::new().with_special_tokens(special_tokens)
    }
}

/// Text from token ids as they come: a piece is passed on when no later token can change it, so none ends inside a
/// character.
///
/// The pieces together, with that of [`DecodeStream::finish`], are what [`Tokenizer::decode`] makes of all ids. Where
/// spaces are cleaned up, a space and the letters behind it wait until it is clear whether it is removed; a decoder of
/// `tokenizer.json` that changes the text as a whole waits for the end. What a token costs does not grow with the text.
#[derive(Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    options: DecodeOptions,
    held: Vec<Held>,
    clean_up: Option<CleanUp>,
}

impl<'t> DecodeStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, options: DecodeOptions) -> DecodeStream<'t> {
        let held = vec![Held::default(); tokenizer.decoder.len()];
        let clean_up = tokenizer.cleans_up(options.clean_up).then(CleanUp::default);
        DecodeStream { tokenizer, options, held, clean_up }
    }

    /// Takes the next id, and returns the text that has become certain; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) for an id that is no token, where the reference library fails on it
    /// too; most of its tokenizers pass over it.
    pub fn step(&mut self, id: u32) -> Result<Option<String>> {
        let mut out = String::new();
        self.push(id, &mut out)?;
        Ok(Some(out).filter(|out| !out.is_empty()))
    }

    /// The rest of the text.
    pub fn finish(mut self) -> String {
        let mut out = String::new();
        self.end(&mut out);
        out
    }

    /// Takes the next id, and appends the text that has become certain.
    pub(super) fn push(&mut self, id: u32, out: &mut String) -> Result<()> {
        let skip = self.options.special_tokens == SpecialTokens::Without;
        if skip && self.tokenizer.is_special(id) {
            return Ok(());
        }
        if let Some(token) = self.tokenizer.shown(id)? {
            self.push_token(&token, out);
        }
        Ok(())
    }

    /// Takes the next token, as the vocabulary spells it, and appends the text that has become certain.
    pub(super) fn push_token(&mut self, token: &str, out: &mut String) {
        let clean_up = &mut self.clean_up;
        run(&self.tokenizer.decoder, &mut self.held, token, &mut |text| append(clean_up, text, out));
    }

    /// Appends the rest of the text.
    pub(super) fn end(&mut self, out: &mut String) {
        let steps = &self.tokenizer.decoder;
        for i in 0..steps.len() {
            let (held, after) = self.held.split_at_mut(i + 1);
            let clean_up = &mut self.clean_up;
            steps[i].finish(&mut held[i], &mut |token| {
                run(&steps[i + 1..], after, token, &mut |text| append(clean_up, text, out));
            });
        }
        if let Some(clean_up) = &mut self.clean_up {
            clean_up.finish(out);
        }
    }
}

/// Puts a token through steps.
fn run(steps: &[Step], held: &mut [Held], token: &str, pass: &mut dyn FnMut(&str)) {
    match (steps.split_first(), held.split_first_mut()) {
        (Some((step, steps)), Some((own, held))) => {
            step.push(own, token, &mut |token| run(steps, held, token, pass));
        }
        _ => pass(token),
    }
}

fn append(clean_up: &mut Option<CleanUp>, text: &str, out: &mut String) {
    match clean_up {
        Some(clean_up) => clean_up.push(text, out),
        None => out.push_str(text),
    }
}
