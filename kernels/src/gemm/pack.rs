//! Bringing operands into the form that the register tile reads: widened to f32, contiguous, zero-padded.

use core::ops::Range;

use super::blocking::STAGE_STRIDE;
use super::tile::panels;
use crate::elem::Elem;
use crate::isa::{LANES, Simd};
use crate::mem;
use crate::view::MatRef;

/// 16 elements of a row, rounded to bf16 where the precision asks for it.
#[inline(always)]
fn operand<S: Simd, T: Elem>(s: S, row: &[T], at: usize, round: bool) -> S::F32 {
    let v = mem::load(s, row, at);
    if round { s.round_to_bf16(v) } else { v }
}

/// Copies the columns `k` of the rows `rows` of X into `stage`, one row every [`STAGE_STRIDE`] elements. Rows
/// past the end of the register tile's count keep what was there: their results are not used.
#[inline(always)]
pub(super) fn stage_rows<S: Simd, T: Elem>(
    s: S,
    from: MatRef<'_, T>,
    rows: Range<usize>,
    k: Range<usize>,
    round: bool,
    stage: &mut [f32],
) {
    for (r, to) in rows.zip(stage.chunks_exact_mut(STAGE_STRIDE)) {
        let row = &from.row(r)[k.clone()];
        for at in (0..row.len()).step_by(LANES) {
            mem::store(s, to, at, operand(s, row, at, round));
        }
    }
}

/// Rows of X that will be staged next, to be brought close meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// Their first element; they need not exist, as past the end of a matrix.
    first: *const u8,
    /// Bytes between the starts of rows.
    stride: usize,
    /// Cache lines to ask for in each turn of the inner loop, so that a block's turns cover the rows.
    lines: usize,
}

impl Ahead {
    /// Nothing to bring.
    pub(super) const NONE: Ahead = Ahead { first: core::ptr::null(), stride: 0, lines: 0 };

    /// `R` rows from `row` on at column `k`, spread over turns of `unroll` columns.
    #[inline(always)]
    pub(super) fn rows<S: Simd, T: Elem>(from: MatRef<'_, T>, row: usize, k: usize, unroll: usize) -> Ahead {
        let first = from.as_ptr().wrapping_add(row.wrapping_mul(from.row_stride()).wrapping_add(k));
        let bytes = S::TILE_ROWS * unroll * size_of::<T>();
        let stride = from.row_stride().wrapping_mul(size_of::<T>());
        Ahead { first: first.cast(), stride, lines: bytes.div_ceil(LINE) }
    }

    /// Asks for the lines of turn `turn`: down the rows, then along them.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(self, s: S, turn: usize) {
        for i in turn * self.lines..(turn + 1) * self.lines {
            let (row, line) = (i % S::TILE_ROWS, i / S::TILE_ROWS);
            s.prefetch(self.first.wrapping_add(row.wrapping_mul(self.stride)).wrapping_add(line * LINE));
        }
    }
}

/// How many rows ahead [`pack_direct`] asks for its piece.
const ROWS_AHEAD: usize = 8;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Packs the columns `lanes` of V, given as `[K, lanes]`, into panels of up to `width` lanes: within a panel all
/// lanes for k = 0, then k = 1, ... Lanes past the end of the matrix are zero.
///
/// Goes through the matrix a row at a time, since rows may lie pages apart.
#[inline(always)]
pub(super) fn pack_direct<S: Simd, T: Elem>(
    s: S,
    from: MatRef<'_, T>,
    lanes: Range<usize>,
    width: usize,
    round: bool,
    packed: &mut [f32],
) {
    let end = lanes.end.min(from.cols());
    for k in 0..from.rows() {
        let row = from.row(k);
        // The hardware does not see where the next row's piece starts.
        let ahead = from.as_ptr().wrapping_add((k + ROWS_AHEAD).wrapping_mul(from.row_stride()));
        for at in (lanes.start..end).step_by(LINE / size_of::<T>()) {
            s.prefetch(ahead.wrapping_add(at).cast());
        }
        for panel in panels(lanes.clone(), width) {
            let start = (panel.start - lanes.start) * from.rows() + k * panel.len();
            for (j, at) in panel.step_by(LANES).enumerate() {
                mem::store(s, packed, start + j * LANES, operand(s, row, at, round));
            }
        }
    }
}

/// Packs the rows `lanes` of V, given as `[lanes, K]`, into panels as [`pack_direct`] does, turning 16 x 16
/// blocks in registers.
#[inline(always)]
pub(super) fn pack_transposed<S: Simd, T: Elem>(
    s: S,
    from: MatRef<'_, T>,
    lanes: Range<usize>,
    width: usize,
    round: bool,
    packed: &mut [f32],
) {
    let depth = from.cols();
    for panel in panels(lanes.clone(), width) {
        let (start, stride) = ((panel.start - lanes.start) * depth, panel.len());
        for (group, first) in panel.step_by(LANES).enumerate() {
            // Past the last row: an empty one, which loads as zeros.
            let rows: [&[T]; LANES] =
                core::array::from_fn(|i| if first + i < from.rows() { from.row(first + i) } else { &[] });
            for k in (0..depth).step_by(LANES) {
                let block = rows.map(|row| operand(s, row, k.min(row.len()), round));
                for (i, v) in s.transpose(block).into_iter().enumerate().take(depth - k) {
                    mem::store(s, packed, start + (k + i) * stride + group * LANES, v);
                }
            }
        }
    }
}
