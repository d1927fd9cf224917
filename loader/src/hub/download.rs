//! Downloads one snapshot from the hub into the cache.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::settings::{Hub, Progress};
use crate::caches::repo_dir;
use crate::config::Config;
use crate::dir::{is_plain, read_limited};
use crate::error::{Error, Result, clip, io};
use crate::files::{CONFIG, KERAS, TASK, WeightFileNames, is_pickle};
use crate::handle::{HubRepo, is_commit_hash};
use crate::json::MAX_JSON;
use crate::shards::{MAX_INDEX, MAX_SHARDS};

/// The download of one repository.
pub(super) struct Download<'a> {
    hub: &'a Hub,
    repo: &'a HubRepo,
    api: Api,
    /// The directory of the repository in the cache.
    dir: PathBuf,
}

/// Stands for a file name in messages about the repository itself.
const REPOSITORY: &str = "the repository";

/// The name and version of this program, sent with every request.
const USER_AGENT: (&str, &str) = ("rachis", env!("CARGO_PKG_VERSION"));

/// The small files that are read beside the weights. All are optional.
const SMALL_FILES: [&str; 15] = [
    "1_Pooling/config.json",
    "added_tokens.json",
    "generation_config.json",
    "merges.txt",
    "metadata.json",
    "modules.json",
    "preprocessor.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "task.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// The directory of further small files: the vocabularies of Keras presets.
const ASSETS: &str = "assets/";

impl<'a> Download<'a> {
    pub(super) fn new(hub: &'a Hub, repo: &'a HubRepo, cache: &Path) -> Result<Download<'a>> {
        // hf-hub computes links between snapshots and blobs from their paths, which must both be absolute.
        let cache = std::path::absolute(cache).map_err(io(cache))?;
        let builder = ApiBuilder::from_cache(Cache::new(cache.clone()))
            .with_endpoint(hub.endpoint.clone())
            .with_token(hub.token.clone())
            .with_progress(hub.progress == Progress::Terminal)
            .with_user_agent(USER_AGENT.0, USER_AGENT.1);
        let api = builder.build().map_err(|e| wrong(hub, repo, REPOSITORY, &e))?;
        Ok(Download { hub, repo, api, dir: repo_dir(&cache, repo) })
    }

    /// Downloads all files, then writes the revision's ref.
    pub(super) fn run(&self) -> Result<()> {
        let info = self.call(REPOSITORY, || self.api.repo(self.at(self.repo.revision())).info())?;
        let commit = info.sha;
        if !is_commit_hash(&commit) {
            return Err(self.unexpected(REPOSITORY, "the hash of a commit", format!("{commit:?}")));
        }
        let names = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let pinned = Pinned { download: self, repo: self.api.repo(self.at(&commit)), commit: &commit };
        let result = self.files(&pinned, names);
        // hf-hub leaves a ref that is named by the commit and points to it. huggingface_hub has no such refs.
        let own_ref = self.dir.join("refs").join(&commit);
        match fs::remove_file(&own_ref) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(io(&own_ref)(e)),
            _ => result?,
        }
        if self.repo.revision() == commit { Ok(()) } else { self.publish(&commit) }
    }

    /// Downloads the files that this crate reads. `names` lists all files of the repository.
    fn files(&self, pinned: &Pinned, names: BTreeSet<String>) -> Result<()> {
        if !names.contains(CONFIG) {
            return Err(self.not_on_hub(CONFIG));
        }
        let config = read_limited(&pinned.fetch(CONFIG, Some(MAX_JSON))?, MAX_JSON)?;
        let kind = WeightFileNames::of(Config::parse(CONFIG, &config)?.source());
        let mut needed: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_small(name)).collect();

        let shards;
        if names.contains(kind.single) {
            needed.push(kind.single);
        } else if names.contains(kind.index) {
            let text = read_limited(&pinned.fetch(kind.index, Some(MAX_INDEX))?, MAX_INDEX)?;
            shards = kind.shards(&text)?;
            self.check_shards(kind.index, &shards)?;
            needed.extend(shards.iter().map(String::as_str));
        } else if let Some(pickle) = names.iter().find(|name| is_pickle(name)) {
            return Err(self.pickle(pickle));
        } else {
            return Err(self.not_on_hub(&format!("{} or {}", kind.single, kind.index)));
        }
        if kind.single == KERAS && names.contains(TASK) {
            needed.push(TASK);
        }
        needed.into_iter().try_for_each(|file| pinned.fetch(file, None).map(drop))
    }

    /// Checks the names of all shards before any shard is downloaded. They come from a file, and become URLs and paths.
    fn check_shards(&self, index: &str, shards: &BTreeSet<String>) -> Result<()> {
        if shards.len() > MAX_SHARDS {
            return Err(Error::TooManyShards {
                file: index.to_owned(),
                limit: MAX_SHARDS,
                found: shards.len(),
            });
        }
        if let Some(name) = shards.iter().find(|name| !is_plain(name) || !is_url_safe(name)) {
            let (dir, expected) = (PathBuf::from(self.repo.to_string()), "a plain file name");
            return Err(Error::OutsideDirectory { dir, name: clip(name), expected });
        }
        shards.iter().find(|name| is_pickle(name)).map_or(Ok(()), |pickle| Err(self.pickle(pickle)))
    }

    /// Writes the ref of the revision atomically: under another name, then renamed.
    fn publish(&self, commit: &str) -> Result<()> {
        let path = self.dir.join("refs").join(self.repo.revision());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io(parent))?;
        }
        let mut new = path.clone().into_os_string();
        new.push(format!(".{}.tmp", std::process::id()));
        fs::write(&new, commit).and_then(|()| fs::rename(&new, &path)).map_err(io(&path))
    }

    /// The repository at a revision, for hf-hub.
    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repo.id().to_owned(), RepoType::Model, revision.to_owned())
    }

    /// Calls hf-hub, and turns a panic into an error: hf-hub asserts properties of the hub's answers.
    fn call<T>(&self, file: &str, f: impl FnOnce() -> std::result::Result<T, ApiError>) -> Result<T> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(answer) => answer.map_err(|e| wrong(self.hub, self.repo, file, &e)),
            Err(_) => Err(self.unexpected(file, "a valid answer", "one that hf-hub panics on".to_owned())),
        }
    }

    fn unexpected(&self, file: &str, expected: impl Into<String>, found: String) -> Error {
        let (name, file) = (self.repo.to_string(), clip(file));
        Error::Download { name, file, expected: expected.into(), found: clip(found) }
    }

    fn not_on_hub(&self, file: &str) -> Error {
        let (name, endpoint) = (self.repo.to_string(), self.hub.endpoint.clone());
        Error::NotOnHub { name, endpoint, file: clip(file) }
    }

    fn pickle(&self, file: &str) -> Error {
        Error::Pickle { path: PathBuf::from(clip(format_args!("{}/{file}", self.repo))) }
    }
}

