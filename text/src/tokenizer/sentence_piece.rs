//! SentencePiece's unigram model as transformers runs it: T5's `spiece.model`, XLM-R's `sentencepiece.bpe.model`.
//!
//! The text is split at spaces, and each word is segmented separately; a special token in the text becomes that token.
//! Scores are summed in f64 ([`unigram`](super::unigram)).
//!
//! transformers 5 splits at all whitespace that the model's map of characters has left, such as U+0085. Version 4 and
//! SentencePiece split at spaces alone, and are followed here, unless `tokenizer.json` says otherwise, as those do that
//! version 5 writes.

use std::borrow::Cow;

use rachis::loader::Preset;
use tokenizers::PreTokenizerWrapper;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

use super::added::Added;
use super::decoder::{Spaces, Step};
use super::frame::Frame;
use super::json::{self, File, Vocab};
use super::model::Model;
use super::piece_file::{self, Kind, check_lengths};
use super::pipeline::{self, Pipeline, contained};
use super::settings::{CONFIG, Settings};
use super::steps;
use super::unigram::Unigram;
use super::{Engine, Tokenizer, missing};
use crate::error::{Result, in_file};

/// Upper limit of the bytes of a model file: XLM-R's has 5 MB. The list of its pieces takes up to 20 times as much
/// memory.
pub const LARGEST_FILE: u64 = 32 << 20;

/// The classes of transformers whose models are SentencePiece's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `T5Tokenizer`.
    T5,
    /// `XLMRobertaTokenizer`.
    XlmRoberta,
}

/// transformers' tokenizer of a class. Of `tokenizer.json` it takes the pieces and the map of characters.
pub fn hugging_face(
    preset: &Preset,
    file: Option<&mut File<'_>>,
    settings: &mut Settings,
    class: Class,
) -> Result<Tokenizer> {
    let extra = match class {
        Class::T5 => extra_ids(settings)?,
        Class::XlmRoberta => Vec::new(),
    };
    let splits_at = match &file {
        Some(file) if steps::has(&file.pre_tokenizer, "WhitespaceSplit") => WhitespaceSplit.into(),
        _ => {
            let spaces = Split::new(" ", SplitDelimiterBehavior::Removed, false);
            PreTokenizerWrapper::from(spaces.map_err(|error| in_file(CONFIG, error))?)
        }
    };
    let (name, pieces, characters) = match file {
        Some(file) => from_json(file)?,
        None => from_pieces(preset, settings, class, &extra)?,
    };
    if class == Class::T5 {
        list_extra_ids(settings, extra)?;
    }
    // transformers takes these ids, whatever the model's are.
    let unknown = match class {
        Class::T5 => 2,
        Class::XlmRoberta => 3,
    };
    let unigram = Unigram::new(&pieces, Some(unknown), false).map_err(|error| in_file(name, error))?;
    let mut library = Pipeline::new(Model::Unigram(unigram));
    if let Some(characters) = characters {
        contained(name, || library.with_normalizer(Some(characters)).map(drop))?;
    }
    let prepends = class == Class::T5 || settings.flag("add_prefix_space")?.unwrap_or(true);
    let scheme = if prepends { PrependScheme::Always } else { PrependScheme::Never };
    let steps = vec![splits_at, Metaspace::new('▁', scheme, true).into()];
    library.with_pre_tokenizer(Some(PreTokenizerWrapper::from(Sequence::new(steps))));
    pipeline::add_settings(&mut library, settings, |_, token| token)?;
    let eos = pipeline::required(&library, settings, "eos_token")?;
    let frame = match class {
        Class::T5 => Frame::ended(eos),
        Class::XlmRoberta => Frame::roberta(pipeline::required(&library, settings, "bos_token")?, eos, None),
    };
    let first = if prepends { Spaces::Dropped } else { Spaces::Kept };
    let decoder = vec![Step::Metaspace { replacement: '▁', first }];
    Ok(Tokenizer::new(Engine::Pipeline(Box::new(library)), frame, decoder))
}

