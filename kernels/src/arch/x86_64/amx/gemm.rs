//! GEMM on AMX tiles: bfloat16 products.
//!
//! Both operands are brought into the form of tiles (`packing`): the rows of activations once, and the weights for 32
//! columns of the output at a time. Rows of bf16 weights `[N, K]` have that form where they lie; other weights are copied.
//! The tile unit computes beside the rest of the core, so the next weights are packed or prefetched meanwhile (`overlap`).

use core::ops::Range;

use super::bf16x6::{TermOperands, multiply_terms};
use super::overlap::Overlap;
use super::packing::{TileSource, block_len};
use super::registers::Amx;
use super::tiles::{StreamedOperand, TileAccumulators, TilePairs, TileRows, TileShape};
use super::{TILE_DIM, TILE_K};
use crate::arch::x86_64::avx512::Avx512;
use crate::arch::x86_64::avx512_bf16::Bf16Pairs;
use crate::gemm::blocking::{steps, steps_or_empty};
use crate::gemm::epilogue::{Orientation, Sums, epilogue};
use crate::gemm::pack::Operand;
use crate::gemm::{Layout, MicroTile, Part, Product, ThreadSlice};
use crate::isa::{KernelAt, LANES, Simd};

/// Rows of activations from which on it pays to copy weights whose rows straddle cache lines, rather than to load them so
/// again and again.
const MIN_ROWS_TO_COPY: usize = 256;

/// Blocks of k whose weights meet all rows of activations before the next blocks do, while sums wait in memory. The weights
/// of 32 columns then stay in the first-level cache, as all blocks do where there are few. Split weights: all blocks that
/// are packed. With 12 or 16 blocks K = 768 was as fast, but longer rows, which share sets of that cache, were up to a fifth
/// slower.
fn k_blocks_in_l1(depth: usize, terms: usize) -> usize {
    if depth <= 16 || terms > 1 { 16 } else { 8 }
}

/// Blocks of k whose weights are packed at a time.
///
/// Split into terms, weights take six bytes each, twice, and would drive activations out of the second-level cache where K
/// is long; so sums wait for the next blocks. With 2 to 8 blocks, which stay in the first-level cache, and with all, models
/// took longer. Weights `[K, N]` have each row in another page and stay badly in that cache, too: 8 blocks are 30 % faster
/// than all of K = 3,072 by 128 rows, but a quarter slower from memory by 64 rows, as the next weights are prefetched too
/// late; hence more blocks for fewer panels of rows.
fn k_blocks_per_pass(layout: Layout, terms: usize, panels: usize) -> usize {
    match layout {
        _ if terms > 1 => 16,
        Layout::Nk => usize::MAX,
        Layout::Kn => (32 / panels.max(1)).max(8),
    }
}

/// The micro-tile and block sizes of products whose f32 operands are split into `terms` bf16 terms.
pub(in crate::arch::x86_64) fn micro_tile(layout: Layout, k: usize, terms: usize) -> MicroTile {
    let blocks = k_blocks_per_pass(layout, terms, 1).min(k.div_ceil(TILE_K));
    MicroTile {
        mr: TILE_DIM,
        nr: TILE_DIM,
        kc: k,
        lane_len: terms * block_len(1) * k.div_ceil(TILE_K),
        // The current weights and the next.
        staging_len: 2 * TILE_DIM * terms * block_len(1) * blocks,
        l2_quarters: if terms == 1 { 2 } else { 3 },
        converts: layout == Layout::Kn || terms > 1,
    }
}

/// Computes a slice on tiles. The tile registers are configured before and released after.
pub(in crate::arch::x86_64) fn run(s: Avx512, amx: Amx, slice: ThreadSlice<'_, '_>, terms: usize) {
    s.call(AmxGemm { tiles: TileAccumulators::configure(amx), pairs: amx.pairs(), slice, terms });
}

/// See [`run`].
struct AmxGemm<'a, 'b> {
    tiles: TileAccumulators,
    pairs: Bf16Pairs,
    slice: ThreadSlice<'a, 'b>,
    /// Bf16 terms of each operand.
    terms: usize,
}

