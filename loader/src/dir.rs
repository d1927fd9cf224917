//! A preset directory, and which files belong to it.
//!
//! The user chose the directory, and so vouches for the entries whose names this crate spells itself (`config.json`,
//! `model.safetensors`, the index): they may be symlinks to any regular file. Every other name comes from a file, or
//! from the caller who may have read it in a file. Such a name is *contained*:
//!
//! 1. The name is a relative path of plain components; for a shard it is a single component. A plain component is not
//!    empty and not `..`, has no slash, backslash, colon or control character, and is no longer than file systems allow.
//! 2. The file lies, with all symlinks followed, in the directory itself; or in the directory `blobs` beside
//!    `snapshots` when the preset is a snapshot in the Hugging Face hub's cache, where every file is a symlink such as
//!    `../../blobs/0123abcd`.
//!
//! The *content* of the directory is untrusted. Somebody who swaps its entries while they are being opened is not
//! guarded against.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, clip, io};
use crate::map;

/// A preset directory that exists.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    /// As the user wrote it, for messages.
    path: PathBuf,
    /// With every symlink followed, for containment.
    root: PathBuf,
}

/// Which names [`Dir::contained`] accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    /// A single plain file name.
    File,
    /// A relative path of plain components.
    Path,
}

impl Dir {
    /// Opens the directory at `path`.
    pub(crate) fn open(path: &Path) -> Result<Dir> {
        let metadata = fs::metadata(path).map_err(io(path))?;
        if !metadata.is_dir() {
            return Err(Error::NotADirectory { path: path.to_owned(), found: map::kind(&metadata) });
        }
        Ok(Dir { path: path.to_owned(), root: path.canonicalize().map_err(io(path))? })
    }

    /// The directory as the user wrote it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an entry whose name this crate spells itself; `None` when there is no such entry.
    pub(crate) fn fixed(&self, name: &'static str) -> Result<Option<PathBuf>> {
        let path = self.path.join(name);
        Ok(found(path.symlink_metadata(), &path)?.map(|_| path))
    }

    /// The path, with all symlinks followed, of a contained file; `None` when there is no such file.
    pub(crate) fn contained(&self, name: &str, kind: NameKind) -> Result<Option<PathBuf>> {
        let outside =
            |expected| Error::OutsideDirectory { dir: self.path.clone(), name: clip(name), expected };
        match kind {
            NameKind::File if !is_plain(name) => return Err(outside("a plain file name")),
            NameKind::Path if name.len() > MAX_PATH || !name.split('/').all(is_plain) => {
                return Err(outside("a relative path of plain names"));
            }
            NameKind::File | NameKind::Path => {}
        }
        let path = self.path.join(name);
        if found(path.symlink_metadata(), &path)?.is_none() {
            return Ok(None);
        }
        let real = path.canonicalize().map_err(io(&path))?;
        let blobs = self.blobs();
        if real.starts_with(&self.root) || blobs.is_some_and(|blobs| real.starts_with(blobs)) {
            return Ok(Some(real));
        }
        Err(outside("a file inside the preset directory, found a symlink that leads out of it"))
    }

    /// The names of the directory's entries that are valid UTF-8, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io(&self.path))?.take(MAX_ENTRIES) {
            names.extend(entry.map_err(io(&self.path))?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// The `blobs` of the hub's cache, when this directory is `<model>/snapshots/<revision>`.
    fn blobs(&self) -> Option<PathBuf> {
        let snapshots = self.root.parent().filter(|dir| dir.ends_with("snapshots"))?;
        Some(snapshots.parent()?.join("blobs"))
    }
}

/// Reads a whole regular file of at most `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, len) = map::open(path)?;
    let too_large = |found| Error::FileTooLarge { path: path.to_owned(), limit, found };
    if len as u64 > limit {
        return Err(too_large(len as u64));
    }
    let mut text = Vec::new();
    let out_of_memory = |_| Error::OutOfMemory { file: clip(path.display()), bytes: len };
    text.try_reserve_exact(len).map_err(out_of_memory)?;
    // The length is only a hint: the file may grow, and files in /proc report a length of 0.
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut text).map_err(io(path))?;
    if read as u64 > limit { Err(too_large(read as u64)) } else { Ok(text) }
}

/// The most entries of a directory that are listed.
pub(crate) const MAX_ENTRIES: usize = 10_000;

/// Turns the error for a path that does not exist into `None`.
fn found<T>(result: std::io::Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(io(path)(e)),
    }
}

/// Limits of the usual file systems, in bytes. They keep names of megabytes away from the system.
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 1024;

/// Whether a path component is plain on every system: not empty, not `.` or `..`, without separator or drive.
pub(crate) fn is_plain(name: &str) -> bool {
    let special = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && !name.contains(special)
}
