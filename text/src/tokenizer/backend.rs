//! transformers' `TokenizersBackend`, which was `PreTrainedTokenizerFast`: all of `tokenizer.json` as it stands.

use super::bpe::{Bpe, Options};
use super::decoder::Step;
use super::frame::Frame;
use super::json::{FILE, File, ModelFields, Vocab};
use super::model::{Model, WordLevel, WordPiece};
use super::piece_file::check_lengths;
use super::pipeline::{self, Pipeline};
use super::settings::Settings;
use super::unigram::Unigram;
use super::vocabulary::Vocabulary;
use super::{Engine, Tokenizer, steps};
use crate::error::{Result, clip, in_file};

/// The tokenizer of a file.
pub fn hugging_face(file: &mut File<'_>, settings: &Settings) -> Result<Tokenizer> {
    let model = model(file.take_model()?)?;
    let mut library = Pipeline::new(model);
    steps::set(&mut library, &file.normalizer, &file.pre_tokenizer)?;
    let added = file.added_tokens()?.into_iter().map(|(_, token)| token);
    pipeline::add_tokens(&mut library, FILE, added.collect())?;
    pipeline::add_settings(&mut library, settings, |_, token| token)?;
    let frame = Frame::parse(&file.post_processor)?;
    let decoder = Step::parse(&file.decoder)?;
    Ok(Tokenizer::new(Engine::Pipeline(Box::new(library)), frame, decoder))
}

/// The model of the file. Old files have no type of it; the fields tell.
fn model(fields: ModelFields<'_>) -> Result<Model> {
    let kind = match (fields.kind.as_deref(), &fields.vocab) {
        (Some(kind), _) => kind,
        (None, Vocab::Scores(_)) => "Unigram",
        (None, _) if fields.merges.is_some() => "BPE",
        (None, _) if fields.continuing_subword_prefix.is_some() => "WordPiece",
        (None, _) => "WordLevel",
    };
    if fields.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err(in_file(FILE, "model has a dropout, which makes its tokens random"));
    }
    let wrong = |error: &str| in_file(FILE, format!("model {error}"));
    if kind == "Unigram" {
        let Vocab::Scores(pieces) = fields.vocab else { return Err(wrong("has no pieces with scores")) };
        check_lengths(pieces.iter().map(|(piece, _)| piece.as_ref()))
            .map_err(|error| in_file(FILE, error))?;
        let byte_fallback = fields.byte_fallback.unwrap_or(false);
        let unigram = Unigram::new(&pieces, fields.unk_id, byte_fallback);
        return Ok(Model::Unigram(unigram.map_err(|error| in_file(FILE, error))?));
    }
    let Vocab::Ids(ids) = fields.vocab else {
        return Err(wrong("has no vocabulary of tokens and their ids"));
    };
    let ids = ids.iter().map(|(token, id)| (token.as_ref(), *id));
    let vocabulary = Vocabulary::new(ids).map_err(|error| in_file(FILE, error))?;
    let unknown = fields.unk_token;
    Ok(match kind {
        "BPE" => {
            let merges = fields.merges.ok_or_else(|| wrong("has no merges"))?;
            let options = Options {
                unknown,
                prefix: fields.continuing_subword_prefix.unwrap_or_default(),
                suffix: fields.end_of_word_suffix.unwrap_or_default(),
                fuse_unknown: fields.fuse_unk.unwrap_or(false),
                byte_fallback: fields.byte_fallback.unwrap_or(false),
                ignore_merges: fields.ignore_merges.unwrap_or(false),
            };
            Model::Bpe(Bpe::new(FILE, "merge", vocabulary, (1..).zip(merges).collect(), options)?)
        }
        "WordPiece" => Model::WordPiece(WordPiece {
            vocabulary,
            unknown: unknown.ok_or_else(|| wrong("has no unk_token"))?,
            prefix: fields
                .continuing_subword_prefix
                .ok_or_else(|| wrong("has no continuing_subword_prefix"))?,
            max_chars: fields
                .max_input_chars_per_word
                .ok_or_else(|| wrong("has no max_input_chars_per_word"))?,
        }),
        "WordLevel" => Model::WordLevel(WordLevel {
            vocabulary,
            unknown: unknown.ok_or_else(|| wrong("has no unk_token"))?,
        }),
        other => return Err(wrong(&format!("of type {} is unknown", clip(other)))),
    })
}
