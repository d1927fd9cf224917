//! Downloads from the Hugging Face hub: the feature `hub`, off by default, and the only network code of the crate.
//!
//! A socket is opened by [`Hub::fetch`], [`Preset::fetch`](crate::Preset::fetch) and
//! [`Preset::fetch_config`](crate::Preset::fetch_config), and by nothing else. Compiling the feature in changes no other
//! function.
//!
//! A download first looks into the cache, and asks the hub only for files that the cache lacks. It fetches the files
//! that this crate reads and no others: the configuration, one kind of weights, tokenizers and similar small files;
//! never a pickle. It stores them in huggingface_hub's layout, so that Python's tools share them. An interrupted
//! download resumes where it stopped. The ref of the revision is written last, when all files are there.
//!
//! The crate `hf-hub` does the transfer, in its last version before 1.0, blocking and on `ureq`. Version 1.0 adds 217
//! packages instead of 41, an asynchronous runtime and a second protocol among them, does not resume a partial file,
//! and does not check the status of the answer that it stores.
//!
//! # Trust
//! The hub is trusted more than its files. `hf-hub` follows redirects of the endpoint and names blobs as the endpoint
//! names them. The names are checked here before a download starts, but a malicious endpoint could answer `hf-hub`
//! differently the second time, so set `HF_ENDPOINT` only to a server that you trust. `hf-hub` asks for the length of a
//! large file with the token, also at the address that the hub redirects to. It sets no time limit: if the hub stops
//! answering, the call waits.

use std::path::PathBuf;

use crate::caches::{Caches, locate_repo};
use crate::error::{Error, Result};
use crate::files::Scope;
use crate::handle::{Handle, HubRepo};

mod download;
mod settings;

use download::Download;
pub use settings::{Hub, Network, Progress};

impl Hub {
    /// The snapshot of a repository in the cache, after downloading the files that the cache lacks. The hub is not
    /// asked when all files are in the cache: a branch that has moved on is followed only when a file is missing.
    ///
    /// # Errors
    /// - every error of [`Handle::resolve`](crate::Handle::resolve);
    /// - [`Error::NotOnHub`], [`Error::Denied`] and [`Error::Download`];
    /// - [`Error::Pickle`] for a repository with no other weights;
    /// - the errors of [`Preset::open`](crate::Preset::open) for its configuration and its index of shards.
    pub fn fetch(&self, repo: &HubRepo, caches: &Caches) -> Result<PathBuf> {
        self.fetch_scope(repo, caches, Scope::Weights)
    }

    /// The directory of a preset. A Hugging Face repository is downloaded when its cached snapshot lacks a file of
    /// `scope`; every other handle is found as [`Handle::resolve`] finds it.
    pub(crate) fn resolve(&self, handle: &Handle, caches: &Caches, scope: Scope) -> Result<PathBuf> {
        match handle {
            Handle::HuggingFace(repo) => self.fetch_scope(repo, caches, scope),
            other => other.locate(caches, scope),
        }
    }

    /// The snapshot, after downloading all of it unless the files of `scope` are in the cache.
    fn fetch_scope(&self, repo: &HubRepo, caches: &Caches, scope: Scope) -> Result<PathBuf> {
        match (locate_repo(repo, caches, scope), caches.hub()) {
            (Err(Error::NotCached { .. }), Some(cache)) if self.network == Network::Online => {
                Download::new(self, repo, cache)?.run()?;
                locate_repo(repo, caches, scope)
            }
            (found, _) => found,
        }
    }
}
