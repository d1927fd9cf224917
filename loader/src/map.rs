//! The bytes of one file: memory-mapped, read into memory, or owned from the start.
//!
//! A [`Region`] neither moves its bytes nor changes their number, so that tensors can share it and hold ranges of it.
//! Mapping is the one place of this crate where memory safety depends on something outside of the process. The contract
//! is stated on [`Region::map`] and, for callers of the safe [`Preset::open`](crate::Preset::open), on [`Access::Map`].

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use half::{bf16, f16};

use crate::cast;
use crate::error::{Error, Result, clip, io};

/// How the weight files of a preset become bytes in memory. [`Display`](fmt::Display) and [`FromStr`] use the names
/// `map` and `read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Access {
    /// Memory-mapped: a page is read when it is first used, and all processes share one copy in the page cache.
    ///
    /// # Contract
    /// While a [`Preset`](crate::Preset) or a [`Tensor`](crate::Tensor) of it lives, nobody may truncate its files or
    /// write to them in place. If a file is truncated, the use of a lost page ends the process with SIGBUS. If it is
    /// written to, bytes change behind a shared reference, which is undefined behaviour. To replace a file, rename
    /// another file over it: that is safe, and so is deleting it. Callers who cannot promise this use
    /// [`Access::Read`].
    #[default]
    Map,
    /// Read into 64-byte-aligned memory of this process. Later changes to the files have no effect.
    Read,
}

impl FromStr for Access {
    type Err = Error;

    /// Parses `map` or `read`.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    fn from_str(name: &str) -> Result<Access> {
        match name {
            "map" => Ok(Access::Map),
            "read" => Ok(Access::Read),
            _ => Err(Error::UnknownName { what: "access", expected: "map or read", found: clip(name) }),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Access::Map => "map",
            Access::Read => "read",
        })
    }
}

/// The bytes of one file. They stay at their address for as long as the region lives.
pub struct Region {
    name: Arc<str>,
    bytes: Bytes,
}

enum Bytes {
    Mapped(memmap2::Mmap),
    Lines { lines: Vec<Line>, len: usize },
    Plain(Cow<'static, [u8]>),
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

impl Region {
    /// Maps a whole regular file. `name` stands for the file in messages.
    ///
    /// # Safety
    /// While the region lives, nobody truncates the file or writes to it in place, in this process or in another one.
    /// (After truncation, the use of a lost page raises SIGBUS. Writes change bytes behind a `&[u8]`. Deleting the file
    /// or renaming another file over it is fine: the map keeps the old file.)
    ///
    /// # Errors
    /// [`Error::NotAFile`], detected before the file is opened, because opening a FIFO would wait for a writer;
    /// [`Error::FileTooLarge`] for a file larger than the address space; [`Error::Io`].
    pub unsafe fn map(path: impl AsRef<Path>, name: impl Into<Arc<str>>) -> Result<Region> {
        let path = path.as_ref();
        let (file, len) = open(path)?;
        if len == 0 {
            return Ok(Region::from_static(name, &[]));
        }
        // SAFETY: nobody truncates the file or writes to it while it is mapped: the same obligation is on our caller, by
        // this function's `Safety` section. `len` is the length of the opened file.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(&file) }.map_err(io(path))?;
        advise(&map);
        Ok(Region { name: name.into(), bytes: Bytes::Mapped(map) })
    }

    /// Reads a whole regular file into 64-byte-aligned memory. `name` stands for the file in messages.
    ///
    /// # Errors
    /// The errors of [`Region::map`]; [`Error::OutOfMemory`]; [`Error::Io`] also for a file that shrinks while it is
    /// read.
    pub fn read(path: impl AsRef<Path>, name: impl Into<Arc<str>>) -> Result<Region> {
        let (path, name) = (path.as_ref(), name.into());
        let (mut file, len) = open(path)?;
        let mut lines = zeroed_lines(&name, len)?;
        let bytes = cast::bytes_mut(&mut lines);
        file.read_exact(bytes.get_mut(..len).unwrap_or_default()).map_err(io(path))?;
        Ok(Region { name, bytes: Bytes::Lines { lines, len } })
    }

    /// A file that is already in memory. `name` stands for the file in messages.
    pub fn from_vec(name: impl Into<Arc<str>>, bytes: Vec<u8>) -> Region {
        Region { name: name.into(), bytes: Bytes::Plain(Cow::Owned(bytes)) }
    }

    /// A file that is part of the program, included by `include_bytes!`. `name` stands for the file in messages.
    pub fn from_static(name: impl Into<Arc<str>>, bytes: &'static [u8]) -> Region {
        Region { name: name.into(), bytes: Bytes::Plain(Cow::Borrowed(bytes)) }
    }

    /// The name that the constructor was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Lines { lines, len } => cast::bytes(lines).get(..*len).unwrap_or_default(),
            Bytes::Plain(bytes) => bytes,
            Bytes::F32(data) => cast::bytes(data),
            Bytes::Bf16(data) => cast::bytes(data),
            Bytes::F16(data) => cast::bytes(data),
        }
    }

