//! `tokenizer.json` of the `tokenizers` crate, whose own format it is.
//!
//! It describes a pipeline of any length, whose steps may each make a text longer, and a unigram model of any pieces;
//! the library takes it at its word. So the file is parsed here first, what it asks for is bounded, and the library
//! gets those very values: no key that occurs twice and nothing behind the end is read by one and not by the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT as BASE64;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::charsmap::CharsMap;
use super::piece_file::check_lengths;
use super::{contained, named};
use crate::Result;

const FILE: &str = "tokenizer.json";

/// Most bytes that a pipeline may make of one. Those of the models known make at most some hundreds as [`growth`]
/// counts, most of which are a ligature's that stands for a phrase.
const MOST_GROWTH: usize = 1024;

/// The tokenizer of a parsed file.
pub fn open(file: Value) -> Result<Tokenizer> {
    let pieces = file["model"]["vocab"].as_array().into_iter().flatten();
    check_lengths(pieces.filter_map(|piece| piece[0].as_str())).map_err(|error| named(FILE, error))?;
    for parts in [&["normalizer", "pre_tokenizer"][..], &["post_processor"], &["decoder"]] {
        let growth = parts.iter().fold(1, |all: usize, part| all.saturating_mul(growth(&file[part])));
        if growth > MOST_GROWTH {
            let parts = parts.join(" and ");
            return Err(format!("{FILE}: {parts} may make more than {MOST_GROWTH} bytes of one").into());
        }
    }
    contained(FILE, || Ok(serde_json::from_value(file)?))
}

/// How many bytes steps make of one, but for what each adds once. It goes by the names of fields, which say what a
/// step does with or without its type.
fn growth(step: &Value) -> usize {
    let all = |factors: &mut dyn Iterator<Item = usize>| factors.fold(1, usize::saturating_mul);
    match step {
        Value::Array(steps) => all(&mut steps.iter().map(growth)),
        Value::Object(fields) => all(&mut fields.iter().map(|(name, value)| match (name.as_str(), value) {
            // Where the pattern may match nothing, its content comes between any two characters.
            ("content", Value::String(content)) => match step["pattern"]["String"].as_str() {
                Some(pattern) if !pattern.is_empty() => content.len().div_ceil(pattern.len()).max(1),
                _ => 1 + content.len(),
            },
            ("prepend", Value::String(text)) => 1 + text.len(),
            ("suffix" | "word_delimiter_token", Value::String(text)) if text.is_empty() => 2,
            // Two bytes for each, and for a space in front of it.
            ("type", Value::String(kind)) if kind == "ByteLevel" => 4,
            ("precompiled_charsmap", Value::String(map)) => {
                // One that cannot be read, or only by the library, may do anything.
                let map = BASE64.decode(map).ok().and_then(|bytes| CharsMap::parse(&bytes));
                map.map_or(usize::MAX, |map| map.longest_replacement().max(1))
            }
            // Of a template, each part of which may be the text, and of a special token.
            ("single" | "pair" | "ids", Value::Array(parts)) => parts.len().max(1),
            (_, value) => growth(value),
        })),
        _ => 1,
    }
}
