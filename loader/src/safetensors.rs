//! The safetensors format: eight bytes of header length, a JSON header, raw little-endian data.
//!
//! The crate `safetensors` defines the names of element types. This module checks a file itself, because that crate
//! keeps the last of two tensors with the same name, and its messages do not name the tensor that is wrong. Every file
//! that is accepted here is accepted by `safetensors::SafeTensors::deserialize` with the same tensors; tests and a fuzz
//! target check this.
//!
//! # Contract
//! - The header is at most [`MAX_HEADER`] bytes long, lies in the file, and is one JSON object that starts at its first
//!   byte.
//! - No name occurs twice.
//! - The length of every tensor is the size of its element type times its shape, computed without overflow.
//! - The tensors cover the data section exactly once: no overlap, no gap, no byte after the last tensor.
//!
//! Memory in addition to the file's bytes is at most 16 times the header's length, whatever numbers the header has.

use std::fmt;
use std::io::Read as _;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use ::safetensors::Dtype as Stored;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::dtype::TensorDtype;
use crate::error::{Error, Result, clip, io};
use crate::json::{MAX_ENTRIES, Object, UniqueMap};
use crate::map::{self, Access, Region};
use crate::shards::WeightFile;
use crate::tensor::Tensor;

/// The longest header, in bytes: the limit of the format.
pub const MAX_HEADER: u64 = 100_000_000;

/// The tensors of a whole safetensors file, sorted by name.
///
/// # Errors
/// One variant for each violation of the module's contract: [`Error::Truncated`], [`Error::HeaderTooLarge`],
/// [`Error::Header`], [`Error::Entry`], [`Error::Duplicate`], [`Error::Offsets`], [`Error::NotContiguous`],
/// [`Error::ShapeOverflow`], [`Error::DataLength`], [`Error::TrailingBytes`]. Also [`Error::OutOfMemory`], when a
/// misaligned tensor cannot be copied.
pub fn parse(region: &Arc<Region>) -> Result<Vec<Tensor>> {
    let file = region.name();
    let (header, data) = split(file, region.bytes())?;
    // `data` is the end of the region and starts here. No sum below exceeds the region's length.
    let start = region.bytes().len() - data.len();
    let entries = layout(file, header, data.len())?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let (begin, end) = entry.data_offsets;
        let dtype = dtype(entry.dtype).ok_or_else(|| Error::Entry {
            file: clip(file),
            tensor: clip(&name),
            found: format!("the unsupported dtype {}", entry.dtype),
        })?;
        let range = start + begin..start + end;
        tensors.push(Tensor::in_file(region, name.into(), dtype, &entry.shape.0, range)?);
    }
    tensors.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(tensors)
}

/// Opens a file and its tensors. A file that is read into memory has its header checked first.
pub(crate) fn open(path: &Path, name: &str, access: Access) -> Result<WeightFile> {
    if access == Access::Read {
        check_header(path, name)?;
    }
    let region = Arc::new(Region::open(path, name, access)?);
    let tensors = parse(&region)?;
    Ok(WeightFile { region, tensors })
}

/// Reads the header alone, and checks that its tensors cover the rest of the file.
fn check_header(path: &Path, name: &str) -> Result<()> {
    let (mut file, len) = map::open(path)?;
    let mut prefix = [0; 8];
    let Some(rest) = len.checked_sub(prefix.len()) else {
        return Err(Error::Truncated { file: clip(name), expected: 8, found: len as u64 });
    };
    file.read_exact(&mut prefix).map_err(io(path))?;
    // Of a header that is too long for the format or the file, `split` needs no more than its length.
    let length = Some(u64::from_le_bytes(prefix)).filter(|length| *length <= MAX_HEADER).unwrap_or(0);
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(rest);
    let mut start = Vec::new();
    let out_of_memory = |_| Error::OutOfMemory { file: clip(name), bytes: length };
    start.try_reserve_exact(prefix.len() + length).map_err(out_of_memory)?;
    start.extend(prefix);
    file.take(length as u64).read_to_end(&mut start).map_err(io(path))?;
    let (header, _) = split(name, &start)?;
    layout(name, header, rest - header.len()).map(drop)
}

/// The tensors of a header in the order of their data, which covers the data section of `len` bytes exactly once.
fn layout(file: &str, header: &str, len: usize) -> Result<Vec<(String, Entry)>> {
    let mut entries = entries(file, header)?;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut covered = 0;
    for (name, entry) in &entries {
        let (begin, end) = entry.data_offsets;
        if begin > end || end > len {
            let (begin, end, len) = (begin as u64, end as u64, len as u64);
            return Err(Error::Offsets { file: clip(file), tensor: clip(name), len, begin, end });
        }
        if begin != covered {
            let (expected, found) = (covered as u64, begin as u64);
            return Err(Error::NotContiguous { file: clip(file), tensor: clip(name), expected, found });
        }
        covered = end;
    }
    if covered != len {
        return Err(Error::TrailingBytes { file: clip(file), end: covered as u64, found: len as u64 });
    }
    Ok(entries)
}

