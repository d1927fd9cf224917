//! The settings of a tokenizer in transformers' files: `tokenizer_config.json`, and the older `special_tokens_map.json` and
//! `added_tokens.json`, which count when the first has no `added_tokens_decoder`.

use std::collections::HashSet;

use rachis::loader::Preset;
use serde_json::{Map, Value};

use super::added::Added;
use super::encoding::Side;
use super::json::File;
use super::object;
use crate::error::{Error, Result, clip, in_file};

pub const CONFIG: &str = "tokenizer_config.json";

/// transformers' names of special tokens, in the order in which it adds them to the vocabulary.
pub const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The settings of a directory, with the defaults of its tokenizer's class.
pub struct Settings {
    fields: Map<String, Value>,
    /// The tokens of `added_tokens_decoder`, or of the older files, in the order of their ids.
    listed: Vec<(u32, Added)>,
    /// Special tokens without a name of [`NAMES`], in `extra_special_tokens`.
    extra: Option<Vec<Added>>,
    /// The same in an older file, which the class of the tokenizer may take instead.
    older_extra: Option<Vec<Added>>,
    /// Special tokens with a name that is not one of [`NAMES`].
    others: Vec<Added>,
    defaults: &'static [(&'static str, &'static str)],
}

impl Settings {
    /// Reads the settings of a directory; `file` is its `tokenizer.json`.
    pub fn read(preset: &Preset, file: Option<&File<'_>>) -> Result<Settings> {
        let mut fields = object(preset, CONFIG)?.unwrap_or_default();
        let listed = fields.remove("added_tokens_decoder");
        let (new, old) = (fields.remove("extra_special_tokens"), fields.remove("additional_special_tokens"));
        let empty = |value: &Value| match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(named) => named.is_empty(),
            other => other.is_null(),
        };
        let mut others = Vec::new();
        let mut extra = match new {
            Some(new) if old.is_none() || !empty(&new) => take_extra(new, &mut others)?,
            _ => old.map(|old| take_extra(old, &mut others)).transpose()?.flatten(),
        };
        let mut older_extra = None;
        let listed = match listed {
            Some(Value::Object(listed)) => by_id(listed)?,
            Some(_) => return Err(in_file(CONFIG, WRONG_LIST)),
            None => {
                for (name, value) in object(preset, MAP)?.unwrap_or_default() {
                    match name.as_str() {
                        "extra_special_tokens" => {
                            let more = take_extra(value, &mut others)?.unwrap_or_default();
                            let known = extra.get_or_insert_default();
                            known.extend(
                                more.into_iter().filter(|token| !known.contains(token)).collect::<Vec<_>>(),
                            );
                        }
                        "additional_special_tokens" => older_extra = take_extra(value, &mut others)?,
                        _ => drop(fields.insert(name, value)),
                    }
                }
                let special = |token: &str| {
                    let named = NAMES.iter().filter_map(|name| content(fields.get(*name)?));
                    let extra = extra.iter().flatten().map(|token| token.content.as_str());
                    named.chain(extra).any(|known| known == token)
                };
                let mut listed = older(preset, special)?;
                if let Some(file) = file {
                    listed.extend(file.added_tokens()?);
                }
                listed
            }
        };
        for (name, value) in &fields {
            if name.ends_with("_token") && !NAMES.contains(&name.as_str()) {
                others.extend(Added::parse(value).filter(|_| !value.is_null()).map(Added::into_special));
            }
        }
        Ok(Settings { fields, listed, extra, older_extra, others, defaults: &[] })
    }

    /// Sets the special tokens that a class has by default, by name.
    pub fn set_defaults(&mut self, defaults: &'static [(&'static str, &'static str)]) {
        self.defaults = defaults;
    }

    /// Sets the special token of this name, if the files have none.
    pub fn set_default(&mut self, name: &str, token: &str) {
        if !self.fields.contains_key(name) {
            self.fields.insert(name.to_owned(), token.into());
        }
    }

    /// A setting; `None` when it is absent or `null`.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// A setting that is true or false; `None` when it is absent or `null`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| self.wrong(name, "true or false"));
        self.value(name).map(flag).transpose()
    }

    /// A setting that is a number of things; `None` when it is absent or `null`.
    pub fn count(&self, name: &str) -> Result<Option<u64>> {
        let count = |value: &Value| value.as_u64().ok_or_else(|| self.wrong(name, "a number, 0 or more"));
        self.value(name).map(count).transpose()
    }

    /// A setting that is a text; `None` when it is absent or `null`.
    pub fn string(&self, name: &str) -> Result<Option<&str>> {
        let string = |value| Value::as_str(value).ok_or_else(|| self.wrong(name, "a string"));
        self.value(name).map(string).transpose()
    }

    /// A setting that is a side of a text; `None` when it is absent or `null`.
    pub fn side(&self, name: &str) -> Result<Option<Side>> {
        Ok(match self.string(name)? {
            None => None,
            Some("right") => Some(Side::Right),
            Some("left") => Some(Side::Left),
            Some(_) => return Err(self.wrong(name, "right or left")),
        })
    }

    /// The number of tokens that a text may have; `None` without a limit, for which transformers writes a huge number.
    pub fn model_max_length(&self) -> Result<Option<usize>> {
        let name = if self.value("model_max_length").is_some() { "model_max_length" } else { "max_len" };
        let Some(value) = self.value(name) else { return Ok(None) };
        match (value.as_u64(), value.as_f64()) {
            (Some(0), _) => Err(self.wrong(name, "a number of tokens")),
            (Some(limit), _) => Ok(usize::try_from(limit).ok().filter(|limit| *limit < HUGE)),
            (None, Some(limit)) if limit >= HUGE as f64 => Ok(None),
            _ => Err(self.wrong(name, "a number of tokens")),
        }
    }

    /// The special token of this name; `None` when the setting is `null`, or neither the settings nor the defaults have
    /// it.
    pub fn token(&self, name: &str) -> Option<Added> {
        let token = match self.fields.get(name) {
            Some(value) => Added::parse(value)?.into_special(),
            None => {
                let (_, default) = self.defaults.iter().find(|(known, _)| *known == name)?;
                return Some(Added::special(*default));
            }
        };
        let listed = self.listed.iter().rev().find(|(_, listed)| listed.content == token.content);
        Some(listed.map_or(token, |(_, listed)| listed.clone().into_special()))
    }

    /// The text of the special token of this name.
    pub fn token_text(&self, name: &str) -> Option<String> {
        self.token(name).map(|token| token.content)
    }

    /// Whether the files say how the special token of this name is found, or list it among the added ones.
    pub fn describes(&self, name: &str) -> bool {
        let Some(token) = self.token_text(name) else { return true };
        self.fields.get(name).is_some_and(Value::is_object) || self.lists(&token)
    }

    /// Whether the files list a token among the added ones.
    pub fn lists(&self, token: &str) -> bool {
        self.listed.iter().any(|(_, listed)| listed.content == token)
    }

    /// The tokens that the files list among the added ones, with their ids and in the order of these.
    pub fn listed(&self) -> &[(u32, Added)] {
        &self.listed
    }

    /// The special tokens: those with a name, then the others.
    pub fn special(&self) -> Vec<String> {
        let named = NAMES.iter().filter_map(|name| self.token(name)).chain(self.others.iter().cloned());
        let all = named.chain(self.extra().cloned()).map(|token| token.content);
        let mut special: Vec<String> = Vec::new();
        let mut seen = HashSet::new();
        special.extend(all.filter(|token| seen.insert(token.clone())));
        special
    }

    fn extra(&self) -> impl Iterator<Item = &Added> {
        self.extra.as_ref().or(self.older_extra.as_ref()).into_iter().flatten()
    }

    /// The special tokens without a name that count when `tokenizer_config.json` has none.
    pub fn older_extra(&self) -> Option<&[Added]> {
        self.older_extra.as_deref()
    }

    /// Sets the special tokens without a name that count when `tokenizer_config.json` has none.
    pub fn set_older_extra(&mut self, extra: Vec<Added>) {
        self.older_extra = Some(extra);
    }

    /// The tokens that are found in a text before it is split, in the order in which transformers adds them to a
    /// vocabulary that has the tokens `known`. `adjust` may change those that the files name but do not describe.
    pub fn added(&self, known: &[String], adjust: impl Fn(&str, Added) -> Added) -> Vec<Added> {
        let names = NAMES.iter().copied();
        let named = names
            .filter_map(|name| Some((name, self.token(name)?)))
            .map(|(name, token)| if self.describes(name) { token } else { adjust(name, token) });
        let named: Vec<Added> = named.chain(self.others.iter().cloned()).collect();
        let is_named = |token: &Added| named.iter().any(|named| named.content == token.content);
        let listed = self.listed.iter().map(|(_, token)| token.clone());
        let listed = listed.map(|token| if is_named(&token) { token.into_special() } else { token });
        let mut added: Vec<Added> = listed.collect();
        let more = named.iter().chain(self.extra());
        let more = more.filter(|token| !known.contains(&token.content) && !self.lists(&token.content));
        added.extend(more.cloned());
        added
    }

    /// The error of a setting.
    pub fn wrong(&self, name: &str, expected: &str) -> Error {
        let found = self.fields.get(name).map(Value::to_string).unwrap_or_default();
        in_file(CONFIG, format!("{name} is {}, expected {expected}", clip(&found)))
    }
}

