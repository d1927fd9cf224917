//! Prompts: texts that go before every text, saved with the model under names.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Fields;
use crate::error::{Error, Result, clip};

/// The prompts of a model.
#[derive(Debug, Default)]
pub(crate) struct Prompts {
    prompts: BTreeMap<String, String>,
    default: Option<String>,
}

impl Prompts {
    /// Reads `prompts` and `default_prompt_name`. A model has the prompts `names`, too, which are empty unless the file
    /// has others.
    pub(crate) fn read(config: &Fields, names: &[&str]) -> Result<Prompts> {
        let own = names.iter().map(|name| ((*name).to_owned(), String::new()));
        let mut prompts: BTreeMap<String, String> = own.collect();
        let saved = config.object("prompts")?;
        for (name, prompt) in saved.iter() {
            let prompt = match prompt {
                Value::Null => "",
                Value::String(prompt) => prompt,
                _ => return Err(saved.wrong(name, "a string")),
            };
            prompts.insert(name.to_owned(), prompt.to_owned());
        }
        let default = config.opt_str("default_prompt_name")?.map(str::to_owned);
        let prompts = Prompts { prompts, default };
        match &prompts.default {
            Some(name) if !prompts.prompts.contains_key(name) => {
                Err(config.wrong("default_prompt_name", &prompts.names()))
            }
            _ => Ok(prompts),
        }
    }

    /// The names of the prompts, in alphabetical order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.prompts.iter().map(|(name, prompt)| (name.as_str(), prompt.as_str()))
    }

    /// The prompt that a request asks for: `prompt` itself, else the one called `name`, else the default one. Empty for
    /// none.
    pub(crate) fn resolve<'p>(&'p self, prompt: Option<&'p str>, name: Option<&str>) -> Result<&'p str> {
        match (prompt, name.or(self.default.as_deref())) {
            (Some(prompt), _) => Ok(prompt),
            (None, None) => Ok(""),
            (None, Some(name)) => self.prompts.get(name).map(String::as_str).ok_or_else(|| {
                let expected = self.names();
                Error::Request { what: "prompt_name", found: clip(name), expected }
            }),
        }
    }

    /// The names, for a message.
    fn names(&self) -> String {
        let mut names: Vec<String> = self.prompts.keys().take(10).map(|name| clip(name)).collect();
        if names.is_empty() {
            names.push("none".to_owned());
        }
        format!("one of the model's prompts: {}", names.join(", "))
    }
}
