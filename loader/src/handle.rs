//! Names of presets: parsing and printing. Nothing here touches a file system or a network.
//!
//! | name | stands for |
//! |---|---|
//! | `bert_tiny_en_uncased` | a KerasHub preset ([`keras_presets`]): one version of one Kaggle model |
//! | `hf://owner/name`, `hf://owner/name@revision` | a Hugging Face repository (`hf://name`: one of the first repositories, which have no owner) |
//! | `kaggle://owner/model/framework/variation`, `.../version` | a Kaggle model; KerasHub's models have the framework `keras` |
//! | anything else | the path of a directory |
//!
//! A KerasHub name takes precedence over a directory of the same name, as it does in KerasHub. Write
//! `./bert_tiny_en_uncased` for the directory.
//!
//! A handle comes from a user or a request, so it is untrusted. Its parts must be plain names: no separator, no `..`,
//! nothing that a shell or a URL gives another meaning. [`Handle::resolve`] finds the directory of a handle in the
//! [`Caches`](crate::Caches).
//!
//! ```no_run
//! use rachis_loader::{Access, Caches, Handle, Preset};
//!
//! let handle = Handle::parse("hf://google-bert/bert-base-uncased")?;
//! let preset = Preset::open(handle.resolve(&Caches::from_env())?, Access::Map)?;
//! // In one call:
//! let preset = Preset::named("hf://google-bert/bert-base-uncased", Access::Map)?;
//! # Ok::<(), rachis_loader::Error>(())
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

mod hub_repo;
mod kaggle_model;
mod name;
mod registry;

pub use hub_repo::HubRepo;
pub(crate) use hub_repo::is_commit_hash;
pub use kaggle_model::KaggleModel;
pub(crate) use kaggle_model::parse_version;
pub(crate) use name::{describe, is_name, refuse};
pub use registry::{KerasPreset, keras_presets};

/// What the name of a preset stands for.
///
/// [`Display`](fmt::Display) and [`FromStr`] are inverses for every handle except a path that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Handle {
    /// A directory.
    Path(PathBuf),
    /// A repository on the Hugging Face hub.
    HuggingFace(HubRepo),
    /// A model on Kaggle.
    Kaggle(KaggleModel),
    /// A preset with a name of its own in KerasHub.
    Keras(&'static KerasPreset),
}

impl Handle {
    /// Parses a name by the rules of the [module](self). A path need not be UTF-8, and need not exist.
    ///
    /// # Errors
    /// [`Error::Handle`] when the name is empty, has a scheme other than `hf` and `kaggle`, or breaks the rules of
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
                Err(refuse(&text, "the scheme hf or kaggle", name::quote(scheme)))
            }
            _ => Ok(registry::find(&text).map_or_else(|| Handle::Path(path.into()), Handle::Keras)),
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
            // A path that looks like another kind of handle.
            Handle::Path(path) => write!(f, "./{}", path.display()),
            Handle::HuggingFace(repo) => repo.fmt(f),
            Handle::Kaggle(model) => model.fmt(f),
            Handle::Keras(preset) => preset.name().fmt(f),
        }
    }
}

/// Whether the text before `://` is a URL scheme. A single letter is a Windows drive, and text with a slash is a
/// path.
fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}
