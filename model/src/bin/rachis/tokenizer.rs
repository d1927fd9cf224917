//! Text to token ids and back, by the files of a preset.
//!
//! This module selects the files; each module below implements one algorithm as each of the two libraries uses it. A
//! Hugging Face directory gives transformers' ids, from `tokenizer.json`, else `vocab.txt`, else `vocab.json` with
//! `merges.txt`, else `spiece.model`. A Keras directory gives KerasHub's ids, from the layer that its `tokenizer.json`
//! describes and the files under `assets/tokenizer`. The algorithms are those of the `tokenizers` crate, called the
//! library below; where KerasHub differs, the modules preprocess the text.
//!
//! The files are untrusted, and the library panics on some malformed ones. So the modules check what they pass to it.
//! Of `tokenizer.json`, the library's own format, they check only what would end the process: a depth that overflows
//! the stack, and memory out of proportion to the file. The library's other panics become errors ([`contained`]).

mod byte_level;
mod charsmap;
mod json;
mod keras;
mod piece_file;
mod sentence_piece;
mod settings;
mod word_piece;

#[cfg(test)]
mod tests;

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rachis::loader::{ConfigSource, Preset};
use serde_json::{Map, Value, json};
use tokenizers::{Encoding, InputSequence, PostProcessor, PostProcessorWrapper, TruncationParams};

use crate::{Result, visible};

/// Upper limit of the bytes of a vocabulary file: a `tokenizer.json` of 250,000 pieces has 17 MB, and its values take
/// up to 20 times as much memory.
const LARGEST_FILE: u64 = 64 << 20;

/// The tokenizer of a preset.
pub struct Tokenizer {
    /// Never dropped: a process has one tokenizer, which takes longer to free than the process takes to end, and its
    /// unigram model frees itself by a recursion as deep as its longest piece.
    library: ManuallyDrop<tokenizers::Tokenizer>,
    dialect: Dialect,
    /// The special tokens of generation, which a Keras preset has only in its tokenizer.
    pub prompting: Prompting,
}

/// KerasHub's steps that differ from the library's.
enum Dialect {
    /// None: the library does everything.
    None,
    /// The text is split into words first.
    Words(Box<word_piece::Words>),
    /// The text is split into pieces; the library only adds special tokens and truncates.
    Pieces(Box<sentence_piece::Pieces>),
}

/// The special tokens that KerasHub's generation takes from its tokenizer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Prompting {
    /// The token that ends a sequence.
    pub end: Option<u32>,
    /// The decoder prompt of an encoder-decoder model.
    pub decoder: Option<Vec<u32>>,
    /// Tokens that decoding skips, besides the library's special ones.
    hidden: Vec<u32>,
}

impl Tokenizer {
    /// The tokens of a prompt, special tokens included.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let input: InputSequence = match &self.dialect {
            Dialect::None => text.into(),
            Dialect::Words(words) => words.split(text).into(),
            Dialect::Pieces(pieces) => {
                let pieces = pieces.encode(text);
                return contained("tokenizer", || self.library.post_process(pieces, None, true));
            }
        };
        contained("tokenizer", || self.library.encode(input, true))
    }

    /// The text of tokens, special tokens skipped.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().copied().filter(|id| !self.prompting.hidden.contains(id)).collect();
        match &self.dialect {
            Dialect::Pieces(pieces) => Ok(pieces.decode(&ids)),
            Dialect::None | Dialect::Words(_) => contained("tokenizer", || self.library.decode(&ids, true)),
        }
    }
}

/// Opens the tokenizer of a preset. It truncates texts to `max_tokens` tokens and does not pad.
pub fn open(preset: &Preset, max_tokens: usize) -> Result<Tokenizer> {
    let json = preset.read_text("tokenizer.json", LARGEST_FILE)?;
    let json = json.map(|json| serde_json::from_str::<Value>(&json)).transpose();
    let json = json.map_err(|error| named("tokenizer.json", error))?;
    let layer = json.as_ref().and_then(keras::layer);
    let mut tokenizer = match (layer, json, preset.config().source()) {
        (Some(layer), ..) => keras::open(preset, &layer)?,
        (None, Some(json), _) => json::open(json)?.into(),
        (None, None, ConfigSource::Keras { .. }) => return Err(missing(preset, "tokenizer.json")),
        (None, None, ConfigSource::HuggingFace { model_type }) => hugging_face(preset, model_type)?.into(),
    };
    let library = &mut *tokenizer.library;
    library.with_padding(None);
    let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
    contained("tokenizer", || {
        // The library subtracts the number of special tokens from `max_length` unchecked.
        let special = library.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_tokens < special {
            let found = format!("puts {special} special tokens in texts of at most {max_tokens} tokens");
            return Err(found.into());
        }
        library.with_truncation(Some(truncation)).map(drop)
    })?;
    Ok(tokenizer)
}

