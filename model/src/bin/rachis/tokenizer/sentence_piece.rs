//! SentencePiece's unigram model (Kudo, 2018) of T5: `spiece.model`, KerasHub's `vocabulary.spm`.
//!
//! The file is a protobuf, read by `prost` from the few fields declared here. The ready crate `sentencepiece-model`
//! declares them all, but compiles their `.proto` in a build script, which would bring a compiler of that language.
//!
//! transformers cuts the text at whitespace, and cuts each word by itself; a special token in the text is that
//! token. KerasHub is SentencePiece itself: it normalises the whole text, cuts it as one, and knows no special token
//! in it. Both take the likeliest pieces. SentencePiece adds up their scores in f32 and the library in f64, so where
//! two ways to cut a word are equally likely to 7 digits, a Keras directory may cut another way than KerasHub.
//! Symbols that a user defined, which T5 has none of, cut a text into parts here that each begin with a space.

use prost::Message;
use rachis::loader::Preset;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, Tokenizer};

use super::charsmap::CharsMap;
use super::keras;
use super::settings::Settings;
use super::{Dialect, frame, named};
use crate::Result;

/// A Keras preset's model.
pub const KERAS: &str = "assets/tokenizer/vocabulary.spm";

/// Most bytes of a model that are read: T5's has 0.8 MB, and pieces take 20 times as much memory at worst.
pub const LARGEST_FILE: u64 = 32 << 20;

/// transformers' special tokens.
const T5: &[(&str, &str)] = &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")];

/// transformers' `T5Tokenizer`.
pub fn hugging_face(preset: &Preset, file: &[u8]) -> Result<Tokenizer> {
    const FILE: &str = "spiece.model";
    let settings = Settings::read(preset, T5)?;
    let model = Model::parse(FILE, file)?;
    let extra = settings.count("extra_ids").unwrap_or(100);
    if extra > MOST_EXTRA_IDS {
        return Err(format!(
            "tokenizer_config.json: extra_ids is {extra}, expected at most {MOST_EXTRA_IDS}"
        )
        .into());
    }
    let extra: Vec<String> = (0..extra).rev().map(|i| format!("<extra_id_{i}>")).collect();
    let pieces = model.pieces.iter().map(|piece| (piece.piece.clone(), f64::from(piece.score)));
    let pieces = pieces.chain(extra.iter().map(|token| (token.clone(), 0.0)));
    let mut library = model.library(FILE, pieces.collect())?;
    if let Some(bytes) = &model.normalizer.precompiled_charsmap {
        let sound = CharsMap::parse(bytes).is_some_and(|map| map.is_sound());
        let map = Some(bytes).filter(|_| sound).and_then(|bytes| Precompiled::from(bytes).ok());
        let map = map.ok_or_else(|| named(FILE, "precompiled_charsmap is malformed"))?;
        library.with_normalizer(Some(map)).map_err(|error| named(FILE, error))?;
    }
    let space = Metaspace::new('▁', PrependScheme::Always, true);
    library.with_pre_tokenizer(Some(Sequence::new(vec![WhitespaceSplit.into(), space.clone().into()])));
    library.with_decoder(Some(space));
    settings.add_to(&mut library)?;
    let own = model.pieces.iter().filter(|piece| matches!(piece.kind(), Kind::Control | Kind::UserDefined));
    let own = own.map(|piece| (piece.piece.clone(), piece.kind() == Kind::Control));
    let own = own.chain(extra.into_iter().map(|token| (token, true)));
    let own =
        own.map(|(token, special)| AddedToken { normalized: false, ..AddedToken::from(token, special) });
    library.add_tokens(own.collect::<Vec<_>>()).map_err(|error| named(FILE, error))?;
    let frame = settings.frame(&library, None, Some("eos_token"))?;
    library.with_post_processor(Some(frame));
    Ok(library)
}

/// KerasHub's `T5Tokenizer`.
pub fn keras(file: &[u8]) -> Result<super::Tokenizer> {
    let model = Model::parse(KERAS, file)?;
    let id = |token: &str| model.pieces.iter().position(|piece| piece.piece == token).map(|id| id as u32);
    let [end, pad] = keras::special(KERAS, ["</s>", "<pad>"], id)?;
    let best = model.pieces.iter().map(|piece| piece.score).fold(f32::MIN, f32::max);
    let pieces = model.pieces.iter().map(|piece| match piece.kind() {
        Kind::Normal => (piece.piece.clone(), f64::from(piece.score)),
        Kind::UserDefined => (piece.piece.clone(), f64::from(piece.piece.len() as f32 * best - 0.1)),
        // A space, which normalisation leaves none of, makes it a piece that no text has.
        _ => (format!(" {}", piece.piece), 0.0),
    });
    let mut library = model.library(KERAS, pieces.collect())?;
    library.with_post_processor(Some(frame(None, Some((" </s>", end)))?));
    let prompting = keras::prompting(end, Some(vec![pad]), &[end, pad]);
    Ok(super::Tokenizer { dialect: Dialect::Pieces(Pieces::new(model)?), prompting, ..library.into() })
}

/// What SentencePiece does before a text is cut and after one is put together.
pub struct Pieces {
    map: Option<CharsMap>,
    pieces: Vec<Piece>,
    normalizer: NormalizerSpec,
    unknown: String,
}

