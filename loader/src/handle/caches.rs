//! Where huggingface_hub and kagglehub keep what they have downloaded.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The directories of the two caches, as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caches {
    hub: Option<PathBuf>,
    kaggle: Option<PathBuf>,
    /// Whether Python's tools find these directories by themselves.
    from_env: bool,
}

impl Caches {
    /// The caches that Python's tools use in this environment:
    ///
    /// - of the hub, the first of `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME` + `/hub`, `XDG_CACHE_HOME` +
    ///   `/huggingface/hub` and `~/.cache/huggingface/hub`;
    /// - of Kaggle, `KAGGLEHUB_CACHE` or `~/.cache/kagglehub`.
    pub fn from_env() -> Caches {
        Caches::from_vars(&Vars::from_env())
    }

    /// Caches in these directories, which need not exist.
    pub fn new(hub: impl Into<PathBuf>, kaggle: impl Into<PathBuf>) -> Caches {
        Caches { hub: Some(hub.into()), kaggle: Some(kaggle.into()), from_env: false }
    }

    /// The cache of the Hugging Face hub; `None` when neither a variable nor a home directory says where it is.
    pub fn hub(&self) -> Option<&Path> {
        self.hub.as_deref()
    }

    /// The cache of Kaggle; `None` when neither a variable nor a home directory says where it is.
    pub fn kaggle(&self) -> Option<&Path> {
        self.kaggle.as_deref()
    }

    pub(super) fn are_from_env(&self) -> bool {
        self.from_env
    }

    fn from_vars(vars: &Vars) -> Caches {
        let named = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].into_iter().find_map(|name| vars.path(name));
        let hub = named.or_else(|| Some(vars.hf_home()?.join("hub")));
        // The only one whose tool expands nothing.
        let kaggle = vars.get("KAGGLEHUB_CACHE").map(PathBuf::from);
        let kaggle = kaggle.or_else(|| Some(vars.home.as_ref()?.join(".cache/kagglehub")));
        Caches { hub, kaggle, from_env: true }
    }
}

type Lookup = dyn Fn(&str) -> Option<OsString>;

/// Environment variables, so that tests need not set those of the process.
pub(crate) struct Vars {
    get: Box<Lookup>,
    home: Option<PathBuf>,
}

impl Vars {
    pub(crate) fn from_env() -> Vars {
        let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
        Vars { get: Box::new(|name| env::var_os(name)), home }
    }

    /// A variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<OsString> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    /// A variable that is a path, with `~` and variables in it expanded as huggingface_hub does.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|value| self.expand(value))
    }

    /// Where huggingface_hub keeps its cache and its token.
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

    /// `$NAME` and `${NAME}` by their values; what is not set stays as it is.
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
mod tests {
    use super::*;

    fn vars(set: &[(&str, &str)], home: Option<&str>) -> Vars {
        let set: Vec<(String, OsString)> = set.iter().map(|(k, v)| (k.to_string(), v.into())).collect();
        let get = move |name: &str| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        Vars { get: Box::new(get), home: home.map(PathBuf::from) }
    }

    #[test]
    fn places() {
        for (set, hub, kaggle) in [
            (&[][..], "/h/.cache/huggingface/hub", "/h/.cache/kagglehub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub", "/h/.cache/kagglehub"),
            (&[("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/x")], "/hf/hub", "/h/.cache/kagglehub"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")], "/old", "/h/.cache/kagglehub"),
            (&[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/new", "/h/.cache/kagglehub"),
            (&[("HF_HUB_CACHE", ""), ("KAGGLEHUB_CACHE", "/k")], "/h/.cache/huggingface/hub", "/k"),
            (&[("HF_HOME", "~/hf"), ("KAGGLEHUB_CACHE", "~/k")], "/h/hf/hub", "~/k"),
            (
                &[("HF_HUB_CACHE", "$A/${B}/$C/$/${"), ("A", "/a"), ("B", "b")],
                "/a/b/$C/$/${",
                "/h/.cache/kagglehub",
            ),
            (&[("HF_HUB_CACHE", "~"), ("KAGGLEHUB_CACHE", "/k")], "/h", "/k"),
        ] {
            let caches = Caches::from_vars(&vars(set, Some("/h")));
            assert_eq!(caches.hub(), Some(Path::new(hub)), "{set:?}");
            assert_eq!(caches.kaggle(), Some(Path::new(kaggle)), "{set:?}");
            assert!(caches.are_from_env());
        }
        let nowhere = Caches::from_vars(&vars(&[], None));
        assert_eq!((nowhere.hub(), nowhere.kaggle()), (None, None));
    }

    #[cfg(unix)]
    #[test]
    fn a_place_need_not_be_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let place = OsString::from_vec(b"/\xff/hub".to_vec());
        let get = {
            let place = place.clone();
            move |name: &str| (name == "HF_HUB_CACHE").then(|| place.clone())
        };
        let vars = Vars { get: Box::new(get), home: None };
        assert_eq!(Caches::from_vars(&vars).hub(), Some(Path::new(&place)));
    }
}
