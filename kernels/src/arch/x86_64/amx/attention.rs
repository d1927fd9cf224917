//! The products of attention on AMX tiles.
//!
//! Keys are tiles of rows, read in place if they can be, and queries are tiles of pairs. So scores come out with queries in
//! lanes, and packs of attention weights are the pairs that meet the values, which are transposed into rows.

use core::ops::Range;

use super::packing::{TileSource, block_len};
use super::registers::Amx;
use super::tiles::{StreamedOperand, TileAccumulators, TilePairs, TileRows, TileShape};
use super::{TILE_DIM, TILE_K};
use crate::arch::x86_64::avx512::Avx512;
use crate::arch::x86_64::avx512_bf16::Bf16Pairs;
use crate::attention::head::head_scratch_len;
use crate::attention::products::{AttentionProducts, AttentionWeights, Keys, Queries, ScratchLens, Values};
use crate::attention::{KV_BLOCK, RunHead};
use crate::gemm::blocking::steps;
use crate::gemm::pack::Operand;
use crate::isa::{KernelAt, LANES, Simd};

/// Elements of scratch of two tiles.
const BLOCK: usize = block_len(TILE_DIM);

/// Elements of the sums of two tiles by two.
const SUMS: usize = TILE_DIM * TILE_DIM;

/// Elements of the sums of two tiles by one: the scores of a single query.
const SINGLE_QUERY_SUMS: usize = TILE_DIM * LANES;

/// Elements of scratch for one head of width `head_dim`.
pub(in crate::arch::x86_64) fn attention_scratch_len(head_dim: usize) -> usize {
    head_scratch_len::<Avx512, AmxProducts>(head_dim)
}

/// The products on tiles.
pub(in crate::arch::x86_64) struct AmxProducts {
    tiles: TileAccumulators,
    pairs: Bf16Pairs,
}

impl KernelAt<Avx512> for RunHead<'_, AmxProducts> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl AmxProducts {
    pub(in crate::arch::x86_64) fn new(amx: Amx) -> AmxProducts {
        AmxProducts { tiles: TileAccumulators::configure(amx), pairs: amx.pairs() }
    }

    /// Packs all blocks of k of the lanes of `source` into `to`, one after the other, `tiles` tiles for each.
    #[inline(always)]
    fn pack(&self, s: Avx512, source: TileSource<'_>, to: &mut [f32], tiles: usize) {
        s.call(PackTiles { pairs: self.pairs, source: &source, to, tiles });
    }

    /// Keys as tiles of rows, packed into `staging` if they cannot be read in place.
    #[inline(always)]
    fn key_tiles(&self, s: Avx512, k: Operand<'_>, keys: Range<usize>, staging: &mut [f32]) -> TileRows {
        let source = TileSource { operand: k, lanes: keys, pairs: false };
        source.in_place().unwrap_or_else(|| {
            let packed = &mut staging[..k.matrix.cols().div_ceil(TILE_K) * BLOCK];
            self.pack(s, source, packed, 2);
            TileRows::packed(packed, TILE_DIM)
        })
    }

    /// Adds the products of attention weights with values to weighted sums, or overwrites these. `operands` makes tiles of
    /// 16 packs of attention weights and of a block of values, which has two tiles.
    #[inline(always)]
    fn add_products(
        &self,
        s: Avx512,
        form: WeightedSumForm,
        packs: &mut [f32],
        values: Values<'_>,
        sums: &mut [f32],
        operands: impl Fn(&[f32], &[f32]) -> (TileRows, TilePairs),
    ) {
        let WeightedSumForm { shape, stride, values_are_pairs: pairs } = form;
        let Values { v, buffer, is_first } = values;
        let (keys, row) = (v.matrix.rows(), stride.max(1));
        let blocks = keys.div_ceil(TILE_K);
        // Packs without keys, up to whole tiles.
        packs[keys.div_ceil(2) * row..blocks * LANES * row].fill(0.0);
        let columns = steps(0..v.matrix.cols(), TILE_DIM);
        let pieces = buffer.chunks_exact_mut(blocks * BLOCK).zip(sums.chunks_exact_mut(TILE_DIM * row));
        for (lanes, (buffer, sums)) in columns.zip(pieces) {
            self.pack(s, TileSource { operand: v, lanes, pairs }, buffer, 2);
            if is_first {
                self.tiles.zero();
            } else {
                self.tiles.load(shape, sums, stride);
            }
            for (values, packs) in buffer.chunks_exact(BLOCK).zip(packs.chunks_exact(LANES * row)) {
                let (rows, pairs) = operands(packs, values);
                // SAFETY: the tiles are those of a block of values, and of 16 packs, which every row reads if one does.
                unsafe { self.tiles.multiply(shape, rows, pairs, StreamedOperand::Rows) };
            }
            self.tiles.store(shape, sums, stride);
        }
    }
}

impl AttentionProducts<Avx512> for AmxProducts {
    type KPack = Bf16Pairs;

    const QUERIES: usize = TILE_DIM;

    #[inline(always)]
    fn kpack(&self) -> Bf16Pairs {
        self.pairs
    }

    #[inline(always)]
    fn stride(queries: usize) -> usize {
        queries.next_multiple_of(LANES)
    }

