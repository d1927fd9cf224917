//! Bringing operands into the form that a micro-kernel reads: widened, contiguous, zero-padded.

use core::ops::Range;

use super::blocking::panels;
use crate::elem::Elem;
use crate::isa::{LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatRef, any};

/// One operand of a product as a micro-kernel sees it.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) matrix: AnyMatRef<'a>,
    /// Whether k runs along its rows' elements, or from row to row.
    pub(super) k_in_rows: bool,
    /// Whether its elements must be rounded to bf16.
    pub(super) round: bool,
}

/// 16 elements of a row, rounded to bf16 where the precision asks for it.
#[inline(always)]
pub(super) fn load<S: Simd, T: Elem>(s: S, row: &[T], at: usize, round: bool) -> S::F32 {
    let v = mem::load(s, row, at);
    if round { s.round_to_bf16(v) } else { v }
}

/// Copies the columns `k` of the rows `rows` of X into `stage`, one row every `stride` elements. Elements up to
/// the next multiple of 16 become zero.
#[inline(always)]
pub(super) fn stage_rows<S: Simd>(
    s: S,
    x: Operand<'_>,
    rows: Range<usize>,
    k: Range<usize>,
    (stage, stride): (&mut [f32], usize),
) {
    any!(AnyMatRef, x.matrix, from => {
        for (r, to) in rows.zip(stage.chunks_exact_mut(stride)) {
            let row = &from.row(r)[k.clone()];
            // Whole vectors apart from the rest: every weight passes here, and checks add up.
            let (whole, rest) = row.as_chunks::<LANES>();
            for (from, to) in whole.iter().zip(to.as_chunks_mut::<LANES>().0) {
                mem::store(s, to, 0, load(s, from, 0, x.round));
            }
            if !rest.is_empty() {
                mem::store(s, to, row.len() - rest.len(), load(s, rest, 0, x.round));
            }
        }
    });
}

/// Packs the rows `k` of the lanes `lanes`, which may end past those of the matrix: these are zero.
#[inline(always)]
pub(super) fn pack_rows<S: Simd, T: Elem>(
    s: S,
    from: MatRef<'_, T>,
    k: Range<usize>,
    lanes: Range<usize>,
    round: bool,
    packed: &mut [f32],
) {
    for (k, to) in k.zip(packed.chunks_exact_mut(lanes.len())) {
        let row = &from.row(k)[lanes.start..];
        for at in (0..lanes.len()).step_by(LANES) {
            mem::store(s, to, at, load(s, row, at.min(row.len()), round));
        }
    }
}

/// Packs the lanes `lanes` of V, a matrix `[lanes, K]`, into panels of up to `width` lanes: within a panel all
/// lanes for k = 0, then k = 1, ... Lanes past the end of the matrix are zero. Turns 16 x 16 blocks in registers.
#[inline(always)]
pub(super) fn pack_turned<S: Simd>(
    s: S,
    v: Operand<'_>,
    lanes: Range<usize>,
    width: usize,
    packed: &mut [f32],
) {
    debug_assert!(v.k_in_rows);
    any!(AnyMatRef, v.matrix, from => pack_turned_from(s, from, lanes, width, v.round, packed));
}

#[inline(always)]
fn pack_turned_from<S: Simd, T: Elem>(
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
            let rows = rows_from(from, first);
            for k in (0..depth).step_by(LANES) {
                // Loops and not closures: a closure may be left out of line.
                let mut block = [s.splat(0.0); LANES];
                if first + LANES <= from.rows() && k + LANES <= depth {
                    for (v, row) in block.iter_mut().zip(rows) {
                        // SAFETY: the row is there, and 16 elements of it.
                        *v = unsafe { T::load(s, row.as_ptr().add(k)) };
                    }
                } else {
                    for (v, row) in block.iter_mut().zip(rows) {
                        *v = mem::load(s, row, k.min(row.len()));
                    }
                }
                if round {
                    for v in &mut block {
                        *v = s.round_to_bf16(*v);
                    }
                }
                let to = &mut packed[start + k * stride + group * LANES..];
                for (i, v) in s.transpose(block).into_iter().enumerate().take(depth - k) {
                    mem::store(s, to, i * stride, v);
                }
            }
        }
    }
}

/// 16 rows; those past the last are empty, which load as zeros.
#[inline(always)]
pub(super) fn rows_from<'a, T>(from: MatRef<'a, T>, first: usize) -> [&'a [T]; LANES] {
    core::array::from_fn(|i| if first + i < from.rows() { from.row(first + i) } else { &[] })
}
