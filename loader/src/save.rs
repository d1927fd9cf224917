//! Writing a preset: a Hugging Face directory of a `config.json` and one safetensors file.
//!
//! Each file is written under another name in the directory and renamed when it is complete and on the disk: a
//! failure leaves what was there before, and models that map a file which is replaced keep the old one. The
//! configuration comes last, since a directory without one is no preset.
//!
//! Tensors whose length is a multiple of 64 bytes come first and the header is padded, so that each of them lies on a
//! boundary of 64 bytes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Dtype as Stored, Metadata, TensorInfo};
use serde_json::{Map, Value};

use crate::error::{Error, Result, clip, io};
use crate::files::{CONFIG, SAFETENSORS};
use crate::tensor::Dtype;

/// A tensor that is to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: &'a [usize],
}

/// Where the bytes of one tensor go, in order.
#[derive(Debug)]
pub struct TensorSink<'f> {
    file: &'f mut BufWriter<File>,
    path: &'f Path,
    tensor: &'f str,
    /// Bytes that are still to come.
    left: usize,
}

impl TensorSink<'_> {
    /// Writes the next bytes: little-endian elements, row after row.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::DataLength`] when they are more than the tensor has.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let more = || length(self.tensor, "its own bytes", format!("{} more", bytes.len() - self.left));
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(more)?;
        self.file.write_all(bytes).map_err(io(self.path))
    }
}

/// Writes a directory, which is made if it is not there. `write` is called once for each tensor, with its number
/// in `tensors`, and puts all of its bytes.
///
/// # Errors
/// What `write` returns; [`Error::Io`]; [`Error::Entry`] for a tensor of other numbers than floats of 16 or 32 bits,
/// [`Error::Duplicate`], [`Error::ShapeOverflow`], [`Error::DataLength`].
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
            let mut sink = TensorSink { file, path, tensor: tensor.name, left: *len };
            write(*i, &mut sink)?;
            if sink.left > 0 {
                return Err(
                    length(tensor.name, format!("{len} bytes"), format!("{} fewer", sink.left)).into()
                );
            }
        }
        Ok::<(), E>(())
    })?;
    Partial::new(dir, CONFIG)?.fill(|file, path| {
        let text = format!("{:#}\n", Value::Object(config));
        Ok::<(), E>(file.write_all(text.as_bytes()).map_err(io(path))?)
    })
}

/// Where tensors begin, if their lengths allow.
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

/// The header of a file with these tensors in this order, with its length before it.
fn header(tensors: &[(usize, NewTensor<'_>, usize)]) -> Result<Vec<u8>> {
    let mut end = 0usize;
    let mut entries = Vec::with_capacity(tensors.len());
    for (_, tensor, len) in tensors {
        let begin = end;
        end = begin.saturating_add(*len);
        let dtype = match tensor.dtype {
            Dtype::F32 => Stored::F32,
            Dtype::Bf16 => Stored::BF16,
            Dtype::F16 => Stored::F16,
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

/// A file that is being written under another name; removed again unless it is filled.
struct Partial {
    path: PathBuf,
    complete: PathBuf,
    file: BufWriter<File>,
}

impl Partial {
    fn new(dir: &Path, name: &str) -> Result<Partial> {
        let path = dir.join(format!(".{name}.{}.partial", std::process::id()));
        // Whatever lies there is of a process that is no more; a symlink is not to be followed.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(io(&path))?;
        Ok(Partial { path, complete: dir.join(name), file: BufWriter::new(file) })
    }

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
        // There is none after the rename.
        let _ = fs::remove_file(&self.path);
    }
}
