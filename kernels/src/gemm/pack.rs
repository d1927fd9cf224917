//! Packing: operands in the form that a micro-kernel reads, which is widened, contiguous and padded with zeros.

use core::ops::Range;

use super::blocking::panels;
use super::kpack::KPack;
use crate::ctx::Precision;
use crate::elem::Elem;
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatRef, any};

/// One operand of a product as a micro-kernel sees it.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) matrix: AnyMatRef<'a>,
    /// Whether k runs along the elements of a row, or from row to row.
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

/// Copies the columns `k` of the rows `rows` of X into the staging buffer as packs, one row every `stride` packs. Values up
/// to the next multiple of 16 packs become zero.
#[inline(always)]
pub(crate) fn copy_to_staging<S: Simd, P: KPack<S>>(
    s: S,
    kpack: P,
    x: Operand<'_>,
    rows: Range<usize>,
    k: Range<usize>,
    (staging, stride): (&mut [f32], usize),
) {
    any!(AnyMatRef, x.matrix, from => {
        for (r, to) in rows.zip(staging.chunks_exact_mut(stride)) {
            let row = &from.row(r)[k.clone()];
            // Whole vectors apart from the rest: every weight passes here, and checks add up.
            let whole = row.len() / (P::LEN * LANES);
            for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate().take(whole) {
                // SAFETY: the row has `whole` vectors of packs.
                let v = unsafe { kpack.load_along_k(s, row.as_ptr().add(i * P::LEN * LANES), x.round) };
                mem::store(s, to, 0, v);
            }
            if whole * P::LEN * LANES < row.len() {
                let v = kpack.load_along_k_partial(s, row, whole * P::LEN * LANES, x.round);
                mem::store(s, to, whole * LANES, v);
            }
        }
    });
}

/// Packs the rows `k` of the lanes `lanes` of V, a matrix `[K, lanes]`. Lanes past the end of the matrix are zero, and so
/// are the missing values of the last pack.
#[inline(always)]
pub(crate) fn pack_rows<S: Simd, P: KPack<S>>(
    s: S,
    kpack: P,
    v: Operand<'_>,
    k: Range<usize>,
    lanes: Range<usize>,
    packed: &mut [f32],
) {
    debug_assert!(!v.k_in_rows);
    any!(AnyMatRef, v.matrix, from => pack_rows_from(s, kpack, from, k, lanes, v.round, packed));
}

#[inline(always)]
pub(super) fn pack_rows_from<S: Simd, P: KPack<S>, T: Elem>(
    s: S,
    kpack: P,
    from: MatRef<'_, T>,
    k: Range<usize>,
    lanes: Range<usize>,
    round: bool,
    packed: &mut [f32],
) {
    for (k, to) in k.step_by(P::LEN).zip(packed.chunks_exact_mut(lanes.len())) {
        for at in (0..lanes.len()).step_by(LANES) {
            mem::store(s, to, at, kpack.load_across_k_partial(s, from, (k, lanes.start + at), round));
        }
    }
}

/// Packs the lanes `lanes` of V, a matrix `[lanes, K]`, into panels of up to `width` lanes. A panel has all its lanes for
/// the first pack of k, then for the second, and so on. Lanes past the end of the matrix are zero. Blocks of 16 x 16 packs
/// are transposed in registers.
#[inline(always)]
pub(crate) fn pack_transposed<S: Simd, P: KPack<S>>(
    s: S,
    kpack: P,
    v: Operand<'_>,
    lanes: Range<usize>,
    width: usize,
    packed: &mut [f32],
) {
    debug_assert!(v.k_in_rows);
    s.call(PackTransposed { kpack, v, lanes, width, packed });
}

/// See [`pack_transposed`].
struct PackTransposed<'a, P> {
    kpack: P,
    v: Operand<'a>,
    lanes: Range<usize>,
    width: usize,
    packed: &'a mut [f32],
}

impl<S: Simd, P: KPack<S>> KernelAt<S> for PackTransposed<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let PackTransposed { kpack, v, lanes, width, packed } = self;
        any!(AnyMatRef, v.matrix, from => pack_transposed_from(s, kpack, from, lanes, width, v.round, packed));
    }
}

#[inline(always)]
fn pack_transposed_from<S: Simd, P: KPack<S>, T: Elem>(
    s: S,
    kpack: P,
    from: MatRef<'_, T>,
    lanes: Range<usize>,
    width: usize,
    round: bool,
    packed: &mut [f32],
) {
    let depth = from.cols();
    let packs = depth.div_ceil(P::LEN);
    for panel in panels(lanes.clone(), width) {
        let (start, stride) = ((panel.start - lanes.start) * packs, panel.len());
        for (vector, first) in panel.step_by(LANES).enumerate() {
            let rows = rows_from(from, first);
            for at in (0..packs).step_by(LANES) {
                let k = at * P::LEN;
                let to = &mut packed[start + at * stride + vector * LANES..];
                if first + LANES <= from.rows() && k + LANES * P::LEN <= depth {
                    assert!(to.len() >= (LANES - 1) * stride + LANES);
                    let row_stride = from.row_stride();
                    let at = from.as_ptr().wrapping_add(first * row_stride + k);
                    // SAFETY: the matrix has these 16 rows, and 16 packs of each from `k` on.
                    let block = unsafe { kpack.load_transposed(s, at, row_stride, round) };
                    for (i, v) in block.into_iter().enumerate() {
                        // SAFETY: the assertion.
                        unsafe { s.store(to.as_mut_ptr().add(i * stride), v) };
                    }
                } else {
                    // A loop and not a closure, which may be left out of line.
                    let mut block = [s.splat(0.0); LANES];
                    for (v, row) in block.iter_mut().zip(rows) {
                        *v = kpack.load_along_k_partial(s, row, k, round);
                    }
                    for (i, v) in s.transpose(block).into_iter().enumerate().take(packs - at) {
                        mem::store(s, to, i * stride, v);
                    }
                }
            }
        }
    }
}

/// 16 rows from `first` on. Rows past the last one are empty, and load as zeros.
#[inline(always)]
pub(crate) fn rows_from<'a, T>(from: MatRef<'a, T>, first: usize) -> [&'a [T]; LANES] {
    core::array::from_fn(|i| if first + i < from.rows() { from.row(first + i) } else { &[] })
}