    #[inline(always)]
    fn scratch_lens(head_dim: usize) -> ScratchLens {
        let blocks = head_dim.div_ceil(TILE_K);
        ScratchLens {
            packed: blocks * BLOCK,
            scores: KV_BLOCK * TILE_DIM,
            sums: blocks * SUMS,
            staging: blocks * BLOCK + SINGLE_QUERY_SUMS,
            values: blocks * KV_BLOCK / TILE_K * BLOCK,
        }
    }

    #[inline(always)]
    fn pack_queries(&self, s: Avx512, q: Operand<'_>, queries: Range<usize>, packed: &mut [f32]) {
        self.pack(s, TileSource { operand: q, lanes: queries, pairs: true }, packed, 2);
    }

    #[inline(always)]
    fn scores(&self, s: Avx512, queries: Queries<'_>, keys: Keys<'_>, scores: &mut [f32]) {
        let Queries { packed, count, stride } = queries;
        let Keys { k, keys, staging } = keys;
        let shape = if count > LANES { TileShape::TwoByTwo } else { TileShape::TwoByOne };
        for (keys, sums) in steps(keys, TILE_DIM).zip(scores.chunks_exact_mut(TILE_DIM * stride)) {
            let mut rows = self.key_tiles(s, k, keys, staging);
            self.tiles.zero();
            for pairs in packed.chunks_exact(BLOCK) {
                let pairs = TilePairs::packed(pairs);
                // SAFETY: both operands have two tiles for each block of the head's width.
                unsafe { self.tiles.multiply(shape, rows, pairs, StreamedOperand::Rows) };
                rows.advance();
            }
            self.tiles.store(shape, sums, stride);
        }
    }

    #[inline(always)]
    fn weighted_sum(&self, s: Avx512, weights: AttentionWeights<'_>, values: Values<'_>, sums: &mut [f32]) {
        let AttentionWeights { packs, stride } = weights;
        let shape = if stride > LANES { TileShape::TwoByTwo } else { TileShape::TwoByOne };
        let form = WeightedSumForm { shape, stride, values_are_pairs: false };
        self.add_products(s, form, packs, values, sums, |packs, values| {
            let [left, right] = [packs, &packs[LANES..]].map(|packs| packs.as_ptr().cast());
            let pairs = TilePairs { left, right, stride: stride * size_of::<f32>() };
            (TileRows::packed(values, TILE_DIM), pairs)
        });
    }

    #[inline(always)]
    fn supports_single_query(_: usize) -> bool {
        true
    }

    #[inline(always)]
    fn pack_single_query(&self, s: Avx512, q: Operand<'_>, packed: &mut [f32]) {
        let packed = &mut packed[..q.matrix.cols().div_ceil(TILE_K) * block_len(LANES)];
        self.pack(s, TileSource { operand: q, lanes: 0..1, pairs: true }, packed, 1);
    }

    /// The query is in the first lane.
    #[inline(always)]
    fn scores_single_query(&self, s: Avx512, packed: &[f32], keys: Keys<'_>, scores: &mut [f32]) {
        let Keys { k, keys, staging } = keys;
        let (sums, staging) = staging.split_at_mut(SINGLE_QUERY_SUMS);
        let len = block_len(LANES);
        let packed = &packed[..k.matrix.cols().div_ceil(TILE_K) * len];
        let shape = TileShape::TwoByOne;
        for (keys, scores) in steps(keys, TILE_DIM).zip(scores.chunks_mut(TILE_DIM)) {
            let mut rows = self.key_tiles(s, k, keys, staging);
            self.tiles.zero();
            for pairs in packed.chunks_exact(len) {
                let pairs = TilePairs::packed(pairs);
                // SAFETY: keys have two tiles for each block of the head's width, and the query one.
                unsafe { self.tiles.multiply(shape, rows, pairs, StreamedOperand::Rows) };
                rows.advance();
            }
            self.tiles.store(shape, sums, LANES);
            for (score, row) in scores.iter_mut().zip(sums.chunks_exact(LANES)) {
                *score = row[0];
            }
        }
    }

    /// Attention weights are tiles of rows that are all the same row; values are tiles of pairs.
    #[inline(always)]
    fn weighted_sum_single_query(
        &self,
        s: Avx512,
        weights: &mut [f32],
        values: Values<'_>,
        sums: &mut [f32],
    ) {
        let form = WeightedSumForm { shape: TileShape::OneByTwo, stride: 0, values_are_pairs: true };
        self.add_products(s, form, weights, values, sums, |weights, values| {
            let upper = weights.as_ptr().cast();
            (TileRows { upper, lower: upper, stride: 0, step: 0 }, TilePairs::packed(values))
        });
    }
}

/// How attention weights and values are multiplied.
#[derive(Clone, Copy)]
struct WeightedSumForm {
    shape: TileShape,
    /// Elements from row to row of the weighted sums, and from pack to pack of attention weights; 0 for a single query.
    stride: usize,
    values_are_pairs: bool,
}

/// See [`AmxProducts::pack`].
struct PackTiles<'a, 'b> {
    pairs: Bf16Pairs,
    source: &'a TileSource<'b>,
    to: &'a mut [f32],
    tiles: usize,
}

impl KernelAt<Avx512> for PackTiles<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let PackTiles { pairs, source, to, tiles } = self;
        for (block, to) in to.chunks_exact_mut(block_len(tiles * LANES)).enumerate() {
            source.pack(s, pairs, block, to);
        }
    }
}
