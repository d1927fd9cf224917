//! A preset directory, and which files belong to it.
//!
//! The user chose the directory, and so vouches for the entries of the names that this crate spells itself
//! (`config.json`, `model.safetensors`, the index): they may be symlinks to any regular file. Every other name
//! comes out of a file or through the caller from one, and is *contained*:
//!
//! 1. the name is a relative path of plain components, a single one for a shard: no `..`, no root, no empty
//!    component, no backslash, no colon, no control character, no length that file systems refuse;
//! 2. what it resolves to, with all symlinks followed, lies in the directory itself, or in the `blobs`
//!    directory beside `snapshots` when the preset is a snapshot of the Hugging Face hub's cache, where every
//!    file is a symlink such as `../../blobs/0123abcd`.
//!
//! The directory's *content* is untrusted; that nobody swaps its entries while they are being opened is not
//! guarded against.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, clip, io};
use crate::map;

/// A preset directory that exists.
#[derive(Debug)]
pub(crate) struct Dir {
    /// As the user wrote it: for messages.
    path: PathBuf,
    /// With every symlink followed: for containment.
    root: PathBuf,
}

/// Which names a caller may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// A single plain file name.
    File,
    /// A relative path of plain components.
    Path,
}

impl Dir {
    /// The directory at `path`.
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

    /// The path of the entry of a name that this crate spells itself; `None` when there is no such entry.
    pub(crate) fn fixed(&self, name: &'static str) -> Result<Option<PathBuf>> {
        let path = self.path.join(name);
        Ok(found(path.symlink_metadata(), &path)?.map(|_| path))
    }

    /// The path, with all symlinks followed, of a file of the preset; `None` when there is no such file.
    pub(crate) fn contained(&self, name: &str, allowed: Name) -> Result<Option<PathBuf>> {
        let outside =
            |expected| Error::OutsideDirectory { dir: self.path.clone(), name: clip(name), expected };
        match allowed {
            Name::File if !is_plain(name) => return Err(outside("a plain file name")),
            Name::Path if name.len() > LONGEST_PATH || !name.split('/').all(is_plain) => {
                return Err(outside("a relative path of plain names"));
            }
            Name::File | Name::Path => {}
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

    /// The names of the directory's entries that are valid UTF-8, in order.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io(&self.path))?.take(MOST_ENTRIES) {
            names.extend(entry.map_err(io(&self.path))?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// The hub cache's blobs, when the directory is `<model>/snapshots/<revision>`.
    fn blobs(&self) -> Option<PathBuf> {
        let snapshots = self.root.parent().filter(|dir| dir.ends_with("snapshots"))?;
        Some(snapshots.parent()?.join("blobs"))
    }
}

/// The whole of a regular file of at most `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, len) = map::open(path)?;
    let too_large = |found| Error::FileTooLarge { path: path.to_owned(), limit, found };
    if len as u64 > limit {
        return Err(too_large(len as u64));
    }
    let mut text = Vec::with_capacity(len);
    // The length is a promise of the file system only: it may grow, and those of /proc say 0.
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut text).map_err(io(path))?;
    if read as u64 > limit { Err(too_large(read as u64)) } else { Ok(text) }
}

/// Entries of a directory that are looked at, where all are listed.
pub(crate) const MOST_ENTRIES: usize = 10_000;

/// `None` instead of the error of a path that does not exist.
fn found<T>(result: std::io::Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(io(path)(e)),
    }
}

/// Limits of the usual file systems, so that names of megabytes end here.
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 1024;

/// Whether a path component is plain on every system: not empty, not `.` or `..`, no separator, no drive.
pub(crate) fn is_plain(name: &str) -> bool {
    let special = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    !matches!(name, "" | "." | "..") && name.len() <= LONGEST_NAME && !name.contains(special)
}
