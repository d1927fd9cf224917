//! From a vector for every token to one for the whole text, as sentence-embedding models do.

use crate::error::{Result, request};
use crate::session::SequenceOutput;

/// Which tokens make the text's vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pooling {
    /// The mean of all real tokens.
    #[default]
    Mean,
    /// The largest value of each component over all real tokens.
    Max,
    /// The first real token.
    Cls,
    /// The last real token.
    Last,
}

impl Pooling {
    /// Writes the pooled vectors to `out`, `[batch, hidden_dim]`.
    ///
    /// # Errors
    /// When `out` has another length.
    pub fn pool(self, output: SequenceOutput<'_>, out: &mut [f32]) -> Result<()> {
        let width = output.hidden_dim();
        let expected = output.batch() * width;
        if out.len() != expected {
            return Err(request("length of the output", out.len(), expected));
        }
        for (i, to) in out.chunks_exact_mut(width).enumerate() {
            // A sequence has at least one real token.
            let rows = output.sequence(i);
            let last = rows.rows() - 1;
            match self {
                Pooling::Cls => to.copy_from_slice(rows.row(0)),
                Pooling::Last => to.copy_from_slice(rows.row(last)),
                Pooling::Max => {
                    to.copy_from_slice(rows.row(0));
                    for r in 1..=last {
                        to.iter_mut().zip(rows.row(r)).for_each(|(most, x)| *most = most.max(*x));
                    }
                }
                Pooling::Mean => {
                    to.fill(0.0);
                    for r in 0..=last {
                        to.iter_mut().zip(rows.row(r)).for_each(|(sum, x)| *sum += x);
                    }
                    let count = rows.rows() as f32;
                    to.iter_mut().for_each(|sum| *sum /= count);
                }
            }
        }
        Ok(())
    }
}

/// Scales each vector of `width` components to length 1; a vector of length 0 stays as it is.
pub fn normalize(vectors: &mut [f32], width: usize) {
    for vector in vectors.chunks_exact_mut(width.max(1)) {
        let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        if length > 0.0 {
            vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
    }
}
