//! Text to token ids and back, by the files of a preset.
//!
//! A Hugging Face directory gives the ids of transformers' `AutoTokenizer`: [`class`] is the class that it takes, and
//! [`settings`] what the directory's files say. A Keras directory gives KerasHub's ids, from the layer that its
//! `tokenizer.json` describes and the files under `assets/tokenizer`. Each other module implements one algorithm, or
//! reads one kind of file.
//!
//! Steps before and after the model are those of the `tokenizers` crate, called the library below; models, special tokens
//! around a text, truncation and decoding are ours.
//!
//! The files are untrusted, and the library panics on some malformed ones. So the modules check what they pass to it; what
//! is left becomes an error ([`contained`](pipeline::contained)).

mod added;
mod backend;
mod bpe;
mod byte_level;
mod charsmap;
mod class;
mod cleanup;
mod decode;
mod decoder;
mod encoding;
mod frame;
mod hugging_face;
mod japanese;
mod join;
mod json;
mod keras;
mod keras_pieces;
mod lower_case;
mod model;
mod piece_file;
mod pipeline;
mod python;
mod sentence_piece;
mod sequence;
mod settings;
mod special;
mod steps;
mod unigram;
mod vocabulary;
mod windows;
mod word_piece;

#[cfg(test)]
mod tests;

use core::ops::Range;
use std::fmt;

use rachis::loader::{ConfigSource, Preset};
use serde_json::{Map, Value};

use crate::error::{Error, Result, in_file};
use decoder::Step;
use frame::Frame;
use json::File;
use keras_pieces::SentencePiece;
use pipeline::Pipeline;
use python::Python;
use sequence::{Tokens, assemble};
use special::Named;
use windows::Rule;
use word_piece::Words;

pub use decode::{CleanUpSpaces, DecodeOptions, DecodeStream};
pub use encoding::{EncodeOptions, Encoding, Side, SpecialTokens, TextInput, TruncateWhich, Truncation};
pub use special::SpecialToken;

/// Upper limit of the bytes of a vocabulary file: a `tokenizer.json` of 250,000 pieces has 17 MB.
const LARGEST_FILE: u64 = 64 << 20;

/// Text to token ids and back, with the ids of the library whose files the directory has.
pub struct Tokenizer {
    engine: Engine,
    frame: Frame,
    decoder: Vec<Step>,
    named: Named,
    limits: Limits,
    prompting: Prompting,
    rule: Rule,
}

/// What makes the tokens of one text.
enum Engine {
    /// A pipeline of the library.
    Pipeline(Box<Pipeline>),
    /// A pipeline of the library, behind KerasHub's split into words.
    Words(Box<(Pipeline, Words)>),
    /// SentencePiece, as KerasHub runs it.
    Pieces(Box<SentencePiece>),
    /// A tokenizer that transformers has in Python.
    Python(Box<Python>),
}

/// The settings that hold for every class.
#[derive(Debug, Default)]
struct Limits {
    model_max_length: Option<usize>,
    truncation_side: Side,
    padding_side: Side,
    /// Whether spaces are cleaned up by default.
    clean_up: bool,
    /// Whether spaces are never cleaned up.
    never_clean_up: bool,
}

