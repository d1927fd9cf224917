//! A sequence with one query: a step of decoding.
//!
//! With queries in lanes fifteen of sixteen would be idle. Here keys are the lanes of scores, turned 16 x 16 in
//! registers, and columns of values those of the mixture, as they lie. Every sum runs in the order of the general way
//! (over a head's width, over keys), and every operation on a score is the same: so are the bits.

use super::KEYS;
use super::bias::HeadBias;
use super::products::{Keys, Products, Values};
use crate::gemm::pack::Operand;
use crate::gemm::word::Word;
use crate::isa::{LANES, Simd};
use crate::math::exp_lanes;
use crate::mem;
use crate::view::{AnyMatMut, any};

/// One query of a head, with all of its keys.
pub(super) struct One<'a> {
    pub(super) q: Operand<'a>,
    pub(super) k: Operand<'a>,
    pub(super) v: Operand<'a>,
    pub(super) scale: f32,
    pub(super) bias: HeadBias<'a>,
    /// Whether weights are rounded to bf16.
    pub(super) round: bool,
    pub(super) out: &'a mut AnyMatMut<'a>,
}

/// The pieces of scratch that [`One::run`] uses.
pub(super) struct Room<'a> {
    pub(super) packed: &'a mut [f32],
    pub(super) scores: &'a mut [f32],
    pub(super) mixed: &'a mut [f32],
    pub(super) stage: &'a mut [f32],
    pub(super) values: &'a mut [f32],
}

impl One<'_> {
    /// Writes the output.
    #[inline(always)]
    pub(super) fn run<S: Simd, P: Products<S>>(self, s: S, products: &P, room: Room<'_>) {
        let One { q, k, v, scale, bias, round, out } = self;
        let Room { packed, scores, mixed, stage, values: room } = room;
        let values_of_word = <P::Word as Word<S>>::VALUES;
        let depth = q.matrix.cols();
        products.pack_one(s, q, packed);
        // Finite, so that negative infinity has no weight beside it.
        let (mut largest, mut sum) = (f32::MIN, 0.0f32);
        for start in (0..k.matrix.rows()).step_by(KEYS) {
            let keys = start..k.matrix.rows().min(start + KEYS);
            products.score_one(s, packed, Keys { k, keys: keys.clone(), stage: &mut *stage }, scores);
            let before = largest;
            for (i, key) in keys.clone().enumerate().step_by(LANES) {
                let mut score = mem::load(s, scores, i);
                if !matches!(bias, HeadBias::None) {
                    let mut lanes = [0.0; LANES];
                    for (lane, key) in lanes.iter_mut().zip(key..keys.end) {
                        *lane = bias.one(key);
                    }
                    score = s.add(score, mem::load(s, &lanes, 0));
                }
                mem::store(s, scores, i, s.mul(score, s.splat(scale)));
            }
            for score in &scores[..keys.len()] {
                // A NaN is not larger.
                largest = if *score > largest { *score } else { largest };
            }
            let shrink = first(s, exp_lanes(s, s.splat(before - largest)));
            sum *= shrink;
            if start > 0 {
                for at in (0..depth).step_by(LANES) {
                    let scaled = s.mul(mem::load(s, mixed, at), s.splat(shrink));
                    mem::store(s, mixed, at, scaled);
                }
            }
            for at in (0..keys.len()).step_by(LANES) {
                let weights = exp_lanes(s, s.sub(mem::load(s, scores, at), s.splat(largest)));
                mem::store(s, scores, at, weights);
            }
            for weight in &scores[..keys.len()] {
                sum += weight;
            }
            for at in 0..keys.len().div_ceil(values_of_word) {
                let weight = |i: usize| scores[..keys.len()].get(at * values_of_word + i).map_or(0.0, |x| *x);
                let pair = [s.splat(weight(0)), s.splat(if values_of_word > 1 { weight(1) } else { 0.0 })];
                scores[at] = first(s, products.word().compose(s, pair, round));
            }
            let v = Operand { matrix: v.matrix.block(keys, 0..depth), ..v };
            products.mix_one(s, scores, Values { v, room: &mut *room, first: start == 0 }, mixed);
        }
        for at in (0..depth).step_by(LANES) {
            let divided = s.div(mem::load(s, mixed, at), s.splat(sum));
            mem::store(s, mixed, at, divided);
        }
        any!(AnyMatMut, out, out => {
            let row = out.row_mut(0);
            for at in (0..depth).step_by(LANES) {
                mem::store(s, row, at, mem::load(s, mixed, at));
            }
        });
    }
}

/// A lane of a vector whose lanes are alike, or that has only one.
#[inline(always)]
fn first<S: Simd>(s: S, v: S::F32) -> f32 {
    let mut lanes = [0.0; LANES];
    mem::store(s, &mut lanes, 0, v);
    lanes[0]
}
