//! Operands in the form of tiles: blocks of 32 values of k for 16 or 32 lanes each, as bfloat16.
//!
//! A tile of *rows* has 16 lanes with 32 successive values of k each. A tile of *pairs* has 16 pairs of values of k, each for
//! 16 lanes (VNNI layout). Missing values are zero.

use core::ops::Range;

use super::TILE_K;
use super::tiles::TileRows;
use crate::arch::x86_64::avx512::Avx512;
use crate::arch::x86_64::avx512_bf16::Bf16Pairs;
use crate::elem::Elem;
use crate::gemm::kpack::KPack;
use crate::gemm::pack::Operand;
use crate::isa::{LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatRef, any};

/// Elements of scratch of a tile.
const TILE_LEN: usize = LANES * LANES;

/// Elements of scratch of a block of k for `lanes` lanes.
pub(super) const fn block_len(lanes: usize) -> usize {
    lanes * LANES
}

/// Lanes of an operand, and the form of their tiles.
#[derive(Clone)]
pub(super) struct TileSource<'a> {
    pub(super) operand: Operand<'a>,
    /// Up to 32 lanes.
    pub(super) lanes: Range<usize>,
    /// Whether the tiles have the form of pairs, or that of rows.
    pub(super) pairs: bool,
}

impl TileSource<'_> {
    /// Tiles of a block of k.
    pub(super) fn tiles(&self) -> usize {
        self.lanes.len().div_ceil(LANES)
    }

    /// The rows as tiles where they lie, if they can be loaded from there.
    #[inline(always)]
    pub(super) fn in_place(&self) -> Option<TileRows> {
        let AnyMatRef::Bf16(matrix) = self.operand.matrix else { return None };
        let whole = self.lanes.len() == 2 * LANES && matrix.cols().is_multiple_of(TILE_K);
        if self.pairs || !self.operand.k_in_rows || !whole {
            return None;
        }
        let stride = matrix.row_stride().wrapping_mul(2);
        let upper: *const u8 = matrix.block(self.lanes.clone(), 0..matrix.cols()).as_ptr().cast();
        let lower = upper.wrapping_add(stride.wrapping_mul(LANES));
        Some(TileRows { upper, lower, stride, step: 2 * TILE_K })
    }

    /// Packs a block of k into `to`, which has room for its tiles.
    #[inline(always)]
    pub(super) fn pack(&self, s: Avx512, pairs: Bf16Pairs, block: usize, to: &mut [f32]) {
        let k = block * TILE_K;
        any!(AnyMatRef, self.operand.matrix, from => {
            for (tile, to) in to.as_chunks_mut::<TILE_LEN>().0.iter_mut().enumerate() {
                let first = self.lanes.start + tile * LANES;
                match (self.operand.k_in_rows, self.pairs) {
                    (true, false) => copy_along_k(s, pairs, from, (first, k), to),
                    (true, true) => copy_transposed(s, pairs, from, (first, k), to),
                    (false, true) => copy_across_k(s, pairs, from, (k, first), to),
                    (false, false) => {
                        copy_across_k(s, pairs, from, (k, first), to);
                        transpose_tile(s, to);
                    }
                }
            }
        });
    }
}

/// Loads 32 values of a row. Values outside the matrix are zero.
#[inline(always)]
pub(super) fn load_row<T: Elem>(
    s: Avx512,
    from: MatRef<'_, T>,
    row: usize,
    k: usize,
) -> [<Avx512 as Simd>::F32; 2] {
    let row = if row < from.rows() { from.row(row) } else { &[] };
    if k + TILE_K <= row.len() {
        // SAFETY: the row has 32 elements from `k` on.
        return unsafe { [T::load(s, row.as_ptr().add(k)), T::load(s, row.as_ptr().add(k + LANES))] };
    }
    [k, k + LANES].map(|at| mem::load(s, row, at.min(row.len())))
}

/// Loads 16 lanes of rows `k` and `k + 1`. Values outside the matrix are zero.
#[inline(always)]
pub(super) fn load_pair_of_rows<T: Elem>(
    s: Avx512,
    from: MatRef<'_, T>,
    k: usize,
    lane: usize,
) -> [<Avx512 as Simd>::F32; 2] {
    if k + 2 <= from.rows() && lane + LANES <= from.cols() {
        let stride = from.row_stride();
        let first = from.as_ptr().wrapping_add(k * stride + lane);
        // SAFETY: the matrix has both rows, and 16 elements of each from `lane` on.
        return unsafe { [T::load(s, first), T::load(s, first.wrapping_add(stride))] };
    }
    [k, k + 1].map(|k| {
        let row = if k < from.rows() { from.row(k) } else { &[] };
        mem::load(s, row, lane.min(row.len()))
    })
}

