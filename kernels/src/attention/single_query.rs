//! A sequence with a single query: a step of decoding.
//!
//! With queries in lanes, fifteen of sixteen would be idle. Here keys are the lanes of scores, transposed 16 x 16 in
//! registers, and columns of values the lanes of the weighted sum, as they lie. Every sum (over a head's width, over keys)
//! runs in the order of the general case, and every operation on a score is the same: so are the bits.

use super::KV_BLOCK;
use super::bias::HeadBias;
use super::products::{AttentionProducts, Keys, Values};
use crate::gemm::kpack::KPack;
use crate::gemm::pack::Operand;
use crate::isa::{LANES, Simd};
use crate::math::exp_lanes;
use crate::mem;
use crate::view::{AnyMatMut, any};

/// One query of a head, with all of its keys.
pub(super) struct SingleQuery<'a> {
    pub(super) q: Operand<'a>,
    pub(super) k: Operand<'a>,
    pub(super) v: Operand<'a>,
    pub(super) scale: f32,
    pub(super) bias: HeadBias<'a>,
    /// Whether attention weights are rounded to bf16.
    pub(super) round: bool,
    pub(super) out: &'a mut AnyMatMut<'a>,
}

/// The pieces of scratch; see [`ScratchLens`](super::products::ScratchLens).
pub(super) struct HeadScratch<'a> {
    pub(super) packed: &'a mut [f32],
    pub(super) scores: &'a mut [f32],
    pub(super) sums: &'a mut [f32],
    pub(super) staging: &'a mut [f32],
    pub(super) values: &'a mut [f32],
}

impl SingleQuery<'_> {
    /// Computes and stores the output.
    #[inline(always)]
    pub(super) fn run<S: Simd, P: AttentionProducts<S>>(self, s: S, products: &P, scratch: HeadScratch<'_>) {
        let SingleQuery { q, k, v, scale, bias, round, out } = self;
        let HeadScratch { packed, scores, sums, staging, values: buffer } = scratch;
        let pack_len = <P::KPack as KPack<S>>::LEN;
        let head_dim = q.matrix.cols();
        products.pack_single_query(s, q, packed);
        // The maximum starts from a finite number, beside which a score of negative infinity has no weight.
        let (mut max, mut total) = (f32::MIN, 0.0f32);
        for start in (0..k.matrix.rows()).step_by(KV_BLOCK) {
            let keys = start..k.matrix.rows().min(start + KV_BLOCK);
            let of_keys = Keys { k, keys: keys.clone(), staging: &mut *staging };
            products.scores_single_query(s, packed, of_keys, scores);
            let max_before = max;
            for (i, key) in keys.clone().enumerate().step_by(LANES) {
                let mut score = mem::load(s, scores, i);
                if !matches!(bias, HeadBias::None) {
                    let mut lanes = [0.0; LANES];
                    for (lane, key) in lanes.iter_mut().zip(key..keys.end) {
                        *lane = bias.single_query(key);
                    }
                    score = s.add(score, mem::load(s, &lanes, 0));
                }
                mem::store(s, scores, i, s.mul(score, s.splat(scale)));
            }
            for score in &scores[..keys.len()] {
                // A NaN is not greater.
                max = if *score > max { *score } else { max };
            }
            let shrink = first_lane(s, exp_lanes(s, s.splat(max_before - max)));
            total *= shrink;
            if start > 0 {
                for at in (0..head_dim).step_by(LANES) {
                    let scaled = s.mul(mem::load(s, sums, at), s.splat(shrink));
                    mem::store(s, sums, at, scaled);
                }
            }
            for at in (0..keys.len()).step_by(LANES) {
                let weights = exp_lanes(s, s.sub(mem::load(s, scores, at), s.splat(max)));
                mem::store(s, scores, at, weights);
            }
            for weight in &scores[..keys.len()] {
                total += weight;
            }
            for at in 0..keys.len().div_ceil(pack_len) {
                let weight = |i: usize| scores[..keys.len()].get(at * pack_len + i).map_or(0.0, |x| *x);
                let pair = [s.splat(weight(0)), s.splat(if pack_len > 1 { weight(1) } else { 0.0 })];
                scores[at] = first_lane(s, products.kpack().compose(s, pair, round));
            }
            let v = Operand { matrix: v.matrix.block(keys, 0..head_dim), ..v };
            let values = Values { v, buffer: &mut *buffer, is_first: start == 0 };
            products.weighted_sum_single_query(s, scores, values, sums);
        }
        for at in (0..head_dim).step_by(LANES) {
            let divided = s.div(mem::load(s, sums, at), s.splat(total));
            mem::store(s, sums, at, divided);
        }
        any!(AnyMatMut, out, out => {
            let row = out.row_mut(0);
            for at in (0..head_dim).step_by(LANES) {
                mem::store(s, row, at, mem::load(s, sums, at));
            }
        });
    }
}

/// The first lane of a vector.
#[inline(always)]
fn first_lane<S: Simd>(s: S, v: S::F32) -> f32 {
    let mut lanes = [0.0; LANES];
    mem::store(s, &mut lanes, 0, v);
    lanes[0]
}
