//! The steps of a pipeline that `tokenizer.json` describes: normalizers and pre-tokenizers, which are the library's.
//!
//! A pipeline may have any number of steps, each of which may make a text longer, and the library checks no limits. So
//! they are checked here. The library also panics on a malformed map of characters, which is parsed here first.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT as BASE64;
use serde_json::Value;
use tokenizers::normalizers::{Precompiled, Sequence};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::charsmap::CharsMap;
use super::json::FILE;
use super::pipeline::{Pipeline, contained};
use crate::error::{Result, clip, in_file};

/// Upper limit of the number of bytes that a pipeline makes of one byte. By the count of [`growth`] the pipelines of
/// known models reach a few hundred, mostly because of a ligature that stands for a phrase.
const MAX_GROWTH: usize = 1024;

/// Gives the library the normalizer and the pre-tokenizer of a file.
pub fn set(library: &mut Pipeline, normalizer_step: &Value, pre_tokenizer_step: &Value) -> Result<()> {
    check_growth("normalizer and pre_tokenizer", &[normalizer_step, pre_tokenizer_step])?;
    if !normalizer_step.is_null() {
        let normalizer = normalizer(normalizer_step)?;
        contained(FILE, || library.with_normalizer(Some(normalizer)).map(drop))?;
    }
    if !pre_tokenizer_step.is_null() {
        kind(pre_tokenizer_step, "pre_tokenizer")?;
        let step: PreTokenizerWrapper =
            contained(FILE, || serde_json::from_value(pre_tokenizer_step.clone()))?;
        library.with_pre_tokenizer(Some(step));
    }
    Ok(())
}

/// Returns an error when steps together may make a text too much longer.
pub fn check_growth(name: &str, steps: &[&Value]) -> Result<()> {
    let growth = steps.iter().fold(1, |all: usize, step| all.saturating_mul(growth(step)));
    if growth > MAX_GROWTH {
        return Err(in_file(FILE, format!("{name} may make more than {MAX_GROWTH} bytes of one")));
    }
    Ok(())
}

/// The type of a step.
pub fn kind<'v>(step: &'v Value, name: &str) -> Result<&'v str> {
    step["type"].as_str().ok_or_else(|| in_file(FILE, format!("{name} has no type")))
}

/// Whether a pre-tokenizer is of this type, or has an outermost step that is.
pub fn has(step: &Value, kind: &str) -> bool {
    outermost(step, "pretokenizers").iter().any(|step| step["type"] == kind)
}

/// The steps of a sequence, or the step itself.
fn outermost<'v>(step: &'v Value, name: &str) -> &'v [Value] {
    step[name].as_array().map_or(std::slice::from_ref(step), Vec::as_slice)
}

/// The map of characters among the outermost steps of a normalizer.
pub fn characters(step: &Value) -> Result<Option<Precompiled>> {
    let steps = outermost(step, "normalizers");
    steps.iter().find(|step| step["type"] == "Precompiled").map(precompiled).transpose()
}

/// A map of characters, as the library applies it, from its bytes in the file `file`.
pub fn characters_from(file: &str, bytes: &[u8]) -> Result<Precompiled> {
    let sound = CharsMap::parse(bytes).is_some_and(|map| map.is_sound());
    let map = Some(bytes).filter(|_| sound).and_then(|bytes| Precompiled::from(bytes).ok());
    map.ok_or_else(|| in_file(file, "precompiled_charsmap is malformed"))
}

fn normalizer(step: &Value) -> Result<NormalizerWrapper> {
    match kind(step, "normalizer")? {
        "Sequence" => {
            let steps = step["normalizers"].as_array();
            let steps = steps.ok_or_else(|| in_file(FILE, "normalizer is a Sequence without normalizers"))?;
            Ok(Sequence::new(steps.iter().map(normalizer).collect::<Result<_>>()?).into())
        }
        "Precompiled" => Ok(precompiled(step)?.into()),
        "BertNormalizer" | "Strip" | "StripAccents" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase"
        | "Nmt" | "Replace" | "Prepend" | "ByteLevel" => {
            contained(FILE, || serde_json::from_value(step.clone()))
        }
        other => Err(in_file(FILE, format!("normalizer {} is unknown", clip(other)))),
    }
}

fn precompiled(step: &Value) -> Result<Precompiled> {
    let map = step["precompiled_charsmap"].as_str().unwrap_or_default();
    characters_from(FILE, &BASE64.decode(map).unwrap_or_default())
}

/// An upper bound of the number of bytes that steps make of one byte, not counting what a step adds once per text. It
/// looks at the names of fields only, since a step may be given without its type.
fn growth(step: &Value) -> usize {
    let all = |factors: &mut dyn Iterator<Item = usize>| factors.fold(1, usize::saturating_mul);
    match step {
        Value::Array(steps) => all(&mut steps.iter().map(growth)),
        Value::Object(fields) => all(&mut fields.iter().map(|(name, value)| match (name.as_str(), value) {
            // A pattern that may match the empty string inserts its content between any two characters.
            ("content", Value::String(content)) => match step["pattern"]["String"].as_str() {
                Some(pattern) if !pattern.is_empty() => content.len().div_ceil(pattern.len()).max(1),
                _ => 1 + content.len(),
            },
            ("prepend", Value::String(text)) => 1 + text.len(),
            ("suffix", Value::String(text)) if text.is_empty() => 2,
            // Two bytes for each byte, and two for a space in front of it.
            ("type", Value::String(kind)) if kind == "ByteLevel" => 4,
            ("precompiled_charsmap", Value::String(map)) => {
                // A map that cannot be parsed here has no bound, even if the library can parse it.
                let map = BASE64.decode(map).ok().and_then(|bytes| CharsMap::parse(&bytes));
                map.map_or(usize::MAX, |map| map.longest_replacement().max(1))
            }
            (_, value) => growth(value),
        })),
        _ => 1,
    }
}
