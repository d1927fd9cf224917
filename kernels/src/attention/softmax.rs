//! The running softmax: from products to weights, with a maximum and a sum that grow key by key.

use core::ops::Range;

use super::bias::HeadBias;
use crate::gemm::word::Word;
use crate::isa::{LANES, Simd};
use crate::math::exp_lanes;
use crate::mem;

/// What becomes of products of queries and keys.
#[derive(Clone, Copy)]
pub(super) struct Scores<'a> {
    pub(super) scale: f32,
    pub(super) bias: HeadBias<'a>,
    /// The query in the first lane.
    pub(super) query: usize,
    /// Keys before that of this query, if later ones are hidden.
    pub(super) before: Option<usize>,
}

impl Scores<'_> {
    /// The scores of 16 queries, `lane` after the first, from their products with `key`.
    #[inline(always)]
    fn of<S: Simd>(self, s: S, products: S::F32, lane: usize, key: usize) -> S::F32 {
        let mut scores = products;
        if !matches!(self.bias, HeadBias::None) {
            scores = s.add(scores, self.bias.lanes(s, self.query + lane, key));
        }
        scores = s.mul(scores, s.splat(self.scale));
        match self.before {
            Some(before) if key > before + lane => {
                static NUMBERS: [f32; LANES] =
                    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
                let after = s.splat((key - before - lane) as f32);
                let hidden = s.lt(mem::load(s, &NUMBERS, 0), after);
                s.select(hidden, s.splat(f32::NEG_INFINITY), scores)
            }
            _ => scores,
        }
    }
}

/// The running softmax of some queries, which are lanes.
pub(super) struct Softmax<'a, W> {
    pub(super) word: W,
    pub(super) round: bool,
    /// Lanes, in whole vectors: elements between rows of scores.
    pub(super) stride: usize,
    /// The largest score of each lane so far, and the sums of weights relative to it.
    pub(super) state: &'a mut [f32],
}

impl<W: Copy> Softmax<'_, W> {
    /// No keys yet.
    pub(super) fn start(&mut self) {
        let (largest, sums) = self.state.split_at_mut(self.stride);
        // Finite, so that negative infinity has no weight beside it.
        largest.fill(f32::MIN);
        sums.fill(0.0);
    }

    /// Replaces the products with `keys`, in V vectors each, by words of weights. What is in `mixed` already, unless
    /// these keys are the first, is scaled to the new maximum.
    #[inline(always)]
    pub(super) fn weigh<S: Simd, const V: usize>(
        &mut self,
        s: S,
        scores_as: Scores<'_>,
        scores: &mut [f32],
        keys: Range<usize>,
        mixed: &mut [f32],
    ) where
        W: Word<S>,
    {
        let scores = &mut scores.as_chunks_mut::<LANES>().0[..keys.len() * V];
        let state = self.state.as_chunks_mut::<LANES>().0;
        let mut largest = [s.splat(0.0); V];
        for (j, largest) in largest.iter_mut().enumerate() {
            *largest = mem::load(s, &state[j], 0);
        }
        for (key, scores) in keys.clone().zip(scores.chunks_exact_mut(V)) {
            for j in 0..V {
                let score = scores_as.of(s, mem::load(s, &scores[j], 0), j * LANES, key);
                mem::store(s, &mut scores[j], 0, score);
                largest[j] = s.max(score, largest[j]);
            }
        }
        let mut sums = [s.splat(0.0); V];
        for j in 0..V {
            let shrink = exp_lanes(s, s.sub(mem::load(s, &state[j], 0), largest[j]));
            mem::store(s, &mut state[j], 0, largest[j]);
            sums[j] = s.mul(mem::load(s, &state[V + j], 0), shrink);
            if keys.start > 0 {
                for mixed in mixed.as_chunks_mut::<LANES>().0.iter_mut().skip(j).step_by(V) {
                    let scaled = s.mul(mem::load(s, mixed, 0), shrink);
                    mem::store(s, mixed, 0, scaled);
                }
            }
        }
        for word in 0..keys.len().div_ceil(W::VALUES) {
            for j in 0..V {
                let mut weights = [s.splat(0.0); 2];
                for (key, weight) in (word * W::VALUES..keys.len()).zip(&mut weights[..W::VALUES]) {
                    let score = mem::load(s, &scores[key * V + j], 0);
                    *weight = exp_lanes(s, s.sub(score, largest[j]));
                    sums[j] = s.add(sums[j], *weight);
                }
                mem::store(s, &mut scores[word * V + j], 0, self.word.compose(s, weights, self.round));
            }
        }
        for j in 0..V {
            mem::store(s, &mut state[V + j], 0, sums[j]);
        }
    }

    /// Divides the mixture by the sums of the weights.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(&self, s: S, mixed: &mut [f32]) {
        let sums = &self.state[self.stride..][..self.stride];
        for row in mixed.chunks_exact_mut(self.stride) {
            for (x, sum) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(sums.as_chunks::<LANES>().0) {
                let divided = s.div(mem::load(s, x, 0), mem::load(s, sum, 0));
                mem::store(s, x, 0, divided);
            }
        }
    }
}
