//! Writing a model as a Hugging Face directory.
//!
//! A model may hold its weights as Keras has them: turned, in other shapes, under other names. It is therefore gone
//! through beside a model of the same configuration that has no numbers, only Hugging Face's names
//! ([`Source::Counted`](crate::weights::Source)), and each layer says how its weights become those of the other. What
//! is written is gathered row by row, so that nothing is held twice.

use rachis_kernels::{AnyMatRef, MatRef, bf16, f16};
use rachis_loader::{Dtype, NewTensor, TensorSink};

use crate::error::{Error, Result};
use crate::weights::Weight;

/// How weights are stored in a directory that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Storage {
    /// As they are stored now; as float32 where Hugging Face has one tensor of several of different types.
    #[default]
    Unchanged,
    /// As float32, which is exact.
    Float32,
    /// Rounded to bfloat16, the nearest, of two the even.
    Bfloat16,
    /// Rounded to float16, the nearest, of two the even. Numbers beyond its range are an error.
    Float16,
}

/// The tensors of a model, as Hugging Face stores them.
#[derive(Debug, Default)]
pub struct Tensors<'m> {
    list: Vec<Stored<'m>>,
}

/// One tensor: pieces below one another.
#[derive(Debug)]
struct Stored<'m> {
    name: &'m str,
    shape: Vec<usize>,
    pieces: Vec<Piece<'m>>,
}

/// Some rows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece<'m> {
    /// So many of zeros.
    Zeros(usize),
    /// Those of a matrix.
    Rows(AnyMatRef<'m>),
    /// The columns of a matrix.
    Columns(AnyMatRef<'m>),
}

impl<'m> Tensors<'m> {
    /// Adds what is called `name`, unless there is a tensor of this name already: a table that several layers use.
    pub(crate) fn add(&mut self, name: &'m str, shape: Vec<usize>, pieces: Vec<Piece<'m>>) {
        if self.list.iter().all(|stored| stored.name != name) {
            self.list.push(Stored { name, shape, pieces });
        }
    }

    /// Adds a vector, under the name that `like` has.
    pub(crate) fn add_vector(&mut self, weight: &'m Weight, like: &'m Weight) {
        let column = weight.as_column();
        self.add(like.name(), vec![column.rows()], vec![Piece::Rows(column)]);
    }

    /// What is to be written.
    pub(crate) fn list(&self, storage: Storage) -> Vec<NewTensor<'_>> {
        let all = self.list.iter();
        all.map(|stored| NewTensor { name: stored.name, dtype: stored.dtype(storage), shape: &stored.shape })
            .collect()
    }

    /// Writes tensor number `i`.
    pub(crate) fn write(&self, i: usize, storage: Storage, sink: &mut TensorSink<'_>) -> Result<()> {
        self.list.get(i).map_or(Ok(()), |stored| stored.write(storage, sink))
    }
}

/// Rows that are gathered at a time: columns of 16-bit numbers fill whole cache lines.
const ROWS: usize = 32;

impl Stored<'_> {
    fn dtype(&self, storage: Storage) -> Dtype {
        let all = |of: fn(&AnyMatRef<'_>) -> bool| {
            self.pieces.iter().all(|piece| match piece {
                Piece::Zeros(_) => true,
                Piece::Rows(matrix) | Piece::Columns(matrix) => of(matrix),
            })
        };
        match storage {
            Storage::Bfloat16 => Dtype::Bf16,
            Storage::Float16 => Dtype::F16,
            Storage::Unchanged if all(|matrix| matches!(matrix, AnyMatRef::Bf16(_))) => Dtype::Bf16,
            Storage::Unchanged if all(|matrix| matches!(matrix, AnyMatRef::F16(_))) => Dtype::F16,
            Storage::Float32 | Storage::Unchanged => Dtype::F32,
        }
    }

    fn write(&self, storage: Storage, sink: &mut TensorSink<'_>) -> Result<()> {
        let dtype = self.dtype(storage);
        let elements: usize = self.shape.iter().product();
        let rows: usize = self.pieces.iter().map(Piece::rows).sum();
        let width = elements.checked_div(rows).unwrap_or(0);
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        for piece in &self.pieces {
            for start in (0..piece.rows()).step_by(ROWS) {
                let rows = start..piece.rows().min(start + ROWS);
                values.clear();
                values.resize(rows.len() * width, 0.0);
                piece.gather(rows, width, &mut values);
                bytes.clear();
                match dtype {
                    Dtype::Bf16 => bytes.extend(values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes())),
                    Dtype::F16 => {
                        // Infinities and NaN stay what they are.
                        let beyond = |x: &&f32| x.is_finite() && f16::from_f32(**x).is_infinite();
                        if let Some(found) = values.iter().find(beyond).copied() {
                            return Err(Error::Beyond { name: self.name.to_owned(), found });
                        }
                        bytes.extend(values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
                    }
                    _ => bytes.extend(values.iter().flat_map(|x| x.to_le_bytes())),
                }
                sink.put(&bytes)?;
            }
        }
        Ok(())
    }
}

impl Piece<'_> {
    fn rows(&self) -> usize {
        match self {
            Piece::Zeros(rows) => *rows,
            Piece::Rows(matrix) => matrix.rows(),
            Piece::Columns(matrix) => matrix.cols(),
        }
    }

    /// Rows of the piece, behind one another, in `out`, which is zero.
    fn gather(&self, rows: core::ops::Range<usize>, width: usize, out: &mut [f32]) {
        match self {
            Piece::Zeros(_) => {}
            Piece::Rows(matrix) => {
                for (out, row) in out.chunks_exact_mut(width.max(1)).zip(rows) {
                    widen(*matrix, row, 0, out);
                }
            }
            Piece::Columns(matrix) => {
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

/// The elements of a row from column `start` on.
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