impl From<tokenizers::Tokenizer> for Tokenizer {
    fn from(library: tokenizers::Tokenizer) -> Tokenizer {
        let library = ManuallyDrop::new(library);
        Tokenizer { library, dialect: Dialect::None, prompting: Prompting::default() }
    }
}

/// The tokenizer that transformers builds when there is no `tokenizer.json`.
fn hugging_face(preset: &Preset, model_type: &str) -> Result<tokenizers::Tokenizer> {
    if let Some(vocabulary) = preset.read_text("vocab.txt", LARGEST_FILE)? {
        return word_piece::hugging_face(preset, &vocabulary);
    }
    if let Some(vocabulary) = preset.read_text("vocab.json", LARGEST_FILE)? {
        let merges = preset.read_text("merges.txt", LARGEST_FILE)?;
        let merges = merges.ok_or_else(|| missing(preset, "merges.txt beside its vocab.json"))?;
        return byte_level::hugging_face(preset, model_type, &vocabulary, &merges);
    }
    if let Some(file) = preset.read_bytes("spiece.model", sentence_piece::LARGEST_FILE)? {
        return sentence_piece::hugging_face(preset, &file);
    }
    let expected = "tokenizer.json, vocab.txt, vocab.json with merges.txt, or spiece.model to tokenize with";
    Err(missing(preset, expected))
}

/// The error of a preset that lacks a file.
fn missing(preset: &Preset, expected: &str) -> Box<dyn std::error::Error + Send + Sync> {
    format!("{}: has no {expected}", preset.dir().display()).into()
}

/// The message of an error in a file, of bounded length and without control characters, since an error may quote the
/// file.
fn named(file: &str, error: impl std::fmt::Display) -> String {
    let (start, more) = shortened(&error.to_string(), 200);
    format!("{file}: {}{more}", visible(&start))
}

/// A text from a file, quoted and shortened for a message.
fn clip(text: &str) -> String {
    let (start, more) = shortened(text, 60);
    format!("\"{}{more}\"", start.escape_debug())
}

/// The first `max` characters of a text, and dots if there are more.
fn shortened(text: &str, max: usize) -> (String, &'static str) {
    let more = if text.chars().nth(max).is_some() { "..." } else { "" };
    (text.chars().take(max).collect(), more)
}

/// Reads a JSON object from a file of the preset; `None` when there is no such file.
fn object(preset: &Preset, name: &str) -> Result<Option<Map<String, Value>>> {
    match preset.read_json(name)? {
        None => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(_) => Err(format!("{name}: is not a JSON object").into()),
    }
}

/// A post-processor that adds a token before and after a text.
fn frame(start: Option<(&str, u32)>, end: Option<(&str, u32)>) -> Result<PostProcessorWrapper> {
    let special = |token: Option<(&str, u32)>, segment: u32| {
        token.map(|(token, _)| json!({ "SpecialToken": { "id": token, "type_id": segment } }))
    };
    let text = |name: &str, segment: u32| Some(json!({ "Sequence": { "id": name, "type_id": segment } }));
    let part = |name, segment| [special(start, segment), text(name, segment), special(end, segment)];
    let tokens = [start, end].into_iter().flatten();
    let tokens =
        tokens.map(|(token, id)| (token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] })));
    Ok(serde_json::from_value(json!({
        "type": "TemplateProcessing",
        "single": part("A", 0).into_iter().flatten().collect::<Vec<_>>(),
        "pair": part("A", 0).into_iter().chain(part("B", 1)).flatten().collect::<Vec<_>>(),
        "special_tokens": tokens.collect::<Map<_, _>>(),
    }))?)
}

/// Calls the library and turns a panic into an error.
///
/// A panic unwinds only through the library's data, which the caller then drops. The panic hook, which would print a
/// message, belongs to the process; it is replaced during the call, which only one thread makes.
fn contained<T>(file: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = catch_unwind(AssertUnwindSafe(call));
    std::panic::set_hook(hook);
    match found {
        Ok(found) => found.map_err(|error| named(file, error).into()),
        Err(_) => Err(named(file, "is malformed: the tokenizers library panicked on it").into()),
    }
}
