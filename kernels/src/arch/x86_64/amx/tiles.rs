//! Products of tiles: four tile registers hold sums, two by two, and two each hold either operand.

use core::arch::asm;

use super::registers::{Amx, TileRegisters};

/// Bytes of a row of a tile.
const ROW: usize = 64;

/// Bytes of a tile.
const TILE: usize = 16 * ROW;

/// The tiles of both operands in a block of k: tiles of rows by tiles of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TileShape {
    /// 32 rows by 32 lanes.
    TwoByTwo,
    /// 16 rows by 32 lanes.
    OneByTwo,
    /// 32 rows by 16 lanes.
    TwoByOne,
}

impl TileShape {
    /// Elements from the first sum to the last, if rows of sums are `stride` elements apart.
    #[inline(always)]
    fn len(self, stride: usize) -> usize {
        match self {
            TileShape::TwoByTwo => 31 * stride + 32,
            TileShape::OneByTwo => 15 * stride + 32,
            TileShape::TwoByOne => 31 * stride + 16,
        }
    }
}

/// The tile registers, configured on this thread. Compiled code does not use them. By the calling convention they are not
/// preserved across calls, but nothing that is called between these functions uses them.
pub(super) struct TileAccumulators {
    _registers: TileRegisters,
}

/// Tiles of rows: two tiles for each block of k, block after block.
#[derive(Clone, Copy)]
pub(super) struct TileRows {
    /// The first of the upper 16 rows.
    pub(super) upper: *const u8,
    /// The first of the lower 16 rows.
    pub(super) lower: *const u8,
    /// Bytes from row to row.
    pub(super) stride: usize,
    /// Bytes from block to block.
    pub(super) step: usize,
}

impl TileRows {
    /// Packed tiles, one after the other, with `lanes` rows in each block.
    #[inline(always)]
    pub(super) fn packed(packed: &[f32], lanes: usize) -> TileRows {
        let upper: *const u8 = packed.as_ptr().cast();
        TileRows { upper, lower: upper.wrapping_add(TILE), stride: ROW, step: lanes * ROW }
    }

    /// Whether every row begins at a cache line.
    #[inline(always)]
    pub(super) fn aligned(&self) -> bool {
        self.upper.align_offset(ROW) == 0 && self.stride.is_multiple_of(ROW)
    }

    /// Packed tiles with `terms` terms of each block one after the other.
    #[inline(always)]
    pub(super) fn with_terms(self, terms: usize) -> TileRows {
        TileRows { step: terms * self.step, ..self }
    }

    /// The tiles `bytes` bytes further on.
    #[inline(always)]
    pub(super) fn offset(self, bytes: usize) -> TileRows {
        TileRows { upper: self.upper.wrapping_add(bytes), lower: self.lower.wrapping_add(bytes), ..self }
    }

    /// Goes on to the next block of k.
    #[inline(always)]
    pub(super) fn advance(&mut self) {
        (self.upper, self.lower) = (self.upper.wrapping_add(self.step), self.lower.wrapping_add(self.step));
    }
}

/// Tiles of pairs of one block of k.
#[derive(Clone, Copy)]
pub(super) struct TilePairs {
    /// The first pair of the left 16 lanes.
    pub(super) left: *const u8,
    /// The first pair of the right 16 lanes.
    pub(super) right: *const u8,
    /// Bytes from pair to pair.
    pub(super) stride: usize,
}

impl TilePairs {
    /// Packed tiles, one after the other.
    #[inline(always)]
    pub(super) fn packed(packed: &[f32]) -> TilePairs {
        let left: *const u8 = packed.as_ptr().cast();
        TilePairs { left, right: left.wrapping_add(TILE), stride: ROW }
    }
}

/// The operand each tile of which is used once before other data evict it from the first-level cache. Its tiles are loaded
/// past that cache (`tileloaddt1`), which is left to the other operand and to sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamedOperand {
    Rows,
    Pairs,
    /// Both operands are used again.
    Neither,
}

