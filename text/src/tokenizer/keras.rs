//! The tokenizer of a KerasHub preset: a Keras layer that `tokenizer.json` describes, with its vocabulary under
//! `assets/tokenizer`.

use rachis::loader::Preset;
use serde_json::{Map, Value};

use super::json::File;
use super::{
    LARGEST_FILE, Prompting, Tokenizer, byte_level, keras_pieces, missing, sentence_piece, word_piece,
};
use crate::error::{Error, Result, clip, in_file};

/// The class of a Keras layer and the arguments of its constructor.
pub struct Layer {
    class: String,
    arguments: Map<String, Value>,
}

/// The Keras layer that a `tokenizer.json` describes; `None` for other content, such as Hugging Face's.
pub fn layer(file: &mut File<'_>) -> Option<Layer> {
    match (file.class_name.take(), file.config.take()) {
        (Some(Value::String(class)), Some(Value::Object(arguments))) => Some(Layer { class, arguments }),
        _ => None,
    }
}

/// Opens the tokenizer of a layer, which adds special tokens to a prompt as KerasHub's preprocessor of its family does.
pub fn open(preset: &Preset, layer: &Layer) -> Result<Tokenizer> {
    layer.refuse_unsupported_arguments()?;
    let text = |name: &str| -> Result<String> {
        preset.read_text(name, LARGEST_FILE)?.ok_or_else(|| missing(preset, name))
    };
    let byte_level = |start, end| -> Result<Tokenizer> {
        byte_level::keras(layer, &text(byte_level::KERAS[0])?, &text(byte_level::KERAS[1])?, (start, end))
    };
    match layer.class.as_str() {
        "BertTokenizer" => word_piece::keras(layer, &text(word_piece::KERAS)?),
        "BartTokenizer" => byte_level(Some("<s>"), Some("</s>")),
        "OPTTokenizer" => byte_level(Some("</s>"), None),
        "FalconTokenizer" => byte_level(Some("<|endoftext|>"), None),
        "T5Tokenizer" => {
            let file = preset.read_bytes(keras_pieces::KERAS, sentence_piece::LARGEST_FILE)?;
            keras_pieces::keras(&file.ok_or_else(|| missing(preset, keras_pieces::KERAS))?)
        }
        other => {
            let expected = "the tokenizer of BERT, BART, OPT, Falcon or T5";
            Err(in_file("tokenizer.json", format!("class_name is {}, expected {expected}", clip(other))))
        }
    }
}

impl Layer {
    /// A boolean argument, or KerasHub's default.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.argument(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(name, "a boolean")),
        }
    }

    /// A string argument, or KerasHub's default.
    pub fn string<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        match self.argument(name) {
            None => Ok(default),
            Some(value) => value.as_str().ok_or_else(|| self.wrong(name, "a string")),
        }
    }

    /// A list of strings; `None` when absent or `null`.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.argument(name) else { return Ok(None) };
        let strings = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        strings.map(Some).ok_or_else(|| self.wrong(name, "a list of strings"))
    }

    fn argument(&self, name: &str) -> Option<&Value> {
        self.arguments.get(name).filter(|value| !value.is_null())
    }

    /// Returns an error for arguments that would change the ids and that no preset of these families sets.
    fn refuse_unsupported_arguments(&self) -> Result<()> {
        for name in ["sequence_length", "add_bos", "add_eos"] {
            if self.argument(name).is_some_and(|value| *value != Value::Bool(false)) {
                return Err(self.wrong(name, "none"));
            }
        }
        Ok(())
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        let found = self.argument(name).map(Value::to_string).unwrap_or_default();
        in_file("tokenizer.json", format!("{name} is {}, expected {expected}", clip(&found)))
    }
}

/// The ids of special tokens; an error when the vocabulary lacks one.
pub fn special<const N: usize>(
    file: &str,
    tokens: [&str; N],
    id: impl Fn(&str) -> Option<u32>,
) -> Result<[u32; N]> {
    if let Some(missing) = tokens.iter().find(|token| id(token).is_none()) {
        return Err(in_file(file, format!("has no {missing}")));
    }
    Ok(tokens.map(|token| id(token).unwrap_or_default()))
}

/// The special tokens of generation, by their ids.
pub fn prompting(end: u32, decoder: Option<Vec<u32>>, hidden: &[u32]) -> Prompting {
    Prompting { end: Some(end), decoder, hidden: hidden.to_vec() }
}
