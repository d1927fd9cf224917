//! The products on the tile unit of AMX.
//!
//! Keys are rows of tiles, where they lie if they can, and queries are pairs; so scores come out with queries in lanes,
//! and words of weights are the pairs that meet values, which are turned into rows.

use core::ops::Range;

use super::KEYS;
use super::products::{Keys, Lengths, Products, Queries, Values, Weights};
use crate::gemm::amx::{Lanes, Pairs, Rows, SIDE, STEP, Shape, Streamed, TileUnit, block_len};
use crate::gemm::blocking::steps;
use crate::gemm::pack::Operand;
use crate::isa::amx::Amx;
use crate::isa::avx512::Avx512;
use crate::isa::avx512_bf16::Bf16Pairs;
use crate::isa::{KernelAt, LANES, Simd};

/// Elements of scratch of two tiles, and of the sums of two by two.
const BLOCK: usize = block_len(SIDE);
const SUMS: usize = SIDE * SIDE;

/// Of two by one.
const ONE: usize = SIDE * LANES;

/// The tile unit, with the conversions that go with it.
pub(super) struct OnTiles {
    unit: TileUnit,
    word: Bf16Pairs,
}

impl OnTiles {
    pub(super) fn new(amx: Amx) -> OnTiles {
        OnTiles { unit: TileUnit::configure(amx), word: amx.pairs() }
    }

    /// Brings all blocks of k of some lanes into `to`, one after the other.
    #[inline(always)]
    fn bring(&self, s: Avx512, lanes: Lanes<'_>, to: &mut [f32], tiles: usize) {
        s.call(Bring { word: self.word, lanes: &lanes, to, tiles });
    }

    /// Some keys as rows of tiles, brought into `stage` if they must be.
    #[inline(always)]
    fn rows(&self, s: Avx512, k: Operand<'_>, keys: Range<usize>, stage: &mut [f32]) -> Rows {
        let lanes = Lanes { operand: k, lanes: keys, pairs: false };
        lanes.in_place().unwrap_or_else(|| {
            let staged = &mut stage[..k.matrix.cols().div_ceil(STEP) * BLOCK];
            self.bring(s, lanes, staged, 2);
            Rows::staged(staged, SIDE)
        })
    }

    /// Adds the products of weights with values to a mixture, or puts them there. `tiles` says how 16 words of weights and
    /// a block of values, which has two tiles, are multiplied.
    #[inline(always)]
    fn add(
        &self,
        s: Avx512,
        form: Mixture,
        words: &mut [f32],
        values: Values<'_>,
        mixed: &mut [f32],
        tiles: impl Fn(&[f32], &[f32]) -> (Rows, Pairs),
    ) {
        let Mixture { shape, stride, values_are_pairs: pairs } = form;
        let Values { v, room, first } = values;
        let (keys, row) = (v.matrix.rows(), stride.max(1));
        let blocks = keys.div_ceil(STEP);
        // Words of no keys, up to whole tiles.
        words[keys.div_ceil(2) * row..blocks * LANES * row].fill(0.0);
        let columns = steps(0..v.matrix.cols(), SIDE);
        let pieces = room.chunks_exact_mut(blocks * BLOCK).zip(mixed.chunks_exact_mut(SIDE * row));
        for (lanes, (room, mixed)) in columns.zip(pieces) {
            self.bring(s, Lanes { operand: v, lanes, pairs }, room, 2);
            if first {
                self.unit.zero();
            } else {
                self.unit.load(shape, mixed, stride);
            }
            for (values, words) in room.chunks_exact(BLOCK).zip(words.chunks_exact(LANES * row)) {
                let (rows, pairs) = tiles(words, values);
                // SAFETY: the tiles are those of a block of values, and of 16 words, which every row reads if one does.
                unsafe { self.unit.multiply(shape, rows, pairs, Streamed::Rows) };
            }
            self.unit.store(shape, mixed, stride);
        }
    }
}

impl Products<Avx512> for OnTiles {
    type Word = Bf16Pairs;

    const QUERIES: usize = SIDE;

    #[inline(always)]
    fn word(&self) -> Bf16Pairs {
        self.word
    }

    #[inline(always)]
    fn stride(queries: usize) -> usize {
        queries.next_multiple_of(LANES)
    }

    #[inline(always)]
    fn lengths(width: usize) -> Lengths {
        let blocks = width.div_ceil(STEP);
        Lengths {
            packed: blocks * BLOCK,
            scores: KEYS * SIDE,
            mixed: blocks * SUMS,
            stage: blocks * BLOCK + ONE,
            values: blocks * KEYS / STEP * BLOCK,
        }
    }

