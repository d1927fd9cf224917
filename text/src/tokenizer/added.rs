//! Tokens that are found in a text before it is split: special tokens, and those that were added to a vocabulary.

use serde_json::Value;
use tokenizers::AddedToken;

/// A token as transformers' files describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    /// Whether it is found in the normalised text; by default only if it is not special.
    pub normalized: Option<bool>,
    pub special: bool,
}

impl Added {
    /// A special token without other properties.
    pub fn special(content: impl Into<String>) -> Added {
        let content = content.into();
        Added { content, single_word: false, lstrip: false, rstrip: false, normalized: None, special: true }
    }

    /// Parses a token: a string, which is special, or an object of properties.
    pub fn parse(token: &Value) -> Option<Added> {
        if let Some(content) = token.as_str() {
            return Some(Added::special(content));
        }
        let flag = |name: &str| token.get(name).and_then(Value::as_bool);
        Some(Added {
            content: token.get("content")?.as_str()?.to_owned(),
            single_word: flag("single_word").unwrap_or(false),
            lstrip: flag("lstrip").unwrap_or(false),
            rstrip: flag("rstrip").unwrap_or(false),
            normalized: flag("normalized"),
            special: flag("special").unwrap_or(false),
        })
    }

    /// The same token, special.
    pub fn into_special(self) -> Added {
        Added { special: true, ..self }
    }
}

impl From<Added> for AddedToken {
    fn from(token: Added) -> AddedToken {
        AddedToken {
            content: token.content,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            normalized: token.normalized.unwrap_or(!token.special),
            special: token.special,
        }
    }
}
