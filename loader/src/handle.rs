//! Names of presets, and the caches in which they are found.
//!
//! | name | is |
//! |---|---|
//! | `bert_tiny_en_uncased` | a preset of KerasHub ([`keras_presets`]): one version of one model on Kaggle |
//! | `hf://owner/name`, `hf://owner/name@revision` | a repository of the Hugging Face hub (`hf://name`: one of the first, without owner) |
//! | `kaggle://owner/model/framework/variation`, `.../version` | a model on Kaggle; the framework of KerasHub's is `keras` |
//! | anything else | the path of a directory |
//!
//! A name of KerasHub wins over a directory of the same name, as it does in KerasHub; `./bert_tiny_en_uncased` is
//! always the directory.
//!
//! [`Handle::resolve`] looks into the caches that huggingface_hub and kagglehub keep ([`Caches`]) and never at a
//! network. A handle comes from a user or a request, and what it may reach is bounded: its parts are plain names,
//! what a cache says about where to go on (`refs/main`) is held to the same rule, and the directory found, with all
//! symlinks followed, lies in the cache, as do the files that make it a preset.
//!
//! ```no_run
//! use rachis_loader::{Access, Caches, Handle, Preset};
//!
//! let handle = Handle::parse("hf://google-bert/bert-base-uncased")?;
//! let preset = Preset::open(handle.resolve(&Caches::from_env())?, Access::Map)?;
//! // The same; with the feature `hub` it also downloads what is missing.
//! let preset = Preset::named("hf://google-bert/bert-base-uncased", Access::Map)?;
//! # Ok::<(), rachis_loader::Error>(())
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::dir::Dir;
use crate::error::{Error, Result, clip, io};
use crate::files::Wanted;

mod caches;
mod huggingface;
mod kaggle;
mod registry;

pub use caches::Caches;
#[cfg(feature = "hub")]
pub(crate) use caches::Vars;
pub use huggingface::HubRepo;
#[cfg(feature = "hub")]
pub(crate) use huggingface::is_commit;
pub use kaggle::KaggleModel;
pub use registry::{KerasPreset, keras_presets};

/// What the name of a preset stands for.
///
/// [`Display`](fmt::Display) gives a name that [`Handle::parse`] makes the same handle of, if it is a path in UTF-8 or
/// no path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Handle {
    /// A directory.
    Path(PathBuf),
    /// A repository of the Hugging Face hub.
    HuggingFace(HubRepo),
    /// A model on Kaggle.
    Kaggle(KaggleModel),
    /// A preset that KerasHub knows by name.
    Keras(&'static KerasPreset),
}

impl Handle {
    /// What this name stands for: see the [module](self). Nothing is looked up. A path need not be UTF-8.
    ///
    /// # Errors
    /// [`Error::Handle`] for a name that is empty, has a scheme other than `hf` and `kaggle`, or breaks the rules of
    /// its scheme.
    pub fn parse(name: impl AsRef<OsStr>) -> Result<Handle> {
        let (path, text) = (name.as_ref(), name.as_ref().to_string_lossy());
        if path.is_empty() {
            return Err(refuse("", "a path, hf://owner/name, kaggle://..., or a KerasHub preset", "nothing"));
        }
        match text.split_once("://") {
            Some(("hf", rest)) => HubRepo::parse(&text, rest).map(Handle::HuggingFace),
            Some(("kaggle", rest)) => KaggleModel::parse(&text, rest).map(Handle::Kaggle),
            Some((scheme, _)) if is_scheme(scheme) => {
                Err(refuse(&text, "the scheme hf or kaggle", quote(scheme)))
            }
            _ => Ok(registry::find(&text).map_or_else(|| Handle::Path(path.into()), Handle::Keras)),
        }
    }

    /// The directory that the handle leads to, without looking beyond this machine. Of the hub's repositories and of
    /// models on Kaggle it is the one in the cache, with a configuration and weights in it; of a path it is the path.
    ///
    /// # Errors
    /// [`Error::NotCached`], with what to run, when the cache has no such preset or only a part of it;
    /// [`Error::NoCache`]; [`Error::OutsideDirectory`] for a cache entry that leads out of the cache;
    /// [`Error::Malformed`] for a ref that names no snapshot; [`Error::Handle`] for a path where nothing is;
    /// [`Error::Io`].
    pub fn resolve(&self, caches: &Caches) -> Result<PathBuf> {
        self.locate(caches, Wanted::All)
    }

