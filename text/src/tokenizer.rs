//! Text to token ids and back, by the files of a preset.
//!
//! This module selects the files; each module below implements one algorithm as each of the two libraries uses it. A
//! Hugging Face directory gives transformers' ids, from `tokenizer.json`, else `vocab.txt`, else `vocab.json` with
//! `merges.txt`, else `spiece.model`. A Keras directory gives KerasHub's ids, from the layer that its `tokenizer.json`
//! describes and the files under `assets/tokenizer`. The algorithms are those of the `tokenizers` crate, called the
//! library below; where KerasHub differs, the modules preprocess the text.
//!
//! The files are untrusted, and the library panics on some malformed ones. So the modules check what they pass to it.
//! Of `tokenizer.json`, the library's own format, they check only what would end the process: a depth that overflows
//! the stack, and memory out of proportion to the file. The library's other panics become errors ([`contained`]).

mod byte_level;
mod charsmap;
mod encoding;
mod join;
mod json;
mod keras;
mod piece_file;
mod sentence_piece;
mod settings;
mod special;
mod word_piece;

#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rachis::loader::{Access, ConfigSource, Preset};
use serde_json::{Map, Value, json};
use tokenizers::{InputSequence, PostProcessor, PostProcessorWrapper, TruncationDirection};

use crate::error::{Error, Result, in_file};

pub use encoding::{EncodeOptions, Encoding, SpecialTokens, TextInput, TruncateWhich, Truncation};
pub use special::SpecialToken;

/// Upper limit of the bytes of a vocabulary file: a `tokenizer.json` of 250,000 pieces has 17 MB, and its values take
/// up to 20 times as much memory.
const LARGEST_FILE: u64 = 64 << 20;

/// Text to token ids and back, with the ids of the library whose files the directory has.
pub struct Tokenizer {
    /// Without truncation, padding and post-processor.
    library: tokenizers::Tokenizer,
    /// Adds special tokens.
    frame: Option<PostProcessorWrapper>,
    dialect: Dialect,
    truncation_side: TruncationDirection,
    prompting: Prompting,
    special: special::Named,
    model_max_length: Option<usize>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocabulary_size", &self.vocabulary_size()).finish_non_exhaustive()
    }
}

/// KerasHub's steps that differ from the library's.
enum Dialect {
    /// None: the library does everything.
    None,
    /// The text is split into words first.
    Words(Box<word_piece::Words>),
    /// The text is split into pieces; the library only adds special tokens and truncates.
    Pieces(Box<sentence_piece::Pieces>),
}

/// The special tokens that KerasHub's generation takes from its tokenizer.
#[doc(hidden)]
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Prompting {
    /// The token that ends a sequence.
    pub end: Option<u32>,
    /// The decoder prompt of an encoder-decoder model.
    pub decoder: Option<Vec<u32>>,
    /// Tokens that decoding skips, besides the library's special ones.
    hidden: Vec<u32>,
}

impl Tokenizer {
    /// The tokenizer of a preset: a directory, or a name as [`Preset::named`] takes it. Weights are not read.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::File`] when the directory has no tokenizer, or one that is malformed or not
    /// implemented.
    pub fn from_preset(name: impl AsRef<std::ffi::OsStr>) -> Result<Tokenizer> {
        Tokenizer::load(&Preset::named(name, Access::Map)?)
    }

    /// The tokenizer of an open preset.
    ///
    /// # Errors
    /// As [`Tokenizer::from_preset`].
    pub fn load(preset: &Preset) -> Result<Tokenizer> {
        let json = preset.read_text("tokenizer.json", LARGEST_FILE)?;
        let json = json.map(|json| serde_json::from_str::<Value>(&json)).transpose();
        let json = json.map_err(|error| in_file("tokenizer.json", error))?;
        let layer = json.as_ref().and_then(keras::layer);
        let mut tokenizer = match (layer, json, preset.config().source()) {
            (Some(layer), ..) => keras::open(preset, &layer)?,
            (None, Some(json), _) => json::open(json)?.into(),
            (None, None, ConfigSource::Keras { .. }) => return Err(missing(preset, "tokenizer.json")),
            (None, None, ConfigSource::HuggingFace { model_type }) => {
                hugging_face(preset, model_type)?.into()
            }
        };
        let library = &mut tokenizer.library;
        library.with_padding(None);
        contained("tokenizer", || library.with_truncation(None).map(drop))?;
        tokenizer.frame = library.get_post_processor().cloned();
        library.with_post_processor(None::<PostProcessorWrapper>);
        (tokenizer.special, tokenizer.model_max_length) =
            special::read(preset, |token| tokenizer.token_to_id(token))?;
        Ok(tokenizer)
    }

