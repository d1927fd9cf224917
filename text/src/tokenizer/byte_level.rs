//! Byte-level BPE (Radford et al., 2019) of BART, OPT and Falcon: a `vocab.json` of ids, and a `merges.txt` of pairs in
//! order of priority.
//!
//! transformers splits a text into words by GPT-2's pattern before merging. KerasHub 0.32 does not: it passes the
//! pattern of Llama 3 to the library as a plain string, which occurs in no text, so its merges run over the whole
//! text. Vocabularies have few merges across words, so the ids usually agree. Where they do not, for instance at
//! several spaces in a row, a Keras directory follows KerasHub as it runs outside of a `tf.data` pipeline.

use rachis::loader::Preset;
use tokenizers::PreTokenizerWrapper;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::added::Added;
use super::bpe::{self, Bpe, Options};
use super::decoder::Step;
use super::frame::{Frame, Trim};
use super::json::{self, File, Vocab};
use super::keras::{self, Layer};
use super::model::Model;
use super::pipeline::{self, Pipeline, contained};
use super::settings::Settings;
use super::vocabulary::Vocabulary;
use super::{Engine, LARGEST_FILE, Tokenizer, missing};
use crate::error::{Result, in_file};

/// The files of a Keras preset: vocabulary and merges.
pub const KERAS: [&str; 2] = ["assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"];

const FILES: [&str; 2] = ["vocab.json", "merges.txt"];

/// The classes of transformers whose models are BPE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `GPT2Tokenizer`, which OPT uses.
    Gpt2,
    /// `HerbertTokenizer`, whose tokens are characters, with an end of each word.
    Herbert,
    /// `RobertaTokenizer`, which BART uses.
    Roberta,
}

/// transformers' tokenizer of a kind. Of `tokenizer.json` it takes the vocabulary and the merges, and GPT-2's also the
/// post-processor; what is done with a text depends on `tokenizer_config.json`.
pub fn hugging_face(
    preset: &Preset,
    mut file: Option<&mut File<'_>>,
    settings: &Settings,
    kind: Kind,
) -> Result<Tokenizer> {
    let options = match kind {
        Kind::Gpt2 | Kind::Roberta => Options::default(),
        Kind::Herbert => Options {
            unknown: settings.token_text("unk_token"),
            suffix: "</w>".to_owned(),
            ..Options::default()
        },
    };
    let model = match &mut file {
        Some(file) => from_json(file, options)?,
        None => {
            let expected = "tokenizer.json, or vocab.json and merges.txt beside it";
            let text = |name| -> Result<String> {
                preset.read_text(name, LARGEST_FILE)?.ok_or_else(|| missing(preset, expected))
            };
            from_files(FILES, &text(FILES[0])?, &text(FILES[1])?, options)?
        }
    };
    let mut library = Pipeline::new(Model::Bpe(model));
    let space_in_front = settings.flag("add_prefix_space")?.unwrap_or(false);
    if kind == Kind::Herbert {
        let normalizer = BertNormalizer::new(true, true, Some(false), false);
        contained(FILES[0], || library.with_normalizer(Some(normalizer)).map(drop))?;
        library.with_pre_tokenizer(Some(PreTokenizerWrapper::from(BertPreTokenizer)));
    } else {
        library.with_pre_tokenizer(Some(PreTokenizerWrapper::from(ByteLevel::new(
            space_in_front,
            true,
            true,
        ))));
    }
    // RoBERTa's mask stands for a word with the space before it. Version 5 of transformers has lost that where no file
    // says so; version 4 and all saved files have it.
    pipeline::add_settings(&mut library, settings, |name, token| match kind {
        Kind::Roberta if name == "mask_token" => Added { lstrip: true, ..token },
        _ => token,
    })?;
    let id = |name| pipeline::required(&library, settings, name);
    let trim = settings.flag("trim_offsets")?.unwrap_or(true).then_some(Trim { space_in_front });
    let frame = match (kind, &file) {
        (Kind::Roberta, _) => Frame::roberta(id("cls_token")?, id("sep_token")?, trim),
        // transformers writes these ids, whatever the vocabulary's are.
        (Kind::Herbert, _) => Frame::bert(0, 2),
        (Kind::Gpt2, Some(file)) => Frame::parse(&file.post_processor)?,
        (Kind::Gpt2, None) => {
            let token = |flag, name| -> Result<Option<u32>> {
                let add = settings.flag(flag)?.unwrap_or(false);
                Ok(settings.token_text(name).filter(|_| add).and_then(|token| library.token_to_id(&token)))
            };
            Frame::around(token("add_bos_token", "bos_token")?, token("add_eos_token", "eos_token")?)
        }
    };
    let decoder = match kind {
        Kind::Herbert => Step::Suffix("</w>".to_owned()),
        Kind::Gpt2 | Kind::Roberta => Step::ByteLevel,
    };
    Ok(Tokenizer::new(Engine::Pipeline(Box::new(library)), frame, vec![decoder]))
}

