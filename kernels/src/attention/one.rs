//! A sequence with one query: a step of decoding.
//!
//! With queries in lanes fifteen of sixteen would be idle. Here keys are the lanes of scores, turned 16 x 16 in
//! registers, and columns of values those of the mixture, as they lie. Every sum runs in the order of the general way
//! (over a head's width, over keys), and every operation on a score is the same: so are the bits.

use core::ops::Range;

use super::KEYS;
use super::bias::HeadBias;
use crate::elem::Elem;
use crate::gemm::K_BLOCK;
use crate::gemm::pack::{Operand, rows_from, stage_rows};
use crate::gemm::word::Word;
use crate::isa::{KernelAt, LANES, Simd};
use crate::math::exp_lanes;
use crate::mem;
use crate::view::{AnyMatMut, MatRef, any};

/// One query of a head, with all of its keys.
pub(super) struct One<'a, W> {
    pub(super) word: W,
    pub(super) q: Operand<'a>,
    pub(super) k: Operand<'a>,
    pub(super) v: Operand<'a>,
    pub(super) scale: f32,
    pub(super) bias: HeadBias<'a>,
    /// Whether weights are rounded to bf16.
    pub(super) round: bool,
    pub(super) out: &'a mut AnyMatMut<'a>,
}

/// Whether a head of this width is summed in one block, as it is here.
pub(super) fn takes<S: Simd, W: Word<S>>(queries: usize, depth: usize) -> bool {
    queries == 1 && depth.div_ceil(W::VALUES) <= K_BLOCK
}

impl<W: Copy> One<'_, W> {
    /// Writes the output. `x` has room for the query's words, `scores` for [`KEYS`], `mixed` for the head's width, each
    /// in whole vectors.
    #[inline(always)]
    pub(super) fn run<S: Simd>(self, s: S, x: &mut [f32], scores: &mut [f32], mixed: &mut [f32])
    where
        W: Word<S>,
    {
        let One { word, q, k, v, scale, bias, round, out } = self;
        let depth = q.matrix.cols();
        let words = depth.div_ceil(W::VALUES);
        stage_rows(s, word, q, 0..1, 0..depth, (&mut *x, words.next_multiple_of(LANES)));
        let mixed = &mut mixed[..depth.next_multiple_of(LANES)];
        // Finite, so that negative infinity has no weight beside it.
        let (mut largest, mut sum) = (f32::MIN, 0.0f32);
        for start in (0..k.matrix.rows()).step_by(KEYS) {
            let keys = start..k.matrix.rows().min(start + KEYS);
            any!(AnyMatRef, k.matrix, matrix => {
                s.call(Products { word, x: &x[..words], keys: (matrix, keys.clone(), k.round), to: &mut *scores });
            });
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
                for at in (0..mixed.len()).step_by(LANES) {
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
            for at in 0..keys.len().div_ceil(W::VALUES) {
                let weight = |i: usize| scores[..keys.len()].get(at * W::VALUES + i).map_or(0.0, |x| *x);
                let pair = [s.splat(weight(0)), s.splat(if W::VALUES > 1 { weight(1) } else { 0.0 })];
                scores[at] = first(s, word.compose(s, pair, round));
            }
            let weights = &scores[..keys.len().div_ceil(W::VALUES)];
            any!(AnyMatRef, v.matrix.block(keys, 0..depth), values => {
                let (round, mixed) = (v.round, &mut *mixed);
                s.call(Mix { word, weights, values, round, start: start == 0, mixed });
            });
        }
        for at in (0..mixed.len()).step_by(LANES) {
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

/// Products of one row of words with rows of keys.
struct Products<'a, W, T> {
    word: W,
    x: &'a [f32],
    /// Of a matrix these rows; whether they must be rounded.
    keys: (MatRef<'a, T>, Range<usize>, bool),
    to: &'a mut [f32],
}

impl<S: Simd, W: Word<S>, T: Elem> KernelAt<S> for Products<'_, W, T> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let Products { word, x, keys: (matrix, keys, round), to } = self;
        let whole = matrix.cols() / W::VALUES / LANES * LANES;
        for (i, key) in keys.clone().enumerate().step_by(LANES) {
            let mut acc = s.splat(0.0);
            for at in (0..x.len()).step_by(LANES) {
                let block = if key + LANES <= keys.end && at < whole {
                    let stride = matrix.row_stride();
                    let from = matrix.as_ptr().wrapping_add(key * stride + at * W::VALUES);
                    // SAFETY: 16 words from there on are inside each of the 16 rows.
                    unsafe { word.turned(s, from, stride, round) }
                } else {
                    let mut block = [s.splat(0.0); LANES];
                    let rows = matrix.rows_range(key..keys.end.min(key + LANES));
                    for (v, row) in block.iter_mut().zip(rows_from(rows, 0)) {
                        *v = word.along_ragged(s, row, at * W::VALUES, round);
                    }
                    s.transpose(block)
                };
                for (x, v) in x[at..].iter().zip(block) {
                    acc = word.mul_add(s, s.splat(*x), v, acc);
                }
            }
            mem::store(s, to, i, acc);
        }
    }
}

/// Adds the sum of rows of values, times their weights, to the mixture.
struct Mix<'a, W, T> {
    word: W,
    weights: &'a [f32],
    values: MatRef<'a, T>,
    round: bool,
    /// Whether nothing is there yet.
    start: bool,
    mixed: &'a mut [f32],
}

impl<S: Simd, W: Word<S>, T: Elem> KernelAt<S> for Mix<'_, W, T> {
    type Output = ();

    #[inline(always)]
    fn run_at(mut self, s: S) {
        let mut at = 0;
        while at + 4 * LANES <= self.values.cols() {
            self.columns::<S, 4>(s, at);
            at += 4 * LANES;
        }
        while at < self.values.cols() {
            self.columns::<S, 1>(s, at);
            at += LANES;
        }
    }
}

impl<W: Copy, T: Elem> Mix<'_, W, T> {
    /// The same for 16 x V columns from `at` on.
    #[inline(always)]
    fn columns<S: Simd, const V: usize>(&mut self, s: S, at: usize)
    where
        W: Word<S>,
    {
        let Mix { word, weights, values, round, .. } = self;
        let mut acc = [s.splat(0.0); V];
        let whole = if at + V * LANES <= values.cols() { values.rows() / W::VALUES } else { 0 };
        for (i, weight) in weights.iter().enumerate() {
            let x = s.splat(*weight);
            for (j, acc) in acc.iter_mut().enumerate() {
                let (row, column) = (i * W::VALUES, at + j * LANES);
                let v = if i < whole {
                    let stride = values.row_stride();
                    let from = values.as_ptr().wrapping_add(row * stride + column);
                    // SAFETY: 16 elements from there on are inside the row, and inside those of the same word.
                    unsafe { word.across(s, from, stride, *round) }
                } else {
                    word.across_ragged(s, *values, (row, column), *round)
                };
                *acc = word.mul_add(s, x, v, *acc);
            }
        }
        for (j, acc) in acc.into_iter().enumerate() {
            let at = at + j * LANES;
            let sum = if self.start { acc } else { s.add(mem::load(s, self.mixed, at), acc) };
            mem::store(s, self.mixed, at, sum);
        }
    }
}
