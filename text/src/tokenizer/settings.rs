//! The settings of a tokenizer in transformers' files: `tokenizer_config.json`, and the older
//! `special_tokens_map.json` and `added_tokens.json`, which are read when the first has no `added_tokens_decoder`.

use rachis::loader::Preset;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer};

use super::{frame, object};
use crate::error::{Result, in_file};

const CONFIG: &str = "tokenizer_config.json";

/// transformers' names of special tokens, in the order in which it adds them to the vocabulary.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The settings of a directory, with the defaults of its tokenizer's class.
pub struct Settings {
    fields: Map<String, Value>,
    added: Vec<AddedToken>,
    defaults: &'static [(&'static str, &'static str)],
}

impl Settings {
    /// Reads the settings; `defaults` are the default special tokens by name.
    pub fn read(preset: &Preset, defaults: &'static [(&'static str, &'static str)]) -> Result<Settings> {
        let fields = object(preset, CONFIG)?.unwrap_or_default();
        let mut settings = Settings { fields, added: Vec::new(), defaults };
        if let Some(Value::Object(listed)) = settings.fields.get("added_tokens_decoder") {
            let wrong =
                || in_file(CONFIG, "added_tokens_decoder has an entry that is not an id and its token");
            let entry =
                |(id, token): (&String, &Value)| Some((id.parse::<u32>().ok()?, added(token, false)?));
            let mut listed: Vec<_> = listed.iter().map(entry).collect::<Option<_>>().ok_or_else(wrong)?;
            listed.sort_by_key(|(id, _)| *id);
            settings.added = listed.into_iter().map(|(_, token)| token).collect();
            return Ok(settings);
        }
        settings.fields.extend(object(preset, "special_tokens_map.json")?.unwrap_or_default());
        let mut older: Vec<_> =
            object(preset, "added_tokens.json")?.unwrap_or_default().into_iter().collect();
        older.sort_by_key(|(_, id)| id.as_u64());
        let special: Vec<String> =
            settings.named().chain(settings.extra()).map(|token| token.content).collect();
        let older = older.into_iter().map(|(token, _)| {
            let special = special.contains(&token);
            AddedToken::from(token, special)
        });
        settings.added = older.collect();
        Ok(settings)
    }

    /// A setting; `None` when it is absent or not a boolean.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.fields.get(name).and_then(Value::as_bool)
    }

    /// A setting; `None` when it is absent or not an unsigned integer.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.fields.get(name).and_then(Value::as_u64)
    }

    /// The special token of this name; `None` when the setting is `null`, or neither the settings nor the defaults have
    /// it.
    pub fn token(&self, name: &str) -> Option<AddedToken> {
        let default = || self.defaults.iter().find(|(known, _)| *known == name);
        let token = match self.fields.get(name) {
            Some(value) => added(value, true)?,
            None => AddedToken::from(default()?.1, true),
        };
        let listed = self.added.iter().find(|listed| listed.content == token.content);
        Some(listed.cloned().map_or(token, |listed| AddedToken { special: true, ..listed }))
    }

    /// Adds the tokens to the library that are found in a text before normalisation.
    pub fn add_to(&self, library: &mut Tokenizer) -> Result<()> {
        let tokens = self.added.iter().cloned().chain(self.named()).chain(self.extra());
        library.add_tokens(tokens.collect::<Vec<_>>()).map_err(|error| in_file(CONFIG, error))?;
        Ok(())
    }

    /// Whether there are special tokens without one of [`NAMES`].
    pub fn lists_extra(&self) -> bool {
        self.extra().next().is_some()
    }

    /// The post-processor that adds special tokens to a text: by `add_bos_token` and `add_eos_token` if either is
    /// set, else the tokens named `start` and `end`.
    pub fn frame(
        &self,
        library: &Tokenizer,
        start: Option<&str>,
        end: Option<&str>,
    ) -> Result<PostProcessorWrapper> {
        let set = ["add_bos_token", "add_eos_token"].map(|name| self.flag(name));
        let (start, end) = if set.iter().any(Option::is_some) {
            (set[0].unwrap_or(false).then_some("bos_token"), set[1].unwrap_or(false).then_some("eos_token"))
        } else {
            (start, end)
        };
        let token = |name: &str| {
            let token = self.token(name)?.content;
            library.token_to_id(&token).map(|id| (token, id))
        };
        let (start, end) = (start.and_then(token), end.and_then(token));
        frame(
            start.as_ref().map(|(token, id)| (token.as_str(), *id)),
            end.as_ref().map(|(token, id)| (token.as_str(), *id)),
        )
    }

    /// The special tokens of [`NAMES`].
    fn named(&self) -> impl Iterator<Item = AddedToken> {
        NAMES.into_iter().filter_map(|name| self.token(name))
    }

    /// The special tokens without one of [`NAMES`].
    fn extra(&self) -> impl Iterator<Item = AddedToken> {
        let lists = ["additional_special_tokens", "extra_special_tokens"].map(|name| self.fields.get(name));
        lists
            .into_iter()
            .flatten()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(|token| added(token, true))
    }
}

/// Parses a token, which is a string or an object of its properties. A string is always special, an object if
/// `special` or its own field says so.
fn added(token: &Value, special: bool) -> Option<AddedToken> {
    if let Some(content) = token.as_str() {
        return Some(AddedToken::from(content, true));
    }
    let flag = |name: &str| token.get(name).and_then(Value::as_bool);
    let special = special || flag("special").unwrap_or(false);
    Some(AddedToken {
        content: token.get("content")?.as_str()?.to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}
