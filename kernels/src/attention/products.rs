//! The two products of attention: queries with keys, and weights with values.

use core::ops::Range;

use crate::gemm::pack::Operand;
use crate::gemm::word::Word;
use crate::isa::Simd;

/// What computes the products. Queries are lanes: of scores and weights there is a row for each key, or word of keys,
/// of mixtures one for each column of the head. A lone query has ways of its own, in which keys and columns are lanes;
/// they give the same bits.
pub(super) trait Products<S: Simd> {
    /// What lanes of weights hold.
    type Word: Word<S>;

    /// Queries at a time.
    const QUERIES: usize;

    fn word(&self) -> Self::Word;

    /// Elements between rows of scores, and of mixtures, of so many queries: whole vectors.
    fn stride(queries: usize) -> usize;

    /// What a head of this width needs.
    fn lengths(width: usize) -> Lengths;

    /// Packs queries.
    fn pack(&self, s: S, q: Operand<'_>, queries: Range<usize>, packed: &mut [f32]);

    /// The products of packed queries with some keys.
    fn score(&self, s: S, queries: Queries<'_>, keys: Keys<'_>, scores: &mut [f32]);

    /// Adds the products of weights with values to the mixtures, or puts them there, if they are the first.
    fn mix(&self, s: S, weights: Weights<'_>, values: Values<'_>, mixed: &mut [f32]);

    /// Whether the ways for a lone query take a head of this width.
    fn takes_one(width: usize) -> bool;

    /// Packs a lone query.
    fn pack_one(&self, s: S, q: Operand<'_>, packed: &mut [f32]);

    /// [`Products::score`] for a lone query: a score for each key.
    fn score_one(&self, s: S, packed: &[f32], keys: Keys<'_>, scores: &mut [f32]);

    /// [`Products::mix`] for a lone query, with a word of weights for each word of keys.
    fn mix_one(&self, s: S, weights: &mut [f32], values: Values<'_>, mixed: &mut [f32]);
}

/// Elements of scratch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    pub(super) packed: usize,
    pub(super) scores: usize,
    pub(super) mixed: usize,
    pub(super) stage: usize,
    pub(super) values: usize,
}

/// Packed queries, of which there are `count`, in rows of `stride` lanes.
pub(super) struct Queries<'a> {
    pub(super) packed: &'a mut [f32],
    pub(super) count: usize,
    pub(super) stride: usize,
}

/// Some keys, with room to stage them.
pub(super) struct Keys<'a> {
    pub(super) k: Operand<'a>,
    pub(super) keys: Range<usize>,
    pub(super) stage: &'a mut [f32],
}

/// Words of weights of some keys, in rows of `stride` lanes; behind them there is room.
pub(super) struct Weights<'a> {
    pub(super) words: &'a mut [f32],
    pub(super) queries: usize,
    pub(super) stride: usize,
}

/// The values of the keys that weights are of, with room for them.
pub(super) struct Values<'a> {
    pub(super) v: Operand<'a>,
    pub(super) room: &'a mut [f32],
    /// Whether nothing has been mixed yet.
    pub(super) first: bool,
}