    /// Number of token ids, added tokens included.
    pub fn vocabulary_size(&self) -> usize {
        match &self.dialect {
            Dialect::Pieces(pieces) => pieces.len(),
            Dialect::None | Dialect::Words(_) => self.library.get_vocab_size(true),
        }
    }

    /// The id of a token, as the vocabulary spells it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        match &self.dialect {
            Dialect::Pieces(pieces) => pieces.id(token),
            Dialect::None | Dialect::Words(_) => self.library.token_to_id(token),
        }
    }

    /// The id of a special token by its name in transformers; `None` when the tokenizer has none.
    pub fn special_token(&self, name: SpecialToken) -> Option<u32> {
        self.special.get(name)
    }

    /// The number of tokens that a text may have for the model, special tokens included: transformers'
    /// `model_max_length`. `None` without a limit.
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        match &self.dialect {
            Dialect::Pieces(pieces) => pieces.piece(id).map(str::to_owned),
            Dialect::None | Dialect::Words(_) => self.library.id_to_token(id),
        }
    }

    /// Number of special tokens that encoding adds to a text, or to a pair.
    pub fn special_tokens_added(&self, input: TextInput<'_>) -> usize {
        let pair = matches!(input, TextInput::Pair(..));
        self.frame.as_ref().map_or(0, |frame| frame.added_tokens(pair))
    }

    /// The tokens of a text with special tokens, without a limit of the length.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_with`].
    pub fn encode<'t>(&self, input: impl Into<TextInput<'t>>) -> Result<Encoding> {
        self.encode_with(input, EncodeOptions::new())
    }

    /// The tokens of a text, or of a pair of texts.
    ///
    /// # Errors
    /// [`Error::Request`] when the length is limited to fewer tokens than are added, or the text that is to be cut is
    /// too short; [`Error::Tokenizer`] when the tokenizer fails on the text.
    pub fn encode_with<'t>(
        &self,
        input: impl Into<TextInput<'t>>,
        options: EncodeOptions,
    ) -> Result<Encoding> {
        let input = input.into();
        let (first, second) = match input {
            TextInput::Single(text) => (self.bare(text)?, None),
            TextInput::Pair(first, second) => (self.bare(first)?, Some(self.bare(second)?)),
        };
        let (mut first, mut second) = (first, second);
        let add = options.special_tokens == SpecialTokens::With;
        if let Some(truncation) = options.truncation {
            let added = if add { self.special_tokens_added(input) } else { 0 };
            let wrong =
                |found: String, expected: String| Error::Request { what: "max_length", found, expected };
            let room = truncation.max_length.checked_sub(added).ok_or_else(|| {
                let found = truncation.max_length.to_string();
                wrong(found, format!("at least {added}, the number of special tokens"))
            })?;
            if truncation.stride.is_some_and(|stride| stride >= room.max(1)) {
                let found = truncation.stride.unwrap_or_default().to_string();
                let expected = format!("less than {room}, the number of tokens of a window");
                return Err(Error::Request { what: "stride", found, expected });
            }
            let params = truncation.params(room, self.truncation_side);
            (first, second) = tokenizers::truncate_encodings(first, second, &params).map_err(|_| {
                wrong(
                    truncation.max_length.to_string(),
                    "no less than the text that is not cut needs".to_owned(),
                )
            })?;
            if truncation.stride.is_none() {
                first.take_overflowing();
                second.as_mut().map(tokenizers::Encoding::take_overflowing);
            }
        }
        let framed = contained("tokenizer", || match &self.frame {
            Some(frame) => frame.process(first, second, add),
            None => {
                tokenizers::processors::template::TemplateProcessing::default().process(first, second, add)
            }
        })?;
        Ok(framed.into())
    }

    /// The tokens of each text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_with`], for the first text that fails.
    pub fn encode_batch<'t, I: Into<TextInput<'t>> + Copy>(
        &self,
        inputs: &[I],
        options: EncodeOptions,
    ) -> Result<Vec<Encoding>> {
        inputs.iter().map(|input| self.encode_with(*input, options)).collect()
    }

    /// The tokens of one text, without special ones.
    fn bare(&self, text: &str) -> Result<tokenizers::Encoding> {
        let input: InputSequence<'_> = match &self.dialect {
            Dialect::None => text.into(),
            Dialect::Words(words) => words.split(text).into(),
            Dialect::Pieces(pieces) => return Ok(pieces.encode(text)),
        };
        contained("tokenizer", || self.library.encode(input, false))
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the tokenizer fails on the tokens.
    pub fn decode(&self, ids: &[u32], special_tokens: SpecialTokens) -> Result<String> {
        let skip = special_tokens == SpecialTokens::Without;
        let shown = |id: &u32| !(skip && self.prompting.hidden.contains(id));
        let ids: Vec<u32> = ids.iter().copied().filter(shown).collect();
        match &self.dialect {
            Dialect::Pieces(pieces) => Ok(pieces.decode(&ids)),
            Dialect::None | Dialect::Words(_) => contained("tokenizer", || self.library.decode(&ids, skip)),
        }
    }

    #[doc(hidden)]
    pub fn prompting(&self) -> &Prompting {
        &self.prompting
    }
}

