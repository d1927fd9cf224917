//! Writing a model as a Hugging Face directory.
//!
//! A model may hold its weights as Keras stores them: transposed, in other shapes, under other names. Saving therefore
//! visits it beside a model of the same configuration that has Hugging Face's names and no elements
//! ([`WeightSource::Counted`](crate::weights::WeightSource)), and each layer says how its weights become the weights of
//! that one. The written rows are gathered a few at a time, so that no weight is in memory twice.

use rachis_kernels::{AnyMatRef, Dtype, MatRef, bf16, f16};
use rachis_loader::{NewTensor, TensorDtype, TensorSink};

use super::Weight;
use crate::error::{Error, Result};

/// The tensors of a model as Hugging Face stores them.
#[derive(Debug, Default)]
pub struct Tensors<'m> {
    list: Vec<SavedTensor<'m>>,
}

/// One tensor: blocks of rows, one below another.
#[derive(Debug)]
struct SavedTensor<'m> {
    name: &'m str,
    shape: Vec<usize>,
    blocks: Vec<RowBlock<'m>>,
}

/// Some rows of a tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RowBlock<'m> {
    /// This many rows of zeros.
    Zeros(usize),
    /// The rows of a matrix.
    Matrix(AnyMatRef<'m>),
    /// The columns of a matrix.
    Transposed(AnyMatRef<'m>),
}

impl<'m> Tensors<'m> {
    /// Adds the tensor `name`, unless it is there already: several layers may share a table.
    pub(crate) fn add(&mut self, name: &'m str, shape: Vec<usize>, blocks: Vec<RowBlock<'m>>) {
        if self.list.iter().all(|tensor| tensor.name != name) {
            self.list.push(SavedTensor { name, shape, blocks });
        }
    }

    /// Adds a vector under the name of `like`.
    pub(crate) fn add_vector(&mut self, weight: &'m Weight, like: &'m Weight) {
        let column = weight.as_column();
        self.add(like.name(), vec![column.rows()], vec![RowBlock::Matrix(column)]);
    }

    /// The names, types and shapes of the tensors. `None` keeps each weight's type, or takes float32 where Hugging Face
    /// has one tensor for several weights of different types.
    pub(crate) fn list(&self, dtype: Option<Dtype>) -> Vec<NewTensor<'_>> {
        let new_tensors = self.list.iter().map(|tensor| {
            let dtype = tensor_dtype(tensor.dtype(dtype));
            NewTensor { name: tensor.name, dtype, shape: &tensor.shape }
        });
        new_tensors.collect()
    }

    /// Writes tensor number `i`.
    pub(crate) fn write(&self, i: usize, dtype: Option<Dtype>, sink: &mut TensorSink<'_>) -> Result<()> {
        self.list.get(i).map_or(Ok(()), |tensor| tensor.write(dtype, sink))
    }
}

/// The loader's name of a float type.
fn tensor_dtype(dtype: Dtype) -> TensorDtype {
    match dtype {
        Dtype::Float32 => TensorDtype::F32,
        Dtype::Bfloat16 => TensorDtype::Bf16,
        Dtype::Float16 => TensorDtype::F16,
    }
}

/// Rows that are gathered at a time: so many 16-bit numbers of a column fill whole cache lines.
const ROWS: usize = 32;

impl SavedTensor<'_> {
    /// The type that the tensor is stored as.
    fn dtype(&self, dtype: Option<Dtype>) -> Dtype {
        let mut dtypes = self.blocks.iter().filter_map(|block| match block {
            RowBlock::Zeros(_) => None,
            RowBlock::Matrix(matrix) | RowBlock::Transposed(matrix) => Some(matrix.dtype()),
        });
        dtype.unwrap_or_else(|| match dtypes.next() {
            Some(first) if dtypes.all(|dtype| dtype == first) => first,
            _ => Dtype::Float32,
        })
    }

    fn write(&self, dtype: Option<Dtype>, sink: &mut TensorSink<'_>) -> Result<()> {
        let dtype = self.dtype(dtype);
        let elements: usize = self.shape.iter().product();
        let rows: usize = self.blocks.iter().map(RowBlock::rows).sum();
        let width = elements.checked_div(rows).unwrap_or(0);
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        for block in &self.blocks {
            for start in (0..block.rows()).step_by(ROWS) {
                let rows = start..block.rows().min(start + ROWS);
                values.clear();
                values.resize(rows.len() * width, 0.0);
                block.gather(rows, width, &mut values);
                bytes.clear();
                match dtype {
                    Dtype::Float32 => bytes.extend(values.iter().flat_map(|x| x.to_le_bytes())),
                    Dtype::Bfloat16 => {
                        bytes.extend(values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()));
                    }
                    Dtype::Float16 => {
                        // Infinities and NaN of the weight itself are allowed.
                        let overflows = |x: &&f32| x.is_finite() && f16::from_f32(**x).is_infinite();
                        if let Some(found) = values.iter().find(overflows).copied() {
                            return Err(Error::WeightRange { name: self.name.to_owned(), found });
                        }
                        bytes.extend(values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
                    }
                }
                sink.put(&bytes)?;
            }
        }
        Ok(())
    }
}

impl RowBlock<'_> {
    fn rows(&self) -> usize {
        match self {
            RowBlock::Zeros(rows) => *rows,
            RowBlock::Matrix(matrix) => matrix.rows(),
            RowBlock::Transposed(matrix) => matrix.cols(),
        }
    }

    /// Writes some rows of the block to `out`, `[rows, width]`, which must be zero.
    fn gather(&self, rows: core::ops::Range<usize>, width: usize, out: &mut [f32]) {
        match self {
            RowBlock::Zeros(_) => {}
            RowBlock::Matrix(matrix) => {
                for (out, row) in out.chunks_exact_mut(width.max(1)).zip(rows) {
                    widen(*matrix, row, 0, out);
                }
            }
            RowBlock::Transposed(matrix) => {
                let mut row = [0.0; ROWS];
                let row = &mut row[..rows.len()];
                for k in 0..width {
                    widen(*matrix, k, rows.start, row);
                    for (i, x) in row.iter().enumerate() {
                        out[i * width + k] = *x;
                    }
                }
            }
        }
    }
}

/// Widens the elements of a row from column `start` on.
fn widen(matrix: AnyMatRef<'_>, row: usize, start: usize, out: &mut [f32]) {
    fn copy<T: Copy>(matrix: MatRef<'_, T>, at: [usize; 2], out: &mut [f32], widen: impl Fn(T) -> f32) {
        for (to, from) in out.iter_mut().zip(&matrix.row(at[0])[at[1]..]) {
            *to = widen(*from);
        }
    }
    match matrix {
        AnyMatRef::F32(matrix) => copy(matrix, [row, start], out, |x| x),
        AnyMatRef::Bf16(matrix) => copy(matrix, [row, start], out, bf16::to_f32),
        AnyMatRef::F16(matrix) => copy(matrix, [row, start], out, f16::to_f32),
    }
}
