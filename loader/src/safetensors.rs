//! The safetensors format: eight bytes of header length, a JSON header, raw little-endian data.
//!
//! The vocabulary of dtypes and their sizes is that of the `safetensors` crate. What a file says is proved
//! here, because that crate keeps the last of two tensors of one name, and its messages do not say which tensor
//! is at fault. Everything accepted here, `safetensors::SafeTensors::deserialize` accepts too, with the same
//! tensors: tests and a fuzz target hold that.
//!
//! Contract: the header is at most [`MAX_HEADER`] bytes, is in the file, and is one JSON object that starts at
//! its first byte; no name occurs twice; dtype times shape is the length of every tensor, without overflow;
//! and the tensors cover the data section exactly once: no overlap, no hole, nothing after the last. Memory
//! beyond the file's own grows with the header's length only, about tenfold, and not with any number in it.

use std::fmt;
use std::mem;
use std::sync::Arc;

use ::safetensors::Dtype as Stored;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use crate::error::{Error, Result, clip};
use crate::json::{Object, UniqueMap};
use crate::map::Region;
use crate::tensor::{Dtype, Tensor};

/// The longest header, in bytes: the limit of the format.
pub const MAX_HEADER: u64 = 100_000_000;

/// The tensors of a whole safetensors file, sorted by name.
///
/// # Errors
/// Whatever the module's contract excludes, each with a variant of its own: [`Error::Truncated`],
/// [`Error::HeaderTooLarge`], [`Error::Header`], [`Error::Entry`], [`Error::Duplicate`], [`Error::Offsets`],
/// [`Error::NotContiguous`], [`Error::ShapeOverflow`], [`Error::DataLength`], [`Error::TrailingBytes`].
pub fn parse(region: &Arc<Region>) -> Result<Vec<Tensor>> {
    let file = region.name();
    let (header, data) = split(file, region.bytes())?;
    let mut entries = entries(file, header)?;

    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    // `data` is the end of the region, so that this is where it begins, and no sum below exceeds its length.
    let start = region.bytes().len() - data.len();
    let mut covered = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let (begin, end) = entry.data_offsets;
        if begin > end || end > data.len() {
            let (begin, end, len) = (begin as u64, end as u64, data.len() as u64);
            return Err(Error::Offsets { file: clip(file), tensor: clip(name), len, begin, end });
        }
        if begin != covered {
            let (expected, found) = (covered as u64, begin as u64);
            return Err(Error::NotContiguous { file: clip(file), tensor: clip(name), expected, found });
        }
        covered = end;
        let range = start + begin..start + end;
        tensors.push(Tensor::in_file(region, name.into(), dtype(entry.dtype), &entry.shape, range)?);
    }
    if covered != data.len() {
        return Err(Error::TrailingBytes { file: clip(file), end: covered as u64, found: data.len() as u64 });
    }
    tensors.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(tensors)
}

/// A file's header and data section.
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
        return Err(wrong(&"something else at its first byte"));
    }
    Ok((header, data))
}

/// What the header says, with every name once, sorted by name.
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

/// The key of the header that is no tensor.
const METADATA: &str = "__metadata__";

/// What the header says about a tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: Stored,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// Reads the header, and remembers which entry it was in when something is wrong.
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
            self.current = Some(name);
            if is_metadata {
                if mem::replace(&mut self.has_metadata, true) {
                    return Err(A::Error::custom("this key twice"));
                }
                // Free text about the file, of no use here; only its form is checked.
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

fn dtype(stored: Stored) -> Dtype {
    let name = match stored {
        Stored::F32 => return Dtype::F32,
        Stored::BF16 => return Dtype::Bf16,
        Stored::F16 => return Dtype::F16,
        Stored::F64 => return Dtype::F64,
        Stored::I64 => return Dtype::I64,
        Stored::I32 => return Dtype::I32,
        Stored::I16 => return Dtype::I16,
        Stored::I8 => return Dtype::I8,
        Stored::U64 => return Dtype::U64,
        Stored::U32 => return Dtype::U32,
        Stored::U16 => return Dtype::U16,
        Stored::U8 => return Dtype::U8,
        Stored::BOOL => return Dtype::Bool,
        Stored::C64 => "C64",
        Stored::F8_E5M2 => "F8_E5M2",
        Stored::F8_E4M3 => "F8_E4M3",
        Stored::F8_E8M0 => "F8_E8M0",
        Stored::F8_E4M3FNUZ => "F8_E4M3FNUZ",
        Stored::F8_E5M2FNUZ => "F8_E5M2FNUZ",
        Stored::F6_E2M3 => "F6_E2M3",
        Stored::F6_E3M2 => "F6_E3M2",
        Stored::F4 => "F4",
        _ => "a type newer than this program",
    };
    Dtype::Named { name, bits: stored.bitsize() }
}
