//! Bringing operands into the form that the register tile reads: widened to f32, contiguous, zero-padded.

use core::ops::Range;

use super::blocking::STAGE_STRIDE;
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

/// Packs the columns `lanes` of V, given as `[K, lanes]`, into one panel: all of them for k = 0, then k = 1, ...
/// Lanes past the end of the matrix are zero.
#[inline(always)]
pub(super) fn pack_direct<S: Simd, T: Elem>(
    s: S,
    from: MatRef<'_, T>,
    lanes: Range<usize>,
    round: bool,
    panel: &mut [f32],
) {
    for (k, to) in panel.chunks_exact_mut(lanes.len()).enumerate() {
        for (at, to) in lanes.clone().step_by(LANES).zip(to.chunks_exact_mut(LANES)) {
            mem::store(s, to, 0, operand(s, from.row(k), at, round));
        }
    }
}

/// Packs the rows `lanes` of V, given as `[lanes, K]`, into one panel, turning 16 x 16 blocks in registers.
/// Lanes past the end of the matrix are zero.
#[inline(always)]
pub(super) fn pack_transposed<S: Simd, T: Elem>(
    s: S,
    from: MatRef<'_, T>,
    lanes: Range<usize>,
    round: bool,
    panel: &mut [f32],
) {
    let width = lanes.len();
    for (group, first) in lanes.step_by(LANES).enumerate() {
        for k in (0..from.cols()).step_by(LANES) {
            let mut block = [s.splat(0.0); LANES];
            for (i, v) in block.iter_mut().enumerate() {
                if first + i < from.rows() {
                    *v = operand(s, from.row(first + i), k, round);
                }
            }
            let block = s.transpose(block);
            let count = LANES.min(from.cols() - k);
            for (i, v) in block.into_iter().enumerate().take(count) {
                mem::store(s, panel, (k + i) * width + group * LANES, v);
            }
        }
    }
}
