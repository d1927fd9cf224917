//! Text to token ids, by the preset's own files.

use rachis::loader::Preset;
use serde_json::{Map, Value, json};
use tokenizers::{Tokenizer, TruncationParams};

use crate::Result;

/// Most bytes of a tokenizer file that are read.
const LARGEST_FILE: u64 = 256 << 20;

/// The tokenizer of a preset: `tokenizer.json`, or WordPiece from `vocab.txt`. It cuts texts at `longest`
/// tokens and pads nothing.
pub fn open(preset: &Preset, longest: usize) -> Result<Tokenizer> {
    let mut tokenizer = match preset.read_text("tokenizer.json", LARGEST_FILE)? {
        Some(json) => json.parse::<Tokenizer>().map_err(|error| named("tokenizer.json", error))?,
        None => match preset.read_text("vocab.txt", LARGEST_FILE)? {
            Some(vocabulary) => word_piece(preset, &vocabulary)?,
            None => {
                let dir = preset.dir().display();
                return Err(
                    format!("{dir}: has neither tokenizer.json nor vocab.txt to tokenize with").into()
                );
            }
        },
    };
    tokenizer.with_padding(None);
    let truncation = TruncationParams { max_length: longest, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|error| named("tokenizer", error))?;
    Ok(tokenizer)
}

/// A BERT tokenizer on a list of word pieces, one a line.
fn word_piece(preset: &Preset, vocabulary: &str) -> Result<Tokenizer> {
    let config = preset.read_json("tokenizer_config.json")?;
    let flag = |name: &str| config.as_ref().and_then(|config| config.get(name)?.as_bool());
    let ids: Map<String, Value> =
        vocabulary.lines().zip(0u32..).map(|(token, id)| (token.to_owned(), id.into())).collect();
    let special = |token: &str| match ids.get(token) {
        Some(id) => Ok(json!([token, id])),
        None => Err(format!("vocab.txt: has no {token}")),
    };
    let description = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": true,
            "strip_accents": flag("strip_accents"),
            "lowercase": flag("do_lower_case").unwrap_or(true),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": special("[SEP]")?, "cls": special("[CLS]")? },
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    });
    Ok(serde_json::from_value(description).map_err(|error| named("vocab.txt", error))?)
}

fn named(file: &str, error: impl std::fmt::Display) -> String {
    format!("{file}: {error}")
}
