//! Bringing operands into the form that a micro-kernel reads: widened, contiguous, zero-padded.

use core::ops::Range;

use super::blocking::panels;
use super::word::Word;
use crate::ctx::Precision;
use crate::elem::Elem;
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatRef, any};

/// One operand of a product as a micro-kernel sees it.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) matrix: AnyMatRef<'a>,
    /// Whether k runs along its rows' elements, or from row to row.
    pub(crate) k_in_rows: bool,
    /// Whether its elements must be rounded to bf16.
    pub(crate) round: bool,
}

impl<'a> Operand<'a> {
    /// A matrix as products of a precision take it.
    #[inline(always)]
    pub(crate) fn of(matrix: AnyMatRef<'a>, k_in_rows: bool, precision: Precision) -> Operand<'a> {
        let round = precision == Precision::Bf16 && !matches!(matrix, AnyMatRef::Bf16(_));
        Operand { matrix, k_in_rows, round }
    }
}

/// Copies the columns `k` of the rows `rows` of X into `stage` as words, one row every `stride` words. Values up
/// to the next multiple of 16 words become zero.
#[inline(always)]
pub(crate) fn stage_rows<S: Simd, W: Word<S>>(
    s: S,
    word: W,
    x: Operand<'_>,
    rows: Range<usize>,
    k: Range<usize>,
    (stage, stride): (&mut [f32], usize),
) {
    any!(AnyMatRef, x.matrix, from => {
        for (r, to) in rows.zip(stage.chunks_exact_mut(stride)) {
            let row = &from.row(r)[k.clone()];
            // Whole vectors apart from the rest: every weight passes here, and checks add up.
            let whole = row.len() / (W::VALUES * LANES);
            for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate().take(whole) {
                // SAFETY: as many vectors of words are in the row.
                let v = unsafe { word.along(s, row.as_ptr().add(i * W::VALUES * LANES), x.round) };
                mem::store(s, to, 0, v);
            }
            if whole * W::VALUES * LANES < row.len() {
                let v = word.along_ragged(s, row, whole * W::VALUES * LANES, x.round);
                mem::store(s, to, whole * LANES, v);
            }
        }
    });
}

/// Packs the rows `k` of the lanes `lanes`, which may end past those of the matrix: these are zero, and so is
/// what a last word lacks.
#[inline(always)]
pub(crate) fn pack_rows<S: Simd, W: Word<S>>(
    s: S,
    word: W,
    v: Operand<'_>,
    k: Range<usize>,
    lanes: Range<usize>,
    packed: &mut [f32],
) {
    debug_assert!(!v.k_in_rows);
    any!(AnyMatRef, v.matrix, from => pack_rows_from(s, word, from, k, lanes, v.round, packed));
}

#[inline(always)]
pub(super) fn pack_rows_from<S: Simd, W: Word<S>, T: Elem>(
    s: S,
    word: W,
    from: MatRef<'_, T>,
    k: Range<usize>,
    lanes: Range<usize>,
    round: bool,
    packed: &mut [f32],
) {
    for (k, to) in k.step_by(W::VALUES).zip(packed.chunks_exact_mut(lanes.len())) {
        for at in (0..lanes.len()).step_by(LANES) {
            mem::store(s, to, at, word.across_ragged(s, from, (k, lanes.start + at), round));
        }
    }
}

/// Packs the lanes `lanes` of V, a matrix `[lanes, K]`, into panels of up to `width` lanes: within a panel all
/// lanes for the first word of k, then for the second, ... Lanes past the end of the matrix are zero. Turns 16 x 16
/// blocks in registers.
#[inline(always)]
pub(crate) fn pack_turned<S: Simd, W: Word<S>>(
    s: S,
    word: W,
    v: Operand<'_>,
    lanes: Range<usize>,
    width: usize,
    packed: &mut [f32],
) {
    debug_assert!(v.k_in_rows);
    s.call(PackTurned { word, v, lanes, width, packed });
}

/// See [`pack_turned`].
struct PackTurned<'a, W> {
    word: W,
    v: Operand<'a>,
    lanes: Range<usize>,
    width: usize,
    packed: &'a mut [f32],
}

impl<S: Simd, W: Word<S>> KernelAt<S> for PackTurned<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let PackTurned { word, v, lanes, width, packed } = self;
        any!(AnyMatRef, v.matrix, from => pack_turned_from(s, word, from, lanes, width, v.round, packed));
    }
}

#[inline(always)]
fn pack_turned_from<S: Simd, W: Word<S>, T: Elem>(
    s: S,
    word: W,
    from: MatRef<'_, T>,
    lanes: Range<usize>,
    width: usize,
    round: bool,
    packed: &mut [f32],
) {
    let depth = from.cols();
    let words = depth.div_ceil(W::VALUES);
    for panel in panels(lanes.clone(), width) {
        let (start, stride) = ((panel.start - lanes.start) * words, panel.len());
        for (group, first) in panel.step_by(LANES).enumerate() {
            let rows = rows_from(from, first);
            for at in (0..words).step_by(LANES) {
                let k = at * W::VALUES;
                let to = &mut packed[start + at * stride + group * LANES..];
                if first + LANES <= from.rows() && k + LANES * W::VALUES <= depth {
                    assert!(to.len() >= (LANES - 1) * stride + LANES);
                    let row_stride = from.row_stride();
                    let at = from.as_ptr().wrapping_add(first * row_stride + k);
                    // SAFETY: the rows are there, and 16 words of each.
                    let block = unsafe { word.turned(s, at, row_stride, round) };
                    for (i, v) in block.into_iter().enumerate() {
                        // SAFETY: the assertion.
                        unsafe { s.store(to.as_mut_ptr().add(i * stride), v) };
                    }
                } else {
                    // A loop and not a closure, which may be left out of line.
                    let mut block = [s.splat(0.0); LANES];
                    for (v, row) in block.iter_mut().zip(rows) {
                        *v = word.along_ragged(s, row, k, round);
                    }
                    for (i, v) in s.transpose(block).into_iter().enumerate().take(words - at) {
                        mem::store(s, to, i * stride, v);
                    }
                }
            }
        }
    }
}

/// 16 rows; those past the last are empty, which load as zeros.
#[inline(always)]
pub(crate) fn rows_from<'a, T>(from: MatRef<'a, T>, first: usize) -> [&'a [T]; LANES] {
    core::array::from_fn(|i| if first + i < from.rows() { from.row(first + i) } else { &[] })
}
