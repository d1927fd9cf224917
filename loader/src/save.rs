//! Writes a preset: a Hugging Face directory with a `config.json` and one safetensors file.
//!
//! Each file is written under a temporary name in the directory, and renamed when it is complete and on the disk. A
//! failure therefore leaves the old files as they were, and a model that maps a replaced file keeps the old one. The
//! configuration is written last, because a directory without one is not a preset.
//!
//! Tensors whose length is a multiple of 64 bytes come first, and the header is padded, so that each of them starts at a
//! multiple of 64 bytes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Dtype as Stored, Metadata, TensorInfo};
use serde_json::{Map, Value};

use crate::dtype::TensorDtype;
use crate::error::{Error, Result, clip, io};
use crate::files::{CONFIG, SAFETENSORS};

/// The description of a tensor to write.
#[derive(Debug, Clone, Copy)]
pub struct NewTensor<'a> {
    /// The tensor's name.
    pub name: &'a str,
    /// The type of its elements: `F32`, `BF16` or `F16`.
    pub dtype: TensorDtype,
    /// The tensor's shape, row-major.
    pub shape: &'a [usize],
}

/// Receives the bytes of one tensor, in order.
#[derive(Debug)]
pub struct TensorSink<'f> {
    file: &'f mut BufWriter<File>,
    path: &'f Path,
    tensor: &'f str,
    /// The number of bytes that are still missing.
    missing: usize,
}

impl TensorSink<'_> {
    /// Writes the next bytes of the tensor: little-endian elements in row-major order.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::DataLength`] when the tensor has fewer bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let missing = self.missing;
        let too_many = || {
            length(self.tensor, format!("at most {missing} further bytes"), format!("{} bytes", bytes.len()))
        };
        self.missing = missing.checked_sub(bytes.len()).ok_or_else(too_many)?;
        self.file.write_all(bytes).map_err(io(self.path))
    }
}

/// Writes a preset directory, and creates it if it does not exist. `write` is called once for each tensor, with the
/// tensor's index in `tensors`, and must put all of the tensor's bytes. The order of the calls is unspecified.
///
/// # Errors
/// - the error that `write` returns;
/// - [`Error::Entry`] for an element type other than `F32`, `BF16` and `F16`;
/// - [`Error::Duplicate`] for two tensors with one name;
/// - [`Error::ShapeOverflow`] for a shape whose size in bytes overflows;
/// - [`Error::DataLength`] when `write` puts too few or too many bytes;
/// - [`Error::Io`].
pub fn save_preset<E: From<Error>>(
    dir: &Path,
    config: Map<String, Value>,
    tensors: &[NewTensor<'_>],
    mut write: impl FnMut(usize, &mut TensorSink<'_>) -> Result<(), E>,
) -> Result<(), E> {
    fs::create_dir_all(dir).map_err(io(dir))?;
    let mut sized = Vec::with_capacity(tensors.len());
    for (i, tensor) in tensors.iter().enumerate() {
        sized.push((i, *tensor, tensor.byte_len()?));
    }
    let mut names = BTreeSet::new();
    if let Some(tensor) = tensors.iter().find(|tensor| !names.insert(tensor.name)) {
        let file = clip(SAFETENSORS);
        return Err(Error::Duplicate { other: file.clone(), file, tensor: clip(tensor.name) }.into());
    }
    sized.sort_by_key(|(_, _, len)| !len.is_multiple_of(ALIGNMENT));
    let header = header(&sized)?;

    Partial::new(dir, SAFETENSORS)?.fill(|file, path| {
        file.write_all(&header).map_err(io(path))?;
        for (i, tensor, len) in &sized {
            let mut sink = TensorSink { file, path, tensor: tensor.name, missing: *len };
            write(*i, &mut sink)?;
            if sink.missing > 0 {
                let found = format!("{} bytes", len - sink.missing);
                return Err(length(tensor.name, format!("{len} bytes"), found).into());
            }
        }
        Ok::<(), E>(())
    })?;
    Partial::new(dir, CONFIG)?.fill(|file, path| {
        let text = format!("{:#}\n", Value::Object(config));
        Ok::<(), E>(file.write_all(text.as_bytes()).map_err(io(path))?)
    })
}

/// Tensors start at multiples of this many bytes, as far as their lengths allow.
const ALIGNMENT: usize = 64;

impl NewTensor<'_> {
    fn byte_len(&self) -> Result<usize> {
        let elements = self.shape.iter().try_fold(1usize, |len, dim| len.checked_mul(*dim));
        let bits = elements.and_then(|len| len.checked_mul(self.dtype.bits()));
        bits.map(|bits| bits / 8).ok_or_else(|| Error::ShapeOverflow {
            file: clip(SAFETENSORS),
            tensor: clip(self.name),
            shape: format!("{:?}", self.shape),
        })
    }
}

fn length(tensor: &str, expected: impl Display, found: impl Display) -> Error {
    let (expected, found) = (expected.to_string(), found.to_string());
    Error::DataLength { file: clip(SAFETENSORS), tensor: clip(tensor), expected, found }
}

/// The header of a file with these tensors in this order, preceded by its length.
fn header(tensors: &[(usize, NewTensor<'_>, usize)]) -> Result<Vec<u8>> {
    let mut end = 0usize;
    let mut entries = Vec::with_capacity(tensors.len());
    for (_, tensor, len) in tensors {
        let begin = end;
        end = begin.saturating_add(*len);
        let dtype = match tensor.dtype {
            TensorDtype::F32 => Stored::F32,
            TensorDtype::Bf16 => Stored::BF16,
            TensorDtype::F16 => Stored::F16,
            other => {
                let (file, tensor) = (clip(SAFETENSORS), clip(tensor.name));
                return Err(Error::Entry { file, tensor, found: format!("dtype {other}") });
            }
        };
        let info = TensorInfo { dtype, shape: tensor.shape.to_vec(), data_offsets: (begin, end) };
        entries.push((tensor.name.to_owned(), info));
    }
    let wrong = |e: &dyn Display| Error::Header { file: clip(SAFETENSORS), found: clip(e) };
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    let metadata = Metadata::new(Some(metadata), entries).map_err(|e| wrong(&e))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|e| wrong(&e))?;
    let padded = (8 + text.len()).next_multiple_of(ALIGNMENT) - 8;
    text.resize(padded, b' ');
    let mut bytes = (padded as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    Ok(bytes)
}

/// A file that is being written under a temporary name. Dropping it removes the file, unless it was completed.
struct Partial {
    /// The temporary name.
    path: PathBuf,
    /// The final name.
    complete: PathBuf,
    file: BufWriter<File>,
}

impl Partial {
    fn new(dir: &Path, name: &str) -> Result<Partial> {
        let path = dir.join(format!(".{name}.{}.partial", std::process::id()));
        // An older process with the same id may have left a file. Removing it also avoids writing through a symlink.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(io(&path))?;
        Ok(Partial { path, complete: dir.join(name), file: BufWriter::new(file) })
    }

    /// Writes the content, then renames the file to its final name.
    fn fill<E: From<Error>>(
        mut self,
        write: impl FnOnce(&mut BufWriter<File>, &Path) -> Result<(), E>,
    ) -> Result<(), E> {
        write(&mut self.file, &self.path)?;
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(io(&self.path))?;
        fs::rename(&self.path, &self.complete).map_err(io(&self.complete))?;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename the temporary name does not exist.
        let _ = fs::remove_file(&self.path);
    }
}
