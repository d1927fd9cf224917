//! A SentencePiece model's file, which is a protobuf.
//!
//! `prost` reads it, by the few fields that are declared here. The ready crate `sentencepiece-model` declares them all,
//! but compiles their `.proto` in a build script, which brings a compiler of that language and its diagnostics along.

use prost::Message;

use super::named;
use crate::Result;

/// A model with its parts, which are optional in the file.
pub struct Model {
    pub pieces: Vec<Piece>,
    pub trainer: TrainerSpec,
    pub normalizer: NormalizerSpec,
}

impl Model {
    /// Parses a model whose settings are T5's; `file` stands for it in messages.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Model> {
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
        let odd = |piece: &Piece| piece.piece.is_empty() || piece.score.is_nan();
        if let Some(i) = model.pieces.iter().position(odd) {
            return wrong(&format!("piece {i} is empty or its score is not a number"));
        }
        let pieces = model.pieces.iter().map(|piece| piece.piece.as_str());
        check_lengths(pieces).map_err(|error| named(file, error))?;
        Ok(model)
    }

    /// The `precompiled_charsmap`.
    pub fn map(&self) -> Option<&[u8]> {
        self.normalizer.precompiled_charsmap.as_deref().filter(|bytes| !bytes.is_empty())
    }

    /// The id of the piece for what no piece has.
    pub fn unknown(&self, file: &str) -> Result<u32> {
        let unknown = self.pieces.iter().position(|piece| piece.kind() == Kind::Unknown);
        let unknown = unknown.and_then(|id| u32::try_from(id).ok());
        Ok(unknown.ok_or_else(|| named(file, "has no unknown piece"))?)
    }
}

/// Refuses pieces that are too long, one or all of them together.
///
/// The library keeps them in a trie, which it frees by a recursion as deep as the longest, and which takes some 350 bytes
/// for each byte of a piece. Here, text is compared up to the longest.
pub fn check_lengths<'a>(pieces: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut total = 0;
    for (i, piece) in pieces.enumerate() {
        let len = piece.len();
        total += len;
        if len > LONGEST_PIECE {
            return Err(format!("piece {i} has {len} bytes, expected at most {LONGEST_PIECE}"));
        }
        if total > MOST_PIECES {
            return Err(format!("pieces 0 to {i} have {total} bytes, expected at most {MOST_PIECES}"));
        }
    }
    Ok(())
}

const LONGEST_PIECE: usize = 1024;

/// Most bytes of all pieces: 250,000 of many languages have 2.5 MB.
const MOST_PIECES: usize = 8 << 20;

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
pub struct Piece {
    #[prost(string, tag = "1")]
    pub piece: String,
    #[prost(float, tag = "2")]
    pub score: f32,
    #[prost(enumeration = "Kind", optional, tag = "3", default = "Normal")]
    pub kind: Option<i32>,
}

#[derive(Message)]
pub struct TrainerSpec {
    #[prost(enumeration = "ModelType", optional, tag = "3", default = "Unigram")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24", default = "false")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35", default = "false")]
    byte_fallback: Option<bool>,
    #[prost(string, optional, tag = "44", default = " \u{2047} ")]
    pub unk_surface: Option<String>,
}

#[derive(Message)]
pub struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    pub precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    pub add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    pub remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
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
