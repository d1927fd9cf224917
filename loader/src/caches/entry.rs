//! Entries of a cache, contained in it.

use std::io::ErrorKind;
use std::path::Path;

use crate::dir::Dir;
use crate::error::{Error, Result, clip, io};

/// Opens the directory at `path`, an entry of `cache`; `None` when it does not exist.
///
/// # Errors
/// [`Error::OutsideDirectory`] when it lies outside of the cache with all symlinks followed.
pub(super) fn open_entry(cache: &Path, path: &Path) -> Result<Option<Dir>> {
    let real = match path.canonicalize() {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        real => real.map_err(io(path))?,
    };
    if !real.starts_with(cache.canonicalize().map_err(io(cache))?) {
        return Err(Error::OutsideDirectory {
            dir: cache.to_owned(),
            name: clip(path.strip_prefix(cache).unwrap_or(path).display()),
            expected: "an entry inside the cache, found a symlink that leads out of it",
        });
    }
    Dir::open(path).map(Some)
}