/// The file that they are of, the pieces and their scores, and the map of characters.
type Pieces<'a> = (&'static str, Vec<(Cow<'a, str>, f64)>, Option<Precompiled>);

/// The pieces of a `tokenizer.json`.
fn from_json<'a>(file: &mut File<'a>) -> Result<Pieces<'a>> {
    let Vocab::Scores(pieces) = file.take_model()?.vocab else {
        return Err(in_file(json::FILE, "model has no pieces with scores"));
    };
    check_lengths(pieces.iter().map(|(piece, _)| piece.as_ref()))
        .map_err(|error| in_file(json::FILE, error))?;
    let characters = steps::characters(&file.normalizer)?;
    Ok((json::FILE, pieces, characters))
}

/// The pieces of a SentencePiece model, in the order of the class. The model's special tokens become those of the
/// settings.
fn from_pieces(
    preset: &Preset,
    settings: &mut Settings,
    class: Class,
    extra: &[String],
) -> Result<Pieces<'static>> {
    let name = match class {
        Class::T5 => "spiece.model",
        Class::XlmRoberta => "sentencepiece.bpe.model",
    };
    let file = preset.read_bytes(name, LARGEST_FILE)?;
    let file = file.ok_or_else(|| missing(preset, &format!("tokenizer.json or {name}")))?;
    let model = piece_file::Model::parse(name, &file)?;
    let own = model.pieces.iter().filter(|piece| matches!(piece.kind(), Kind::Control | Kind::UserDefined));
    let own = own.map(|piece| Added {
        normalized: Some(false),
        special: piece.kind() == Kind::Control,
        ..Added::special(piece.piece.clone())
    });
    settings.set_older_extra(own.collect());
    let characters = model.map().map(|map| steps::characters_from(name, map)).transpose()?;
    let listed = model.pieces.into_iter().map(|piece| (Cow::from(piece.piece), f64::from(piece.score)));
    let token = |name: &str| {
        let default = class_default(name).to_owned();
        (Cow::from(settings.token_text(name).unwrap_or(default)), 0.0)
    };
    let pieces = match class {
        Class::T5 => listed.chain(extra.iter().rev().map(|token| (Cow::from(token.clone()), 0.0))).collect(),
        Class::XlmRoberta => ["bos_token", "pad_token", "eos_token", "unk_token"]
            .map(token)
            .into_iter()
            .chain(listed.skip(3))
            .chain([token("mask_token")])
            .collect(),
    };
    Ok((name, pieces, characters))
}

/// XLM-R's special token of this name, where the settings have `null`.
fn class_default(name: &str) -> &'static str {
    match name {
        "bos_token" => "<s>",
        "pad_token" => "<pad>",
        "eos_token" => "</s>",
        "unk_token" => "<unk>",
        _ => "<mask>",
    }
}

/// T5's sentinel tokens, in the order of their numbers.
fn extra_ids(settings: &Settings) -> Result<Vec<String>> {
    let count = settings.count("extra_ids")?.unwrap_or(100);
    if count > MAX_EXTRA_IDS {
        return Err(in_file(CONFIG, format!("extra_ids is {count}, expected at most {MAX_EXTRA_IDS}")));
    }
    Ok((0..count).map(|i| format!("<extra_id_{i}>")).collect())
}

/// Makes T5's sentinel tokens special, unless a list of special tokens has some.
fn list_extra_ids(settings: &mut Settings, extra: Vec<String>) -> Result<()> {
    let mut listed = settings.older_extra().unwrap_or_default().to_vec();
    match listed.iter().filter(|token| token.content.contains("<extra_id_")).count() {
        0 => listed.extend(extra.into_iter().map(Added::special)),
        count if !extra.is_empty() && count != extra.len() => {
            let (given, message) = (extra.len(), "additional_special_tokens has");
            return Err(in_file(CONFIG, format!("extra_ids is {given}, but {message} {count} of them")));
        }
        _ => {}
    }
    settings.set_older_extra(listed);
    Ok(())
}

/// Upper limit of `extra_ids`.
const MAX_EXTRA_IDS: u64 = 1 << 16;
