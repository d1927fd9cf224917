//! Byte-level BPE (Radford et al., 2019) of BART, OPT and Falcon: a `vocab.json` of ids, and a `merges.txt` of pairs in
//! order of priority.
//!
//! transformers splits a text into words by GPT-2's pattern before merging. KerasHub 0.32 does not: it passes the
//! pattern of Llama 3 to the library as a plain string, which occurs in no text, so its merges run over the whole
//! text. Vocabularies have few merges across words, so the ids usually agree. Where they do not, for instance at
//! several spaces in a row, a Keras directory follows KerasHub as it runs outside of a `tf.data` pipeline.

use std::collections::HashMap;

use rachis::loader::Preset;
use serde_json::json;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

use super::frame;
use super::keras::{self, Layer};
use super::settings::Settings;
use crate::error::{Result, clip, in_file};

/// The files of a Keras preset: vocabulary and merges.
pub const KERAS: [&str; 2] = ["assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"];

/// The special tokens of transformers' `RobertaTokenizer`, which BART uses.
const BART: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];

/// The special tokens of transformers' `GPT2Tokenizer`, which OPT uses. For Falcon transformers has no tokenizer
/// without a `tokenizer.json`.
const GPT2: &[(&str, &str)] =
    &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")];

/// transformers' tokenizer of a `model_type`.
pub fn hugging_face(preset: &Preset, model_type: &str, vocabulary: &str, merges: &str) -> Result<Tokenizer> {
    let bart = model_type == "bart";
    let settings = Settings::read(preset, if bart { BART } else { GPT2 })?;
    let mut library = Tokenizer::new(model(["vocab.json", "merges.txt"], vocabulary, merges)?);
    set_byte_level(&mut library, settings.flag("add_prefix_space").unwrap_or(false), Split::Words);
    settings.add_to(&mut library)?;
    let (start, end) = if bart { (Some("cls_token"), Some("sep_token")) } else { (None, None) };
    let frame = settings.frame(&library, start, end)?;
    library.with_post_processor(Some(frame));
    Ok(library)
}

/// KerasHub's tokenizer, with the special tokens `(start, end)` that its preprocessor adds to a prompt. The end
/// token, or without one the start token, also ends a generated sequence. An end token means an encoder-decoder
/// model.
pub fn keras(
    layer: &Layer,
    vocabulary: &str,
    merges: &str,
    (start, end): (Option<&str>, Option<&str>),
) -> Result<super::Tokenizer> {
    let mut library = Tokenizer::new(model(KERAS, vocabulary, merges)?);
    set_byte_level(&mut library, layer.flag("add_prefix_space", false)?, Split::None);
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
    library.add_tokens(whole.collect::<Vec<_>>()).map_err(|error| in_file("tokenizer.json", error))?;
    library.with_post_processor(Some(frame(Some((first, start_id)), end.map(|end| (end, end_id)))?));
    let decoder = end.is_some().then(|| vec![end_id, start_id]);
    let hidden: Vec<u32> = [start_id, end_id].into_iter().chain(pad).collect();
    Ok(super::Tokenizer { prompting: keras::prompting(end_id, decoder, &hidden), ..library.into() })
}

/// Whether a text is split before merging.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Split {
    /// Into words, by GPT-2's pattern.
    Words,
    /// Not at all.
    None,
}

/// Makes the library represent text as bytes, each of which is one character of the vocabulary. `add_prefix_space` is
/// the argument of both libraries.
fn set_byte_level(library: &mut Tokenizer, add_prefix_space: bool, split: Split) {
    let use_regex = split == Split::Words;
    let bytes = tokenizers::pre_tokenizers::byte_level::ByteLevel::new(add_prefix_space, true, use_regex);
    library.with_pre_tokenizer(Some(bytes));
    library.with_decoder(Some(bytes));
}

/// The BPE model of a vocabulary and its merges; `files` are their names in messages.
fn model(files: [&str; 2], vocabulary: &str, merges: &str) -> Result<ModelWrapper> {
    let ids: HashMap<String, u32> =
        serde_json::from_str(vocabulary).map_err(|error| in_file(files[0], error))?;
    let mut pairs = Vec::new();
    for (line, merge) in (1..).zip(merges.lines().map(str::trim_end)) {
        if merge.is_empty() || merge.starts_with("#version:") {
            continue;
        }
        let Some((a, b)) = merge.split_once(' ').filter(|(_, b)| !b.contains(' ')) else {
            return Err(in_file(files[1], format!("line {line} is {}, expected two tokens", clip(merge))));
        };
        // The library panics on a pair that merges to more than the longest token.
        if let Some(absent) = [a, b, &[a, b].concat()].into_iter().find(|token| !ids.contains_key(*token)) {
            let absent = clip(absent);
            let message = format!("line {line} needs {absent}, which {} does not have", files[0]);
            return Err(in_file(files[1], message));
        }
        pairs.push((a, b));
    }
    let model = json!({ "type": "BPE", "vocab": ids, "merges": pairs });
    serde_json::from_value(model).map_err(|error| in_file(files[0], error))
}