    #[inline(always)]
    fn pack(&self, s: Avx512, q: Operand<'_>, queries: Range<usize>, packed: &mut [f32]) {
        self.bring(s, Lanes { operand: q, lanes: queries, pairs: true }, packed, 2);
    }

    #[inline(always)]
    fn score(&self, s: Avx512, queries: Queries<'_>, keys: Keys<'_>, scores: &mut [f32]) {
        let Queries { packed, count, stride } = queries;
        let Keys { k, keys, stage } = keys;
        let shape = if count > LANES { Shape::Square } else { Shape::Narrow };
        for (keys, sums) in steps(keys, SIDE).zip(scores.chunks_exact_mut(SIDE * stride)) {
            let mut rows = self.rows(s, k, keys, stage);
            self.unit.zero();
            for pairs in packed.chunks_exact(BLOCK) {
                // SAFETY: both operands have two tiles for each block of the head's width.
                unsafe { self.unit.multiply(shape, rows, Pairs::staged(pairs), Streamed::Rows) };
                rows.advance();
            }
            self.unit.store(shape, sums, stride);
        }
    }

    #[inline(always)]
    fn mix(&self, s: Avx512, weights: Weights<'_>, values: Values<'_>, mixed: &mut [f32]) {
        let Weights { words, queries, stride } = weights;
        let shape = if queries > LANES { Shape::Square } else { Shape::Narrow };
        let form = Mixture { shape, stride, values_are_pairs: false };
        self.add(s, form, words, values, mixed, |words, values| {
            let [left, right] = [words, &words[LANES..]].map(|words| words.as_ptr().cast());
            (Rows::staged(values, SIDE), Pairs { left, right, stride: stride * size_of::<f32>() })
        });
    }

    #[inline(always)]
    fn takes_one(_: usize) -> bool {
        true
    }

    #[inline(always)]
    fn pack_one(&self, s: Avx512, q: Operand<'_>, packed: &mut [f32]) {
        let packed = &mut packed[..q.matrix.cols().div_ceil(STEP) * block_len(LANES)];
        self.bring(s, Lanes { operand: q, lanes: 0..1, pairs: true }, packed, 1);
    }

    /// The query is in the first lane.
    #[inline(always)]
    fn score_one(&self, s: Avx512, packed: &[f32], keys: Keys<'_>, scores: &mut [f32]) {
        let Keys { k, keys, stage } = keys;
        let (sums, stage) = stage.split_at_mut(ONE);
        let len = block_len(LANES);
        let packed = &packed[..k.matrix.cols().div_ceil(STEP) * len];
        for (keys, scores) in steps(keys, SIDE).zip(scores.chunks_mut(SIDE)) {
            let mut rows = self.rows(s, k, keys, stage);
            self.unit.zero();
            for pairs in packed.chunks_exact(len) {
                // SAFETY: keys have two tiles for each block of the head's width, and the query one.
                unsafe { self.unit.multiply(Shape::Narrow, rows, Pairs::staged(pairs), Streamed::Rows) };
                rows.advance();
            }
            self.unit.store(Shape::Narrow, sums, LANES);
            for (score, row) in scores.iter_mut().zip(sums.chunks_exact(LANES)) {
                *score = row[0];
            }
        }
    }

    /// Weights are rows, which are all the same; values are pairs.
    #[inline(always)]
    fn mix_one(&self, s: Avx512, weights: &mut [f32], values: Values<'_>, mixed: &mut [f32]) {
        let form = Mixture { shape: Shape::Flat, stride: 0, values_are_pairs: true };
        self.add(s, form, weights, values, mixed, |weights, values| {
            let upper = weights.as_ptr().cast();
            (Rows { upper, lower: upper, stride: 0, step: 0 }, Pairs::staged(values))
        });
    }
}

/// How a mixture is multiplied.
#[derive(Clone, Copy)]
struct Mixture {
    shape: Shape,
    /// Elements between its rows, and between words of weights; 0 where there is one.
    stride: usize,
    values_are_pairs: bool,
}

/// See [`OnTiles::bring`].
struct Bring<'a, 'b> {
    word: Bf16Pairs,
    lanes: &'a Lanes<'b>,
    to: &'a mut [f32],
    tiles: usize,
}

impl KernelAt<Avx512> for Bring<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let Bring { word, lanes, to, tiles } = self;
        for (block, to) in to.chunks_exact_mut(block_len(tiles * LANES)).enumerate() {
            lanes.bring(s, word, block, to);
        }
    }
}
