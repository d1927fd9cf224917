//! The bytes of one file: memory-mapped, read into memory, or owned from the start.
//!
//! A [`Region`] never moves nor changes the length of its bytes, so that tensors can share it and remember
//! ranges of it. Mapping is the one place of this crate where safety rests on something outside the process;
//! the contract is on [`Region::map`] and, for users of the safe [`Preset::open`](crate::Preset::open), on
//! [`Access::Map`].

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};

use crate::cast;
use crate::error::{Error, Result, clip, io};

/// How the weight files of a preset become bytes in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// Memory-mapped: nothing is read before it is used, and all processes share one copy in the page cache.
    ///
    /// # Contract
    /// While a [`Preset`](crate::Preset) or a [`Tensor`](crate::Tensor) of it lives, nobody may truncate its
    /// files or write to them in place: a truncated map ends the process with SIGBUS when its lost pages are
    /// used, and writes show through under code that relies on them not to. Replacing a file by renaming
    /// another over it is safe, as is deleting it. Who cannot promise this uses [`Access::Read`].
    #[default]
    Map,
    /// Read into memory of this process, 64-byte aligned. Nothing that happens to the files later matters.
    Read,
}

/// The bytes of one file, which stay where they are for as long as the region lives.
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
    /// While the region lives, nobody, in this process or another, truncates the file or writes to it in
    /// place. (Truncation: SIGBUS on use. Writes: bytes behind `&[u8]` change. Renaming another file over it,
    /// or deleting it, is fine: the map keeps the old file.)
    ///
    /// # Errors
    /// [`Error::NotAFile`], found before the file is opened, as opening a FIFO would wait for a writer;
    /// [`Error::FileTooLarge`] beyond the address space; [`Error::Io`].
    pub unsafe fn map(path: impl AsRef<Path>, name: impl Into<Arc<str>>) -> Result<Region> {
        let path = path.as_ref();
        let (file, len) = open(path)?;
        if len == 0 {
            return Ok(Region::from_static(name, &[]));
        }
        // SAFETY: that nobody truncates or writes to the file while mapped is the obligation of our caller,
        // word for word; the length is that of the opened handle.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(&file) }.map_err(io(path))?;
        advise(&map);
        Ok(Region { name: name.into(), bytes: Bytes::Mapped(map) })
    }

    /// Reads a whole regular file into 64-byte-aligned memory. `name` stands for the file in messages.
    ///
    /// # Errors
    /// As for [`Region::map`]; also [`Error::OutOfMemory`], and [`Error::Io`] for a file that shrinks while
    /// it is read.
    pub fn read(path: impl AsRef<Path>, name: impl Into<Arc<str>>) -> Result<Region> {
        let (path, name) = (path.as_ref(), name.into());
        let (mut file, len) = open(path)?;
        let mut lines = zeroed_lines(&name, len)?;
        let bytes = cast::bytes_mut(&mut lines);
        file.read_exact(bytes.get_mut(..len).unwrap_or_default()).map_err(io(path))?;
        Ok(Region { name, bytes: Bytes::Lines { lines, len } })
    }

    /// A file that is already in memory. `name` stands for it in messages.
    pub fn from_vec(name: impl Into<Arc<str>>, bytes: Vec<u8>) -> Region {
        Region { name: name.into(), bytes: Bytes::Plain(Cow::Owned(bytes)) }
    }

    /// A file that is part of the program, as with `include_bytes!`. `name` stands for it in messages.
    pub fn from_static(name: impl Into<Arc<str>>, bytes: &'static [u8]) -> Region {
        Region { name: name.into(), bytes: Bytes::Plain(Cow::Borrowed(bytes)) }
    }

    /// The name given at construction.
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

    /// The file at `path` by the access that the user chose.
    pub(crate) fn open(path: &Path, name: impl Into<Arc<str>>, access: Access) -> Result<Region> {
        match access {
            // SAFETY: that nobody truncates or writes to the file while mapped is promised by whoever chooses
            // `Access::Map`, whose documentation states this contract (as does SECURITY.md).
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

/// Asks for huge pages, where the system has them for files (Linux, on file systems with large folios). What is read from
/// the disk through this map then lies in pages of 2 MiB in the page cache, for every later process as well. On a file
/// of 438 MB that was 211 page faults instead of 3,200, and 2 ms instead of 19 to touch all of it; and memory gives a
/// third more than through pages of 4 KiB. A file that is in the cache already stays there as it is.
fn advise(map: &memmap2::Mmap) {
    // Advice that a kernel does not know is as good as none.
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

/// What lies at a path, in words.
pub(crate) fn kind(metadata: &fs::Metadata) -> &'static str {
    match metadata.file_type() {
        kind if kind.is_file() => "a file",
        kind if kind.is_dir() => "a directory",
        _ => "a pipe, socket or device",
    }
}

/// Opens a regular file, and only that, with its length. The type is asked before opening, as that could wait
/// on a FIFO or act on a device, and the handle is asked again, as the path may name something else by then.
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

/// Zeroed memory for `len` bytes, or an error: how much is the choice of a file.
fn zeroed_lines(file: &str, len: usize) -> Result<Vec<Line>> {
    let count = len.div_ceil(size_of::<Line>());
    let mut lines = Vec::new();
    lines.try_reserve_exact(count).map_err(|_| Error::OutOfMemory { file: clip(file), bytes: len })?;
    lines.resize(count, Line([0; 64]));
    Ok(lines)
}

/// The unit of owned memory: one cache line, one AVX-512 vector.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: all bits zero is a valid `[u8; 64]`, the only field.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: `Line` is `repr(C)` over `[u8; 64]`, which is `Pod`; size and alignment are both 64, so that there is
// no padding; it is `Copy` and `'static` and holds no interior mutability.
unsafe impl bytemuck::Pod for Line {}
