//! The pipeline of the `tokenizers` crate: added tokens, normalizer, pre-tokenizer and model.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::{
    DecoderWrapper, InputSequence, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerImpl,
};

use super::added::Added;
use super::model::Model;
use super::sequence::{Blank, Tokens};
use super::settings::{CONFIG, Settings};
use crate::error::{Error, Result, in_file};

/// The library's pipeline with a model of ours. Its post-processor and its decoder are not used.
pub type Pipeline =
    TokenizerImpl<Model, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// The tokens of a text; with the spaces at their ends, if offsets are to be trimmed.
pub fn encode(library: &Pipeline, text: &str, trim: bool) -> Result<Tokens> {
    let encoding = running(|| library.encode(text, false))?;
    let mut tokens = tokens(&encoding);
    if trim {
        let blank = |(token, range): (&String, &core::ops::Range<usize>)| {
            Blank::of(token, text.get(range.clone()).unwrap_or_default())
        };
        tokens.blanks = encoding.get_tokens().iter().zip(&tokens.offsets).map(blank).collect();
    }
    Ok(tokens)
}

/// The tokens of a text that is split into words.
pub fn encode_words(library: &Pipeline, words: Vec<String>) -> Result<Tokens> {
    let words: InputSequence<'_> = words.into();
    let mut tokens = tokens(&running(|| library.encode(words, false))?);
    // They are within the words.
    tokens.offsets.fill(0..0);
    Ok(tokens)
}

fn tokens(encoding: &tokenizers::Encoding) -> Tokens {
    Tokens {
        ids: encoding.get_ids().to_vec(),
        offsets: encoding.get_offsets().iter().map(|(start, end)| *start..*end).collect(),
        words: encoding.get_word_ids().to_vec(),
        blanks: Vec::new(),
    }
}

/// Adds tokens that are found in a text before it is split.
pub fn add_tokens(library: &mut Pipeline, file: &str, tokens: Vec<Added>) -> Result<()> {
    contained(file, || library.add_tokens(tokens.into_iter().map(Into::into)).map(drop))
}

/// Adds the tokens of the settings. `adjust` may change those that the files name but do not describe.
pub fn add_settings(
    library: &mut Pipeline,
    settings: &Settings,
    adjust: impl Fn(&str, Added) -> Added,
) -> Result<()> {
    let known = library.get_added_vocabulary().get_vocab().keys().cloned().collect::<Vec<_>>();
    add_tokens(library, CONFIG, settings.added(&known, adjust))?;
    library.set_encode_special_tokens(settings.flag("split_special_tokens")?.unwrap_or(false));
    Ok(())
}

/// The id of the special token of this name.
pub fn required(library: &Pipeline, settings: &Settings, name: &str) -> Result<u32> {
    let id = settings.token_text(name).and_then(|token| library.token_to_id(&token));
    id.ok_or_else(|| in_file(CONFIG, format!("{name} is null, expected a token")))
}

/// [`contained`], of a call that tokenizes.
fn running<T, E: std::fmt::Display>(call: impl FnOnce() -> Result<T, E>) -> Result<T> {
    contained("tokenizer", call).map_err(|error| match error {
        Error::File { message, .. } => Error::Tokenizer { message },
        other => other,
    })
}

/// Calls the library and turns a panic into an error. A panic unwinds only through the library's data, which the caller
/// then drops; the process's panic hook prints it.
pub fn contained<T, E: std::fmt::Display>(file: &str, call: impl FnOnce() -> Result<T, E>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(found) => found.map_err(|error| in_file(file, error)),
        Err(_) => Err(in_file(file, "is malformed: the tokenizers library panicked on it")),
    }
}
