//! `tokenizer.json`, the format of the `tokenizers` crate.
//!
//! It describes a pipeline of any length, whose steps may each make a text longer, and a unigram model of any pieces.
//! The library checks no limits. So the file is parsed and checked here first, and the library gets the parsed values
//! instead of the file: both see the same one of duplicate keys, and no trailing data.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT as BASE64;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::charsmap::CharsMap;
use super::contained;
use super::piece_file::check_lengths;
use crate::error::{Result, in_file};

const FILE: &str = "tokenizer.json";

/// Upper limit of the number of bytes that a pipeline makes of one byte. By the count of [`growth`] the pipelines of
/// known models reach a few hundred, mostly because of a ligature that stands for a phrase.
const MAX_GROWTH: usize = 1024;

/// The tokenizer of a parsed file.
pub fn open(file: Value) -> Result<Tokenizer> {
    let pieces = file["model"]["vocab"].as_array().into_iter().flatten();
    check_lengths(pieces.filter_map(|piece| piece[0].as_str())).map_err(|error| in_file(FILE, error))?;
    for parts in [&["normalizer", "pre_tokenizer"][..], &["post_processor"], &["decoder"]] {
        let growth = parts.iter().fold(1, |all: usize, part| all.saturating_mul(growth(&file[part])));
        if growth > MAX_GROWTH {
            let parts = parts.join(" and ");
            return Err(in_file(FILE, format!("{parts} may make more than {MAX_GROWTH} bytes of one")));
        }
    }
    contained(FILE, || serde_json::from_value(file))
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
            ("suffix" | "word_delimiter_token", Value::String(text)) if text.is_empty() => 2,
            // Two bytes for each byte, and two for a space in front of it.
            ("type", Value::String(kind)) if kind == "ByteLevel" => 4,
            ("precompiled_charsmap", Value::String(map)) => {
                // A map that cannot be parsed here has no bound, even if the library can parse it.
                let map = BASE64.decode(map).ok().and_then(|bytes| CharsMap::parse(&bytes));
                map.map_or(usize::MAX, |map| map.longest_replacement().max(1))
            }
            // Each part of a template may be the text; a special token may have several ids.
            ("single" | "pair" | "ids", Value::Array(parts)) => parts.len().max(1),
            (_, value) => growth(value),
        })),
        _ => 1,
    }
}
