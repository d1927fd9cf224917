//! What transformers' files say about a tokenizer beside its vocabulary: `tokenizer_config.json`, and the older
//! `special_tokens_map.json` and `added_tokens.json`, which count when the first lists no added tokens itself.

use rachis::loader::Preset;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer};

use super::{frame, named, object};
use crate::Result;

const CONFIG: &str = "tokenizer_config.json";

/// transformers' names of special tokens, in the order in which it adds them.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The settings of a directory, over the defaults of its tokenizer.
pub struct Settings {
    fields: Map<String, Value>,
    added: Vec<AddedToken>,
    defaults: &'static [(&'static str, &'static str)],
}

impl Settings {
    /// Reads them; `defaults` are the special tokens by name.
    pub fn read(preset: &Preset, defaults: &'static [(&'static str, &'static str)]) -> Result<Settings> {
        let fields = object(preset, CONFIG)?.unwrap_or_default();
        let mut settings = Settings { fields, added: Vec::new(), defaults };
        if let Some(Value::Object(listed)) = settings.fields.get("added_tokens_decoder") {
            let wrong = || named(CONFIG, "added_tokens_decoder has an entry that is not an id and its token");
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

    /// A boolean setting, where it is one.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.fields.get(name).and_then(Value::as_bool)
    }

    /// A count, where it is one.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.fields.get(name).and_then(Value::as_u64)
    }

    /// The special token of this name; there is none when the settings say `null`, or neither they nor the defaults
    /// have it.
    pub fn token(&self, name: &str) -> Option<AddedToken> {
        let default = || self.defaults.iter().find(|(known, _)| *known == name);
        let token = match self.fields.get(name) {
            Some(value) => added(value, true)?,
            None => AddedToken::from(default()?.1, true),
        };
        let listed = self.added.iter().find(|listed| listed.content == token.content);
        Some(listed.cloned().map_or(token, |listed| AddedToken { special: true, ..listed }))
    }

    /// Makes the library know the tokens that are found in a text before anything else happens to it.
    pub fn add_to(&self, library: &mut Tokenizer) -> Result<()> {
        let tokens = self.added.iter().cloned().chain(self.named()).chain(self.extra());
        library.add_tokens(tokens.collect::<Vec<_>>()).map_err(|error| named(CONFIG, error))?;
        Ok(())
    }

    /// Whether there are special tokens without a name.
    pub fn lists_extra(&self) -> bool {
        self.extra().next().is_some()
    }

    /// What is put around a text: what `add_bos_token` and `add_eos_token` ask for where there is either of them,
    /// else the tokens of these names.
    pub fn frame(
        &self,
        library: &Tokenizer,
        start: Option<&str>,
        end: Option<&str>,
    ) -> Result<PostProcessorWrapper> {
        let asked = ["add_bos_token", "add_eos_token"].map(|name| self.flag(name));
        let (start, end) = if asked.iter().any(Option::is_some) {
            (
                asked[0].unwrap_or(false).then_some("bos_token"),
                asked[1].unwrap_or(false).then_some("eos_token"),
            )
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

    fn named(&self) -> impl Iterator<Item = AddedToken> {
        NAMES.into_iter().filter_map(|name| self.token(name))
    }

    /// Special tokens without a name.
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

/// A token as a string, or as an object of its properties.
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
