//! Products with few rows of activations: lanes along N, each weight read once and used for all rows.
//!
//! With few rows the limit is the time in which weights arrive from memory, and the register tile would leave most of its
//! lanes idle. `[K, N]` weights have their lanes along N already ([`row_major`]). `[N, K]` weights are transposed 16 x 16 at
//! a time in registers ([`transposed`]). The sums run in the order of the register tile, so the bits are the same. In the
//! order of AMX tiles, `[K, N]` weights have a kernel of their own (`arch/x86_64/amx/small_m.rs`). This file has the cut of
//! a product into slices, which all three share, and the loop over blocks of columns of the first two.

mod row_major;
mod transposed;

use core::ops::Range;

use super::blocking::steps;
use super::epilogue::{Orientation, Sums, epilogue};
use super::kpack::{F32Pack, KPack};
use super::pack::{Operand, copy_to_staging};
use super::prefetch::LINE;
use super::{Dims, Layout, Product};
use crate::isa::{Kernel, LANES, Simd};

/// The largest M, with weights in either layout.
pub(super) const MAX_ROWS: usize = 8;

/// The largest M with `[K, N]` weights where the sums of eight rows fit the registers. The register tile would have to pack
/// the weights, which so few rows do not repay: in f32 it takes a third longer for 16 rows, and as long for 32.
pub(super) const MAX_ROWS_ROW_MAJOR: usize = 16;

/// The largest M in the order of AMX tiles. Eight rows take as long as on tiles.
pub(crate) const TILE_ORDER_MAX_ROWS: usize = 4;

/// Rows and columns whose sums are in registers together in the order of AMX tiles, with all rows.
pub(super) const TILE_ORDER_TILE: (usize, usize) = (TILE_ORDER_MAX_ROWS, 2 * LANES);

/// NC: columns of the output that are summed before they are stored. Pieces of rows of this length come from memory as fast
/// as whole rows.
pub(crate) const NC: usize = 1024;

/// Multiplications below which another thread costs more than it saves.
const WORK_PER_THREAD: usize = 1 << 19;

/// The cut of one product into slices for threads: over N only.
pub(crate) struct ThreadPartition {
    slices: usize,
    /// Rows for which there is scratch: a multiple of the rows whose sums are in registers together.
    rows: usize,
    piece: usize,
}

impl ThreadPartition {
    pub(super) fn new(threads: usize, dims: &Dims) -> ThreadPartition {
        let slices = threads.min(dims.work() / WORK_PER_THREAD).min(dims.n.div_ceil(LANES)).max(1);
        let rows = dims.m.next_multiple_of(MAX_ROWS);
        let blocks = 1 + dims.fused();
        let piece = rows * (dims.k.next_multiple_of(LANES) + blocks * NC);
        ThreadPartition { slices, rows, piece }
    }

    /// Elements of scratch of one slice.
    pub(super) fn piece_len(&self) -> usize {
        self.piece
    }

    pub(super) fn scratch_len(&self) -> usize {
        self.slices * self.piece
    }

    /// The columns that slice `i` computes of a part with `n` columns.
    pub(crate) fn columns(&self, i: usize, n: usize) -> Range<usize> {
        let step = n.div_ceil(LANES).div_ceil(self.slices) * LANES;
        (i * step).min(n)..((i + 1) * step).min(n)
    }
}

/// Returns how many rows of activations have their sums in registers together at the level that runs it.
pub(super) struct RowsInRegisters;

impl Kernel for RowsInRegisters {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        rows_in_registers::<S>()
    }
}

const fn rows_in_registers<S: Simd>() -> usize {
    if S::TILE_ROWS >= 8 { 8 } else { 4 }
}

/// One thread's slice of a product.
pub(crate) struct SmallMSlice<'a, 'b> {
    pub(crate) product: &'a Product<'b>,
    pub(crate) partition: &'a ThreadPartition,
    /// The slice's number in the partition.
    pub(crate) index: usize,
    pub(crate) scratch: &'a mut [f32],
}

/// A slice that is computed in packs.
pub(crate) struct SmallM<'a, 'b, P> {
    pub(crate) kpack: P,
    pub(crate) slice: SmallMSlice<'a, 'b>,
}

impl Kernel for SmallM<'_, '_, F32Pack> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

impl<P: Copy> SmallM<'_, '_, P> {
    #[inline(always)]
    pub(crate) fn run_with<S: Simd>(self, s: S)
    where
        P: KPack<S>,
    {
        let SmallM { kpack, slice: SmallMSlice { product, partition, index, scratch } } = self;
        let (m, depth) = (product.a.rows(), product.a.cols());
        let packs = depth.div_ceil(P::LEN);
        let stride = packs.next_multiple_of(LANES);
        let part_len = partition.rows * NC;
        let (x, rest) = scratch.split_at_mut(partition.rows * stride);
        let (k_block_sums, data) = rest.split_at_mut(part_len);
        // Rows past the last one are zero: they are multiplied, and not stored.
        x[m * stride..].fill(0.0);
        if depth > 0 {
            copy_to_staging(s, kpack, product.activations(), 0..m, 0..depth, (x, stride));
        }
        for (parts, column) in product.fused_parts() {
            for n in steps(partition.columns(index, parts[0].weights.n()), NC) {
                for (part, sums) in parts.iter().zip(data.chunks_exact_mut(part_len)) {
                    let weights = product.weights(part);
                    let n_block = NBlock { kpack, weights, n: n.clone(), x, depth, packs, m };
                    match product.layout() {
                        Layout::Nk => n_block.multiply_transposed(s, sums),
                        Layout::Kn => n_block.multiply_row_major(s, sums, k_block_sums),
                    }
                }
                let sums =
                    Sums { orientation: Orientation::RowMajor, m: 0..m, n, stride: NC, data, part_len };
                // SAFETY: `ThreadPartition` gives each slice its own columns of every part.
                unsafe { epilogue(s, product, parts, column, sums) };
            }
        }
    }
}

/// Cache lines of `vectors` vectors stored as `T`.
pub(crate) const fn lines<T>(vectors: usize) -> usize {
    (vectors * LANES * size_of::<T>()).div_ceil(LINE)
}

/// NC columns of the output, for all rows.
struct NBlock<'a, P> {
    kpack: P,
    weights: Operand<'a>,
    n: Range<usize>,
    /// The activations as packs: `[ThreadPartition::rows, packs.next_multiple_of(16)]`.
    x: &'a [f32],
    /// Values of k.
    depth: usize,
    /// Packs of k.
    packs: usize,
    m: usize,
}

impl<P: Copy> NBlock<'_, P> {
    /// Packs from row to row of x.
    #[inline(always)]
    fn stride(&self) -> usize {
        self.packs.next_multiple_of(LANES)
    }
}
