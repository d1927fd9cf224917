//! The products of attention with the register tile of multiply-adds.

use core::ops::Range;

use super::KV_BLOCK;
use super::products::{AttentionProducts, AttentionWeights, Keys, Queries, ScratchLens, Values};
use crate::elem::Elem;
use crate::gemm::kpack::KPack;
use crate::gemm::micro_kernel::{BroadcastColumns, MBlock, OutputPrefetch, staging_len};
use crate::gemm::pack::{Operand, copy_to_staging, pack_rows, pack_transposed, rows_from};
use crate::gemm::{K_BLOCK, RegisterTile};
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatRef, any};

impl<S: Simd, P: KPack<S>> AttentionProducts<S> for RegisterTile<P> {
    type KPack = P;

    const QUERIES: usize = S::TILE_VECTORS * LANES;

    #[inline(always)]
    fn kpack(&self) -> P {
        self.0
    }

    #[inline(always)]
    fn stride(queries: usize) -> usize {
        queries.next_multiple_of(LANES)
    }

    #[inline(always)]
    fn scratch_lens(head_dim: usize) -> ScratchLens {
        let (lanes, padded) = (S::TILE_VECTORS * LANES, padded_dim::<S>(head_dim));
        // Keys up to whole register tiles.
        let rows = KV_BLOCK.next_multiple_of(S::TILE_ROWS);
        ScratchLens {
            packed: head_dim * lanes,
            scores: rows * lanes,
            sums: padded * lanes,
            staging: staging_len::<S>(),
            values: KV_BLOCK * padded,
        }
    }

    #[inline(always)]
    fn pack_queries(&self, s: S, q: Operand<'_>, queries: Range<usize>, packed: &mut [f32]) {
        pack_transposed(s, self.0, q, queries, S::TILE_VECTORS * LANES, packed);
    }

    #[inline(always)]
    fn scores(&self, s: S, queries: Queries<'_>, keys: Keys<'_>, scores: &mut [f32]) {
        let Queries { packed, count, stride } = queries;
        let Keys { k: x, keys: rows, staging } = keys;
        let m_block = MBlock {
            x,
            rows,
            staging,
            k: 0..x.matrix.cols(),
            lanes: 0..count,
            packed,
            unpacked: None,
            output: OutputPrefetch::NONE,
            sums: scores,
            stride,
        };
        RegisterTile(self.0).multiply(s, m_block, None);
    }

    #[inline(always)]
    fn weighted_sum(&self, s: S, weights: AttentionWeights<'_>, values: Values<'_>, sums: &mut [f32]) {
        let AttentionWeights { packs: weights, stride } = weights;
        let Values { v, buffer, is_first } = values;
        let (keys, head_dim) = (v.matrix.rows(), v.matrix.cols());
        let (packs, padded) = (keys.div_ceil(P::LEN), padded_dim::<S>(head_dim));
        let values = match as_packs::<S, P>(v) {
            Some(v) => v,
            None => {
                pack_rows(s, self.0, v, 0..keys, 0..padded, buffer);
                MatRef::packed(&buffer[..packs * padded], packs, padded)
            }
        };
        for column in (0..head_dim).step_by(S::TILE_ROWS) {
            let (x, v) = (BroadcastColumns::of(values, column), (&weights[..packs * stride], stride));
            RegisterTile(self.0).multiply_columns(s, x, v, &mut sums[column * stride..], is_first);
        }
    }

    /// Heads that the general case sums in one block of k, too.
    #[inline(always)]
    fn supports_single_query(head_dim: usize) -> bool {
        head_dim.div_ceil(P::LEN) <= K_BLOCK
    }

    #[inline(always)]
    fn pack_single_query(&self, s: S, q: Operand<'_>, packed: &mut [f32]) {
        let head_dim = q.matrix.cols();
        let packs = head_dim.div_ceil(P::LEN).next_multiple_of(LANES);
        copy_to_staging(s, self.0, q, 0..1, 0..head_dim, (packed, packs));
    }

    #[inline(always)]
    fn scores_single_query(&self, s: S, packed: &[f32], keys: Keys<'_>, scores: &mut [f32]) {
        let Keys { k, keys, .. } = keys;
        any!(AnyMatRef, k.matrix, matrix => {
            let x = &packed[..matrix.cols().div_ceil(P::LEN)];
            s.call(SingleQueryScores { kpack: self.0, x, matrix, keys, round: k.round, to: scores });
        });
    }

    #[inline(always)]
    fn weighted_sum_single_query(&self, s: S, weights: &mut [f32], values: Values<'_>, sums: &mut [f32]) {
        let Values { v, is_first, .. } = values;
        let weights = &weights[..v.matrix.rows().div_ceil(P::LEN)];
        any!(AnyMatRef, v.matrix, values => {
            s.call(SingleQueryWeightedSum { kpack: self.0, weights, values, round: v.round, is_first, sums });
        });
    }
}

