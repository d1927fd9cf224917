//! Position biases, which are added to scores: by key (ALiBi) or by distance (T5).

use core::ops::Range;

use crate::elem::bf16;
use crate::error::{Expected, Result, check, outside};
use crate::isa::{LANES, Simd};
use crate::mem;
use crate::view::MatRef;

/// How ALiBi's bias is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AlibiRounding {
    /// Not at all: f32 throughout, as in KerasHub.
    #[default]
    None,
    /// The number of the key and the product are rounded to bf16, as in transformers.
    Bf16,
}

/// Added to the scores before they are scaled.
#[derive(Debug, Clone, Copy, Default)]
pub enum Bias<'a> {
    /// Nothing.
    #[default]
    None,
    /// ALiBi: the head's slope times the number of the key in its sequence (Press et al., arXiv:2108.12409).
    Linear {
        /// One slope for each head.
        slopes: &'a [f32],
        /// How the bias is rounded.
        rounding: AlibiRounding,
    },
    /// T5: a value for each head and distance, `table[head][zero + query position - key position]` (Raffel et al.,
    /// arXiv:1910.10683).
    Distance {
        /// `[heads, distances]`
        table: MatRef<'a, f32>,
        /// The column of distance 0.
        zero: usize,
        /// The position of every row of q.
        queries: &'a [u32],
        /// The position of every row of k.
        keys: &'a [u32],
    },
}

impl Bias<'_> {
    /// Checks the bias for `heads` heads, `rows` queries and `keys` keys.
    pub(super) fn validate(self, name: &'static str, [heads, rows, keys]: [usize; 3]) -> Result<()> {
        match self {
            Bias::None => Ok(()),
            Bias::Linear { slopes, .. } => check(name, "number of slopes", heads, slopes.len()),
            Bias::Distance { table, zero, queries: of_queries, keys: of_keys } => {
                check(name, "rows of the table of distances", heads, table.rows())?;
                check(name, "number of positions of queries", rows, of_queries.len())?;
                check(name, "number of positions of keys", keys, of_keys.len())?;
                let largest =
                    |positions: &[u32]| positions.iter().max().map_or(0, |largest| *largest as usize);
                if largest(of_keys) > zero {
                    return outside(name, "position of a key", Expected::AtMost(zero), largest(of_keys));
                }
                let last = zero.saturating_add(largest(of_queries));
                if rows > 0 && last >= table.cols() {
                    let expected = Expected::AtLeast(last.saturating_add(1));
                    return outside(name, "columns of the table of distances", expected, table.cols());
                }
                Ok(())
            }
        }
    }
}

/// A [`Bias`] for one head of one sequence.
#[derive(Clone, Copy)]
pub(super) enum HeadBias<'a> {
    None,
    Linear { slope: f32, rounding: AlibiRounding },
    Distance { table: &'a [f32], zero: usize, queries: &'a [u32], keys: &'a [u32] },
}

impl<'a> HeadBias<'a> {
    pub(super) fn of(
        bias: Bias<'a>,
        head: usize,
        queries: &Range<usize>,
        keys: &Range<usize>,
    ) -> HeadBias<'a> {
        match bias {
            Bias::None => HeadBias::None,
            Bias::Linear { slopes, rounding } => HeadBias::Linear { slope: slopes[head], rounding },
            Bias::Distance { table, zero, queries: of_queries, keys: of_keys } => HeadBias::Distance {
                table: table.row(head),
                zero,
                queries: &of_queries[queries.clone()],
                keys: &of_keys[keys.clone()],
            },
        }
    }

    /// The bias of a single query's score with `key`.
    pub(super) fn single_query(self, key: usize) -> f32 {
        match self {
            HeadBias::None => 0.0,
            HeadBias::Linear { slope, rounding: AlibiRounding::None } => slope * key as f32,
            HeadBias::Linear { slope, rounding: AlibiRounding::Bf16 } => {
                let rounded = |x: f32| bf16::from_f32(x).to_f32();
                rounded(slope * rounded(key as f32))
            }
            HeadBias::Distance { table, zero, queries, keys } => {
                table[zero + queries[0] as usize - keys[key] as usize]
            }
        }
    }

    /// The biases of the scores of 16 queries from `query` on with `key`.
    #[inline(always)]
    pub(super) fn lanes<S: Simd>(self, s: S, query: usize, key: usize) -> S::F32 {
        match self {
            HeadBias::None => s.splat(0.0),
            HeadBias::Linear { slope, rounding } => {
                if rounding == AlibiRounding::None {
                    return s.splat(slope * key as f32);
                }
                let key = s.round_to_bf16(s.splat(key as f32));
                s.round_to_bf16(s.mul(s.splat(slope), key))
            }
            HeadBias::Distance { table, zero, queries, keys } => {
                let queries = &queries[query..queries.len().min(query + LANES)];
                let column = |position: u32| zero + position as usize - keys[key] as usize;
                let (first, last) = (queries[0], queries[queries.len() - 1]);
                // Positions ascend, so these are consecutive. Lanes past the last query are ignored.
                if (last - first) as usize + 1 == queries.len() {
                    return mem::load(s, table, column(first));
                }
                let mut lanes = [0.0; LANES];
                for (lane, position) in lanes.iter_mut().zip(queries) {
                    *lane = table[column(*position)];
                }
                mem::load(s, &lanes, 0)
            }
        }
    }
}