impl From<tokenizers::Tokenizer> for Tokenizer {
    fn from(library: tokenizers::Tokenizer) -> Tokenizer {
        Tokenizer {
            library,
            frame: None,
            dialect: Dialect::None,
            truncation_side: TruncationDirection::Right,
            prompting: Prompting::default(),
            special: special::Named::default(),
            model_max_length: None,
        }
    }
}

/// The tokenizer that transformers builds when there is no `tokenizer.json`.
fn hugging_face(preset: &Preset, model_type: &str) -> Result<tokenizers::Tokenizer> {
    if let Some(vocabulary) = preset.read_text("vocab.txt", LARGEST_FILE)? {
        return word_piece::hugging_face(preset, &vocabulary);
    }
    if let Some(vocabulary) = preset.read_text("vocab.json", LARGEST_FILE)? {
        let merges = preset.read_text("merges.txt", LARGEST_FILE)?;
        let merges = merges.ok_or_else(|| missing(preset, "merges.txt beside its vocab.json"))?;
        return byte_level::hugging_face(preset, model_type, &vocabulary, &merges);
    }
    if let Some(file) = preset.read_bytes("spiece.model", sentence_piece::LARGEST_FILE)? {
        return sentence_piece::hugging_face(preset, &file);
    }
    let expected = "tokenizer.json, vocab.txt, vocab.json with merges.txt, or spiece.model to tokenize with";
    Err(missing(preset, expected))
}

/// The error of a preset that lacks a file.
fn missing(preset: &Preset, expected: &str) -> Error {
    Error::Missing { dir: preset.dir().to_owned(), expected: expected.to_owned() }
}

/// Reads a JSON object from a file of the preset; `None` when there is no such file.
fn object(preset: &Preset, name: &str) -> Result<Option<Map<String, Value>>> {
    match preset.read_json(name)? {
        None => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(_) => Err(in_file(name, "is not a JSON object")),
    }
}

/// A post-processor that adds a token before and after a text.
fn frame(start: Option<(&str, u32)>, end: Option<(&str, u32)>) -> Result<PostProcessorWrapper> {
    let special = |token: Option<(&str, u32)>, segment: u32| {
        token.map(|(token, _)| json!({ "SpecialToken": { "id": token, "type_id": segment } }))
    };
    let text = |name: &str, segment: u32| Some(json!({ "Sequence": { "id": name, "type_id": segment } }));
    let part = |name, segment| [special(start, segment), text(name, segment), special(end, segment)];
    let tokens = [start, end].into_iter().flatten();
    let tokens =
        tokens.map(|(token, id)| (token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] })));
    let template = json!({
        "type": "TemplateProcessing",
        "single": part("A", 0).into_iter().flatten().collect::<Vec<_>>(),
        "pair": part("A", 0).into_iter().chain(part("B", 1)).flatten().collect::<Vec<_>>(),
        "special_tokens": tokens.collect::<Map<_, _>>(),
    });
    serde_json::from_value(template).map_err(|error| in_file("tokenizer", error))
}

/// Calls the library and turns a panic into an error. A panic unwinds only through the library's data, which the caller
/// then drops; the process's panic hook prints it.
fn contained<T, E: fmt::Display>(file: &str, call: impl FnOnce() -> Result<T, E>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(found) => found.map_err(|error| in_file(file, error)),
        Err(_) => Err(in_file(file, "is malformed: the tokenizers library panicked on it")),
    }
}
