//! What a forward pass returns: a vector for every real token.

use rachis_kernels::MatRef;

use super::RowLayout;
use crate::error::{Result, request};

/// A vector for every real token of a batch, as rows behind one another.
#[derive(Debug, Clone, Copy)]
pub struct SequenceOutput<'s> {
    pub(crate) data: MatRef<'s, f32>,
    pub(crate) rows: &'s RowLayout,
}

impl<'s> SequenceOutput<'s> {
    /// Number of sequences.
    pub fn batch(&self) -> usize {
        self.rows.spans.len()
    }

    /// Width of a vector.
    pub fn hidden_dim(&self) -> usize {
        self.data.cols()
    }

    /// The vectors of sequence `i`, one row for each real token in order.
    ///
    /// # Panics
    /// When `i >= batch`.
    pub fn sequence(&self, i: usize) -> MatRef<'s, f32> {
        let span = &self.rows.spans[i];
        self.data.rows_range(span.keys.clone())
    }

    /// The positions in their sequence of the tokens of sequence `i`.
    ///
    /// # Panics
    /// When `i >= batch`.
    pub fn positions(&self, i: usize) -> &'s [u32] {
        &self.rows.positions[self.rows.spans[i].keys.clone()]
    }

    /// Scatters the vectors to where their tokens stand in the caller's ids: `out` is `[ids, width]`, which for
    /// a padded batch is `[batch, seq, width]`. Rows of padding become zero.
    ///
    /// # Errors
    /// When `out` has another length than ids times width.
    pub fn write_padded(&self, out: &mut [f32]) -> Result<()> {
        let width = self.hidden_dim();
        let expected = self.rows.total.saturating_mul(width);
        if out.len() != expected {
            return Err(request("length of the output", out.len(), expected));
        }
        out.fill(0.0);
        for span in &self.rows.spans {
            for row in span.keys.clone() {
                let at = self.rows.source[row] as usize * width;
                out[at..at + width].copy_from_slice(self.data.row(row));
            }
        }
        Ok(())
    }
}