    /// Whether the bytes are a memory map.
    pub fn is_mapped(&self) -> bool {
        matches!(self.bytes, Bytes::Mapped(_))
    }

    /// Opens the file at `path` by the access that the caller chose.
    pub(crate) fn open(path: &Path, name: impl Into<Arc<str>>, access: Access) -> Result<Region> {
        match access {
            // SAFETY: nobody truncates the file or writes to it while it is mapped: whoever chooses `Access::Map`
            // promises this. The documentation of `Access::Map` states the contract, and so does SECURITY.md.
            Access::Map => unsafe { Region::map(path, name) },
            Access::Read => Region::read(path, name),
        }
    }

    /// A 64-byte-aligned copy of a range of this region, under the same name.
    pub(crate) fn aligned_copy(&self, range: Range<usize>) -> Result<Region> {
        let from = self.bytes().get(range).unwrap_or_default();
        let mut lines = zeroed_lines(&self.name, from.len())?;
        cast::bytes_mut(&mut lines).iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok(Region { name: Arc::clone(&self.name), bytes: Bytes::Lines { lines, len: from.len() } })
    }
}

/// Requests huge pages, where the system supports them for files (Linux, on file systems with large folios). Data that is
/// read from the disk through this map then lies in 2 MiB pages in the page cache, also for later processes. Measured on
/// a file of 438 MB: 211 page faults instead of 3,200, 2 ms instead of 19 ms to touch the whole file, and a third more
/// memory bandwidth than through 4 KiB pages. A file that is already in the page cache keeps its pages.
fn advise(map: &memmap2::Mmap) {
    // Failure is harmless: a kernel that does not know this advice maps small pages.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}

impl From<Vec<f32>> for Region {
    fn from(data: Vec<f32>) -> Region {
        Region { name: "".into(), bytes: Bytes::F32(data) }
    }
}

impl From<Vec<bf16>> for Region {
    fn from(data: Vec<bf16>) -> Region {
        Region { name: "".into(), bytes: Bytes::Bf16(data) }
    }
}

impl From<Vec<f16>> for Region {
    fn from(data: Vec<f16>) -> Region {
        Region { name: "".into(), bytes: Bytes::F16(data) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, mapped) = (self.bytes().len(), self.is_mapped());
        f.debug_struct("Region")
            .field("name", &self.name)
            .field("len", &len)
            .field("mapped", &mapped)
            .finish()
    }
}

/// Describes the kind of a file, for messages.
pub(crate) fn kind(metadata: &fs::Metadata) -> &'static str {
    match metadata.file_type() {
        kind if kind.is_file() => "a file",
        kind if kind.is_dir() => "a directory",
        _ => "a pipe, socket or device",
    }
}

/// Opens a regular file, and nothing else; returns it with its length. The type is checked before opening, because opening
/// could wait on a FIFO or act on a device, and again on the opened file, because the path may have changed in between.
pub(crate) fn open(path: &Path) -> Result<(File, usize)> {
    let regular = |metadata: fs::Metadata| match metadata.is_file() {
        true => Ok(metadata.len()),
        false => Err(Error::NotAFile { path: path.to_owned(), found: kind(&metadata) }),
    };
    regular(fs::metadata(path).map_err(io(path))?)?;
    let file = File::open(path).map_err(io(path))?;
    let found = regular(file.metadata().map_err(io(path))?)?;
    // No slice is longer than `isize::MAX` bytes.
    let limit = isize::MAX as u64;
    let len = usize::try_from(found).ok().filter(|_| found <= limit);
    Ok((file, len.ok_or_else(|| Error::FileTooLarge { path: path.to_owned(), limit, found })?))
}

/// Allocates zeroed memory for `len` bytes. Failure is an error and no abort, because a file chooses the length.
fn zeroed_lines(file: &str, len: usize) -> Result<Vec<Line>> {
    let count = len.div_ceil(size_of::<Line>());
    let mut lines = Vec::new();
    lines.try_reserve_exact(count).map_err(|_| Error::OutOfMemory { file: clip(file), bytes: len })?;
    lines.resize(count, Line([0; 64]));
    Ok(lines)
}

/// The unit of owned memory: 64 bytes, one cache line or one AVX-512 vector.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: all bits zero is a valid `[u8; 64]`, the only field.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: `Line` is `repr(C)` over `[u8; 64]`, which is `Pod`. Its size and its alignment are both 64, so it has no
// padding. It is `Copy` and `'static` and has no interior mutability.
unsafe impl bytemuck::Pod for Line {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_parsed_and_printed() {
        for access in [Access::Map, Access::Read] {
            assert_eq!(access.to_string().parse::<Access>().unwrap(), access);
        }
        let error = "mmap".parse::<Access>().unwrap_err();
        assert_eq!(error.to_string(), "access \"mmap\": expected map or read");
    }
}