impl KernelAt<Avx512> for AmxGemm<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let AmxGemm { tiles, pairs, slice, terms } = self;
        let ThreadSlice { product, blocking, index, scratch } = slice;
        let (layout, depth) = (product.layout(), product.a.cols().div_ceil(TILE_K));
        let fused = product.dims().fused();
        let blocks = depth.min(k_blocks_per_pass(layout, terms, 1));
        let (packed, rest) = scratch.split_at_mut(blocking.packed_len());
        let (weights, rest) = rest.split_at_mut(fused * blocks * terms * block_len(TILE_DIM));
        let (next_weights, rest) = rest.split_at_mut(weights.len());
        let (l1_blocks, part_len) = (k_blocks_in_l1(depth, terms), blocking.nc() * TILE_DIM);
        let sums = &mut rest[..fused * part_len];
        let keeps_sums = fused > 1 || depth > l1_blocks;
        let mut kernel =
            MacroKernel { tiles, layout, depth, terms, fused, keeps_sums, packed, weights, sums, part_len };
        let mut overlap = Overlap::new(pairs, terms, next_weights);
        for rows in steps(blocking.rows(index), blocking.nc()) {
            kernel.pack(s, pairs, product.activations(), rows.clone());
            let count = rows.len();
            let panels = count.div_ceil(TILE_DIM);
            let per_pass = k_blocks_per_pass(layout, terms, panels);
            let mut columns = product.fused_parts().flat_map(|(parts, column)| {
                let slice = blocking.columns(index, parts[0].weights.n());
                steps(slice, TILE_DIM).flat_map(move |n| {
                    let columns = NBlock::new(product, (parts, column), n, count);
                    steps_or_empty(0..depth, per_pass).map(move |blocks| NBlock {
                        blocks,
                        n: columns.n.clone(),
                        ..columns
                    })
                })
            });
            // The first weights are packed while nothing is multiplied.
            overlap.advance(columns.next(), panels);
            overlap.advance(columns.next(), panels);
            overlap.pack_rest(s);
            while let Some(current) = overlap.next.clone() {
                core::mem::swap(&mut kernel.weights, &mut overlap.weights);
                overlap.advance(columns.next(), panels);
                for blocks in steps_or_empty(current.blocks.clone(), l1_blocks) {
                    for part in 0..fused {
                        kernel.multiply(s, (&current, part), blocks.clone(), rows.clone(), &mut overlap);
                    }
                }
                overlap.pack_rest(s);
            }
        }
    }
}

/// Up to 32 columns of the output, of parts that are fused into one result.
#[derive(Clone)]
pub(super) struct NBlock<'a> {
    product: &'a Product<'a>,
    pub(super) parts: &'a [Part<'a>],
    /// The parts' first column in the output.
    column: usize,
    /// Columns within the parts.
    pub(super) n: Range<usize>,
    /// Blocks of k.
    pub(super) blocks: Range<usize>,
    /// Whether the weights of all parts are multiplied from where they lie.
    pub(super) in_place: bool,
}

impl<'a> NBlock<'a> {
    /// Columns that meet `rows` rows of activations, without blocks of k yet.
    #[inline(always)]
    fn new(
        product: &'a Product<'a>,
        (parts, column): (&'a [Part<'a>], usize),
        n: Range<usize>,
        rows: usize,
    ) -> NBlock<'a> {
        let columns = NBlock { product, parts, column, n, blocks: 0..0, in_place: false };
        let pays = |tiles: TileRows| rows < MIN_ROWS_TO_COPY || tiles.aligned();
        let in_place = (0..parts.len()).all(|part| columns.tile_source(part).in_place().is_some_and(pays));
        NBlock { in_place, ..columns }
    }

    /// The weights of one part.
    #[inline(always)]
    pub(super) fn tile_source(&self, part: usize) -> TileSource<'a> {
        let operand = self.product.weights(&self.parts[part]);
        TileSource { operand, lanes: self.n.clone(), pairs: !operand.k_in_rows }
    }
}

/// The loops over the tiles of packed activations.
struct MacroKernel<'a> {
    tiles: TileAccumulators,
    layout: Layout,
    /// Blocks of k.
    depth: usize,
    /// Bf16 terms of each operand.
    terms: usize,
    /// Matrices that are multiplied before a result is stored.
    fused: usize,
    /// Whether sums wait in memory for other blocks of k or other matrices.
    keeps_sums: bool,
    /// Panels of 32 rows of activations, block of k after block of k in each.
    packed: &'a mut [f32],
    /// For each matrix 32 columns of the output, block of k after block of k.
    weights: &'a mut [f32],
    /// For each matrix `part_len` elements: two tiles by two for each panel of rows.
    sums: &'a mut [f32],
    part_len: usize,
}