/// The repository at one commit: all files come from the same one, even if the branch moves.
struct Pinned<'a> {
    download: &'a Download<'a>,
    repo: ApiRepo,
    commit: &'a str,
}

impl Pinned<'_> {
    /// The path of a file in the snapshot, after downloading it if it is missing. A file longer than `limit` bytes is
    /// refused before it is downloaded.
    fn fetch(&self, file: &str, limit: Option<u64>) -> Result<PathBuf> {
        let Pinned { download, repo, commit } = self;
        let pointer = download.dir.join("snapshots").join(commit).join(file);
        if pointer.is_file() {
            return Ok(pointer);
        }
        let metadata = download.call(file, || download.api.metadata(&repo.url(file)))?;
        let (etag, size) = (metadata.etag(), metadata.size() as u64);
        if metadata.commit_hash() != *commit {
            let found = format!("{:?}", metadata.commit_hash());
            return Err(download.unexpected(file, format!("a file of commit {commit}"), found));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !(1..=128).contains(&etag.len()) || !etag.chars().all(plain) {
            return Err(download.unexpected(file, "an ETag of letters and digits", format!("{etag:?}")));
        }
        if let Some(limit) = limit.filter(|limit| size > *limit) {
            return Err(Error::FileTooLarge { path: PathBuf::from(file), limit, found: size });
        }

        remove_if(&pointer, |_| true)?; // a link to a deleted blob
        let blob = download.dir.join("blobs").join(etag);
        let part = blob.with_extension("part");
        remove_if(&part, |len| len >= size)?; // resuming it would request an empty range
        let mut previous = len(&part)?.unwrap_or(0);
        // A broken connection is retried as long as the partial file grows, be it through this process or through
        // another one, which holds the lock and may have completed the blob by now.
        while !(len(&blob)? == Some(size) && link(&blob, &pointer)?) {
            let result = download.call(file, || repo.download(file));
            let current = len(&part)?.unwrap_or(0);
            match result {
                Err(Error::Download { .. }) if current > previous => previous = current,
                result => {
                    result?;
                    break;
                }
            }
        }
        match len(&blob)? {
            Some(found) if found == size => Ok(pointer),
            found => {
                remove_if(&pointer, |_| true)?;
                remove_if(&blob, |_| true)?;
                let found = found.map_or("no file".to_owned(), |found| format!("{found} bytes"));
                Err(download.unexpected(file, format!("{size} bytes"), found))
            }
        }
    }
}