    fn locate(&self, caches: &Caches, wanted: Wanted) -> Result<PathBuf> {
        match self {
            Handle::Path(path) => match path.symlink_metadata() {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let expected = "a directory, hf://owner/name, kaggle://..., or a KerasHub preset";
                    Err(refuse(&path.to_string_lossy(), expected, "no such directory"))
                }
                Err(e) => Err(io(path)(e)),
                Ok(_) => Ok(path.clone()),
            },
            Handle::HuggingFace(repo) => repo.locate(caches, wanted),
            Handle::Kaggle(model) => model.locate(caches, &self.to_string(), wanted),
            Handle::Keras(preset) => {
                let found = preset.kaggle().locate(caches, preset.name(), wanted);
                found.map_err(|error| mention_directory(error, Path::new(preset.name())))
            }
        }
    }
}

impl FromStr for Handle {
    type Err = Error;

    fn from_str(name: &str) -> Result<Handle> {
        Handle::parse(name)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Handle::Path(path) if matches!(Handle::parse(path), Ok(Handle::Path(_))) => path.display().fmt(f),
            Handle::Path(path) => write!(f, "./{}", path.display()),
            Handle::HuggingFace(repo) => repo.fmt(f),
            Handle::Kaggle(model) => model.fmt(f),
            Handle::Keras(preset) => preset.name().fmt(f),
        }
    }
}

/// The directory of a preset by name, in the caches of the environment or, with the feature `hub`, from the hub.
pub(crate) fn find(name: &OsStr, wanted: Wanted) -> Result<PathBuf> {
    let (handle, caches) = (Handle::parse(name)?, Caches::from_env());
    #[cfg(feature = "hub")]
    if let Handle::HuggingFace(repo) = &handle {
        return crate::hub::Hub::from_env()?.bring(repo, &caches, wanted);
    }
    handle.locate(&caches, wanted)
}

/// The entry `path` of a cache, which must be a directory that lies in it with all symlinks followed; `None` when
/// there is none.
fn inside(cache: &Path, path: &Path) -> Result<Option<Dir>> {
    let real = match path.canonicalize() {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        real => real.map_err(io(path))?,
    };
    if !real.starts_with(cache.canonicalize().map_err(io(cache))?) {
        return Err(Error::OutsideDirectory {
            dir: cache.to_owned(),
            name: clip(path.strip_prefix(cache).unwrap_or(path).display()),
            expected: "an entry inside the cache, found a symlink that leads out of it",
        });
    }
    Dir::open(path).map(Some)
}

/// Whether a part of a handle, or of what a cache says, is a plain name: no separator, no `..`, nothing that a shell
/// or a URL would read as more than a name.
fn is_name(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=LONGEST_PART).contains(&part.len())
        && part.chars().all(allowed)
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("..")
}

/// The longest name that the hub gives out.
const LONGEST_PART: usize = 96;

/// What is wrong with a part that is not a plain name.
fn describe(part: &str) -> String {
    match part {
        "" => "an empty part".to_owned(),
        _ if part.len() > LONGEST_PART => format!("one of {} bytes", part.len()),
        _ => quote(part),
    }
}

/// Text out of a handle, for messages: quoted, escaped, of bounded length.
fn quote(text: &str) -> String {
    clip(format_args!("{text:?}"))
}

fn refuse(name: &str, expected: &'static str, found: impl Into<String>) -> Error {
    Error::Handle { name: clip(name), expected, found: found.into() }
}

/// Whether what stands before `://` is the scheme of a URL. A single letter is a drive, and a path with a slash in
/// it is a path.
fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// A preset of KerasHub is not in the cache: the user may have meant a directory.
fn mention_directory(error: Error, name: &Path) -> Error {
    match error {
        Error::NotCached { name: handle, expected, dir, found, hint } if name.is_dir() => {
            let hint = format!("{hint}; for the directory of this name say ./{handle}");
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
        assert!(text.ends_with("; for the directory of this name say ./bert_base_en"), "{text}");
        let text = mention_directory(error(), &dir.path().join("none")).to_string();
        assert!(!text.contains("./bert_base_en"), "{text}");
    }
}