impl Pieces {
    fn new(model: Model) -> Result<Pieces> {
        let map = match &model.normalizer.precompiled_charsmap {
            Some(bytes) => Some(
                CharsMap::parse(bytes).ok_or_else(|| named(KERAS, "precompiled_charsmap is malformed"))?,
            ),
            None => None,
        };
        let unknown = model.trainer.unk_surface().to_owned();
        Ok(Pieces { map, pieces: model.pieces, normalizer: model.normalizer, unknown })
    }

    /// The text in the characters of the pieces: mapped, each run of spaces one `▁`, one of them in front.
    pub fn normalize(&self, text: &str) -> String {
        let trim = self.normalizer.remove_extra_whitespaces();
        let mut normal = String::with_capacity(text.len() + 3);
        if self.normalizer.add_dummy_prefix() {
            normal.push('▁');
        }
        let mut after_space = trim;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (len, mapped) = match self.map.as_ref().and_then(|map| map.longest(rest)) {
                Some(found) => found,
                None => (first.len_utf8(), &rest[..first.len_utf8()]),
            };
            rest = &rest[len..];
            let mapped = if after_space { mapped.trim_start_matches(' ') } else { mapped };
            if !mapped.is_empty() {
                normal.push_str(&mapped.replace(' ', "▁"));
                after_space = trim && mapped.ends_with(' ');
            }
        }
        if trim {
            normal.truncate(normal.trim_end_matches('▁').len());
        }
        normal
    }

    /// The text of pieces.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let spaces = self.normalizer.add_dummy_prefix() || self.normalizer.remove_extra_whitespaces();
        for piece in ids.iter().filter_map(|id| self.pieces.get(*id as usize)) {
            match piece.kind() {
                Kind::Control => {}
                Kind::Unknown => text.push_str(&self.unknown),
                _ if text.is_empty() && spaces => {
                    let own = piece.piece.strip_prefix('▁').unwrap_or(&piece.piece);
                    text.push_str(&own.replace('▁', " "));
                }
                _ => text.push_str(&piece.piece.replace('▁', " ")),
            }
        }
        text
    }
}

impl Model {
    fn parse(file: &str, bytes: &[u8]) -> Result<Model> {
        let model = ModelProto::decode(bytes).map_err(|error| named(file, error))?;
        let ModelProto { pieces, trainer, normalizer } = model;
        let model = Model {
            pieces,
            trainer: trainer.unwrap_or_default(),
            normalizer: normalizer.unwrap_or_default(),
        };
        let wrong = |what: &str| Err(named(file, what).into());
        let kind = model.trainer.model_type();
        if kind != ModelType::Unigram {
            return Err(named(file, format!("is a {kind:?} model, expected Unigram")).into());
        }
        if model.trainer.byte_fallback() || model.trainer.treat_whitespace_as_suffix() {
            return wrong("is a model with bytes or spaces at the ends of words, which T5's is not");
        }
        if !model.normalizer.escape_whitespaces() {
            return wrong("is a model with plain spaces, expected them escaped");
        }
        // Empty ones would not end, and the library frees its trie by recursion.
        let odd = |piece: &Piece| {
            piece.piece.is_empty() || piece.piece.len() > LONGEST_PIECE || piece.score.is_nan()
        };
        if let Some(i) = model.pieces.iter().position(odd) {
            return wrong(&format!("piece {i} is not of 1 to {LONGEST_PIECE} bytes with a score"));
        }
        Ok(model)
    }

    /// The library's model of pieces in place of this one's.
    fn library(&self, file: &str, pieces: Vec<(String, f64)>) -> Result<Tokenizer> {
        let unknown = self.pieces.iter().position(|piece| piece.kind() == Kind::Unknown);
        let unknown = unknown.ok_or_else(|| named(file, "has no unknown piece"))?;
        let model = Unigram::from(pieces, Some(unknown), false).map_err(|error| named(file, error))?;
        Ok(Tokenizer::new(model))
    }
}

const LONGEST_PIECE: usize = 1024;
const MOST_EXTRA_IDS: u64 = 1 << 16;

/// A model with its parts, which are optional in the file.
struct Model {
    pieces: Vec<Piece>,
    trainer: TrainerSpec,
    normalizer: NormalizerSpec,
}

/// The fields of `sentencepiece_model.proto` that are read, with its numbers and defaults.
#[derive(Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerSpec>,
}

#[derive(Message)]
struct Piece {
    #[prost(string, tag = "1")]
    piece: String,
    #[prost(float, tag = "2")]
    score: f32,
    #[prost(enumeration = "Kind", optional, tag = "3", default = "Normal")]
    kind: Option<i32>,
}

#[derive(Message)]
struct TrainerSpec {
    #[prost(enumeration = "ModelType", optional, tag = "3", default = "Unigram")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24", default = "false")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35", default = "false")]
    byte_fallback: Option<bool>,
    #[prost(string, optional, tag = "44", default = " \u{2047} ")]
    unk_surface: Option<String>,
}

#[derive(Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum ModelType {
    Unigram = 1,
    Bpe = 2,
    Word = 3,
    Char = 4,
}
