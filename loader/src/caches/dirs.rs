//! The directories in which huggingface_hub and kagglehub cache their downloads.

use std::path::{Path, PathBuf};

use super::env::Vars;

/// The directories of both caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caches {
    hub: Option<PathBuf>,
    kaggle: Option<PathBuf>,
    source: Source,
}

/// Where the directories come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The environment: Python's tools find the same directories without being told.
    Environment,
    /// The caller.
    Caller,
}

impl Caches {
    /// The caches that Python's tools use in this environment:
    ///
    /// - for the Hugging Face hub, the first of `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME` + `/hub`,
    ///   `XDG_CACHE_HOME` + `/huggingface/hub` and `~/.cache/huggingface/hub`;
    /// - for Kaggle, `KAGGLEHUB_CACHE` or `~/.cache/kagglehub`.
    pub fn from_env() -> Caches {
        Caches::from_vars(&Vars::from_env())
    }

    /// Caches in these directories, which need not exist.
    pub fn new(hub: impl Into<PathBuf>, kaggle: impl Into<PathBuf>) -> Caches {
        Caches { hub: Some(hub.into()), kaggle: Some(kaggle.into()), source: Source::Caller }
    }

    /// The cache of the Hugging Face hub; `None` when neither a variable nor a home directory determines it.
    pub fn hub(&self) -> Option<&Path> {
        self.hub.as_deref()
    }

    /// The cache of Kaggle; `None` when neither a variable nor a home directory determines it.
    pub fn kaggle(&self) -> Option<&Path> {
        self.kaggle.as_deref()
    }

    /// Whether Python's tools find these directories without being told.
    pub(super) fn are_from_env(&self) -> bool {
        self.source == Source::Environment
    }

    fn from_vars(vars: &Vars) -> Caches {
        let named = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].into_iter().find_map(|name| vars.path(name));
        let hub = named.or_else(|| Some(vars.hf_home()?.join("hub")));
        // kagglehub expands neither `~` nor variables.
        let kaggle = vars.get("KAGGLEHUB_CACHE").map(PathBuf::from);
        let kaggle = kaggle.or_else(|| Some(vars.home()?.join(".cache/kagglehub")));
        Caches { hub, kaggle, source: Source::Environment }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn vars(set: &[(&str, &str)], home: Option<&str>) -> Vars {
        let set: Vec<(String, OsString)> = set.iter().map(|(k, v)| (k.to_string(), v.into())).collect();
        let get = move |name: &str| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        Vars::for_test(Box::new(get), home.map(PathBuf::from))
    }

    #[test]
    fn directories_by_variable() {
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
    fn a_directory_need_not_be_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let dir = OsString::from_vec(b"/\xff/hub".to_vec());
        let get = {
            let dir = dir.clone();
            move |name: &str| (name == "HF_HUB_CACHE").then(|| dir.clone())
        };
        let vars = Vars::for_test(Box::new(get), None);
        assert_eq!(Caches::from_vars(&vars).hub(), Some(Path::new(&dir)));
    }
}
