//! The products with the register tile of multiply-adds.

use core::ops::Range;

use super::KEYS;
use super::products::{Keys, Lengths, Products, Queries, Values, Weights};
use crate::elem::Elem;
use crate::gemm::K_BLOCK;
use crate::gemm::ahead::Ahead;
use crate::gemm::pack::{Operand, pack_rows, pack_turned, rows_from, stage_rows};
use crate::gemm::task::Strip;
use crate::gemm::tile::{Columns, Tile, stage_len};
use crate::gemm::word::Word;
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatRef, any};

impl<S: Simd, W: Word<S>> Products<S> for Tile<W> {
    type Word = W;

    const QUERIES: usize = S::TILE_VECTORS * LANES;

    #[inline(always)]
    fn word(&self) -> W {
        self.0
    }

    #[inline(always)]
    fn stride(queries: usize) -> usize {
        queries.next_multiple_of(LANES)
    }

    #[inline(always)]
    fn lengths(width: usize) -> Lengths {
        let (lanes, padded) = (S::TILE_VECTORS * LANES, padded::<S>(width));
        // Keys up to whole register tiles.
        let rows = KEYS.next_multiple_of(S::TILE_ROWS);
        Lengths {
            packed: width * lanes,
            scores: rows * lanes,
            mixed: padded * lanes,
            stage: stage_len::<S>(),
            values: KEYS * padded,
        }
    }

    #[inline(always)]
    fn pack(&self, s: S, q: Operand<'_>, queries: Range<usize>, packed: &mut [f32]) {
        pack_turned(s, self.0, q, queries, S::TILE_VECTORS * LANES, packed);
    }

    #[inline(always)]
    fn score(&self, s: S, queries: Queries<'_>, keys: Keys<'_>, scores: &mut [f32]) {
        let Queries { packed, count, stride } = queries;
        let Keys { k: x, keys: rows, stage } = keys;
        let (k, lanes) = (0..x.matrix.cols(), 0..count);
        let out = (Ahead::NONE, 0);
        let strip = Strip { x, rows, stage, k, lanes, packed, unpacked: None, out, sums: scores, stride };
        Tile(self.0).multiply(s, strip, None);
    }

    #[inline(always)]
    fn mix(&self, s: S, weights: Weights<'_>, values: Values<'_>, mixed: &mut [f32]) {
        let Weights { words: weights, stride, .. } = weights;
        let Values { v, room, first } = values;
        let (keys, width) = (v.matrix.rows(), v.matrix.cols());
        let (words, padded) = (keys.div_ceil(W::VALUES), padded::<S>(width));
        let values = match as_words::<S, W>(v) {
            Some(v) => v,
            None => {
                pack_rows(s, self.0, v, 0..keys, 0..padded, room);
                MatRef::packed(&room[..words * padded], words, padded)
            }
        };
        for column in (0..width).step_by(S::TILE_ROWS) {
            let (x, v) = (Columns::of(values, column), (&weights[..words * stride], stride));
            Tile(self.0).multiply_columns(s, x, v, &mut mixed[column * stride..], first);
        }
    }

    /// If it is summed in one block, as it is there.
    #[inline(always)]
    fn takes_one(width: usize) -> bool {
        width.div_ceil(W::VALUES) <= K_BLOCK
    }

    #[inline(always)]
    fn pack_one(&self, s: S, q: Operand<'_>, packed: &mut [f32]) {
        let width = q.matrix.cols();
        let words = width.div_ceil(W::VALUES).next_multiple_of(LANES);
        stage_rows(s, self.0, q, 0..1, 0..width, (packed, words));
    }

    #[inline(always)]
    fn score_one(&self, s: S, packed: &[f32], keys: Keys<'_>, scores: &mut [f32]) {
        let Keys { k, keys, .. } = keys;
        any!(AnyMatRef, k.matrix, matrix => {
            let x = &packed[..matrix.cols().div_ceil(W::VALUES)];
            s.call(ScoreOne { word: self.0, x, keys: (matrix, keys, k.round), to: scores });
        });
    }

    #[inline(always)]
    fn mix_one(&self, s: S, weights: &mut [f32], values: Values<'_>, mixed: &mut [f32]) {
        let Values { v, first, .. } = values;
        let weights = &weights[..v.matrix.rows().div_ceil(W::VALUES)];
        any!(AnyMatRef, v.matrix, values => {
            s.call(MixOne { word: self.0, weights, values, round: v.round, first, mixed });
        });
    }
}

/// The matrix, if its elements are words as they are and its columns whole register tiles.
#[inline(always)]
fn as_words<'a, S: Simd, W: Word<S>>(v: Operand<'a>) -> Option<MatRef<'a, f32>> {
    match v.matrix {
        AnyMatRef::F32(matrix) if W::VALUES == 1 && !v.round => {
            matrix.cols().is_multiple_of(S::TILE_ROWS).then_some(matrix)
        }
        _ => None,
    }
}

/// The width of a head up to whole register tiles, and to whole vectors.
fn padded<S: Simd>(width: usize) -> usize {
    width.next_multiple_of(S::TILE_ROWS).next_multiple_of(LANES)
}

/// Products of one row of words with rows of keys.
struct ScoreOne<'a, W, T> {
    word: W,
    x: &'a [f32],
    /// Of a matrix these rows; whether they must be rounded.
    keys: (MatRef<'a, T>, Range<usize>, bool),
    to: &'a mut [f32],
}

impl<S: Simd, W: Word<S>, T: Elem> KernelAt<S> for ScoreOne<'_, W, T> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let ScoreOne { word, x, keys: (matrix, keys, round), to } = self;
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
struct MixOne<'a, W, T> {
    word: W,
    weights: &'a [f32],
    values: MatRef<'a, T>,
    round: bool,
    /// Whether nothing is there yet.
    first: bool,
    mixed: &'a mut [f32],
}

impl<S: Simd, W: Word<S>, T: Elem> KernelAt<S> for MixOne<'_, W, T> {
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

impl<W: Copy, T: Elem> MixOne<'_, W, T> {
    /// The same for 16 x V columns from `at` on.
    #[inline(always)]
    fn columns<S: Simd, const V: usize>(&mut self, s: S, at: usize)
    where
        W: Word<S>,
    {
        let MixOne { word, weights, values, round, .. } = self;
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
            let sum = if self.first { acc } else { s.add(mem::load(s, self.mixed, at), acc) };
            mem::store(s, self.mixed, at, sum);
        }
    }
}
