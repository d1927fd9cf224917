//! The online softmax (Milakov and Gimelshein, arXiv:1805.02867): from products to attention weights, with a running
//! maximum and a running sum that are updated block of keys by block of keys.

use core::ops::Range;

use super::bias::HeadBias;
use crate::gemm::kpack::KPack;
use crate::isa::{LANES, Simd};
use crate::math::exp_lanes;
use crate::mem;

/// What makes scores of the products of queries and keys.
#[derive(Clone, Copy)]
pub(super) struct ScoreTerms<'a> {
    pub(super) scale: f32,
    pub(super) bias: HeadBias<'a>,
    /// The query in the first lane.
    pub(super) query: usize,
    /// With a causal mask, the number of keys before the key of this query.
    pub(super) causal_offset: Option<usize>,
}

impl ScoreTerms<'_> {
    /// The scores of 16 queries, the first of which is `lane` lanes after the first query, with `key`.
    #[inline(always)]
    fn scores<S: Simd>(self, s: S, products: S::F32, lane: usize, key: usize) -> S::F32 {
        let mut scores = products;
        if !matches!(self.bias, HeadBias::None) {
            scores = s.add(scores, self.bias.lanes(s, self.query + lane, key));
        }
        scores = s.mul(scores, s.splat(self.scale));
        match self.causal_offset {
            Some(offset) if key > offset + lane => {
                static LANE_NUMBERS: [f32; LANES] =
                    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
                let first_visible = s.splat((key - offset - lane) as f32);
                let hidden = s.lt(mem::load(s, &LANE_NUMBERS, 0), first_visible);
                s.select(hidden, s.splat(f32::NEG_INFINITY), scores)
            }
            _ => scores,
        }
    }
}

/// The online softmax of a block of queries, which are lanes.
pub(super) struct OnlineSoftmax<'a, P> {
    pub(super) kpack: P,
    /// Whether attention weights are rounded to bf16.
    pub(super) round: bool,
    /// Lanes, in whole vectors: elements from row to row of scores.
    pub(super) stride: usize,
    /// For each lane the running maximum, then for each lane the running sum of weights relative to it.
    pub(super) state: &'a mut [f32],
}

impl<P: Copy> OnlineSoftmax<'_, P> {
    /// Starts without keys.
    pub(super) fn start(&mut self) {
        let (maxima, totals) = self.state.split_at_mut(self.stride);
        // The maximum starts from a finite number, beside which a score of negative infinity has no weight.
        maxima.fill(f32::MIN);
        totals.fill(0.0);
    }

    /// Replaces the products with `keys`, V vectors for each key, by packs of attention weights. Weighted sums of earlier
    /// blocks of keys are scaled to the new maximum.
    #[inline(always)]
    pub(super) fn update<S: Simd, const V: usize>(
        &mut self,
        s: S,
        terms: ScoreTerms<'_>,
        scores: &mut [f32],
        keys: Range<usize>,
        weighted_sums: &mut [f32],
    ) where
        P: KPack<S>,
    {
        let scores = &mut scores.as_chunks_mut::<LANES>().0[..keys.len() * V];
        let state = self.state.as_chunks_mut::<LANES>().0;
        let mut max = [s.splat(0.0); V];
        for (j, max) in max.iter_mut().enumerate() {
            *max = mem::load(s, &state[j], 0);
        }
        for (key, scores) in keys.clone().zip(scores.chunks_exact_mut(V)) {
            for j in 0..V {
                let score = terms.scores(s, mem::load(s, &scores[j], 0), j * LANES, key);
                mem::store(s, &mut scores[j], 0, score);
                max[j] = s.max(score, max[j]);
            }
        }
        let mut totals = [s.splat(0.0); V];
        for j in 0..V {
            let shrink = exp_lanes(s, s.sub(mem::load(s, &state[j], 0), max[j]));
            mem::store(s, &mut state[j], 0, max[j]);
            totals[j] = s.mul(mem::load(s, &state[V + j], 0), shrink);
            if keys.start > 0 {
                for sum in weighted_sums.as_chunks_mut::<LANES>().0.iter_mut().skip(j).step_by(V) {
                    let scaled = s.mul(mem::load(s, sum, 0), shrink);
                    mem::store(s, sum, 0, scaled);
                }
            }
        }
        for pack in 0..keys.len().div_ceil(P::LEN) {
            for j in 0..V {
                let mut weights = [s.splat(0.0); 2];
                for (key, weight) in (pack * P::LEN..keys.len()).zip(&mut weights[..P::LEN]) {
                    let score = mem::load(s, &scores[key * V + j], 0);
                    *weight = exp_lanes(s, s.sub(score, max[j]));
                    totals[j] = s.add(totals[j], *weight);
                }
                mem::store(s, &mut scores[pack * V + j], 0, self.kpack.compose(s, weights, self.round));
            }
        }
        for j in 0..V {
            mem::store(s, &mut state[V + j], 0, totals[j]);
        }
    }

    /// Divides the weighted sums by the sums of the weights.
    #[inline(always)]
    pub(super) fn divide<S: Simd>(&self, s: S, weighted_sums: &mut [f32]) {
        let totals = &self.state[self.stride..][..self.stride];
        for row in weighted_sums.chunks_exact_mut(self.stride) {
            let totals = totals.as_chunks::<LANES>().0;
            for (x, total) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(totals) {
                let divided = s.div(mem::load(s, x, 0), mem::load(s, total, 0));
                mem::store(s, x, 0, divided);
            }
        }
    }
}
