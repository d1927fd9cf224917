//! The file of a SentencePiece model, a protobuf.
//!
//! `prost` decodes the few fields that are declared here. The crate `sentencepiece-model` declares all fields, but
//! compiles their `.proto` in a build script, which depends on a protobuf compiler and its diagnostics.

use prost::Message;

use crate::error::{Result, in_file};

/// A model; its specs are optional in the file and have defaults here.
pub struct Model {
    pub pieces: Vec<Piece>,
    pub trainer: TrainerSpec,
    pub normalizer: NormalizerSpec,
}

impl Model {
    /// Parses a unigram model with T5's settings; `file` is the name in messages.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Model> {
        let model = ModelProto::decode(bytes).map_err(|error| in_file(file, error))?;
        let ModelProto { pieces, trainer, normalizer } = model;
        let model = Model {
            pieces,
            trainer: trainer.unwrap_or_default(),
            normalizer: normalizer.unwrap_or_default(),
        };
        let wrong = |what: &str| Err(in_file(file, what));
        let kind = model.trainer.model_type();
        if kind != ModelType::Unigram {
            return Err(in_file(file, format!("is a {kind:?} model, expected Unigram")));
        }
        if model.trainer.byte_fallback() || model.trainer.treat_whitespace_as_suffix() {
            return wrong("is a model with byte fallback or whitespace as suffix, expected neither");
        }
        if !model.normalizer.escape_whitespaces() {
            return wrong("is a model without escaped whitespaces, expected them escaped");
        }
        let odd = |piece: &Piece| piece.piece.is_empty() || piece.score.is_nan();
        if let Some(i) = model.pieces.iter().position(odd) {
            return wrong(&format!("piece {i} is empty or its score is not a number"));
        }
        let pieces = model.pieces.iter().map(|piece| piece.piece.as_str());
        check_lengths(pieces).map_err(|error| in_file(file, error))?;
        Ok(model)
    }

    /// The `precompiled_charsmap`, if there is one.
    pub fn map(&self) -> Option<&[u8]> {
        self.normalizer.precompiled_charsmap.as_deref().filter(|bytes| !bytes.is_empty())
    }

    /// The id of the unknown piece.
    pub fn unknown(&self, file: &str) -> Result<u32> {
        let unknown = self.pieces.iter().position(|piece| piece.kind() == Kind::Unknown);
        let unknown = unknown.and_then(|id| u32::try_from(id).ok());
        unknown.ok_or_else(|| in_file(file, "has no unknown piece"))
    }
}

/// Returns an error when one piece is too long, or all pieces together are.
///
/// Segmentation compares a text with pieces up to the longest one, at each of its characters.
pub fn check_lengths<'a>(pieces: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut total = 0;
    for (i, piece) in pieces.enumerate() {
        let len = piece.len();
        total += len;
        if len > MAX_PIECE_BYTES {
            return Err(format!("piece {i} has {len} bytes, expected at most {MAX_PIECE_BYTES}"));
        }
        if total > MAX_TOTAL_BYTES {
            return Err(format!("pieces 0 to {i} have {total} bytes, expected at most {MAX_TOTAL_BYTES}"));
        }
    }
    Ok(())
}

/// Upper limit of the bytes of one piece.
const MAX_PIECE_BYTES: usize = 1024;

/// Upper limit of the bytes of all pieces: 250,000 pieces of many languages have 2.5 MB.
const MAX_TOTAL_BYTES: usize = 8 << 20;

/// The fields of `sentencepiece_model.proto` that are read, with their tags and defaults.
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