/// Copies 16 rows that lie along k into a tile of rows.
#[inline(always)]
fn copy_along_k<T: Elem>(
    s: Avx512,
    pairs: Bf16Pairs,
    from: MatRef<'_, T>,
    (row, k): (usize, usize),
    to: &mut [f32; TILE_LEN],
) {
    if row + LANES <= from.rows() && k + TILE_K <= from.cols() {
        let stride = from.row_stride();
        let first = from.as_ptr().wrapping_add(row * stride + k);
        for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            // SAFETY: the matrix has 16 rows from `row` on, and 32 elements of each from `k` on.
            mem::store(s, to, 0, unsafe { pairs.load_along_k(s, first.wrapping_add(i * stride), true) });
        }
        return;
    }
    for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        mem::store(s, to, 0, load_row_as_pairs(s, pairs, from, row + i, k));
    }
}

/// Loads 32 values of a row as bf16. Values outside the matrix are zero. Row by row: with an array of 16 rows first,
/// products of 8 rows took 5 % longer.
#[inline(always)]
fn load_row_as_pairs<T: Elem>(
    s: Avx512,
    pairs: Bf16Pairs,
    from: MatRef<'_, T>,
    row: usize,
    k: usize,
) -> <Avx512 as Simd>::F32 {
    let row = if row < from.rows() { from.row(row) } else { &[] };
    pairs.load_along_k_partial(s, row, k, true)
}

/// Copies 16 rows that lie along k into a tile of pairs.
#[inline(always)]
fn copy_transposed<T: Elem>(
    s: Avx512,
    pairs: Bf16Pairs,
    from: MatRef<'_, T>,
    (row, k): (usize, usize),
    to: &mut [f32; TILE_LEN],
) {
    let block = if row + LANES <= from.rows() && k + TILE_K <= from.cols() {
        let stride = from.row_stride();
        let first = from.as_ptr().wrapping_add(row * stride + k);
        // SAFETY: the matrix has 16 rows from `row` on, and 32 elements of each from `k` on.
        unsafe { pairs.load_transposed(s, first, stride, !T::IS_BF16) }
    } else {
        let mut block = [s.splat(0.0); LANES];
        for (i, v) in block.iter_mut().enumerate() {
            *v = load_row_as_pairs(s, pairs, from, row + i, k);
        }
        s.transpose(block)
    };
    for (to, v) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(block) {
        mem::store(s, to, 0, v);
    }
}

/// Copies 32 rows that lie across k, two by two, into a tile of pairs.
#[inline(always)]
fn copy_across_k<T: Elem>(
    s: Avx512,
    pairs: Bf16Pairs,
    from: MatRef<'_, T>,
    (k, lane): (usize, usize),
    to: &mut [f32; TILE_LEN],
) {
    if k + TILE_K <= from.rows() && lane + LANES <= from.cols() {
        let stride = from.row_stride();
        let first = from.as_ptr().wrapping_add(k * stride + lane);
        for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let first = first.wrapping_add(2 * i * stride);
            // SAFETY: the matrix has 32 rows from `k` on, and 16 elements of each from `lane` on.
            mem::store(s, to, 0, unsafe { pairs.load_across_k(s, first, stride, true) });
        }
        return;
    }
    for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        mem::store(s, to, 0, pairs.load_across_k_partial(s, from, (k + 2 * i, lane), true));
    }
}

/// Turns tiles of rows into tiles of pairs, and the other way round.
#[inline(always)]
pub(super) fn transpose_tiles(s: Avx512, tiles: &mut [f32]) {
    tiles.as_chunks_mut::<TILE_LEN>().0.iter_mut().for_each(|tile| transpose_tile(s, tile));
}

#[inline(always)]
fn transpose_tile(s: Avx512, tile: &mut [f32; TILE_LEN]) {
    let rows = tile.as_chunks_mut::<LANES>().0;
    let mut block = [s.splat(0.0); LANES];
    for (v, row) in block.iter_mut().zip(&*rows) {
        *v = mem::load(s, row, 0);
    }
    for (row, v) in rows.iter_mut().zip(s.transpose(block)) {
        mem::store(s, row, 0, v);
    }
}
