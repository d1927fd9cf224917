//! Versions of Kaggle models in the cache of kagglehub.
//!
//! The layout is kagglehub's: `models/<owner>/<model>/<framework>/<variation>/<version>` holds the files of a version.
//! Beside it, the mark `<version>.complete` says that the whole version was downloaded, and the mark
//! `.complete/<version>/<file>.complete` that this one file was downloaded, as KerasHub downloads it. A file without
//! either mark may be half a download.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::dirs::Caches;
use super::entry::open_entry;
use crate::dir::{Dir, MAX_ENTRIES};
use crate::error::{Error, Result, clip, io};
use crate::files::{Presence, Scope, find_files};
use crate::handle::{KaggleModel, parse_version};

/// The directory of a version, with all files of `scope`: the version of the handle, or the newest complete one.
/// `name` stands for the model in messages.
pub(super) fn locate(model: &KaggleModel, caches: &Caches, name: &str, scope: Scope) -> Result<PathBuf> {
    let no_cache = || Error::NoCache { name: name.to_owned(), variables: "KAGGLEHUB_CACHE and HOME" };
    let cache = caches.kaggle().ok_or_else(no_cache)?;
    let base = model.id().split('/').fold(cache.join("models"), |path, part| path.join(part));
    let not_cached = |expected: String, dir: PathBuf, found: String| {
        let (name, hint) = (name.to_owned(), download_command(model, caches));
        Error::NotCached { name, expected, dir, found, hint }
    };
    let Some(dir) = open_entry(cache, &base)? else {
        return Err(not_cached(expected_version(model), base, "no such directory".to_owned()));
    };
    let all = versions(&dir)?;
    let candidates = all.iter().filter(|found| model.version().is_none_or(|version| version == **found));
    let mut first_error = None;
    for version in candidates {
        let path = base.join(version.to_string());
        match missing(cache, &base, *version, scope)? {
            None => return Ok(path),
            Some(Missing { expected, found }) => {
                first_error.get_or_insert_with(|| not_cached(expected, path, found.to_owned()));
            }
        }
    }
    Err(first_error.unwrap_or_else(|| {
        let list: Vec<String> = all.iter().take(8).map(u32::to_string).collect();
        let found = match list.as_slice() {
            [] => "no version".to_owned(),
            list => format!("version {}", list.join(", ")),
        };
        not_cached(expected_version(model), base.clone(), found)
    }))
}

fn expected_version(model: &KaggleModel) -> String {
    model.version().map_or_else(|| "a version".to_owned(), |version| format!("version {version}"))
}

/// The shell command that downloads the version.
fn download_command(model: &KaggleModel, caches: &Caches) -> String {
    let variable = match caches.kaggle() {
        Some(dir) if !caches.are_from_env() => format!("KAGGLEHUB_CACHE={dir:?} "),
        _ => String::new(),
    };
    let (id, version) = (model.id(), model.version().map_or(String::new(), |version| format!("/{version}")));
    format!("run: {variable}python3 -c 'import kagglehub; kagglehub.model_download(\"{id}{version}\")'")
}

/// The versions with a directory in the cache, newest first.
fn versions(dir: &Dir) -> Result<Vec<u32>> {
    let entries = fs::read_dir(dir.path()).map_err(io(dir.path()))?;
    let names = entries.take(MAX_ENTRIES).flatten().filter(|entry| entry.path().is_dir());
    let mut versions: Vec<u32> =
        names.filter_map(|entry| entry.file_name().to_str().and_then(parse_version)).collect();
    versions.sort_by(|a, b| b.cmp(a));
    Ok(versions)
}

/// What a version in the cache lacks.
struct Missing {
    expected: String,
    /// What is there instead.
    found: &'static str,
}

/// What the version in the directory `base` lacks; `None` when it is complete.
fn missing(cache: &Path, base: &Path, version: u32, scope: Scope) -> Result<Option<Missing>> {
    let missing = |expected, found| Ok(Some(Missing { expected, found }));
    let Some(dir) = open_entry(cache, &base.join(version.to_string()))? else {
        return missing(format!("version {version}"), "no such directory");
    };
    let files = match find_files(&dir, scope)? {
        Presence::Complete(files) => files,
        Presence::Missing(file) => return missing(clip(file), "no such file"),
    };
    if exists(&base.join(format!("{version}.complete")))? {
        return Ok(None);
    }
    let marks = base.join(".complete").join(version.to_string());
    for file in files {
        if !exists(&marks.join(format!("{file}.complete")))? {
            return missing(clip(file), "a file that kagglehub has not marked as complete");
        }
    }
    Ok(None)
}

/// Whether a mark exists, whatever kind of file it is.
fn exists(mark: &Path) -> Result<bool> {
    match mark.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(io(mark)(e)),
    }
}
