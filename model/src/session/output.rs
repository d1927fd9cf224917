//! What a forward pass gives: a vector for every real token.

use rachis_kernels::MatRef;

use super::RowLayout;
use crate::error::{Result, check_len};

/// A vector for every real token of a batch, as consecutive rows, in the session's memory.
#[derive(Debug, Clone, Copy)]
pub struct SequenceOutput<'s> {
    /// `[rows, hidden_dim]`
    pub(crate) data: MatRef<'s, f32>,
    pub(crate) rows: &'s RowLayout,
}

/// Called with the number of a layer and its output; number 0 is the input of the first layer.
pub type Observer<'o> = &'o mut (dyn FnMut(usize, SequenceOutput<'_>) + Send);

/// One of the two stacks of layers of an encoder-decoder model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tower {
    /// Reads the source.
    Encoder,
    /// Writes the target, and attends to the encoder's output where there is an encoder.
    Decoder,
}

/// An [`Observer`] of both towers: called with the tower, the number of a layer and its output.
pub type TowerObserver<'o> = &'o mut (dyn FnMut(Tower, usize, SequenceOutput<'_>) + Send);

impl<'s> SequenceOutput<'s> {
    /// Number of sequences.
    pub fn batch(&self) -> usize {
        self.rows.spans.len()
    }

    /// Width of a vector.
    pub fn hidden_dim(&self) -> usize {
        self.data.cols()
    }

    /// The vectors of sequence `i`, `[real tokens, hidden_dim]`, in order.
    ///
    /// # Panics
    /// When `i >= batch`.
    pub fn sequence(&self, i: usize) -> MatRef<'s, f32> {
        let span = &self.rows.spans[i];
        self.data.rows_range(span.keys.clone())
    }

    /// The positions of the real tokens of sequence `i` within the sequence.
    ///
    /// # Panics
    /// When `i >= batch`.
    pub fn positions(&self, i: usize) -> &'s [u32] {
        &self.rows.positions[self.rows.spans[i].keys.clone()]
    }

    /// Scatters the vectors to the places of their tokens in the caller's ids: `out` is `[ids, hidden_dim]`, which is
    /// `[batch, seq, hidden_dim]` for a padded batch. Rows of padding become zero.
    ///
    /// # Errors
    /// [`RequestError::Length`](crate::RequestError::Length) when `out` has another length.
    pub fn write_padded(&self, out: &mut [f32]) -> Result<()> {
        let width = self.hidden_dim();
        check_len("the output", out.len(), self.rows.num_ids.saturating_mul(width))?;
        out.fill(0.0);
        for span in &self.rows.spans {
            for row in span.keys.clone() {
                let at = self.rows.id_index[row] as usize * width;
                out[at..at + width].copy_from_slice(self.data.row(row));
            }
        }
        Ok(())
    }
}
