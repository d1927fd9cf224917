//! One head of one sequence: scores, softmax and weighted sum, for a block of queries at a time.

use super::KV_BLOCK;
use super::bias::HeadBias;
use super::online_softmax::{OnlineSoftmax, ScoreTerms};
use super::products::{AttentionProducts, AttentionWeights, Keys, Queries, ScratchLens, Values};
use super::single_query::{HeadScratch, SingleQuery};
use crate::ctx::Precision;
use crate::gemm::RegisterTile;
use crate::gemm::epilogue::{Orientation, StoreTransposed, Sums};
use crate::gemm::kpack::F32Pack;
use crate::gemm::pack::Operand;
use crate::isa::{Kernel, LANES, Simd};
use crate::view::{AnyMatMut, AnyMatRef};

/// One head of one sequence.
pub(crate) struct Head<'a> {
    /// `[queries, head_dim]`
    pub(super) q: AnyMatRef<'a>,
    /// `[keys, head_dim]`
    pub(super) k: AnyMatRef<'a>,
    /// `[keys, head_dim]`
    pub(super) v: AnyMatRef<'a>,
    pub(super) scale: f32,
    pub(super) bias: HeadBias<'a>,
    /// With a causal mask, the number of keys before the key of the first query.
    pub(super) causal_offset: Option<usize>,
    /// Whether operands are rounded to bf16.
    pub(super) precision: Precision,
    /// `[queries, head_dim]`
    pub(super) out: AnyMatMut<'a>,
}

/// The computation of a head with some implementation of the two products.
pub(crate) struct RunHead<'a, P> {
    pub(crate) products: P,
    pub(crate) head: Head<'a>,
    pub(crate) scratch: &'a mut [f32],
}

impl Kernel for RunHead<'_, RegisterTile<F32Pack>> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

impl<P> RunHead<'_, P> {
    #[inline(always)]
    pub(crate) fn run_with<S: Simd>(self, s: S)
    where
        P: AttentionProducts<S>,
    {
        let RunHead { products, head, scratch } = self;
        let Head { q, k, v, scale, bias, causal_offset, precision, mut out } = head;
        let (head_dim, lens) = (q.cols(), P::scratch_lens(q.cols()));
        let (packed, scratch) = scratch.split_at_mut(lens.packed);
        let (state, scratch) = scratch.split_at_mut(2 * P::QUERIES);
        let (scores, scratch) = scratch.split_at_mut(lens.scores);
        let (sums, scratch) = scratch.split_at_mut(lens.sums);
        let (staging, values) = scratch.split_at_mut(lens.staging);
        let q_operand = Operand::of(q, true, precision);
        let k_operand = Operand::of(k, true, precision);
        let round = precision == Precision::Bf16;
        // A single causal query is given no later keys, so no mask is needed.
        let sees_all_keys = causal_offset.is_none_or(|offset| offset + 1 == k.rows());
        if q.rows() == 1 && P::supports_single_query(head_dim) && sees_all_keys {
            let v = Operand::of(v, false, precision);
            let query = SingleQuery { q: q_operand, k: k_operand, v, scale, bias, round, out: &mut out };
            query.run(s, &products, HeadScratch { packed, scores, sums, staging, values });
            return;
        }
        for start in (0..q.rows()).step_by(P::QUERIES) {
            let queries = start..q.rows().min(start + P::QUERIES);
            let stride = P::stride(queries.len());
            products.pack_queries(s, q_operand, queries.clone(), packed);
            let causal_offset = causal_offset.map(|offset| offset + start);
            let visible = causal_offset.map_or(k.rows(), |offset| offset + queries.len());
            let terms = ScoreTerms { scale, bias, query: start, causal_offset };
            let mut softmax = OnlineSoftmax { kpack: products.kpack(), round, stride, state: &mut *state };
            softmax.start();
            for keys in (0..visible).step_by(KV_BLOCK) {
                let is_first = keys == 0;
                let keys = keys..visible.min(keys + KV_BLOCK);
                products.scores(
                    s,
                    Queries { packed: &mut *packed, count: queries.len(), stride },
                    Keys { k: k_operand, keys: keys.clone(), staging: &mut *staging },
                    scores,
                );
                let earlier_sums = &mut sums[..head_dim * stride];
                match stride / LANES {
                    3 if P::QUERIES >= 3 * LANES => {
                        softmax.update::<S, 3>(s, terms, scores, keys.clone(), earlier_sums);
                    }
                    2 if P::QUERIES >= 2 * LANES => {
                        softmax.update::<S, 2>(s, terms, scores, keys.clone(), earlier_sums);
                    }
                    _ => softmax.update::<S, 1>(s, terms, scores, keys.clone(), earlier_sums),
                }
                let v = Operand::of(v.block(keys, 0..head_dim), false, precision);
                let weights = AttentionWeights { packs: &mut *scores, stride };
                products.weighted_sum(s, weights, Values { v, buffer: &mut *values, is_first }, sums);
            }
            softmax.divide(s, &mut sums[..head_dim * stride]);
            let part_len = sums.len();
            let sums = Sums {
                orientation: Orientation::Transposed,
                m: queries.clone(),
                n: 0..head_dim,
                stride,
                data: &mut *sums,
                part_len,
            };
            // SAFETY: nobody else uses these rows while this block of them lives.
            let out = unsafe { out.block(queries, 0..head_dim) };
            s.call(StoreTransposed { sums: &sums, out });
        }
    }
}

/// Elements of scratch for one head of width `head_dim`.
pub(crate) fn head_scratch_len<S: Simd, P: AttentionProducts<S>>(head_dim: usize) -> usize {
    let ScratchLens { packed, scores, sums, staging, values } = P::scratch_lens(head_dim);
    packed + 2 * P::QUERIES + scores + sums + staging + values
}

/// Returns [`head_scratch_len`] for the register tile of the level that runs it.
pub(super) struct HeadScratchLen {
    pub(super) head_dim: usize,
}

impl Kernel for HeadScratchLen {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        head_scratch_len::<S, RegisterTile<F32Pack>>(self.head_dim)
    }
}
