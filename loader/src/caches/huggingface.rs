//! Snapshots of Hugging Face repositories in the cache of huggingface_hub.
//!
//! The layout is huggingface_hub's: `models--owner--name/refs/main` holds the hash of a commit, and
//! `snapshots/<hash>` holds the files of that commit, which are symlinks into `blobs`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::dirs::Caches;
use super::entry::open_entry;
use crate::dir::read_limited;
use crate::error::{Error, Result, clip, io};
use crate::files::{Presence, Scope, find_files};
use crate::handle::{HubRepo, describe, is_commit_hash, is_name};

/// The directory of a repository in a cache.
pub(crate) fn repo_dir(cache: &Path, repo: &HubRepo) -> PathBuf {
    cache.join(format!("models--{}", repo.id().replace('/', "--")))
}

/// The snapshot of a repository, at its revision, with all files of `scope`.
pub(crate) fn locate(repo: &HubRepo, caches: &Caches, scope: Scope) -> Result<PathBuf> {
    let name = repo.to_string();
    let variables = "HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME";
    let cache = caches.hub().ok_or_else(|| Error::NoCache { name: name.clone(), variables })?;
    let dir = repo_dir(cache, repo);
    let not_cached = |expected: String, dir: PathBuf, found: String| {
        let hint = download_command(repo, caches);
        Err(Error::NotCached { name: name.clone(), expected, dir, found, hint })
    };
    if open_entry(cache, &dir)?.is_none() {
        return not_cached(format!("revision {}", repo.revision()), dir, "no such directory".to_owned());
    }
    let commit = commit(repo, cache, &dir)?;
    let snapshots = dir.join("snapshots");
    let path = snapshots.join(&commit);
    let Some(snapshot) = open_entry(cache, &path)? else {
        let found = match (commit == repo.revision(), first_names(&snapshots)?) {
            (_, names) if names.is_empty() => "no snapshot".to_owned(),
            (true, names) => format!("the snapshots {}", clip(names.join(", "))),
            (false, _) => format!("a ref to {commit}, which does not exist"),
        };
        return not_cached(format!("revision {}", repo.revision()), dir, found);
    };
    match find_files(&snapshot, scope)? {
        Presence::Complete(_) => Ok(path),
        Presence::Missing(file) => not_cached(clip(file), path, "no such file".to_owned()),
    }
}

/// The name of the snapshot: the content of the revision's ref. Without a ref it is the revision itself, which may be
/// the hash of a commit.
fn commit(repo: &HubRepo, cache: &Path, dir: &Path) -> Result<String> {
    let refs = dir.join("refs");
    if is_commit_hash(repo.revision()) || open_entry(cache, &refs)?.is_none() {
        return Ok(repo.revision().to_owned());
    }
    let path = refs.join(repo.revision());
    match path.symlink_metadata() {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(repo.revision().to_owned());
        }
        metadata => metadata.map_err(io(&path))?,
    };
    let real = path.canonicalize().map_err(io(&path))?;
    let root = refs.canonicalize().map_err(io(&refs))?;
    if !real.starts_with(root) {
        let expected = "an entry inside the cache, found a symlink that leads out of it";
        return Err(Error::OutsideDirectory { dir: refs, name: repo.revision().to_owned(), expected });
    }
    let wrong = |found| Error::Malformed {
        file: clip(path.display()),
        expected: "the hash of a commit, or a plain name",
        found,
    };
    let text = read_limited(&real, MAX_REF)?;
    let text = str::from_utf8(&text).map_err(|e| wrong(clip(e)))?.trim_ascii();
    if is_name(text) { Ok(text.to_owned()) } else { Err(wrong(describe(text))) }
}

/// The shell command that downloads the snapshot.
fn download_command(repo: &HubRepo, caches: &Caches) -> String {
    let revision = repo.explicit_revision().map_or(String::new(), |name| format!(" --revision {name}"));
    let includes: String = PATTERNS.iter().map(|pattern| format!(" --include \"{pattern}\"")).collect();
    let cache_dir = match caches.hub() {
        Some(dir) if !caches.are_from_env() => format!(" --cache-dir {dir:?}"),
        _ => String::new(),
    };
    format!("run: hf download {}{revision}{includes}{cache_dir}", repo.id())
}

/// The files that `hf download` is told to include: every file that is read, and no pickles.
const PATTERNS: [&str; 6] =
    ["*.json", "model*.safetensors", "model*.weights.h5", "*.txt", "*.model", "assets/*"];

/// The longest ref, in bytes: a hash and a line break take 41.
const MAX_REF: u64 = 256;

/// The first names in a directory, for messages.
fn first_names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io(dir))?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_name(name)).take(3).collect();
    names.sort();
    Ok(names)
}
