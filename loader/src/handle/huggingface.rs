//! Repositories of the Hugging Face hub, and their snapshots in its cache.
//!
//! The layout is huggingface_hub's: `models--owner--name/refs/main` holds the hash of a commit,
//! `snapshots/<hash>` its files, which are symlinks into `blobs`.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::path::PathBuf;

use super::{Caches, describe, inside, is_name, refuse};
use crate::dir::read_limited;
use crate::error::{Error, Result, clip, io};
use crate::files::{Extent, Wanted, extent};

/// A model repository of the Hugging Face hub, at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubRepo {
    id: String,
    revision: Option<String>,
}

impl HubRepo {
    /// The repository's id: `owner/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The revision: a branch, a tag or the hash of a commit; `main` when the handle names none.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    pub(super) fn parse(name: &str, rest: &str) -> Result<HubRepo> {
        let (id, revision) = match rest.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (rest, None),
        };
        let expected = "hf://owner/name, of letters, digits, '-', '_' and '.'";
        let parts: Vec<&str> = id.split('/').collect();
        if parts.len() > 2 {
            return Err(refuse(name, expected, format!("{} parts", parts.len())));
        }
        // Two dashes separate owner and name in the cache: with more of them two repositories would be one.
        let wrong = |part: &&&str| !is_name(part) || part.contains("--") || part.ends_with(".git");
        if let Some(part) = parts.iter().find(wrong) {
            return Err(refuse(name, expected, describe(part)));
        }
        if let Some(part) = revision.and_then(|all| wrong_part(all)) {
            return Err(refuse(name, "a branch, a tag or a commit after the '@'", describe(part)));
        }
        Ok(HubRepo { id: id.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// The directory of the repository in a cache.
    pub(crate) fn dir(&self, cache: &Path) -> PathBuf {
        cache.join(format!("models--{}", self.id.replace('/', "--")))
    }

    /// The snapshot in the cache.
    pub(crate) fn locate(&self, caches: &Caches, wanted: Wanted) -> Result<PathBuf> {
        let name = self.to_string();
        let variables = "HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME";
        let cache = caches.hub().ok_or_else(|| Error::NoCache { name: name.clone(), variables })?;
        let repo = self.dir(cache);
        let not_cached = |expected: String, dir: PathBuf, found: String| {
            let hint = self.how_to_get(caches);
            Err(Error::NotCached { name: name.clone(), expected, dir, found, hint })
        };
        if inside(cache, &repo)?.is_none() {
            return not_cached(format!("revision {}", self.revision()), repo, "no such directory".to_owned());
        }
        let commit = self.commit(cache, &repo)?;
        let snapshots = repo.join("snapshots");
        let path = snapshots.join(&commit);
        let Some(dir) = inside(cache, &path)? else {
            let found = match (commit == self.revision(), names(&snapshots)?) {
                (_, names) if names.is_empty() => "no snapshot".to_owned(),
                (true, names) => format!("the snapshots {}", clip(names.join(", "))),
                (false, _) => format!("a ref to {commit}, which is not there"),
            };
            return not_cached(format!("revision {}", self.revision()), repo, found);
        };
        match extent(&dir, wanted)? {
            Extent::Complete(_) => Ok(path),
            Extent::Missing(file) => not_cached(clip(file), path, "no such file".to_owned()),
        }
    }

    /// The name of the snapshot: what the ref of the revision says. Without a ref it is the revision itself, which
    /// may be a commit.
    fn commit(&self, cache: &Path, repo: &Path) -> Result<String> {
        let refs = repo.join("refs");
        if is_commit(self.revision()) || inside(cache, &refs)?.is_none() {
            return Ok(self.revision().to_owned());
        }
        let path = refs.join(self.revision());
        match path.symlink_metadata() {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(self.revision().to_owned());
            }
            metadata => metadata.map_err(io(&path))?,
        };
        let real = path.canonicalize().map_err(io(&path))?;
        let root = refs.canonicalize().map_err(io(&refs))?;
        if !real.starts_with(root) {
            let expected = "an entry inside the cache, found a symlink that leads out of it";
            return Err(Error::OutsideDirectory { dir: refs, name: self.revision().to_owned(), expected });
        }
        let wrong = |found| Error::Malformed {
            file: clip(path.display()),
            expected: "the hash of a commit, or a plain name",
            found,
        };
        let text = read_limited(&real, LONGEST_REF)?;
        let text = str::from_utf8(&text).map_err(|e| wrong(clip(e)))?.trim_ascii();
        if is_name(text) { Ok(text.to_owned()) } else { Err(wrong(describe(text))) }
    }

    /// The command that brings the snapshot.
    fn how_to_get(&self, caches: &Caches) -> String {
        let revision = self.revision.as_deref().map_or(String::new(), |name| format!(" --revision {name}"));
        let includes: String = PATTERNS.iter().map(|pattern| format!(" --include \"{pattern}\"")).collect();
        let place = match caches.hub() {
            Some(dir) if !caches.are_from_env() => format!(" --cache-dir {dir:?}"),
            _ => String::new(),
        };
        format!("run: hf download {}{revision}{includes}{place}", self.id)
    }
}

impl fmt::Display for HubRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}", self.id)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

/// Whether a revision is the full hash of a commit.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// What `hf download` is told to bring: everything that is read, and no pickles.
const PATTERNS: [&str; 6] =
    ["*.json", "model*.safetensors", "model*.weights.h5", "*.txt", "*.model", "assets/*"];

/// A ref is a hash and perhaps a line break.
const LONGEST_REF: u64 = 256;

/// The longest revision: a few parts.
const LONGEST_REVISION: usize = 256;

/// The first part of a revision that is not a plain name. A branch may have several, as `refs/pr/1` has.
fn wrong_part(revision: &str) -> Option<&str> {
    if revision.len() > LONGEST_REVISION {
        return Some(revision);
    }
    revision.split('/').find(|part| !is_name(part))
}

/// The first names in a directory, for messages.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io(dir))?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_name(name)).take(3).collect();
    names.sort();
    Ok(names)
}