/// Multiplies a block of a shape, with the given instructions for loading rows and pairs.
macro_rules! multiply {
    ($shape:expr, $rows:ident, $pairs:ident, $load_rows:literal, $load_pairs:literal) => {
        match $shape {
            TileShape::TwoByTwo => multiply!(
                @ $rows, $pairs, $load_rows, $load_pairs,
                [concat!($load_rows, " tmm5, [{lower} + {stride}]"),
                 "tdpbf16ps tmm0, tmm4, tmm6",
                 concat!($load_pairs, " tmm7, [{right} + {line}]"),
                 "tdpbf16ps tmm2, tmm5, tmm6",
                 "tdpbf16ps tmm1, tmm4, tmm7",
                 "tdpbf16ps tmm3, tmm5, tmm7"],
                lower = in(reg) $rows.lower,
                right = in(reg) $pairs.right,
            ),
            TileShape::OneByTwo => multiply!(
                @ $rows, $pairs, $load_rows, $load_pairs,
                [concat!($load_pairs, " tmm7, [{right} + {line}]"),
                 "tdpbf16ps tmm0, tmm4, tmm6",
                 "tdpbf16ps tmm1, tmm4, tmm7"],
                right = in(reg) $pairs.right,
            ),
            TileShape::TwoByOne => multiply!(
                @ $rows, $pairs, $load_rows, $load_pairs,
                [concat!($load_rows, " tmm5, [{lower} + {stride}]"),
                 "tdpbf16ps tmm0, tmm4, tmm6",
                 "tdpbf16ps tmm2, tmm5, tmm6"],
                lower = in(reg) $rows.lower,
            ),
        }
    };
    (@ $rows:ident, $pairs:ident, $load_rows:literal, $load_pairs:literal, [$($rest:expr),*], $($operand:tt)*) => {
        asm!(
            concat!($load_rows, " tmm4, [{upper} + {stride}]"),
            concat!($load_pairs, " tmm6, [{left} + {line}]"),
            $($rest,)*
            upper = in(reg) $rows.upper,
            stride = in(reg) $rows.stride,
            left = in(reg) $pairs.left,
            line = in(reg) $pairs.stride,
            $($operand)*
            options(nostack, readonly, preserves_flags),
        )
    };
}

/// Executes an instruction for each tile of sums that a shape has; the tile's name goes between `$before` and `$after`.
macro_rules! each_sum {
    ($shape:ident, $sums:expr, $stride:ident, $before:literal, $after:literal) => {{
        let (sums, shape) = ($sums, $shape);
        each_sum!(@ sums, $stride, $before, "tmm0", $after);
        if shape != TileShape::TwoByOne {
            each_sum!(@ sums.add(16), $stride, $before, "tmm1", $after);
        }
        if shape != TileShape::OneByTwo {
            each_sum!(@ sums.add(16 * $stride), $stride, $before, "tmm2", $after);
        }
        if shape == TileShape::TwoByTwo {
            each_sum!(@ sums.add(16 * $stride + 16), $stride, $before, "tmm3", $after);
        }
    }};
    (@ $at:expr, $stride:ident, $before:literal, $tile:literal, $after:literal) => {
        asm!(
            concat!($before, $tile, $after),
            at = in(reg) $at,
            stride = in(reg) 4 * $stride,
            options(nostack, preserves_flags),
        )
    };
}

impl TileAccumulators {
    pub(super) fn configure(proof: Amx) -> TileAccumulators {
        TileAccumulators { _registers: TileRegisters::configure(proof) }
    }

    /// Sets all sums to zero.
    #[inline(always)]
    pub(super) fn zero(&self) {
        // SAFETY: the registers are configured.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nomem, nostack));
        }
    }

    /// Stores the sums of the shape, with rows `stride` elements apart.
    #[inline(always)]
    pub(super) fn store(&self, shape: TileShape, sums: &mut [f32], stride: usize) {
        assert!(sums.len() >= shape.len(stride));
        // SAFETY: the registers are configured; the assertion.
        unsafe { each_sum!(shape, sums.as_mut_ptr(), stride, "tilestored [{at} + {stride}], ", "") };
    }

    /// Loads sums that [`TileAccumulators::store`] stored.
    #[inline(always)]
    pub(super) fn load(&self, shape: TileShape, sums: &[f32], stride: usize) {
        assert!(sums.len() >= shape.len(stride));
        // SAFETY: the registers are configured; the assertion.
        unsafe { each_sum!(shape, sums.as_ptr(), stride, "tileloadd ", ", [{at} + {stride}]") };
    }

    /// Adds the products of one block of k.
    ///
    /// # Safety
    /// `rows` and `pairs` must have the tiles of the shape.
    #[inline(always)]
    pub(super) unsafe fn multiply(
        &self,
        shape: TileShape,
        rows: TileRows,
        pairs: TilePairs,
        streamed: StreamedOperand,
    ) {
        // SAFETY: the registers are configured; the caller's contract.
        unsafe {
            match streamed {
                StreamedOperand::Rows => multiply!(shape, rows, pairs, "tileloaddt1", "tileloadd"),
                StreamedOperand::Pairs => multiply!(shape, rows, pairs, "tileloadd", "tileloaddt1"),
                StreamedOperand::Neither => multiply!(shape, rows, pairs, "tileloadd", "tileloadd"),
            }
        }
    }
}
