//! The two products of attention: queries by keys, and attention weights by values.

use core::ops::Range;

use crate::gemm::kpack::KPack;
use crate::gemm::pack::Operand;
use crate::isa::Simd;

/// An implementation of the two products.
///
/// Queries are lanes: scores and attention weights have a row for each key (or pack of keys), weighted sums a row for each
/// column of the head. A single query has functions of its own, in which keys and columns are lanes; they give the same
/// bits.
pub(crate) trait AttentionProducts<S: Simd> {
    /// What a lane of attention weights holds.
    type KPack: KPack<S>;

    /// The most queries in a block.
    const QUERIES: usize;

    fn kpack(&self) -> Self::KPack;

    /// Elements from row to row of scores and of weighted sums, for this many queries: whole vectors.
    fn stride(queries: usize) -> usize;

    /// The scratch for a head of width `head_dim`.
    fn scratch_lens(head_dim: usize) -> ScratchLens;

    /// Packs queries.
    fn pack_queries(&self, s: S, q: Operand<'_>, queries: Range<usize>, packed: &mut [f32]);

    /// Computes the products of packed queries with keys.
    fn scores(&self, s: S, queries: Queries<'_>, keys: Keys<'_>, scores: &mut [f32]);

    /// Adds the products of attention weights with values to the weighted sums, or overwrites these if
    /// [`Values::is_first`].
    fn weighted_sum(&self, s: S, weights: AttentionWeights<'_>, values: Values<'_>, sums: &mut [f32]);

    /// Whether the functions for a single query take a head of this width.
    fn supports_single_query(head_dim: usize) -> bool;

    /// Packs a single query.
    fn pack_single_query(&self, s: S, q: Operand<'_>, packed: &mut [f32]);

    /// [`AttentionProducts::scores`] of a single query: one score for each key.
    fn scores_single_query(&self, s: S, packed: &[f32], keys: Keys<'_>, scores: &mut [f32]);

    /// [`AttentionProducts::weighted_sum`] of a single query: one pack of attention weights for each pack of keys.
    fn weighted_sum_single_query(&self, s: S, weights: &mut [f32], values: Values<'_>, sums: &mut [f32]);
}

/// Elements of scratch for one head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScratchLens {
    /// For packed queries.
    pub(crate) packed: usize,
    /// For the scores of one block of keys.
    pub(crate) scores: usize,
    /// For weighted sums.
    pub(crate) sums: usize,
    /// For keys that are not read in place.
    pub(crate) staging: usize,
    /// For values that are not read in place.
    pub(crate) values: usize,
}

/// Packed queries, in rows of `stride` lanes, `count` of which are queries.
pub(crate) struct Queries<'a> {
    pub(crate) packed: &'a mut [f32],
    pub(crate) count: usize,
    pub(crate) stride: usize,
}

/// Rows of keys, with a staging buffer for them.
pub(crate) struct Keys<'a> {
    pub(crate) k: Operand<'a>,
    pub(crate) keys: Range<usize>,
    pub(crate) staging: &'a mut [f32],
}

/// Packs of attention weights for a block of keys, in rows of `stride` lanes. The slice is longer, so that tiles can be
/// padded.
pub(crate) struct AttentionWeights<'a> {
    pub(crate) packs: &'a mut [f32],
    pub(crate) stride: usize,
}

/// The values of a block of keys, with a buffer for them.
pub(crate) struct Values<'a> {
    pub(crate) v: Operand<'a>,
    pub(crate) buffer: &'a mut [f32],
    /// Whether this is the first block of keys.
    pub(crate) is_first: bool,
}
