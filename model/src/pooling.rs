//! From a vector for every token to one vector for the text, as sentence-embedding models do.

use core::fmt;
use core::str::FromStr;

use crate::error::{Error, Result, check_len, clip};
use crate::session::SequenceOutput;

/// How the vectors of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pooling {
    /// The mean over all real tokens.
    #[default]
    Mean,
    /// The largest value of each component over all real tokens.
    Max,
    /// The vector of the first real token.
    Cls,
    /// The vector of the last real token.
    Last,
}

impl Pooling {
    /// Every way of pooling.
    pub const ALL: [Pooling; 4] = [Pooling::Mean, Pooling::Max, Pooling::Cls, Pooling::Last];

    /// The name: `mean`, `max`, `cls` or `last`.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Max => "max",
            Pooling::Cls => "cls",
            Pooling::Last => "last",
        }
    }

    /// Writes the pooled vectors to `out`, `[batch, hidden_dim]`.
    ///
    /// # Errors
    /// [`RequestError::Length`](crate::RequestError::Length) when `out` has another length.
    pub fn pool(self, output: SequenceOutput<'_>, out: &mut [f32]) -> Result<()> {
        let width = output.hidden_dim();
        check_len("the output", out.len(), output.batch() * width)?;
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
                        to.iter_mut().zip(rows.row(r)).for_each(|(max, x)| *max = max.max(*x));
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

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Pooling {
    type Err = Error;

    fn from_str(name: &str) -> Result<Pooling> {
        let unknown =
            || Error::UnknownName { what: "pooling", found: clip(name), expected: "mean, max, cls or last" };
        Pooling::ALL.into_iter().find(|pooling| pooling.name() == name).ok_or_else(unknown)
    }
}

/// Scales each vector of `width` components to length 1. A vector of length 0 stays as it is.
pub fn normalize(vectors: &mut [f32], width: usize) {
    for vector in vectors.chunks_exact_mut(width.max(1)) {
        let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        if length > 0.0 {
            vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
    }
}
