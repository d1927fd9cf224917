//! Models on Kaggle, and their versions in kagglehub's cache.
//!
//! The layout is kagglehub's: `models/<owner>/<model>/<framework>/<variation>/<version>` holds the files. Beside it
//! `<version>.complete` marks a version that was downloaded as a whole, and `.complete/<version>/<file>.complete` a
//! file that was downloaded by itself, as KerasHub does it. What has neither mark may be half a file.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::path::PathBuf;

use super::{Caches, describe, inside, is_name, quote, refuse};
use crate::dir::{Dir, MOST_ENTRIES};
use crate::error::{Error, Result, clip, io};
use crate::files::{Extent, Wanted, extent};

/// A model on Kaggle: a variation for a framework, and perhaps a version of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KaggleModel {
    /// `owner/model/framework/variation`.
    id: String,
    version: Option<u32>,
}

impl KaggleModel {
    /// The model's id: `owner/model/framework/variation`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The version; without one the newest in the cache is meant.
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    /// One of KerasHub's.
    pub(super) fn keras(model: &str, variation: &str, version: u32) -> KaggleModel {
        KaggleModel { id: format!("keras/{model}/keras/{variation}"), version: Some(version) }
    }

    pub(super) fn parse(name: &str, rest: &str) -> Result<KaggleModel> {
        let expected =
            "kaggle://owner/model/framework/variation[/version], of letters, digits, '-', '_' and '.'";
        let parts: Vec<&str> = rest.split('/').collect();
        let (id, version) = match parts.as_slice() {
            id @ [_, _, _, _] => (id, None),
            [id @ .., version] if id.len() == 4 => (id, Some(*version)),
            _ => return Err(refuse(name, expected, format!("{} parts", parts.len()))),
        };
        if let Some(part) = id.iter().find(|part| !is_name(part)) {
            return Err(refuse(name, expected, describe(part)));
        }
        let wrong = |text| refuse(name, "a version that is a positive number", quote(text));
        let number = |text| parse_version(text).ok_or_else(|| wrong(text));
        Ok(KaggleModel { id: id.join("/"), version: version.map(number).transpose()? })
    }

    /// The directory of the version in the cache. `name` is what the user called it.
    pub(super) fn locate(&self, caches: &Caches, name: &str, wanted: Wanted) -> Result<PathBuf> {
        let no_cache = || Error::NoCache { name: name.to_owned(), variables: "KAGGLEHUB_CACHE and HOME" };
        let cache = caches.kaggle().ok_or_else(no_cache)?;
        let base = self.id.split('/').fold(cache.join("models"), |path, part| path.join(part));
        let not_cached = |expected: String, dir: PathBuf, found: String| {
            let (name, hint) = (name.to_owned(), self.how_to_get(caches));
            Error::NotCached { name, expected, dir, found, hint }
        };
        let Some(dir) = inside(cache, &base)? else {
            return Err(not_cached(self.expected(), base, "no such directory".to_owned()));
        };
        let all = versions(&dir)?;
        let candidates: Vec<u32> = all
            .iter()
            .copied()
            .filter(|version| self.version.is_none_or(|wanted| wanted == *version))
            .collect();
        let mut first = None;
        for version in candidates {
            let path = base.join(version.to_string());
            match lacks(cache, (&base, version), wanted)? {
                None => return Ok(path),
                Some((expected, found)) => {
                    first.get_or_insert_with(|| not_cached(expected, path, found.to_owned()));
                }
            }
        }
        Err(first.unwrap_or_else(|| {
            let list: Vec<String> = all.iter().take(8).map(u32::to_string).collect();
            let found =
                if list.is_empty() { "none".to_owned() } else { format!("version {}", list.join(", ")) };
            not_cached(self.expected(), base.clone(), found)
        }))
    }

    fn expected(&self) -> String {
        self.version.map_or_else(|| "a version".to_owned(), |version| format!("version {version}"))
    }

    /// The command that brings the version.
    fn how_to_get(&self, caches: &Caches) -> String {
        let place = match caches.kaggle() {
            Some(dir) if !caches.are_from_env() => format!("KAGGLEHUB_CACHE={dir:?} "),
            _ => String::new(),
        };
        let (id, version) = (&self.id, self.version.map_or(String::new(), |version| format!("/{version}")));
        format!("run: {place}python3 -c 'import kagglehub; kagglehub.model_download(\"{id}{version}\")'")
    }
}

impl fmt::Display for KaggleModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kaggle://{}", self.id)?;
        self.version.map_or(Ok(()), |version| write!(f, "/{version}"))
    }
}

/// A version as kagglehub writes it.
fn parse_version(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}

/// The versions that the cache has directories of, newest first.
fn versions(dir: &Dir) -> Result<Vec<u32>> {
    let entries = fs::read_dir(dir.path()).map_err(io(dir.path()))?;
    let names = entries.take(MOST_ENTRIES).flatten().filter(|entry| entry.path().is_dir());
    let mut versions: Vec<u32> =
        names.filter_map(|entry| entry.file_name().to_str().and_then(parse_version)).collect();
    versions.sort_by(|a, b| b.cmp(a));
    Ok(versions)
}

/// What a version lacks, and what is there instead; `None` when it is complete.
fn lacks(
    cache: &Path,
    (base, version): (&Path, u32),
    wanted: Wanted,
) -> Result<Option<(String, &'static str)>> {
    let Some(dir) = inside(cache, &base.join(version.to_string()))? else {
        return Ok(Some((format!("version {version}"), "none")));
    };
    let files = match extent(&dir, wanted)? {
        Extent::Complete(files) => files,
        Extent::Missing(file) => return Ok(Some((clip(file), "no such file"))),
    };
    if exists(&base.join(format!("{version}.complete")))? {
        return Ok(None);
    }
    let marks = base.join(".complete").join(version.to_string());
    for file in files {
        if !exists(&marks.join(format!("{file}.complete")))? {
            return Ok(Some((clip(file), "one that kagglehub has not marked as complete")));
        }
    }
    Ok(None)
}

/// Whether there is a mark: only that, whatever it is.
fn exists(mark: &Path) -> Result<bool> {
    match mark.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(io(mark)(e)),
    }
}
