//! Tile registers: four of sums, two by two, and two each of both operands.

use core::arch::asm;

use crate::isa::amx::{Amx, TileRegisters};

/// Bytes of a row of a tile, and of a tile.
const ROW: usize = 64;
const TILE: usize = 16 * ROW;

/// How many tiles each operand has; the other sums are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Two of rows, two of pairs.
    Square,
    /// One of rows, two of pairs.
    Flat,
    /// Two of rows, one of pairs.
    Narrow,
}

impl Shape {
    /// Elements of sums whose rows are `stride` apart.
    #[inline(always)]
    fn len(self, stride: usize) -> usize {
        match self {
            Shape::Square => 31 * stride + 32,
            Shape::Flat => 15 * stride + 32,
            Shape::Narrow => 31 * stride + 16,
        }
    }
}

/// The tile registers, configured on this thread. Compiled code does not use them; by the calling convention they are
/// not kept across calls, and nothing that is called between these functions uses them.
pub(crate) struct TileUnit {
    _registers: TileRegisters,
}

/// Tiles of rows, block after block: where the first 16 rows and the second begin, and bytes between rows and between
/// blocks.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) upper: *const u8,
    pub(crate) lower: *const u8,
    pub(crate) stride: usize,
    pub(crate) step: usize,
}

impl Rows {
    /// Those of a stage, one tile after the other.
    #[inline(always)]
    pub(crate) fn staged(stage: &[f32], lanes: usize) -> Rows {
        let upper: *const u8 = stage.as_ptr().cast();
        Rows { upper, lower: upper.wrapping_add(TILE), stride: ROW, step: lanes * ROW }
    }

    /// Whether every row begins at a cache line.
    #[inline(always)]
    pub(super) fn aligned(&self) -> bool {
        self.upper.align_offset(ROW) == 0 && self.stride.is_multiple_of(ROW)
    }

    /// Those of a stage with so many parts of each block behind one another.
    #[inline(always)]
    pub(crate) fn in_parts(self, parts: usize) -> Rows {
        Rows { step: parts * self.step, ..self }
    }

    /// These tiles, so many bytes further on.
    #[inline(always)]
    pub(crate) fn offset(self, bytes: usize) -> Rows {
        Rows { upper: self.upper.wrapping_add(bytes), lower: self.lower.wrapping_add(bytes), ..self }
    }

    /// Goes on to the next block.
    #[inline(always)]
    pub(crate) fn advance(&mut self) {
        (self.upper, self.lower) = (self.upper.wrapping_add(self.step), self.lower.wrapping_add(self.step));
    }
}

/// Tiles of pairs of a block: where the first 16 lanes and the second begin, and bytes between pairs.
#[derive(Clone, Copy)]
pub(crate) struct Pairs {
    pub(crate) left: *const u8,
    pub(crate) right: *const u8,
    pub(crate) stride: usize,
}

impl Pairs {
    /// Those of a stage, one tile after the other.
    #[inline(always)]
    pub(crate) fn staged(stage: &[f32]) -> Pairs {
        let left: *const u8 = stage.as_ptr().cast();
        Pairs { left, right: left.wrapping_add(TILE), stride: ROW }
    }
}

/// The operand of which each tile is used once before others have taken its place in the first-level cache: its loads
/// say so, and leave that cache to the other operand and to sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streamed {
    Rows,
    Pairs,
    /// None is used only once.
    Neither,
}

/// A block of a shape, with the instructions that load rows and pairs.
macro_rules! multiply {
    ($shape:expr, $rows:ident, $pairs:ident, $load_rows:literal, $load_pairs:literal) => {
        match $shape {
            Shape::Square => multiply!(
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
            Shape::Flat => multiply!(
                @ $rows, $pairs, $load_rows, $load_pairs,
                [concat!($load_pairs, " tmm7, [{right} + {line}]"),
                 "tdpbf16ps tmm0, tmm4, tmm6",
                 "tdpbf16ps tmm1, tmm4, tmm7"],
                right = in(reg) $pairs.right,
            ),
            Shape::Narrow => multiply!(
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

/// An instruction for each tile of sums that a shape has, around its name.
macro_rules! each_sum {
    ($shape:ident, $sums:expr, $stride:ident, $before:literal, $after:literal) => {{
        let (sums, shape) = ($sums, $shape);
        each_sum!(@ sums, $stride, $before, "tmm0", $after);
        if shape != Shape::Narrow {
            each_sum!(@ sums.add(16), $stride, $before, "tmm1", $after);
        }
        if shape != Shape::Flat {
            each_sum!(@ sums.add(16 * $stride), $stride, $before, "tmm2", $after);
        }
        if shape == Shape::Square {
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

impl TileUnit {
    pub(crate) fn configure(proof: Amx) -> TileUnit {
        TileUnit { _registers: TileRegisters::configure(proof) }
    }

    /// Sums of nothing.
    #[inline(always)]
    pub(crate) fn zero(&self) {
        // SAFETY: the registers are configured.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nomem, nostack));
        }
    }

    /// Sums to memory: 16 or 32 rows of as many, `stride` elements apart, as the shape says.
    #[inline(always)]
    pub(crate) fn store(&self, shape: Shape, sums: &mut [f32], stride: usize) {
        assert!(sums.len() >= shape.len(stride));
        // SAFETY: the registers are configured; the sums are there.
        unsafe { each_sum!(shape, sums.as_mut_ptr(), stride, "tilestored [{at} + {stride}], ", "") };
    }

    /// Goes on from the sums in memory, which lie as [`TileUnit::store`] leaves them.
    #[inline(always)]
    pub(crate) fn load(&self, shape: Shape, sums: &[f32], stride: usize) {
        assert!(sums.len() >= shape.len(stride));
        // SAFETY: the registers are configured; the sums are there.
        unsafe { each_sum!(shape, sums.as_ptr(), stride, "tileloadd ", ", [{at} + {stride}]") };
    }

    /// Adds the products of a block of 32 values of k.
    ///
    /// # Safety
    /// `rows` and `pairs` have as many tiles as the shape says.
    #[inline(always)]
    pub(crate) unsafe fn multiply(&self, shape: Shape, rows: Rows, pairs: Pairs, streamed: Streamed) {
        // SAFETY: the registers are configured; the caller's contract.
        unsafe {
            match streamed {
                Streamed::Rows => multiply!(shape, rows, pairs, "tileloaddt1", "tileloadd"),
                Streamed::Pairs => multiply!(shape, rows, pairs, "tileloadd", "tileloaddt1"),
                Streamed::Neither => multiply!(shape, rows, pairs, "tileloadd", "tileloadd"),
            }
        }
    }
}