const MAP: &str = "special_tokens_map.json";

const WRONG_LIST: &str = "added_tokens_decoder has an entry that is not an id and its token";

/// transformers counts a limit from 1e20 on as none; nothing has so many tokens that a smaller bound matters.
const HUGE: usize = 1 << 40;

/// The text of a token.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// The tokens of a list; those of an object, which have names, are appended to `others`.
fn take_extra(value: Value, others: &mut Vec<Added>) -> Result<Option<Vec<Added>>> {
    let wrong = || in_file(CONFIG, "extra_special_tokens has an entry that is not a token");
    match value {
        Value::Array(list) => {
            list.iter().map(|token| Added::parse(token).ok_or_else(wrong)).collect::<Result<_>>().map(Some)
        }
        Value::Object(named) => {
            for token in named.values() {
                others.push(Added::parse(token).ok_or_else(wrong)?.into_special());
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// The tokens of `added_tokens_decoder`, in the order of their ids.
fn by_id(listed: Map<String, Value>) -> Result<Vec<(u32, Added)>> {
    let entry = |(id, token): (String, Value)| {
        Some((id.trim().parse::<u32>().ok()?, Added::parse(&token).filter(|_| token.is_object())?))
    };
    let listed: Option<Vec<_>> = listed.into_iter().map(entry).collect();
    let mut listed = listed.ok_or_else(|| in_file(CONFIG, WRONG_LIST))?;
    listed.sort_by_key(|(id, _)| *id);
    Ok(listed)
}

/// The tokens of `added_tokens.json`, in the order of their ids.
fn older(preset: &Preset, special: impl Fn(&str) -> bool) -> Result<Vec<(u32, Added)>> {
    const FILE: &str = "added_tokens.json";
    let mut older = Vec::new();
    for (token, id) in object(preset, FILE)?.unwrap_or_default() {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| in_file(FILE, format!("{} has no id", clip(&token))))?;
        let special = special(&token);
        older.push((id, Added { special, normalized: Some(!special), ..Added::special(token) }));
    }
    older.sort_by_key(|(id, _)| *id);
    Ok(older)
}
