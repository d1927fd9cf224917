//! Names of models on Kaggle.

use std::fmt;
use std::str::FromStr;

use super::name::{describe, is_name, quote, refuse};
use crate::error::{Error, Result};

/// A model on Kaggle: a variation of it for one framework, and optionally a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KaggleModel {
    /// `owner/model/framework/variation`.
    id: String,
    version: Option<u32>,
}

impl KaggleModel {
    /// The model's id: `owner/model/framework/variation`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The version; `None` stands for the newest version in the cache.
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    /// A model that KerasHub publishes.
    pub(super) fn keras(model: &str, variation: &str, version: u32) -> KaggleModel {
        KaggleModel { id: format!("keras/{model}/keras/{variation}"), version: Some(version) }
    }

    /// Parses `rest`, the part of `name` after `kaggle://`.
    pub(super) fn parse(name: &str, rest: &str) -> Result<KaggleModel> {
        let expected =
            "kaggle://owner/model/framework/variation[/version], of letters, digits, '-', '_' and '.'";
        let parts: Vec<&str> = rest.split('/').collect();
        let (id, version) = match parts.as_slice() {
            id @ [_, _, _, _] => (id, None),
            [id @ .., version] if id.len() == 4 => (id, Some(*version)),
            _ => return Err(refuse(name, expected, format!("{} parts", parts.len()))),
        };
        if let Some(part) = id.iter().find(|part| !is_name(part)) {
            return Err(refuse(name, expected, describe(part)));
        }
        let wrong = |text| refuse(name, "a version that is a positive number", quote(text));
        let number = |text| parse_version(text).ok_or_else(|| wrong(text));
        Ok(KaggleModel { id: id.join("/"), version: version.map(number).transpose()? })
    }
}

impl FromStr for KaggleModel {
    type Err = Error;

    /// Parses `kaggle://owner/model/framework/variation`, with or without `/version`.
    fn from_str(name: &str) -> Result<KaggleModel> {
        let expected = "kaggle://owner/model/framework/variation[/version]";
        let rest = name.strip_prefix("kaggle://").ok_or_else(|| refuse(name, expected, describe(name)))?;
        KaggleModel::parse(name, rest)
    }
}

impl fmt::Display for KaggleModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kaggle://{}", self.id)?;
        self.version.map_or(Ok(()), |version| write!(f, "/{version}"))
    }
}

/// Parses a version as kagglehub writes it: decimal digits without a leading zero.
pub(crate) fn parse_version(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}
