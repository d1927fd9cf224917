//! One weight of a model.

use rachis_kernels::{AnyMatRef, AnySlice, MatRef};
use rachis_loader::{Data, Tensor};

use super::Naming;
use crate::error::{Error, Result};

/// A float tensor of a known shape, used in place in its file or owned.
#[derive(Debug, Clone)]
pub(crate) struct Weight {
    tensor: Tensor,
    /// The first dimension of the expected shape.
    rows: usize,
}

impl Weight {
    /// A tensor that must have this shape. In a Keras file it may have dimensions split into several.
    pub(super) fn new(tensor: Tensor, shape: &[usize], naming: Naming) -> Result<Weight> {
        let name = tensor.name().to_owned();
        let fits = match naming {
            Naming::HuggingFace => tensor.shape() == shape,
            Naming::Keras => splits(tensor.shape(), shape),
        };
        if !fits {
            let found = tensor.shape().to_vec();
            return Err(Error::WeightShape { name, expected: shape.to_vec(), found });
        }
        let rows = shape.first().copied().unwrap_or(0);
        match tensor.data() {
            Data::F32(_) | Data::Bf16(_) | Data::F16(_) => Ok(Weight { tensor, rows }),
            _ => Err(Error::WeightDtype { name, found: tensor.dtype().to_string() }),
        }
    }

    /// A weight without elements: of its name alone.
    pub(super) fn without_elements(name: String) -> Result<Weight> {
        Ok(Weight { tensor: Tensor::from_f32(name, &[0], Vec::new())?, rows: 0 })
    }

    /// All elements in order.
    pub(crate) fn slice(&self) -> AnySlice<'_> {
        match self.tensor.data() {
            Data::F32(data) => AnySlice::F32(data),
            Data::Bf16(data) => AnySlice::Bf16(data),
            Data::F16(data) => AnySlice::F16(data),
            // `Weight::new` accepts nothing else.
            _ => AnySlice::F32(&[]),
        }
    }

    /// The tensor as a matrix: its first dimension by all others.
    pub(crate) fn matrix(&self) -> AnyMatRef<'_> {
        self.as_rows(self.rows)
    }

    /// Its name in its file.
    pub(crate) fn name(&self) -> &str {
        self.tensor.name()
    }

    /// All elements as a matrix of one column.
    pub(crate) fn as_column(&self) -> AnyMatRef<'_> {
        match self.slice() {
            AnySlice::F32(data) => self.as_rows(data.len()),
            AnySlice::Bf16(data) => self.as_rows(data.len()),
            AnySlice::F16(data) => self.as_rows(data.len()),
        }
    }

    fn as_rows(&self, rows: usize) -> AnyMatRef<'_> {
        let cols = |len: usize| len.checked_div(rows).unwrap_or(0);
        // The loader has checked that the data has as many elements as the shape says.
        let empty = AnyMatRef::F32(MatRef::default());
        match self.slice() {
            AnySlice::F32(data) => MatRef::new(data, rows, cols(data.len())).map_or(empty, AnyMatRef::F32),
            AnySlice::Bf16(data) => MatRef::new(data, rows, cols(data.len())).map_or(empty, AnyMatRef::Bf16),
            AnySlice::F16(data) => MatRef::new(data, rows, cols(data.len())).map_or(empty, AnyMatRef::F16),
        }
    }
}

/// Whether `found` is `shape` with some dimensions split into several.
fn splits(found: &[usize], shape: &[usize]) -> bool {
    let mut found = found.iter();
    let mut whole = shape.iter().all(|dim| {
        let mut product = found.next().copied().unwrap_or(0);
        while product < *dim {
            let Some(next) = found.next() else { return false };
            product = product.saturating_mul(*next);
        }
        product == *dim
    });
    whole &= found.next().is_none();
    whole
}
