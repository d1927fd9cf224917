//! `tokenizer.json`: the format of the `tokenizers` crate, and in a Keras preset the description of a layer.
//!
//! The vocabulary is most of the file, so the file is read as a stream: no tree of values is built of it. What the file
//! says about steps is kept as values, which [`steps`](super::steps) checks.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::added::Added;
use crate::error::{Result, clip, in_file};

pub const FILE: &str = "tokenizer.json";

/// The content of the file. Fields that this crate has no use for are skipped.
#[derive(Default, Deserialize)]
pub struct File<'a> {
    version: Option<Value>,
    pub truncation: Option<Value>,
    pub padding: Option<Value>,
    #[serde(default)]
    added_tokens: Option<Vec<Value>>,
    #[serde(default)]
    pub normalizer: Value,
    #[serde(default)]
    pub pre_tokenizer: Value,
    #[serde(default)]
    pub post_processor: Value,
    #[serde(default)]
    pub decoder: Value,
    #[serde(borrow)]
    pub model: Option<ModelFields<'a>>,
    /// The class of a Keras layer.
    pub class_name: Option<Value>,
    /// The arguments of a Keras layer.
    pub config: Option<Value>,
}

/// The fields of every kind of model.
#[derive(Default, Deserialize)]
pub struct ModelFields<'a> {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(borrow, default)]
    pub vocab: Vocab<'a>,
    #[serde(borrow)]
    pub merges: Option<Vec<Merge<'a>>>,
    pub unk_token: Option<String>,
    pub unk_id: Option<usize>,
    pub byte_fallback: Option<bool>,
    pub dropout: Option<f32>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    pub fuse_unk: Option<bool>,
    pub ignore_merges: Option<bool>,
    pub max_input_chars_per_word: Option<usize>,
}

/// A vocabulary: ids of tokens, or pieces with their scores in the order of the ids.
#[derive(Default)]
pub enum Vocab<'a> {
    #[default]
    None,
    Ids(Vec<(Cow<'a, str>, u32)>),
    Scores(Vec<(Cow<'a, str>, f64)>),
}

/// Two tokens that BPE merges: a list of them, or both in one string with a space between.
pub struct Merge<'a>(pub Cow<'a, str>, pub Cow<'a, str>);

impl<'a> File<'a> {
    /// Parses the file.
    pub fn parse(text: &'a str) -> Result<File<'a>> {
        let file: File<'_> = serde_json::from_str(text).map_err(|error| in_file(FILE, error))?;
        match &file.version {
            None => Ok(file),
            Some(version) if version == "1.0" => Ok(file),
            Some(version) => {
                let version = version.as_str().map_or_else(|| version.to_string(), str::to_owned);
                Err(in_file(FILE, format!("version is {}, expected 1.0", clip(&version))))
            }
        }
    }

    /// The tokens that are found in a text before anything else, with their ids and in the order of the file.
    pub fn added_tokens(&self) -> Result<Vec<(u32, Added)>> {
        let entry = |token: &Value| {
            let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok());
            id.zip(Added::parse(token)).ok_or_else(|| in_file(FILE, WRONG_TOKEN))
        };
        self.added_tokens.iter().flatten().map(entry).collect()
    }

    /// The model; an error when the file has none.
    pub fn take_model(&mut self) -> Result<ModelFields<'a>> {
        self.model.take().ok_or_else(|| in_file(FILE, "has no model"))
    }
}

const WRONG_TOKEN: &str = "added_tokens has an entry that is not an id and its token";

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocab<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ids of tokens, or pieces with their scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab<'de>, A::Error> {
                let mut ids = Vec::new();
                while let Some((Text(token), id)) = map.next_entry()? {
                    ids.push((token, id));
                }
                Ok(Vocab::Ids(ids))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocab<'de>, A::Error> {
                let mut scores = Vec::new();
                while let Some((Text(piece), score)) = list.next_element()? {
                    scores.push((piece, score));
                }
                Ok(Vocab::Scores(scores))
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens")
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Merge<'de>, E> {
                let (first, second) =
                    two_tokens(text).ok_or_else(|| E::custom("a merge is not of two tokens"))?;
                Ok(Merge(first.into(), second.into()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge<'de>, E> {
                let (first, second) =
                    two_tokens(text).ok_or_else(|| E::custom("a merge is not of two tokens"))?;
                Ok(Merge(first.to_owned().into(), second.to_owned().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge<'de>, A::Error> {
                let mut next = || {
                    list.next_element()?
                        .ok_or_else(|| serde::de::Error::custom("a merge is not of two tokens"))
                };
                let (Text(first), Text(second)) = (next()?, next()?);
                match list.next_element::<serde::de::IgnoredAny>()? {
                    None => Ok(Merge(first, second)),
                    Some(_) => Err(serde::de::Error::custom("a merge is not of two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

/// The two tokens of a merge that is written as one text.
pub fn two_tokens(text: &str) -> Option<(&str, &str)> {
    text.split_once(' ').filter(|(_, second)| !second.contains(' '))
}

/// A string, borrowed from the file where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