/// Turns an error of hf-hub into one of this crate.
fn wrong(hub: &Hub, repo: &HubRepo, file: &str, error: &ApiError) -> Error {
    let (name, endpoint, file) = (repo.to_string(), hub.endpoint.clone(), clip(file));
    let status = match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    };
    match status {
        Some(status @ (401 | 403)) => Error::Denied { name, endpoint, file, status },
        Some(404) => Error::NotOnHub { name, endpoint, file },
        _ => Error::Download {
            name,
            file,
            expected: format!("a download from {endpoint}"),
            found: clip(error),
        },
    }
}

/// Whether a file of the repository is one of the small files that are read.
fn is_small(name: &str) -> bool {
    let asset =
        name.starts_with(ASSETS) && name.len() <= 255 && name.split('/').all(is_plain) && is_url_safe(name);
    SMALL_FILES.contains(&name) || (asset && !is_pickle(name))
}

/// Whether a name needs no escaping in a URL.
fn is_url_safe(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '=' | '~' | '/'))
}

/// The length of the file at a path, with symlinks followed; `None` when it does not exist.
fn len(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(path)(e)),
    }
}

/// Removes the file at a path, or the symlink itself, if its length fulfils the condition.
fn remove_if(path: &Path, condition: impl FnOnce(u64) -> bool) -> Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if condition(metadata.len()) => fs::remove_file(path).map_err(io(path)),
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        Err(e) => Err(io(path)(e)),
    }
}

/// Links a file of a snapshot to a blob that is already in the cache; returns whether this system has symlinks.
fn link(blob: &Path, pointer: &Path) -> Result<bool> {
    #[cfg(unix)]
    if let (Some(repo), Some(dir)) = (blob.parent().and_then(Path::parent), pointer.parent()) {
        let depth = dir.strip_prefix(repo).map_or(0, |within| within.components().count());
        let blob = blob.strip_prefix(repo).unwrap_or(blob);
        let target: PathBuf = std::iter::repeat_n(Path::new(".."), depth).chain([blob]).collect();
        fs::create_dir_all(dir).map_err(io(dir))?;
        std::os::unix::fs::symlink(target, pointer).map_err(io(pointer))?;
        return Ok(true);
    }
    let _ = (blob, pointer);
    Ok(false)
}
