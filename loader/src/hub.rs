//! Downloads from the Hugging Face hub: the feature `hub`, off by default, and the only network code of the crate.
//!
//! [`Hub::fetch`] looks into the cache first and asks the hub only for what is missing there. It brings the files that
//! are read and no others: the configuration, one kind of weights, tokenizers and their like; never a pickle. They
//! come to lie as huggingface_hub would have left them, so that Python's tools share them. A download that was cut off
//! goes on where it stopped, and the ref of the revision is written last, when all files are there.
//!
//! The transfer is done by the crate `hf-hub` in its last version before 1.0, blocking and on `ureq`. Version 1.0 adds
//! 217 packages instead of 41, an asynchronous runtime and a second protocol among them, does not go on with a partial
//! file, and does not look at the status of the answer that it stores.
//!
//! The hub is trusted further than its files are: that crate follows where the endpoint leads, and names blobs as the
//! endpoint names them. Names are checked here before it is let at them, but an endpoint that means harm could answer
//! it otherwise the second time; whoever sets `HF_ENDPOINT` must trust what is there. It asks for the length of a large
//! file with the token also where the hub sends it for that file, and it sets no time limit: a hub that falls silent is
//! waited for.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use crate::error::{Error, Result, clip};
use crate::files::Wanted;
use crate::handle::{Caches, HubRepo, Vars};

mod download;

use download::Download;

/// A hub to download from.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    progress: Progress,
    network: Network,
}

/// Whether a download shows how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Progress {
    /// A bar for each file, on standard error, if that is a terminal.
    #[default]
    Terminal,
    /// Nothing.
    Hidden,
}

/// Whether the hub may be asked at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Network {
    /// It may.
    #[default]
    Online,
    /// It may not: only the cache is looked into.
    Offline,
}

impl Hub {
    /// The hub at this address, such as `https://huggingface.co`, without a token.
    ///
    /// # Errors
    /// [`Error::Endpoint`] for what is not `http://` or `https://` and a host.
    pub fn new(endpoint: impl Into<String>) -> Result<Hub> {
        let endpoint = endpoint.into();
        let plain = endpoint.trim_end_matches('/');
        let host = plain.strip_prefix("https://").or_else(|| plain.strip_prefix("http://"));
        if !host.is_some_and(|host| host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
            || !plain
                .chars()
                .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '?' | '#'))
        {
            return Err(Error::Endpoint { found: clip(endpoint) });
        }
        let endpoint = plain.to_owned();
        Ok(Hub { endpoint, token: None, progress: Progress::default(), network: Network::default() })
    }

    /// The hub of this environment, as Python's tools see it:
    ///
    /// - its address from `HF_ENDPOINT`;
    /// - the token from `HF_TOKEN`, or from the file that `hf auth login` writes (`HF_TOKEN_PATH`, or `token` in
    ///   `HF_HOME`), unless `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set;
    /// - [`Network::Offline`] if `HF_HUB_OFFLINE` is set, [`Progress::Hidden`] if `HF_HUB_DISABLE_PROGRESS_BARS` is.
    ///
    /// # Errors
    /// As for [`Hub::new`].
    pub fn from_env() -> Result<Hub> {
        let vars = Vars::from_env();
        let text = |name: &str| vars.get(name).and_then(|value| value.into_string().ok());
        let is_set = |name: &str| {
            let value = text(name).unwrap_or_default().to_ascii_uppercase();
            matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")
        };
        let hub = Hub::new(text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()))?;
        let of_file = || {
            let path = vars.path("HF_TOKEN_PATH").or_else(|| Some(vars.hf_home()?.join("token")))?;
            fs::read_to_string(path).ok()
        };
        let token = || text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(of_file);
        let token = if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { token() };
        let offline = is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE");
        Ok(hub
            .with_token(token)
            .with_network(if offline { Network::Offline } else { Network::Online })
            .with_progress(match is_set("HF_HUB_DISABLE_PROGRESS_BARS") {
                true => Progress::Hidden,
                false => Progress::Terminal,
            }))
    }

    /// The same hub, asked with this token. It is trimmed; an empty one is none.
    #[must_use]
    pub fn with_token(self, token: Option<String>) -> Hub {
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Hub { token, ..self }
    }

    /// The same hub, with or without bars of progress.
    #[must_use]
    pub fn with_progress(self, progress: Progress) -> Hub {
        Hub { progress, ..self }
    }

    /// The same hub, asked or not.
    #[must_use]
    pub fn with_network(self, network: Network) -> Hub {
        Hub { network, ..self }
    }

    /// The snapshot of a repository in the cache, after bringing what it lacks. What is there already is not asked
    /// about: a branch that has moved on is followed only when something is missing.
    ///
    /// # Errors
    /// Those of [`Handle::resolve`](crate::Handle::resolve); [`Error::NotOnHub`], [`Error::Denied`] and
    /// [`Error::Download`]; [`Error::Pickle`] for a repository with no other weights; and what is wrong with its
    /// configuration or its index of shards.
    pub fn fetch(&self, repo: &HubRepo, caches: &Caches) -> Result<PathBuf> {
        self.bring(repo, caches, Wanted::All)
    }

    /// The snapshot, after bringing all of it unless what is wanted is there.
    pub(crate) fn bring(&self, repo: &HubRepo, caches: &Caches, wanted: Wanted) -> Result<PathBuf> {
        match (repo.locate(caches, wanted), caches.hub()) {
            (Err(Error::NotCached { .. }), Some(cache)) if self.network == Network::Online => {
                Download::new(self, repo, cache)?.run()?;
                repo.locate(caches, wanted)
            }
            (found, _) => found,
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("progress", &self.progress)
            .field("network", &self.network)
            .finish()
    }
}

/// How we introduce ourselves.
const AGENT: (&str, &str) = ("rachis", env!("CARGO_PKG_VERSION"));
