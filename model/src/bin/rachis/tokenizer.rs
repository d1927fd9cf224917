//! Text to token ids and back, by the preset's own files.
//!
//! Which files those are is decided here; a module each knows one algorithm and what the two libraries make of it.
//! A Hugging Face directory does as transformers, by `tokenizer.json`, else `vocab.txt`, else `vocab.json` with
//! `merges.txt`, else `spiece.model`. A Keras one does as KerasHub, by the layer that its `tokenizer.json` describes
//! and the files under `assets/tokenizer`. The algorithms are the `tokenizers` crate's; what it does otherwise than
//! KerasHub is done here, before it sees the text.
//!
//! The files are untrusted, and that crate panics on some that are malformed. So the modules check what they
//! hand it. Of `tokenizer.json`, its own format, only what would end the process is checked from outside: a depth that
//! overflows the stack, and memory out of proportion. Its panics become errors here.

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

/// Most bytes of a vocabulary that are read: a `tokenizer.json` of 250,000 pieces has 17 MB, and its values take 20 times
/// as much memory at worst.
const LARGEST_FILE: u64 = 64 << 20;

/// What a preset's text is cut into.
pub struct Tokenizer {
    /// Never dropped: there is one in a process, which takes longer to free than the process to end, and its unigram
    /// model frees itself by a recursion as deep as its longest piece.
    library: ManuallyDrop<tokenizers::Tokenizer>,
    dialect: Dialect,
    /// What generation needs to know, where no configuration of the preset says it.
    pub prompting: Prompting,
}

/// What comes before the library, or does its work.
enum Dialect {
    None,
    Words(Box<word_piece::Words>),
    Pieces(Box<sentence_piece::Pieces>),
}

/// What KerasHub's generation takes from its tokenizer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Prompting {
    /// The token that ends a sequence.
    pub end: Option<u32>,
    /// What a decoder with an encoder begins with.
    pub decoder: Option<Vec<u32>>,
    /// Tokens that do not show in a text, beyond those that the library knows of.
    hidden: Vec<u32>,
}

impl Tokenizer {
    /// The tokens of a prompt, with the special ones around it.
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

    /// The text of tokens, without the special ones.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().copied().filter(|id| !self.prompting.hidden.contains(id)).collect();
        match &self.dialect {
            Dialect::Pieces(pieces) => Ok(pieces.decode(&ids)),
            Dialect::None | Dialect::Words(_) => contained("tokenizer", || self.library.decode(&ids, true)),
        }
    }
}

/// The tokenizer of a preset. It cuts texts at `longest` tokens and pads nothing.
pub fn open(preset: &Preset, longest: usize) -> Result<Tokenizer> {
    let json = preset.read_text("tokenizer.json", LARGEST_FILE)?;
    let json = json.map(|json| serde_json::from_str::<Value>(&json)).transpose();
    let json = json.map_err(|error| named("tokenizer.json", error))?;
    let layer = json.as_ref().and_then(keras::layer);
    let mut tokenizer = match (layer, json, preset.config().source()) {
        (Some(layer), ..) => keras::open(preset, &layer)?,
        (None, Some(json), _) => json::open(json)?.into(),
        (None, None, ConfigSource::Keras { .. }) => return Err(nothing(preset, "tokenizer.json")),
        (None, None, ConfigSource::HuggingFace { model_type }) => hugging_face(preset, model_type)?.into(),
    };
    let library = &mut *tokenizer.library;
    library.with_padding(None);
    let truncation = TruncationParams { max_length: longest, ..TruncationParams::default() };
    contained("tokenizer", || {
        // The library subtracts the one from the other without a check.
        let special = library.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if longest < special {
            let found = format!("puts {special} special tokens in texts of at most {longest} tokens");
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

/// What transformers builds when there is no `tokenizer.json`.
fn hugging_face(preset: &Preset, model_type: &str) -> Result<tokenizers::Tokenizer> {
    if let Some(vocabulary) = preset.read_text("vocab.txt", LARGEST_FILE)? {
        return word_piece::hugging_face(preset, &vocabulary);
    }
    if let Some(vocabulary) = preset.read_text("vocab.json", LARGEST_FILE)? {
        let merges = preset.read_text("merges.txt", LARGEST_FILE)?;
        let merges = merges.ok_or_else(|| nothing(preset, "merges.txt beside its vocab.json"))?;
        return byte_level::hugging_face(preset, model_type, &vocabulary, &merges);
    }
    if let Some(file) = preset.read_bytes("spiece.model", sentence_piece::LARGEST_FILE)? {
        return sentence_piece::hugging_face(preset, &file);
    }
    let expected = "tokenizer.json, vocab.txt, vocab.json with merges.txt, or spiece.model to tokenize with";
    Err(nothing(preset, expected))
}

fn nothing(preset: &Preset, expected: &str) -> Box<dyn std::error::Error + Send + Sync> {
    format!("{}: has no {expected}", preset.dir().display()).into()
}

/// What is wrong with a file, of bounded length and without control characters: an error may quote the file.
fn named(file: &str, error: impl std::fmt::Display) -> String {
    let (start, more) = shortened(&error.to_string(), 200);
    format!("{file}: {}{more}", visible(&start))
}

/// A text out of a file, for a message.
fn clip(text: &str) -> String {
    let (start, more) = shortened(text, 60);
    format!("\"{}{more}\"", start.escape_debug())
}

/// At most so many characters of a text, and dots if there are more.
fn shortened(text: &str, most: usize) -> (String, &'static str) {
    let more = if text.chars().nth(most).is_some() { "..." } else { "" };
    (text.chars().take(most).collect(), more)
}

/// A JSON object beside the weights, for settings.
fn object(preset: &Preset, name: &str) -> Result<Option<Map<String, Value>>> {
    match preset.read_json(name)? {
        None => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(_) => Err(format!("{name}: is not a JSON object").into()),
    }
}

/// A post-processor that puts tokens before and after a text.
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

/// A call of the library whose panics are errors.
///
/// They unwind through its own data only, which the caller gives up. The hook that would print is the process's,
/// so it is exchanged for the time of the call, which one thread makes.
fn contained<T>(file: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = catch_unwind(AssertUnwindSafe(call));
    std::panic::set_hook(hook);
    match found {
        Ok(found) => found.map_err(|error| named(file, error).into()),
        Err(_) => Err(named(file, "is malformed: the tokenizers library gave up on it").into()),
    }
}
