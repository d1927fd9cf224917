//! The weights of a module: a safetensors file whose tensors are known by name and shape.

use rachis::kernels::{AnyMatRef, AnySlice, MatRef};
use rachis::loader::{Data, Preset, Tensor};

use crate::error::{Error, Result, clip, in_file};

/// The tensors of a module's file that no layer has taken yet.
pub(super) struct Weights {
    file: String,
    tensors: Vec<Tensor>,
}

impl Weights {
    pub(super) fn open(preset: &Preset, file: String) -> Result<Weights> {
        match preset.open_root_tensors(&file)? {
            Some(tensors) => Ok(Weights { file, tensors }),
            None => Err(Error::Missing { dir: preset.dir().to_owned(), expected: file }),
        }
    }

    /// Takes the tensor of this name, which must have this shape and numbers of a type that layers compute with.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let at = self.tensors.iter().position(|tensor| tensor.name() == name);
        let tensor = at.map(|at| self.tensors.swap_remove(at));
        let tensor = tensor.ok_or_else(|| in_file(&self.file, format_args!("has no tensor {name}")))?;
        let (found, dtype) = (tensor.shape(), tensor.dtype());
        if found != shape {
            let message = format!("shape of {name} is {found:?}, expected {shape:?}");
            return Err(in_file(&self.file, message));
        }
        match tensor.data() {
            Data::F32(_) | Data::Bf16(_) | Data::F16(_) => Ok(tensor),
            _ => {
                Err(in_file(&self.file, format_args!("type of {name} is {dtype}, expected F32, BF16 or F16")))
            }
        }
    }

    /// Checks that every tensor of the file has been taken.
    pub(super) fn finish(self) -> Result<()> {
        match self.tensors.first() {
            None => Ok(()),
            Some(extra) => {
                let name = clip(extra.name());
                Err(in_file(&self.file, format_args!("tensor {name} is not one of the module's")))
            }
        }
    }
}

/// A tensor of floats with two dimensions as a matrix.
pub(super) fn matrix(tensor: &Tensor) -> AnyMatRef<'_> {
    let [rows, cols] = *tensor.shape() else { return AnyMatRef::F32(MatRef::default()) };
    let empty = AnyMatRef::F32(MatRef::default());
    match tensor.data() {
        Data::F32(data) => MatRef::new(data, rows, cols).map_or(empty, AnyMatRef::F32),
        Data::Bf16(data) => MatRef::new(data, rows, cols).map_or(empty, AnyMatRef::Bf16),
        Data::F16(data) => MatRef::new(data, rows, cols).map_or(empty, AnyMatRef::F16),
        _ => empty,
    }
}

/// All elements of a tensor of floats.
pub(super) fn elements(tensor: &Tensor) -> AnySlice<'_> {
    match tensor.data() {
        Data::F32(data) => AnySlice::F32(data),
        Data::Bf16(data) => AnySlice::Bf16(data),
        Data::F16(data) => AnySlice::F16(data),
        _ => AnySlice::F32(&[]),
    }
}
