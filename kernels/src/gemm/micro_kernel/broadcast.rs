//! The broadcast operand X of the register tile: rows in memory, rows in a staging buffer, or columns.
//!
//! The tile reads one pack of each of its rows at a time, and each form of X gives it a [`BroadcastRows`], whose addresses
//! the inner loop keeps in registers. Rows that are stored as packs are read in place. Other rows are converted into a
//! staging buffer in the first-level cache, a block of k at a time. Columns are for the values of attention, where the rows
//! of the tile lie side by side.

use core::marker::PhantomData;
use core::ops::Range;

use crate::gemm::K_BLOCK;
use crate::gemm::kpack::{KPack, PackPtr};
use crate::gemm::pack::{Operand, copy_to_staging};
use crate::isa::{LANES, Simd};
use crate::view::{AnyMatRef, MatRef};

/// The broadcast operand of a register tile.
pub(super) trait BroadcastOperand {
    /// Its packs in MR rows. Rows past the last one repeat others.
    fn rows<const MR: usize>(&self) -> impl BroadcastRows<MR>;
}

/// The packs of MR rows of the broadcast operand, from some pack on.
pub(super) trait BroadcastRows<const MR: usize>: Copy {
    /// The address of pack `i` of row `r`, which need not exist.
    fn at(&self, r: usize, i: usize) -> PackPtr;

    /// Moves on by `packs` packs.
    fn advance(&mut self, packs: usize);
}

/// The rows of a register tile, in place or in the staging buffer.
pub(super) struct RowPointers<'a> {
    first: *const u8,
    /// Bytes from row to row.
    stride: usize,
    /// Rows that exist; the others repeat the last.
    count: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> RowPointers<'a> {
    /// The columns `k` of `rows`, at least one: in place, or copied into `staging`.
    #[inline(always)]
    pub(super) fn at<'b: 'a, S: Simd, P: KPack<S>>(
        s: S,
        kpack: P,
        x: Operand<'b>,
        rows: Range<usize>,
        k: Range<usize>,
        staging: &'a mut [f32],
    ) -> RowPointers<'a> {
        match x.matrix {
            AnyMatRef::F32(matrix) if P::LEN == 1 && !x.round => RowPointers::of(matrix.block(rows, k)),
            AnyMatRef::Bf16(matrix) if P::LEN == 2 && k.len().is_multiple_of(2) => {
                RowPointers::of(matrix.block(rows, k))
            }
            _ => {
                let count = rows.len();
                copy_to_staging(s, kpack, x, rows, k, (&mut *staging, STAGING_STRIDE));
                let stride = STAGING_STRIDE * size_of::<f32>();
                RowPointers { first: staging.as_ptr().cast(), stride, count, lifetime: PhantomData }
            }
        }
    }

    #[inline(always)]
    fn of<T>(block: MatRef<'a, T>) -> RowPointers<'a> {
        let stride = block.row_stride().wrapping_mul(size_of::<T>());
        RowPointers { first: block.as_ptr().cast(), stride, count: block.rows(), lifetime: PhantomData }
    }
}

impl BroadcastOperand for RowPointers<'_> {
    #[inline(always)]
    fn rows<const MR: usize>(&self) -> impl BroadcastRows<MR> {
        let row = |r: usize| self.first.wrapping_add(r.min(self.count - 1).wrapping_mul(self.stride));
        Pointers { rows: core::array::from_fn::<_, MR, _>(|r| row(r).cast()), index: 0 }
    }
}

/// A pointer for each row, and one index for all.
#[derive(Clone, Copy)]
struct Pointers<const MR: usize> {
    rows: [*const f32; MR],
    index: usize,
}

impl<const MR: usize> BroadcastRows<MR> for Pointers<MR> {
    #[inline(always)]
    fn at(&self, r: usize, i: usize) -> PackPtr {
        PackPtr { base: self.rows[r], index: self.index + i }
    }

    #[inline(always)]
    fn advance(&mut self, packs: usize) {
        self.index += packs;
    }
}

/// Rows of a register tile that are columns in memory: the packs of one k side by side, those of the next k a row further
/// on.
#[derive(Clone, Copy)]
pub(crate) struct BroadcastColumns<'a> {
    first: *const f32,
    step: usize,
    rows: usize,
    pub(super) depth: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> BroadcastColumns<'a> {
    /// The columns of a matrix of packs, from column `at` on.
    #[inline(always)]
    pub(crate) fn of(matrix: MatRef<'a, f32>, at: usize) -> BroadcastColumns<'a> {
        let (depth, rows) = (matrix.rows(), matrix.cols() - at);
        let step = matrix.row_stride();
        BroadcastColumns { first: matrix.as_ptr().wrapping_add(at), step, rows, depth, lifetime: PhantomData }
    }
}

impl BroadcastOperand for BroadcastColumns<'_> {
    #[inline(always)]
    fn rows<const MR: usize>(&self) -> impl BroadcastRows<MR> {
        assert!(MR <= self.rows);
        *self
    }
}

impl<const MR: usize> BroadcastRows<MR> for BroadcastColumns<'_> {
    #[inline(always)]
    fn at(&self, r: usize, i: usize) -> PackPtr {
        PackPtr { base: self.first.wrapping_add(i * self.step), index: r }
    }

    #[inline(always)]
    fn advance(&mut self, packs: usize) {
        self.first = self.first.wrapping_add(packs * self.step);
    }
}

/// Packs from row to row of the staging buffer: a block of k and a cache line, so that the rows do not fall into the same
/// sets of the cache.
const STAGING_STRIDE: usize = K_BLOCK + LANES;

/// Elements of the staging buffer for the rows of one tile.
pub(crate) const fn staging_len<S: Simd>() -> usize {
    S::TILE_ROWS * STAGING_STRIDE
}
