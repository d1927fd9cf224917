//! Which hub to download from, and how.

use std::fmt;
use std::fs;

use crate::caches::Vars;
use crate::error::{Error, Result, clip};

/// A Hugging Face hub to download from: its address, token and settings.
#[derive(Clone)]
pub struct Hub {
    pub(super) endpoint: String,
    pub(super) token: Option<String>,
    pub(super) progress: Progress,
    pub(super) network: Network,
}

/// Whether a download shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Progress {
    /// A bar for each file on standard error, if that is a terminal.
    #[default]
    Terminal,
    /// No output.
    Hidden,
}

/// Whether [`Hub::fetch`] may open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Network {
    /// Files that the cache lacks are downloaded.
    #[default]
    Online,
    /// Only the cache is read.
    Offline,
}

impl Hub {
    /// The hub at an address such as `https://huggingface.co`, without a token.
    ///
    /// # Errors
    /// [`Error::Endpoint`] when the address is not `http://` or `https://` and a host.
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

    /// The hub that Python's tools use in this environment:
    ///
    /// - its address from `HF_ENDPOINT`;
    /// - the token from `HF_TOKEN`, or from the file that `hf auth login` writes (`HF_TOKEN_PATH`, or `token` in
    ///   `HF_HOME`), unless `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set;
    /// - [`Network::Offline`] if `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` is set;
    /// - [`Progress::Hidden`] if `HF_HUB_DISABLE_PROGRESS_BARS` is set.
    ///
    /// # Errors
    /// [`Error::Endpoint`] when `HF_ENDPOINT` is not an address; see [`Hub::new`].
    pub fn from_env() -> Result<Hub> {
        let vars = Vars::from_env();
        let text = |name: &str| vars.get(name).and_then(|value| value.into_string().ok());
        let is_set = |name: &str| {
            let value = text(name).unwrap_or_default().to_ascii_uppercase();
            matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")
        };
        let hub = Hub::new(text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()))?;
        let from_file = || {
            let path = vars.path("HF_TOKEN_PATH").or_else(|| Some(vars.hf_home()?.join("token")))?;
            fs::read_to_string(path).ok()
        };
        let token = || text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(from_file);
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

    /// Sets the token to send. White space around it is removed, and an empty token is ignored.
    #[must_use]
    pub fn with_token(self, token: Option<String>) -> Hub {
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Hub { token, ..self }
    }

    /// Sets whether downloads show their progress.
    #[must_use]
    pub fn with_progress(self, progress: Progress) -> Hub {
        Hub { progress, ..self }
    }

    /// Sets whether connections may be opened.
    #[must_use]
    pub fn with_network(self, network: Network) -> Hub {
        Hub { network, ..self }
    }
}

/// Hides the token.
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
