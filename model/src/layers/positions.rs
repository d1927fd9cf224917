//! What positions do within attention: nothing, a bias on the scores, or a rotation of queries and keys.

use core::ops::Range;

use rachis_kernels::{AlibiRounding, Bias, MatMut, MatRef, bf16, rotary_angles};

use crate::error::Result;
use crate::layers::RelativeBias;

/// What positions do within attention.
#[derive(Debug)]
pub(crate) enum Positions {
    /// Nothing: the embeddings contain them.
    Embedded,
    /// ALiBi (Press et al., arXiv:2108.12409): each head's slope times the key's position is added to the scores.
    Alibi { slopes: Vec<f32>, rounding: AlibiRounding },
    /// RoPE (Su et al., arXiv:2104.09864): queries and keys are rotated by angles proportional to their positions.
    Rotary { theta: f64, head_dim: usize },
    /// T5 (Raffel et al., arXiv:1910.10683): a learned bias for each head and bucket of distances.
    Relative(RelativeBias),
}

/// The positions of a call's queries, and of the rows that their keys lie in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryKeyPositions<'a> {
    pub(crate) queries: &'a [u32],
    pub(crate) keys: &'a [u32],
}

/// The bias on scores and the angles of rotation of some rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PreparedPositions<'a> {
    pub(crate) bias: Bias<'a>,
    pub(crate) rotary: Option<MatRef<'a, f32>>,
}

/// The rows that keys lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyRows {
    /// The rows of the call itself.
    Call,
    /// The rows of the cache.
    Cached,
}

impl<'a> PreparedPositions<'a> {
    /// The bias and the angles of a micro-batch of the rows.
    pub(crate) fn of(self, micro_batch: &Range<usize>, key_rows: KeyRows) -> PreparedPositions<'a> {
        let rotary = self.rotary.map(|angles| angles.rows_range(micro_batch.clone()));
        let bias = match self.bias {
            Bias::Distance { table, zero, queries, keys } => {
                let keys = match key_rows {
                    KeyRows::Call => &keys[micro_batch.clone()],
                    KeyRows::Cached => keys,
                };
                Bias::Distance { table, zero, queries: &queries[micro_batch.clone()], keys }
            }
            other => other,
        };
        PreparedPositions { bias, rotary }
    }
}

impl Positions {
    /// ALiBi for this many heads.
    pub(crate) fn alibi(heads: usize, rounding: AlibiRounding) -> Positions {
        let slopes = alibi_slopes(heads).into_iter();
        let rounded = |slope: f64| match rounding {
            AlibiRounding::None => slope as f32,
            AlibiRounding::Bf16 => bf16::from_f32(slope as f32).to_f32(),
        };
        Positions::Alibi { slopes: slopes.map(rounded).collect(), rounding }
    }

    /// Elements of working memory for `rows` rows, when the positions of queries and keys are less than `end`.
    pub(crate) fn working_len(&self, rows: usize, end: usize) -> usize {
        match self {
            Positions::Embedded | Positions::Alibi { .. } => 0,
            Positions::Rotary { head_dim, .. } => rows * head_dim,
            Positions::Relative(bias) => bias.working_len(end),
        }
    }

    /// Computes the bias on scores and the angles of rotation, in `memory`.
    pub(crate) fn prepare<'a>(
        &'a self,
        positions: QueryKeyPositions<'a>,
        memory: &'a mut [f32],
    ) -> Result<PreparedPositions<'a>> {
        let (bias, rotary) = match self {
            Positions::Embedded => (Bias::None, None),
            Positions::Alibi { slopes, rounding } => (Bias::Linear { slopes, rounding: *rounding }, None),
            Positions::Rotary { theta, head_dim } => {
                let rows = positions.queries.len();
                let angles = &mut memory[..rows * head_dim];
                rotary_angles(positions.queries, *theta, MatMut::new(angles, rows, *head_dim)?)?;
                (Bias::None, Some(MatRef::new(angles, rows, *head_dim)?))
            }
            Positions::Relative(bias) => (bias.fill(positions, memory)?, None),
        };
        Ok(PreparedPositions { bias, rotary })
    }
}

/// The slopes of ALiBi: a geometric sequence that begins with its ratio, `2^(-8 / heads)`. Where the number of heads is
/// no power of two: the sequence for the power below, then every other slope of the sequence for the power above.
fn alibi_slopes(heads: usize) -> Vec<f64> {
    let slope = |of: usize, i: usize| (-8.0 * (i + 1) as f64 / of as f64).exp2();
    let below = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    let first = (0..below).map(|i| slope(below, i));
    first.chain((0..heads - below).map(|i| slope(2 * below, 2 * i))).collect()
}

#[cfg(test)]
mod tests;