/// KerasHub's tokenizer, with the special tokens `(start, end)` that its preprocessor adds to a prompt. The end
/// token, or without one the start token, also ends a generated sequence. An end token means an encoder-decoder
/// model.
pub fn keras(
    layer: &Layer,
    vocabulary: &str,
    merges: &str,
    (start, end): (Option<&str>, Option<&str>),
) -> Result<Tokenizer> {
    let model = from_files(KERAS, vocabulary, merges, Options::default())?;
    let mut library = Pipeline::new(Model::Bpe(model));
    let bytes = ByteLevel::new(layer.flag("add_prefix_space", false)?, true, false);
    library.with_pre_tokenizer(Some(PreTokenizerWrapper::from(bytes)));
    let token =
        |token| -> Result<u32> { Ok(keras::special(KERAS[0], [token], |t| library.token_to_id(t))?[0]) };
    let first = start.unwrap_or_default();
    let start_id = token(first)?;
    let last = end.unwrap_or(first);
    let end_id = token(last)?;
    let pad = if first == "<|endoftext|>" { None } else { Some(token("<pad>")?) };
    let mask = library.token_to_id("<mask>");
    let own: Vec<&str> = [first, last].into_iter().chain(pad.map(|_| "<pad>")).collect();
    let whole = layer.strings("unsplittable_tokens")?.unwrap_or_else(|| own.clone());
    let whole = whole.into_iter().map(|token| Added {
        normalized: Some(false),
        special: own.contains(&token),
        ..Added::special(token)
    });
    pipeline::add_tokens(&mut library, json::FILE, whole.collect())?;
    let frame = Frame::around(Some(start_id), end.map(|_| end_id));
    let mut tokenizer = Tokenizer::new(Engine::Pipeline(Box::new(library)), frame, vec![Step::ByteLevel]);
    let decoder = end.is_some().then(|| vec![end_id, start_id]);
    let hidden: Vec<u32> = [start_id, end_id].into_iter().chain(pad).collect();
    tokenizer.prompting = keras::prompting(end_id, decoder, &hidden);
    tokenizer.named.0 = [Some(start_id), Some(end_id), None, None, pad.or(Some(end_id)), None, mask];
    Ok(tokenizer)
}

/// The model of a vocabulary and its merges; `files` are their names in messages.
fn from_files(files: [&str; 2], vocabulary: &str, merges: &str, options: Options) -> Result<Bpe> {
    let (vocabulary, merges) = (bpe::vocabulary(files[0], vocabulary)?, bpe::merges(files[1], merges)?);
    Bpe::new(files[1], "line", vocabulary, merges, options)
}

/// The model of the vocabulary and the merges of a `tokenizer.json`.
fn from_json(file: &mut File<'_>, options: Options) -> Result<Bpe> {
    let model = file.take_model()?;
    let Vocab::Ids(ids) = model.vocab else {
        return Err(in_file(json::FILE, "model has no vocabulary of tokens and their ids"));
    };
    let ids = ids.iter().map(|(token, id)| (token.as_ref(), *id));
    let vocabulary = Vocabulary::new(ids).map_err(|error| in_file(json::FILE, error))?;
    let merges = model.merges.ok_or_else(|| in_file(json::FILE, "model has no merges"))?;
    Bpe::new(json::FILE, "merge", vocabulary, (1..).zip(merges).collect(), options)
}
