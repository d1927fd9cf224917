//! Names of repositories on the Hugging Face hub.

use std::fmt;
use std::str::FromStr;

use super::name::{describe, is_name, refuse};
use crate::error::{Error, Result};

/// A model repository on the Hugging Face hub, at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubRepo {
    id: String,
    revision: Option<String>,
}

impl HubRepo {
    /// The repository's id: `owner/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The revision: a branch, a tag or the hash of a commit; `main` when the handle has none.
    pub fn revision(&self) -> &str {
        self.explicit_revision().unwrap_or("main")
    }

    /// The revision that the handle spells out.
    pub(crate) fn explicit_revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// Parses `rest`, the part of `name` after `hf://`.
    pub(super) fn parse(name: &str, rest: &str) -> Result<HubRepo> {
        let (id, revision) = match rest.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (rest, None),
        };
        let expected = "hf://owner/name, of letters, digits, '-', '_' and '.'";
        let parts: Vec<&str> = id.split('/').collect();
        if parts.len() > 2 {
            return Err(refuse(name, expected, format!("{} parts", parts.len())));
        }
        // The cache separates owner and name by two dashes. If names could contain them, two repositories could share
        // one directory.
        let is_wrong = |part: &&&str| !is_name(part) || part.contains("--") || part.ends_with(".git");
        if let Some(part) = parts.iter().find(is_wrong) {
            return Err(refuse(name, expected, describe(part)));
        }
        if let Some(part) = revision.and_then(|all| wrong_part(all)) {
            return Err(refuse(name, "a branch, a tag or a commit after the '@'", describe(part)));
        }
        Ok(HubRepo { id: id.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl FromStr for HubRepo {
    type Err = Error;

    /// Parses `hf://owner/name` or `hf://owner/name@revision`.
    fn from_str(name: &str) -> Result<HubRepo> {
        let expected = "hf://owner/name";
        let rest = name.strip_prefix("hf://").ok_or_else(|| refuse(name, expected, describe(name)))?;
        HubRepo::parse(name, rest)
    }
}

impl fmt::Display for HubRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}", self.id)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

/// Whether a revision is the full hash of a commit.
pub(crate) fn is_commit_hash(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// The longest revision, in bytes: a few parts.
const MAX_REVISION: usize = 256;

/// The first part of a revision that is not a plain name. A branch can have several parts, such as `refs/pr/1`.
fn wrong_part(revision: &str) -> Option<&str> {
    if revision.len() > MAX_REVISION {
        return Some(revision);
    }
    revision.split('/').find(|part| !is_name(part))
}