/// Splits a file into its header and its data section.
fn split<'a>(file: &str, bytes: &'a [u8]) -> Result<(&'a str, &'a [u8])> {
    let found = bytes.len() as u64;
    let truncated = |expected| Error::Truncated { file: clip(file), expected, found };
    let wrong = |found: &dyn fmt::Display| Error::Header { file: clip(file), found: clip(found) };

    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| truncated(8))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(Error::HeaderTooLarge { file: clip(file), limit: MAX_HEADER, found: length });
    }
    let (header, data) = usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or_else(|| truncated(length + 8))?;
    let header = str::from_utf8(header).map_err(|e| wrong(&e))?;
    if !header.starts_with('{') {
        return Err(wrong(&"another first byte"));
    }
    Ok((header, data))
}

/// The header's entries, sorted by name. No name occurs twice.
fn entries(file: &str, header: &str) -> Result<Vec<(String, Entry)>> {
    let mut reader = Header::default();
    let mut json = serde_json::Deserializer::from_str(header);
    let read = reader.deserialize(&mut json).and_then(|()| json.end());
    if let Err(e) = read {
        let file = clip(file);
        return Err(match reader.current {
            Some(name) if name == METADATA => {
                Error::Header { file, found: clip(format_args!("{METADATA}: {e}")) }
            }
            Some(name) => Error::Entry { file, tensor: clip(name), found: clip(e) },
            None => Error::Header { file, found: clip(e) },
        });
    }
    let mut entries = reader.entries;
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let twice = entries.iter().zip(entries.iter().skip(1)).find(|((a, _), (b, _))| a == b);
    match twice {
        Some(((name, _), _)) => {
            Err(Error::Duplicate { file: clip(file), tensor: clip(name), other: clip(file) })
        }
        None => Ok(entries),
    }
}

/// The one key of the header that is not a tensor.
const METADATA: &str = "__metadata__";

/// The header's entry for one tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: Stored,
    shape: Shape,
    data_offsets: (usize, usize),
}

/// The largest number of dimensions of a tensor.
const MAX_RANK: usize = 8;

/// The dimensions of a tensor.
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX_RANK} dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut dims: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(dim) = dims.next_element()? {
            if shape.len() == MAX_RANK {
                return Err(A::Error::invalid_length(MAX_RANK + 1, &self));
            }
            shape.push(dim);
        }
        Ok(Shape(shape))
    }
}

/// Reads the header, and keeps the name of the current entry for messages.
#[derive(Default)]
struct Header {
    entries: Vec<(String, Entry)>,
    current: Option<String>,
    has_metadata: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Header {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Header {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let is_metadata = name == METADATA;
            if self.entries.len() == MAX_ENTRIES {
                return Err(A::Error::custom(format_args!("more than {MAX_ENTRIES} tensors")));
            }
            self.current = Some(name);
            if is_metadata {
                if mem::replace(&mut self.has_metadata, true) {
                    return Err(A::Error::custom("this key twice"));
                }
                // Text about the file. It is not used; only its form is checked.
                map.next_value::<UniqueMap<String>>()?;
                self.current = None;
            } else {
                let Object(entry) = map.next_value()?;
                self.entries.extend(self.current.take().map(|name| (name, entry)));
            }
        }
        Ok(())
    }
}

/// Converts an element type of the crate `safetensors`; `None` for a type that this crate does not know.
fn dtype(stored: Stored) -> Option<TensorDtype> {
    Some(match stored {
        Stored::F32 => TensorDtype::F32,
        Stored::BF16 => TensorDtype::Bf16,
        Stored::F16 => TensorDtype::F16,
        Stored::F64 => TensorDtype::F64,
        Stored::I64 => TensorDtype::I64,
        Stored::I32 => TensorDtype::I32,
        Stored::I16 => TensorDtype::I16,
        Stored::I8 => TensorDtype::I8,
        Stored::U64 => TensorDtype::U64,
        Stored::U32 => TensorDtype::U32,
        Stored::U16 => TensorDtype::U16,
        Stored::U8 => TensorDtype::U8,
        Stored::BOOL => TensorDtype::Bool,
        Stored::C64 => TensorDtype::C64,
        Stored::F8_E5M2 => TensorDtype::F8E5M2,
        Stored::F8_E4M3 => TensorDtype::F8E4M3,
        Stored::F8_E8M0 => TensorDtype::F8E8M0,
        Stored::F8_E4M3FNUZ => TensorDtype::F8E4M3Fnuz,
        Stored::F8_E5M2FNUZ => TensorDtype::F8E5M2Fnuz,
        Stored::F6_E2M3 => TensorDtype::F6E2M3,
        Stored::F6_E3M2 => TensorDtype::F6E3M2,
        Stored::F4 => TensorDtype::F4,
        _ => return None,
    })
}
