//! From a vector for every token to one vector for the text, as sentence-embedding models do.

use core::fmt;
use core::str::FromStr;

use rachis_kernels::MatRef;

use crate::error::{Error, Result, check_len, clip};
use crate::session::SequenceOutput;

/// How the vectors of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over all real tokens.
    #[default]
    Mean,
    /// The sum over all real tokens, divided by the square root of their number.
    MeanSqrtLen,
    /// The mean over all real tokens, the first with weight 1, the second with weight 2, and so on.
    WeightedMean,
    /// The largest value of each component over all real tokens.
    Max,
    /// The vector of the first real token.
    Cls,
    /// The vector of the last real token.
    Last,
}

impl Pooling {
    /// Every way of pooling.
    pub const ALL: [Pooling; 6] = [
        Pooling::Mean,
        Pooling::MeanSqrtLen,
        Pooling::WeightedMean,
        Pooling::Max,
        Pooling::Cls,
        Pooling::Last,
    ];

    /// The name: `mean`, `mean_sqrt_len`, `weightedmean`, `max`, `cls` or `last`.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::MeanSqrtLen => "mean_sqrt_len",
            Pooling::WeightedMean => "weightedmean",
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
            self.pool_rows(output.sequence(i), 0, to)?;
        }
        Ok(())
    }

    /// Pools one sequence, whose tokens' vectors are the rows, without its first `skip` tokens, which are those of a
    /// prompt; `out` has the width of a row. The tokens after them keep their weights.
    ///
    /// Where no token is left, the result is sentence-transformers': the vector of the first token for
    /// [`Pooling::Cls`], negative infinity for [`Pooling::Max`], else zero.
    ///
    /// # Errors
    /// [`RequestError::Length`](crate::RequestError::Length) when `out` has another length, or there are no rows.
    pub fn pool_rows(self, rows: MatRef<'_, f32>, skip: usize, out: &mut [f32]) -> Result<()> {
        check_len("the output", out.len(), rows.cols())?;
        check_len("the sequence", rows.rows(), rows.rows().max(1))?;
        let rest = skip.min(rows.rows())..rows.rows();
        let first = if rest.is_empty() { 0 } else { rest.start };
        match self {
            Pooling::Cls => out.copy_from_slice(rows.row(first)),
            Pooling::Last if rest.is_empty() => out.fill(0.0),
            Pooling::Last => out.copy_from_slice(rows.row(rest.end - 1)),
            Pooling::Max => {
                out.fill(f32::NEG_INFINITY);
                for r in rest {
                    out.iter_mut().zip(rows.row(r)).for_each(|(max, x)| *max = max.max(*x));
                }
            }
            Pooling::Mean => weighted_sum(rows, rest.map(|r| (r, 1.0)), |count| count, out),
            Pooling::MeanSqrtLen => weighted_sum(rows, rest.map(|r| (r, 1.0)), f32::sqrt, out),
            Pooling::WeightedMean => {
                weighted_sum(rows, rest.map(|r| (r, r as f32 + 1.0)), |weights| weights, out);
            }
        }
        Ok(())
    }
}

/// `out` = the sum of rows times their weights, divided by a function of the sum of the weights.
fn weighted_sum(
    rows: MatRef<'_, f32>,
    weights: impl Iterator<Item = (usize, f32)>,
    divisor: impl Fn(f32) -> f32,
    out: &mut [f32],
) {
    out.fill(0.0);
    let mut total = 0.0;
    for (r, weight) in weights {
        total += weight;
        out.iter_mut().zip(rows.row(r)).for_each(|(sum, x)| *sum += weight * x);
    }
    if total > 0.0 {
        let divisor = divisor(total);
        out.iter_mut().for_each(|sum| *sum /= divisor);
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
        let unknown = || Error::UnknownName {
            what: "pooling",
            found: clip(name),
            expected: "mean, mean_sqrt_len, weightedmean, max, cls or last",
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [f32; 6] = [1.0, -2.0, 3.0, 4.0, 5.0, -6.0];

    fn pooled(pooling: Pooling, skip: usize) -> [f32; 2] {
        let mut out = [9.0; 2];
        pooling.pool_rows(MatRef::new(&ROWS, 3, 2).unwrap(), skip, &mut out).unwrap();
        out
    }

    #[test]
    fn pooling_by_the_definitions() {
        for (pooling, all, without_first) in [
            (Pooling::Mean, [3.0, -4.0 / 3.0], [4.0, -1.0]),
            (
                Pooling::MeanSqrtLen,
                [9.0 / 3f32.sqrt(), -4.0 / 3f32.sqrt()],
                [8.0 / 2f32.sqrt(), -2.0 / 2f32.sqrt()],
            ),
            (Pooling::WeightedMean, [22.0 / 6.0, -12.0 / 6.0], [21.0 / 5.0, -10.0 / 5.0]),
            (Pooling::Max, [5.0, 4.0], [5.0, 4.0]),
            (Pooling::Cls, [1.0, -2.0], [3.0, 4.0]),
            (Pooling::Last, [5.0, -6.0], [5.0, -6.0]),
        ] {
            assert_eq!(pooled(pooling, 0), all, "{pooling}");
            assert_eq!(pooled(pooling, 1), without_first, "{pooling}");
        }
    }

    #[test]
    fn a_sequence_that_is_a_prompt_alone_has_a_vector() {
        for skip in [3, 4] {
            for pooling in Pooling::ALL {
                let expected = match pooling {
                    Pooling::Cls => [1.0, -2.0],
                    Pooling::Max => [f32::NEG_INFINITY; 2],
                    _ => [0.0; 2],
                };
                assert_eq!(pooled(pooling, skip), expected, "{pooling}");
            }
        }
        let none = MatRef::new(&[], 0, 2).unwrap();
        assert!(Pooling::Mean.pool_rows(none, 0, &mut [0.0; 2]).is_err());
        let row = MatRef::new(&ROWS, 3, 2).unwrap();
        assert!(Pooling::Mean.pool_rows(row, 0, &mut [0.0; 3]).is_err());
    }
}
