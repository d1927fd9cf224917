//! Byte-level BPE (Radford et al., 2019) of BART, OPT and Falcon: a `vocab.json` of ids and a `merges.txt` of pairs,
//! the likeliest first.
//!
//! transformers cuts a text into words by GPT-2's pattern before it merges. KerasHub 0.32 does not: it hands the
//! library the pattern of Llama 3 as a plain string, which occurs in no text, so that its merges run over the whole
//! text. Vocabularies hold few merges that cross words, so the ids mostly agree; where they do not, as at several spaces
//! in a row, a Keras directory follows KerasHub as it runs outside of a `tf.data` pipeline.

use std::collections::HashMap;

use rachis::loader::Preset;
use serde_json::json;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

use super::keras::{self, Layer};
use super::settings::Settings;
use super::{clip, frame, named};
use crate::Result;

/// A Keras preset's vocabulary and merges.
pub const KERAS: [&str; 2] = ["assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"];

/// The special tokens of transformers' `RobertaTokenizer`, which is BART's.
const BART: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];

/// The special tokens of transformers' `GPT2Tokenizer`, which is OPT's. Falcon has no tokenizer of its own there
/// without a `tokenizer.json`.
const GPT2: &[(&str, &str)] =
    &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")];

/// transformers' tokenizer for a `model_type`.
pub fn hugging_face(preset: &Preset, model_type: &str, vocabulary: &str, merges: &str) -> Result<Tokenizer> {
    let bart = model_type == "bart";
    let settings = Settings::read(preset, if bart { BART } else { GPT2 })?;
    let mut library = Tokenizer::new(model(["vocab.json", "merges.txt"], vocabulary, merges)?);
    bytes(&mut library, settings.flag("add_prefix_space").unwrap_or(false), true);
    settings.add_to(&mut library)?;
    let (start, end) = if bart { (Some("cls_token"), Some("sep_token")) } else { (None, None) };
    let frame = settings.frame(&library, start, end)?;
    library.with_post_processor(Some(frame));
    Ok(library)
}

/// KerasHub's tokenizer, with the tokens that its preprocessor puts around a prompt. What ends one, with an encoder,
/// or starts one also ends a sequence.
pub fn keras(
    layer: &Layer,
    vocabulary: &str,
    merges: &str,
    (start, end): (Option<&str>, Option<&str>),
) -> Result<super::Tokenizer> {
    let mut library = Tokenizer::new(model(KERAS, vocabulary, merges)?);
    bytes(&mut library, layer.flag("add_prefix_space", false)?, false);
    let token =
        |token| -> Result<u32> { Ok(keras::special(KERAS[0], [token], |t| library.token_to_id(t))?[0]) };
    let first = start.unwrap_or_default();
    let start_id = token(first)?;
    let last = end.unwrap_or(first);
    let end_id = token(last)?;
    let pad = if first == "<|endoftext|>" { None } else { Some(token("<pad>")?) };
    let own: Vec<&str> = [first, last].into_iter().chain(pad.map(|_| "<pad>")).collect();
    let whole = layer.strings("unsplittable_tokens")?.unwrap_or_else(|| own.clone());
    let whole = whole
        .into_iter()
        .map(|token| AddedToken { normalized: false, ..AddedToken::from(token, own.contains(&token)) });
    library.add_tokens(whole.collect::<Vec<_>>()).map_err(|error| named("tokenizer.json", error))?;
    library.with_post_processor(Some(frame(Some((first, start_id)), end.map(|end| (end, end_id)))?));
    let decoder = end.is_some().then(|| vec![end_id, start_id]);
    let hidden: Vec<u32> = [start_id, end_id].into_iter().chain(pad).collect();
    Ok(super::Tokenizer { prompting: keras::prompting(end_id, decoder, &hidden), ..library.into() })
}

/// Text as bytes, each of which is a character of the vocabulary.
fn bytes(library: &mut Tokenizer, prefix_space: bool, words: bool) {
    let bytes = tokenizers::pre_tokenizers::byte_level::ByteLevel::new(prefix_space, true, words);
    library.with_pre_tokenizer(Some(bytes));
    library.with_decoder(Some(bytes));
}

/// The model of a vocabulary and its merges, whose names are `files`.
fn model(files: [&str; 2], vocabulary: &str, merges: &str) -> Result<ModelWrapper> {
    let ids: HashMap<String, u32> =
        serde_json::from_str(vocabulary).map_err(|error| named(files[0], error))?;
    let mut pairs = Vec::new();
    for (line, merge) in (1..).zip(merges.lines().map(str::trim_end)) {
        if merge.is_empty() || merge.starts_with("#version:") {
            continue;
        }
        let Some((a, b)) = merge.split_once(' ').filter(|(_, b)| !b.contains(' ')) else {
            return Err(format!("{}: line {line} is {}, expected two tokens", files[1], clip(merge)).into());
        };
        // The library panics on a pair that merges to more than the longest token.
        if let Some(absent) = [a, b, &[a, b].concat()].into_iter().find(|token| !ids.contains_key(*token)) {
            let absent = clip(absent);
            return Err(
                format!("{}: line {line} needs {absent}, which {} has not", files[1], files[0]).into()
            );
        }
        pairs.push((a, b));
    }
    let model = json!({ "type": "BPE", "vocab": ids, "merges": pairs });
    Ok(serde_json::from_value(model).map_err(|error| named(files[0], error))?)
}
