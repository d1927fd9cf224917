//! Tile registers: four of sums, two by two, and two each of both operands.

use core::arch::asm;

use crate::isa::amx::{Amx, TileRegisters};

/// Bytes of a row of a tile, and of a tile.
const ROW: usize = 64;
const TILE: usize = 16 * ROW;

/// How many tiles each operand has; the other sums are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Two of rows, two of pairs.
    Square,
    /// One of rows, two of pairs.
    Flat,
    /// Two of rows, one of pairs.
    Narrow,
}

/// The tile registers, configured on this thread. Compiled code does not use them; by the calling convention they are
/// not kept across calls, and nothing that is called between these functions uses them.
pub(super) struct TileUnit {
    _registers: TileRegisters,
}

/// Tiles of rows, block after block: where the first 16 rows and the second begin, and bytes between rows and between
/// blocks.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) upper: *const u8,
    pub(super) lower: *const u8,
    pub(super) stride: usize,
    pub(super) step: usize,
}

impl Rows {
    /// Those of a stage, one tile after the other.
    #[inline(always)]
    pub(super) fn staged(stage: &[f32], lanes: usize) -> Rows {
        let upper: *const u8 = stage.as_ptr().cast();
        Rows { upper, lower: upper.wrapping_add(TILE), stride: ROW, step: lanes * ROW }
    }

    /// Whether every row begins at a cache line.
    #[inline(always)]
    pub(super) fn aligned(&self) -> bool {
        self.upper.align_offset(ROW) == 0 && self.stride.is_multiple_of(ROW)
    }

    /// Goes on to the next block.
    #[inline(always)]
    pub(super) fn advance(&mut self) {
        (self.upper, self.lower) = (self.upper.wrapping_add(self.step), self.lower.wrapping_add(self.step));
    }
}

/// A block: the first tile of each operand, and what differs from shape to shape.
macro_rules! multiply {
    ($rows:ident, $pairs:ident, $rest:literal, $($operand:tt)*) => {
        asm!(
            "tileloadd tmm4, [{upper} + {stride}]",
            "tileloadd tmm6, [{pairs} + {line}]",
            $rest,
            upper = in(reg) $rows.upper,
            stride = in(reg) $rows.stride,
            pairs = in(reg) $pairs,
            line = in(reg) ROW,
            $($operand)*
            options(nostack, readonly, preserves_flags),
        )
    };
}

impl TileUnit {
    pub(super) fn configure(proof: Amx) -> TileUnit {
        TileUnit { _registers: TileRegisters::configure(proof) }
    }

    /// Sums of nothing.
    #[inline(always)]
    pub(super) fn zero(&self) {
        // SAFETY: the registers are configured.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nomem, nostack));
        }
    }

    /// Sums to memory: 32 rows of 32, `stride` elements apart.
    #[inline(always)]
    pub(super) fn store(&self, sums: &mut [f32], stride: usize) {
        assert!(sums.len() >= 31 * stride + 32);
        let sums = sums.as_mut_ptr();
        // SAFETY: the registers are configured; the sums are there.
        unsafe {
            asm!(
                "tilestored [{upper} + {stride}], tmm0",
                "tilestored [{upper} + {stride} + 64], tmm1",
                "tilestored [{lower} + {stride}], tmm2",
                "tilestored [{lower} + {stride} + 64], tmm3",
                upper = in(reg) sums,
                lower = in(reg) sums.add(16 * stride),
                stride = in(reg) 4 * stride,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Adds the products of a block of 32 values of k.
    ///
    /// # Safety
    /// `rows` and `pairs` have as many tiles as the shape says.
    #[inline(always)]
    pub(super) unsafe fn multiply(&self, shape: Shape, rows: Rows, pairs: *const f32) {
        // SAFETY: the registers are configured; the caller's contract.
        unsafe {
            match shape {
                Shape::Square => multiply!(
                    rows,
                    pairs,
                    "tileloadd tmm5, [{lower} + {stride}]
                     tdpbf16ps tmm0, tmm4, tmm6
                     tileloadd tmm7, [{pairs} + {line} + 1024]
                     tdpbf16ps tmm2, tmm5, tmm6
                     tdpbf16ps tmm1, tmm4, tmm7
                     tdpbf16ps tmm3, tmm5, tmm7",
                    lower = in(reg) rows.lower,
                ),
                Shape::Flat => multiply!(
                    rows,
                    pairs,
                    "tileloadd tmm7, [{pairs} + {line} + 1024]
                     tdpbf16ps tmm0, tmm4, tmm6
                     tdpbf16ps tmm1, tmm4, tmm7",
                ),
                Shape::Narrow => multiply!(
                    rows,
                    pairs,
                    "tileloadd tmm5, [{lower} + {stride}]
                     tdpbf16ps tmm0, tmm4, tmm6
                     tdpbf16ps tmm2, tmm5, tmm6",
                    lower = in(reg) rows.lower,
                ),
            }
        }
    }
}