/// The matrix itself, if its elements are packs as stored and its columns fill whole register tiles.
#[inline(always)]
fn as_packs<'a, S: Simd, P: KPack<S>>(v: Operand<'a>) -> Option<MatRef<'a, f32>> {
    match v.matrix {
        AnyMatRef::F32(matrix) if P::LEN == 1 && !v.round => {
            matrix.cols().is_multiple_of(S::TILE_ROWS).then_some(matrix)
        }
        _ => None,
    }
}

/// The width of a head, padded to whole register tiles and whole vectors.
fn padded_dim<S: Simd>(head_dim: usize) -> usize {
    head_dim.next_multiple_of(S::TILE_ROWS).next_multiple_of(LANES)
}

/// Multiplies one row of packs by rows of keys.
struct SingleQueryScores<'a, P, T> {
    kpack: P,
    x: &'a [f32],
    matrix: MatRef<'a, T>,
    /// The rows of the matrix.
    keys: Range<usize>,
    /// Whether keys are rounded to bf16.
    round: bool,
    to: &'a mut [f32],
}

impl<S: Simd, P: KPack<S>, T: Elem> KernelAt<S> for SingleQueryScores<'_, P, T> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let SingleQueryScores { kpack, x, matrix, keys, round, to } = self;
        let whole = matrix.cols() / P::LEN / LANES * LANES;
        for (i, key) in keys.clone().enumerate().step_by(LANES) {
            let mut acc = s.splat(0.0);
            for at in (0..x.len()).step_by(LANES) {
                let block = if key + LANES <= keys.end && at < whole {
                    let stride = matrix.row_stride();
                    let from = matrix.as_ptr().wrapping_add(key * stride + at * P::LEN);
                    // SAFETY: each of the 16 rows has 16 packs from there on.
                    unsafe { kpack.load_transposed(s, from, stride, round) }
                } else {
                    let mut block = [s.splat(0.0); LANES];
                    let rows = matrix.rows_range(key..keys.end.min(key + LANES));
                    for (v, row) in block.iter_mut().zip(rows_from(rows, 0)) {
                        *v = kpack.load_along_k_partial(s, row, at * P::LEN, round);
                    }
                    s.transpose(block)
                };
                for (x, v) in x[at..].iter().zip(block) {
                    acc = kpack.mul_add(s, s.splat(*x), v, acc);
                }
            }
            mem::store(s, to, i, acc);
        }
    }
}

/// Adds the sum of rows of values, times their attention weights, to the weighted sum.
struct SingleQueryWeightedSum<'a, P, T> {
    kpack: P,
    weights: &'a [f32],
    values: MatRef<'a, T>,
    /// Whether values are rounded to bf16.
    round: bool,
    /// Whether the weighted sum is overwritten.
    is_first: bool,
    sums: &'a mut [f32],
}

impl<S: Simd, P: KPack<S>, T: Elem> KernelAt<S> for SingleQueryWeightedSum<'_, P, T> {
    type Output = ();

    #[inline(always)]
    fn run_at(mut self, s: S) {
        let mut at = 0;
        while at + 4 * LANES <= self.values.cols() {
            self.add_columns::<S, 4>(s, at);
            at += 4 * LANES;
        }
        while at < self.values.cols() {
            self.add_columns::<S, 1>(s, at);
            at += LANES;
        }
    }
}

impl<P: Copy, T: Elem> SingleQueryWeightedSum<'_, P, T> {
    /// Adds the 16 x V columns from `at` on.
    #[inline(always)]
    fn add_columns<S: Simd, const V: usize>(&mut self, s: S, at: usize)
    where
        P: KPack<S>,
    {
        let SingleQueryWeightedSum { kpack, weights, values, round, .. } = self;
        let mut acc = [s.splat(0.0); V];
        let whole = if at + V * LANES <= values.cols() { values.rows() / P::LEN } else { 0 };
        for (i, weight) in weights.iter().enumerate() {
            let x = s.splat(*weight);
            for (j, acc) in acc.iter_mut().enumerate() {
                let (row, column) = (i * P::LEN, at + j * LANES);
                let v = if i < whole {
                    let stride = values.row_stride();
                    let from = values.as_ptr().wrapping_add(row * stride + column);
                    // SAFETY: 16 elements from there on are inside the row, and inside the other rows of the pack.
                    unsafe { kpack.load_across_k(s, from, stride, *round) }
                } else {
                    kpack.load_across_k_partial(s, *values, (row, column), *round)
                };
                *acc = kpack.mul_add(s, x, v, *acc);
            }
        }
        for (j, acc) in acc.into_iter().enumerate() {
            let at = at + j * LANES;
            let sum = if self.is_first { acc } else { s.add(mem::load(s, self.sums, at), acc) };
            mem::store(s, self.sums, at, sum);
        }
    }
}
