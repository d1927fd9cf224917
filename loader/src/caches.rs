//! Finds presets in the caches of Python's tools, without a network.
//!
//! What a cache entry says about where to look next (`refs/main`) is untrusted like the handle itself, and held to the
//! same rule for plain names. The directory that is found lies in the cache with all symlinks followed, and so do the
//! files that make it a preset.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io};
use crate::files::Scope;
use crate::handle::{Handle, refuse};

mod dirs;
mod entry;
mod env;
mod huggingface;
mod kaggle;

pub use dirs::Caches;
#[cfg(feature = "hub")]
pub(crate) use env::Vars;
#[cfg(feature = "hub")]
pub(crate) use huggingface::{locate as locate_repo, repo_dir};

impl Handle {
    /// The directory of the preset, found without a network. For a Hugging Face repository or a Kaggle model it is the
    /// directory in the cache, which has a configuration and weights; for a path it is the path itself.
    ///
    /// # Errors
    /// - [`Error::NotCached`], with the command to run, when the cache has no such preset or only a part of it;
    /// - [`Error::NoCache`] when the environment determines no cache directory;
    /// - [`Error::OutsideDirectory`] when a cache entry leads out of the cache;
    /// - [`Error::Malformed`] when a ref does not name a snapshot;
    /// - [`Error::Handle`] when a path does not exist;
    /// - [`Error::Io`].
    pub fn resolve(&self, caches: &Caches) -> Result<PathBuf> {
        self.locate(caches, Scope::Weights)
    }

    /// [`Handle::resolve`], for the files of `scope`.
    pub(crate) fn locate(&self, caches: &Caches, scope: Scope) -> Result<PathBuf> {
        match self {
            Handle::Path(path) => match path.symlink_metadata() {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let expected = "a directory, hf://owner/name, kaggle://..., or a KerasHub preset";
                    Err(refuse(&path.to_string_lossy(), expected, "no such directory"))
                }
                Err(e) => Err(io(path)(e)),
                Ok(_) => Ok(path.clone()),
            },
            Handle::HuggingFace(repo) => huggingface::locate(repo, caches, scope),
            Handle::Kaggle(model) => kaggle::locate(model, caches, &self.to_string(), scope),
            Handle::Keras(preset) => {
                let found = kaggle::locate(&preset.kaggle(), caches, preset.name(), scope);
                found.map_err(|error| mention_directory(error, Path::new(preset.name())))
            }
        }
    }
}

/// Adds a hint to the error for a KerasHub preset that is not in the cache: the user may have meant a directory of the
/// same name.
fn mention_directory(error: Error, name: &Path) -> Error {
    match error {
        Error::NotCached { name: handle, expected, dir, found, hint } if name.is_dir() => {
            let hint = format!("{hint}; for the directory of this name write ./{handle}");
            Error::NotCached { name: handle, expected, dir, found, hint }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_the_same_name_is_mentioned() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::new(dir.path(), dir.path());
        let error = || Handle::parse("bert_base_en").unwrap().resolve(&caches).unwrap_err();
        let text = mention_directory(error(), dir.path()).to_string();
        assert!(text.ends_with("; for the directory of this name write ./bert_base_en"), "{text}");
        let text = mention_directory(error(), &dir.path().join("none")).to_string();
        assert!(!text.contains("./bert_base_en"), "{text}");
    }
}
