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
        // Whole vectors apart from the rest: every weight passes here, and checks add up.
        let (whole, rest) = row.as_chunks::<LANES>();
        for (from, to) in whole.iter().zip(to.as_chunks_mut::<LANES>().0) {
            mem::store(s, to, 0, operand(s, from, 0, round));
        }
        if !rest.is_empty() {
            mem::store(s, to, row.len() - rest.len(), operand(s, rest, 0, round));
        }
    }
}

/// The cache lines of the rows of X that will be staged next, asked for a few in each turn of the inner loop.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The next line; it need not exist, as past the end of a matrix.
    at: *const u8,
    /// Lines a turn, so that the turns of a block cover the rows.
    lines: usize,
    /// Turns until the end of this row, and of a whole row.
    turns: (usize, usize),
    /// Bytes from the end of a row's part to the start of the next one's.
    gap: usize,
}

impl Ahead {
    /// Nothing to bring.
    pub(super) const NONE: Ahead = Ahead { at: core::ptr::null(), lines: 0, turns: (usize::MAX, 0), gap: 0 };

    /// A register tile's rows from `row` on, `depth` columns from `k` on, for turns of `unroll` columns.
    #[inline(always)]
    pub(super) fn rows<S: Simd, T: Elem>(
        from: MatRef<'_, T>,
        (row, k): (usize, usize),
        depth: usize,
        unroll: usize,
    ) -> Ahead {
        let at = from.as_ptr().wrapping_add(row.wrapping_mul(from.row_stride()).wrapping_add(k));
        let lines = (S::TILE_ROWS * unroll * size_of::<T>()).div_ceil(LINE);
        let turns = (depth * size_of::<T>() / LINE / lines).max(1);
        let gap = from.row_stride().wrapping_mul(size_of::<T>()).wrapping_sub(turns * lines * LINE);
        Ahead { at: at.cast(), lines, turns: (turns, turns), gap }
    }

    /// Asks for the lines of one turn.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&mut self, s: S) {
        for _ in 0..self.lines {
            s.prefetch(self.at);
            self.at = self.at.wrapping_add(LINE);
        }
        self.turns.0 -= 1;
        if self.turns.0 == 0 {
            self.at = self.at.wrapping_add(self.gap);
            self.turns.0 = self.turns.1;
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