/// The special tokens that KerasHub's generation takes from its tokenizer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Prompting {
    /// The token that ends a sequence.
    pub end: Option<u32>,
    /// The decoder prompt of an encoder-decoder model.
    pub decoder: Option<Vec<u32>>,
    /// Tokens that decoding skips, besides the library's special ones.
    hidden: Vec<u32>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocabulary_size", &self.vocabulary_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// The tokenizer of a preset: a directory, or a name as [`Preset::named`] takes it. It needs no weights.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::File`] when the directory has no tokenizer, or one that is malformed or not
    /// implemented.
    pub fn from_preset(name: impl AsRef<std::ffi::OsStr>) -> Result<Tokenizer> {
        Tokenizer::load(&Preset::named_config(name)?)
    }

    /// The tokenizer of an open preset.
    ///
    /// # Errors
    /// As [`Tokenizer::from_preset`].
    pub fn load(preset: &Preset) -> Result<Tokenizer> {
        let text = preset.read_text(json::FILE, LARGEST_FILE)?;
        let mut file = text.as_deref().map(File::parse).transpose()?;
        if let Some(layer) = file.as_mut().and_then(keras::layer) {
            return keras::open(preset, &layer);
        }
        match preset.config().source() {
            ConfigSource::Keras { .. } if file.is_none() => Err(missing(preset, json::FILE)),
            ConfigSource::Keras { .. } => hugging_face::open(preset, "", file),
            ConfigSource::HuggingFace { model_type } => hugging_face::open(preset, model_type, file),
        }
    }

    fn new(engine: Engine, frame: Frame, decoder: Vec<Step>) -> Tokenizer {
        let rule = if matches!(engine, Engine::Pipeline(_)) { Rule::Library } else { Rule::Python };
        Tokenizer {
            engine,
            frame,
            decoder,
            named: Named::default(),
            limits: Limits { never_clean_up: true, ..Limits::default() },
            prompting: Prompting::default(),
            rule,
        }
    }

    /// Number of token ids, added tokens included.
    pub fn vocabulary_size(&self) -> usize {
        match &self.engine {
            Engine::Pipeline(library) => library.get_vocab_size(true),
            Engine::Words(words) => words.0.get_vocab_size(true),
            Engine::Pieces(pieces) => pieces.len(),
            Engine::Python(python) => python.len(),
        }
    }

    /// The id of a token, as the vocabulary spells it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        match &self.engine {
            Engine::Pipeline(library) => library.token_to_id(token),
            Engine::Words(words) => words.0.token_to_id(token),
            Engine::Pieces(pieces) => pieces.id(token),
            Engine::Python(python) => python.id(token),
        }
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        match &self.engine {
            Engine::Pipeline(library) => library.id_to_token(id),
            Engine::Words(words) => words.0.id_to_token(id),
            Engine::Pieces(pieces) => pieces.piece(id).map(str::to_owned),
            Engine::Python(python) => python.token(id),
        }
    }

    /// The id of a special token by its name in transformers; `None` when the tokenizer has none.
    pub fn special_token(&self, name: SpecialToken) -> Option<u32> {
        self.named.get(name)
    }

    /// The number of tokens that a text may have for the model, special tokens included: transformers'
    /// `model_max_length`. `None` without a limit.
    pub fn model_max_length(&self) -> Option<usize> {
        self.limits.model_max_length
    }

    /// The side on which a text that is too long is cut.
    pub fn truncation_side(&self) -> Side {
        self.limits.truncation_side
    }

    /// The side on which a batch is padded.
    pub fn padding_side(&self) -> Side {
        self.limits.padding_side
    }

    /// Whether encodings have offsets. KerasHub's tokenizers have none, nor has transformers' Japanese one.
    pub fn has_offsets(&self) -> bool {
        match &self.engine {
            Engine::Pipeline(_) => true,
            Engine::Words(_) | Engine::Pieces(_) => false,
            Engine::Python(python) => python.has_offsets(),
        }
    }

    /// Number of special tokens that encoding adds to a text, or to a pair.
    pub fn special_tokens_added(&self, input: TextInput<'_>) -> usize {
        self.frame.added(matches!(input, TextInput::Pair(..)))
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
    /// [`Error::Request`] when the length is limited to fewer tokens than are added, the text that is to be cut is too
    /// short, or windows would not advance or be too many; [`Error::Tokenizer`] when the tokenizer fails on the text.
    pub fn encode_with<'t>(
        &self,
        input: impl Into<TextInput<'t>>,
        options: EncodeOptions,
    ) -> Result<Encoding> {
        let input = input.into();
        let texts = match input {
            TextInput::Single(text) => vec![self.tokens(text)?],
            TextInput::Pair(first, second) => vec![self.tokens(first)?, self.tokens(second)?],
        };
        let lengths = [texts[0].len(), texts.get(1).map_or(0, Tokens::len)];
        let add = options.special_tokens == SpecialTokens::With;
        let [first, second] = match options.truncation {
            None => windows::whole(lengths),
            Some(truncation) => {
                let added = if add { self.special_tokens_added(input) } else { 0 };
                let side = truncation.side.unwrap_or(self.limits.truncation_side);
                windows::windows(truncation, self.rule, side, lengths, added)?
            }
        };
        let sequence =
            |first: &Range<usize>, second: &Range<usize>| assemble(&self.frame, &texts, [first, second], add);
        let mut encoding = sequence(&first[0], &second[0]);
        // The library's order of windows when both texts of a pair have some.
        for first in &first[1..] {
            encoding.overflowing.extend(second.iter().map(|second| sequence(first, second)));
        }
        encoding.overflowing.extend(second[1..].iter().map(|second| sequence(&first[0], second)));
        Ok(encoding)
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

    /// The text of tokens. Most tokenizers pass over ids that are no token, as the reference libraries do.
    ///
    /// # Errors
    /// [`Error::Request`] for an id that is no token, where the reference library fails on it.
    pub fn decode(&self, ids: &[u32], options: impl Into<DecodeOptions>) -> Result<String> {
        let mut stream = self.decode_stream(options);
        let mut text = String::new();
        for id in ids {
            stream.push(*id, &mut text)?;
        }
        stream.end(&mut text);
        Ok(text)
    }

    /// Text from token ids as they come.
    pub fn decode_stream(&self, options: impl Into<DecodeOptions>) -> DecodeStream<'_> {
        DecodeStream::new(self, options.into())
    }

    pub(crate) fn prompting(&self) -> &Prompting {
        &self.prompting
    }

    /// The tokens of one text, without special ones.
    fn tokens(&self, text: &str) -> Result<Tokens> {
        match &self.engine {
            Engine::Pipeline(library) => pipeline::encode(library, text, self.frame.trim.is_some()),
            Engine::Words(words) => pipeline::encode_words(&words.0, words.1.split(text)),
            Engine::Pieces(pieces) => Ok(pieces.encode(text)),
            Engine::Python(python) => Ok(python.encode(text)),
        }
    }

    /// The token that decoding shows for an id; `None` when it shows nothing.
    fn shown(&self, id: u32) -> Result<Option<String>> {
        match &self.engine {
            Engine::Pieces(pieces) => Ok(pieces.shown(id).map(str::to_owned)),
            Engine::Python(python) => python.shown(id).map(Some),
            Engine::Pipeline(_) | Engine::Words(_) => Ok(self.id_to_token(id)),
        }
    }

    /// Whether decoding may leave a token out as a special one.
    fn is_special(&self, id: u32) -> bool {
        self.prompting.hidden.contains(&id)
            || match &self.engine {
                Engine::Pipeline(library) => {
                    let token = library.id_to_token(id);
                    token.is_some_and(|token| library.get_added_vocabulary().is_special_token(&token))
                }
                Engine::Python(python) => python.is_special(id),
                Engine::Words(_) | Engine::Pieces(_) => false,
            }
    }

    /// Whether decoding cleans up spaces.
    fn cleans_up(&self, spaces: CleanUpSpaces) -> bool {
        let asked = match spaces {
            CleanUpSpaces::Directory => self.limits.clean_up,
            CleanUpSpaces::Yes => true,
            CleanUpSpaces::No => false,
        };
        asked && !self.limits.never_clean_up
    }
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