impl MacroKernel<'_> {
    /// Packs rows of activations into tiles.
    #[inline(always)]
    fn pack(&mut self, s: Avx512, pairs: Bf16Pairs, operand: Operand<'_>, rows: Range<usize>) {
        for (i, lanes) in steps(rows, TILE_DIM).enumerate() {
            let source = TileSource { operand, lanes, pairs: self.layout == Layout::Nk };
            let blocks = self.depth * self.terms;
            let len = block_len(source.tiles() * LANES);
            let panel = &mut self.packed[i * blocks * block_len(TILE_DIM)..][..blocks * len];
            for (block, to) in panel.chunks_exact_mut(self.terms * len).enumerate() {
                source.pack_terms(s, pairs, block, (to, self.terms));
            }
        }
    }

    /// Multiplies `blocks` of k of one matrix's columns by all panels of the packed `rows`, with the overlapped work
    /// beside it, and runs the epilogue on sums that are complete.
    #[inline(always)]
    fn multiply(
        &mut self,
        s: Avx512,
        (columns, part): (&NBlock<'_>, usize),
        blocks: Range<usize>,
        rows: Range<usize>,
        overlap: &mut Overlap<'_, '_>,
    ) {
        let terms = self.terms;
        let first = part * columns.blocks.len() + blocks.start - columns.blocks.start;
        let weights =
            first * terms * block_len(TILE_DIM)..(first + blocks.len()) * terms * block_len(TILE_DIM);
        let in_place = columns.tile_source(part).in_place().filter(|_| columns.in_place);
        let in_place = in_place.map(|rows| rows.offset(blocks.start * rows.step));
        let complete = blocks.end == self.depth && part + 1 == self.fused;
        for panel in steps(0..rows.len(), TILE_DIM) {
            let tiles = panel.len().div_ceil(LANES);
            let block = terms * block_len(tiles * LANES);
            let packed = &self.packed[panel.start * self.depth * terms * block_len(1)..];
            let packed = &packed[blocks.start * block..blocks.end * block];
            let weights = &self.weights[weights.clone()];
            let shape = match self.layout {
                _ if tiles == 2 => TileShape::TwoByTwo,
                Layout::Nk => TileShape::TwoByOne,
                Layout::Kn => TileShape::OneByTwo,
            };
            let (tile_rows, pairs, block, streamed) = match self.layout {
                Layout::Nk => {
                    let rows = in_place.unwrap_or(TileRows::packed(weights, TILE_DIM).with_terms(terms));
                    (rows, packed, block, StreamedOperand::Pairs)
                }
                Layout::Kn => {
                    let rows = TileRows::packed(packed, tiles * LANES).with_terms(terms);
                    (rows, weights, terms * block_len(TILE_DIM), StreamedOperand::Rows)
                }
            };
            let at = part * self.part_len + self.sums_at(panel.start);
            let sums = &mut self.sums[at..];
            if blocks.start == 0 {
                self.tiles.zero();
            } else {
                self.tiles.load(shape, sums, TILE_DIM);
            }
            let k_blocks = KBlocks { rows: tile_rows, pairs, block, shape, streamed };
            if terms > 1 {
                let operands = TermOperands {
                    layout: self.layout,
                    weights: columns.tile_source(part).operand,
                    activations: columns.product.activations(),
                    terms,
                };
                multiply_terms(k_blocks, s, &self.tiles, operands, overlap);
            } else if overlap.is_packing() {
                k_blocks.multiply(&self.tiles, || overlap.step(s));
            } else {
                k_blocks.multiply(&self.tiles, || overlap.prefetch_step(s));
            }
            self.tiles.store(shape, sums, TILE_DIM);
            if complete {
                self.store_panel(s, columns, rows.start, panel);
            }
        }
    }

    /// The offset of the sums of a panel of rows in those of a matrix. Without other blocks or matrices to wait for, all
    /// panels use the same place.
    #[inline(always)]
    fn sums_at(&self, start: usize) -> usize {
        if self.keeps_sums { start * TILE_DIM } else { 0 }
    }

    /// Runs the epilogue on the sums of some columns and a panel of the rows from `first` on.
    #[inline(always)]
    fn store_panel(&mut self, s: Avx512, columns: &NBlock<'_>, first: usize, panel: Range<usize>) {
        let NBlock { product, parts, column, n, .. } = columns;
        let at = self.sums_at(panel.start);
        let orientation = match self.layout {
            Layout::Nk => Orientation::Transposed,
            Layout::Kn => Orientation::RowMajor,
        };
        let (m, part_len) = (first + panel.start..first + panel.end, self.part_len);
        let sums =
            Sums { orientation, m, n: n.clone(), stride: TILE_DIM, data: &mut self.sums[at..], part_len };
        // SAFETY: `Blocking` gives each slice its own rows and columns of every part.
        unsafe { epilogue(s, product, parts, *column, sums) };
    }
}

/// Blocks of k that are multiplied one after the other.
#[derive(Clone, Copy)]
pub(super) struct KBlocks<'a> {
    pub(super) rows: TileRows,
    /// Pairs, `block` elements of scratch for each block.
    pub(super) pairs: &'a [f32],
    pub(super) block: usize,
    pub(super) shape: TileShape,
    streamed: StreamedOperand,
}

impl KBlocks<'_> {
    /// Adds the products of all blocks to the tiles, and calls `step` after each block.
    #[inline(always)]
    fn multiply(self, tiles: &TileAccumulators, mut step: impl FnMut()) {
        let KBlocks { mut rows, pairs, block, shape, streamed } = self;
        for pairs in pairs.chunks_exact(block) {
            // SAFETY: both operands have tiles for these blocks: packed ones by their lengths, those in place by
            // `TileSource::in_place`.
            unsafe { tiles.multiply(shape, rows, TilePairs::packed(pairs), streamed) };
            rows.advance();
            step();
        }
    }
}
