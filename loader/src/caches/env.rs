//! Environment variables as huggingface_hub reads them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Looks up a variable by its name.
pub(super) type Lookup = dyn Fn(&str) -> Option<OsString>;

/// A view of the environment. Tests pass their own variables instead of changing the process's environment.
pub(crate) struct Vars {
    get: Box<Lookup>,
    home: Option<PathBuf>,
}

impl Vars {
    /// The process's environment.
    pub(crate) fn from_env() -> Vars {
        let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
        Vars { get: Box::new(|name| env::var_os(name)), home }
    }

    /// The home directory.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// The value of a variable, unless it is unset or empty.
    pub(crate) fn get(&self, name: &str) -> Option<OsString> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    /// The value of a variable that holds a path, with `~` and variables expanded as huggingface_hub expands them.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|value| self.expand(value))
    }

    /// The directory in which huggingface_hub keeps its cache and its token.
    pub(crate) fn hf_home(&self) -> Option<PathBuf> {
        let in_cache = |cache: PathBuf| cache.join("huggingface");
        self.path("HF_HOME")
            .or_else(|| self.path("XDG_CACHE_HOME").map(in_cache))
            .or_else(|| self.home.as_ref().map(|home| in_cache(home.join(".cache"))))
    }

    fn expand(&self, value: OsString) -> PathBuf {
        let Some(text) = value.to_str() else { return value.into() };
        let expanded = self.expand_variables(text);
        match (expanded.to_str().and_then(|text| text.strip_prefix('~')), &self.home) {
            (Some(""), Some(home)) => home.clone(),
            (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            _ => expanded.into(),
        }
    }

    /// Replaces `$NAME` and `${NAME}` by their values. Unset variables stay as they are written.
    fn expand_variables(&self, text: &str) -> OsString {
        let mut expanded = OsString::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push(before);
            let of_name = |text: &str| {
                text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
            };
            let (name, end) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((name, after)) => (name, after),
                None => after.split_at(of_name(after)),
            };
            match Some(name).filter(|name| !name.is_empty()).and_then(|name| (self.get)(name)) {
                Some(value) => expanded.push(value),
                None => {
                    expanded.push("$");
                    expanded.push(after.strip_suffix(end).unwrap_or_default());
                }
            }
            rest = end;
        }
        expanded.push(rest);
        expanded
    }
}

#[cfg(test)]
impl Vars {
    /// An environment with the variables of `get`.
    pub(super) fn for_test(get: Box<Lookup>, home: Option<PathBuf>) -> Vars {
        Vars { get, home }
    }
}
