//! The forms of tiles: blocks of 32 values of k of 16 or 32 lanes each, as bfloat16.
//!
//! In the form of *rows*, a tile has 16 lanes, 32 values of k each. In the form of *pairs*, it has 16 pairs of
//! values of k, 16 lanes each. What lacks is zero.

use core::ops::Range;

use super::tiles::Rows;
use crate::elem::Elem;
use crate::gemm::pack::Operand;
use crate::gemm::word::Word;
use crate::isa::avx512::Avx512;
use crate::isa::avx512_bf16::Bf16Pairs;
use crate::isa::{LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatRef, any};

/// Values of k in a block.
pub(crate) const STEP: usize = 32;

/// Elements of scratch of a tile.
const TILE: usize = LANES * LANES;

/// Elements of scratch of a block of some lanes.
pub(crate) const fn block_len(lanes: usize) -> usize {
    lanes * LANES
}

/// In how many parts an operand is, of at most so many: numbers stored as bf16 are whole.
pub(super) fn parts_of(operand: Operand<'_>, most: usize) -> usize {
    if matches!(operand.matrix, AnyMatRef::Bf16(_)) { 1 } else { most }
}

/// Lanes of an operand with how they are brought into tiles.
#[derive(Clone)]
pub(crate) struct Lanes<'a> {
    pub(crate) operand: Operand<'a>,
    /// Up to 32.
    pub(crate) lanes: Range<usize>,
    /// Whether the tiles are of the form of pairs.
    pub(crate) pairs: bool,
}

impl Lanes<'_> {
    /// Tiles of a block.
    pub(super) fn tiles(&self) -> usize {
        self.lanes.len().div_ceil(LANES)
    }

    /// The rows as tiles where they lie, if they can be loaded from there.
    #[inline(always)]
    pub(crate) fn in_place(&self) -> Option<Rows> {
        let AnyMatRef::Bf16(matrix) = self.operand.matrix else { return None };
        let whole = self.lanes.len() == 2 * LANES && matrix.cols().is_multiple_of(STEP);
        if self.pairs || !self.operand.k_in_rows || !whole {
            return None;
        }
        let stride = matrix.row_stride().wrapping_mul(2);
        let upper: *const u8 = matrix.block(self.lanes.clone(), 0..matrix.cols()).as_ptr().cast();
        Some(Rows { upper, lower: upper.wrapping_add(stride.wrapping_mul(LANES)), stride, step: 2 * STEP })
    }

    /// Brings a block of k into `to`, in one part or three of as many tiles each: the nearest bf16, the nearest to what
    /// that leaves, and the rest.
    #[inline(always)]
    pub(super) fn bring_parts(
        &self,
        s: Avx512,
        word: Bf16Pairs,
        block: usize,
        (to, parts): (&mut [f32], usize),
    ) {
        let len = to.len() / parts;
        if parts_of(self.operand, parts) == 1 {
            return self.bring(s, word, block, &mut to[..len]);
        }
        self.bring_rows(s, word, block, 0..len / LANES, to);
        if self.operand.k_in_rows && self.pairs {
            to.as_chunks_mut::<TILE>().0.iter_mut().for_each(|tile| turn(s, tile));
        }
    }

    /// Some rows of the tiles of a block in three parts; tiles that must be turned are not yet.
    #[inline(always)]
    pub(super) fn bring_rows(
        &self,
        s: Avx512,
        word: Bf16Pairs,
        block: usize,
        rows: Range<usize>,
        to: &mut [f32],
    ) {
        let (k, along) = (block * STEP, self.operand.k_in_rows);
        let (first, rest) = to.split_at_mut(to.len() / 3);
        let (second, third) = rest.split_at_mut(first.len());
        let [first, second, third] =
            [first, second, third].map(|part| &mut part.as_chunks_mut::<LANES>().0[rows.clone()]);
        any!(AnyMatRef, self.operand.matrix, from => {
            for (((i, first), second), third) in rows.zip(first).zip(second).zip(third) {
                let (tile, row) = (i / LANES * LANES, i % LANES);
                let whole = match along {
                    true => halves(s, from, self.lanes.start + i, k),
                    false => rows_of_pair(s, from, k + 2 * row, self.lanes.start + tile),
                };
                let left = part(s, word, whole, along, first);
                let left = part(s, word, left, along, second);
                part(s, word, left, along, third);
            }
        });
    }

    /// Brings a block of k into `to`, which has as many tiles.
    #[inline(always)]
    pub(crate) fn bring(&self, s: Avx512, word: Bf16Pairs, block: usize, to: &mut [f32]) {
        let k = block * STEP;
        any!(AnyMatRef, self.operand.matrix, from => {
            for (tile, to) in to.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                let first = self.lanes.start + tile * LANES;
                match (self.operand.k_in_rows, self.pairs) {
                    (true, false) => along(s, word, from, (first, k), to),
                    (true, true) => turned(s, word, from, (first, k), to),
                    (false, true) => across(s, word, from, (k, first), to),
                    (false, false) => {
                        across(s, word, from, (k, first), to);
                        turn(s, to);
                    }
                }
            }
        });
    }
}

/// Stores two vectors rounded to bf16, joined or in turns; what that leaves of them.
#[inline(always)]
fn part(
    s: Avx512,
    word: Bf16Pairs,
    [a, b]: [<Avx512 as Simd>::F32; 2],
    along: bool,
    to: &mut [f32; LANES],
) -> [<Avx512 as Simd>::F32; 2] {
    let joined = word.join(s, a, b);
    let pairs = word.alternate(s, joined);
    mem::store(s, to, 0, if along { joined } else { pairs });
    let [rounded_a, rounded_b] = s.split_bf16(pairs);
    [s.sub(a, rounded_a), s.sub(b, rounded_b)]
}

/// 32 values of a row; those past an end of the matrix are zeros.
#[inline(always)]
fn halves<T: Elem>(s: Avx512, from: MatRef<'_, T>, row: usize, k: usize) -> [<Avx512 as Simd>::F32; 2] {
    let row = if row < from.rows() { from.row(row) } else { &[] };
    if k + STEP <= row.len() {
        // SAFETY: 32 elements are there.
        return unsafe { [T::load(s, row.as_ptr().add(k)), T::load(s, row.as_ptr().add(k + LANES))] };
    }
    [k, k + LANES].map(|at| mem::load(s, row, at.min(row.len())))
}

/// 16 lanes of two rows; those past an end of the matrix are zeros.
#[inline(always)]
fn rows_of_pair<T: Elem>(
    s: Avx512,
    from: MatRef<'_, T>,
    k: usize,
    lane: usize,
) -> [<Avx512 as Simd>::F32; 2] {
    if k + 2 <= from.rows() && lane + LANES <= from.cols() {
        let stride = from.row_stride();
        let first = from.as_ptr().wrapping_add(k * stride + lane);
        // SAFETY: 16 elements of two rows are there.
        return unsafe { [T::load(s, first), T::load(s, first.wrapping_add(stride))] };
    }
    [k, k + 1].map(|k| {
        let row = if k < from.rows() { from.row(k) } else { &[] };
        mem::load(s, row, lane.min(row.len()))
    })
}

/// Rows along k, as they lie.
#[inline(always)]
fn along<T: Elem>(
    s: Avx512,
    word: Bf16Pairs,
    from: MatRef<'_, T>,
    (row, k): (usize, usize),
    to: &mut [f32; TILE],
) {
    if row + LANES <= from.rows() && k + STEP <= from.cols() {
        let stride = from.row_stride();
        let first = from.as_ptr().wrapping_add(row * stride + k);
        for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            // SAFETY: 16 rows are there, and 32 elements of each.
            mem::store(s, to, 0, unsafe { word.along(s, first.wrapping_add(i * stride), true) });
        }
        return;
    }
    for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        mem::store(s, to, 0, along_ragged(s, word, from, row + i, k));
    }
}

/// 32 values of a row; those past an end of the matrix are zeros. Row by row: with an array of 16 rows first, products of
/// 8 took 5 % longer.
#[inline(always)]
fn along_ragged<T: Elem>(
    s: Avx512,
    word: Bf16Pairs,
    from: MatRef<'_, T>,
    row: usize,
    k: usize,
) -> <Avx512 as Simd>::F32 {
    let row = if row < from.rows() { from.row(row) } else { &[] };
    word.along_ragged(s, row, k, true)
}

/// Rows along k, turned.
#[inline(always)]
fn turned<T: Elem>(
    s: Avx512,
    word: Bf16Pairs,
    from: MatRef<'_, T>,
    (row, k): (usize, usize),
    to: &mut [f32; TILE],
) {
    let block = if row + LANES <= from.rows() && k + STEP <= from.cols() {
        let stride = from.row_stride();
        // SAFETY: 16 rows are there, and 32 elements of each.
        unsafe { word.turned(s, from.as_ptr().wrapping_add(row * stride + k), stride, !T::IS_BF16) }
    } else {
        let mut block = [s.splat(0.0); LANES];
        for (i, v) in block.iter_mut().enumerate() {
            *v = along_ragged(s, word, from, row + i, k);
        }
        s.transpose(block)
    };
    for (to, v) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(block) {
        mem::store(s, to, 0, v);
    }
}

/// Rows across k, two by two.
#[inline(always)]
fn across<T: Elem>(
    s: Avx512,
    word: Bf16Pairs,
    from: MatRef<'_, T>,
    (k, lane): (usize, usize),
    to: &mut [f32; TILE],
) {
    if k + STEP <= from.rows() && lane + LANES <= from.cols() {
        let stride = from.row_stride();
        let first = from.as_ptr().wrapping_add(k * stride + lane);
        for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            // SAFETY: 32 rows are there, and 16 elements of each.
            mem::store(s, to, 0, unsafe { word.across(s, first.wrapping_add(2 * i * stride), stride, true) });
        }
        return;
    }
    for (i, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        mem::store(s, to, 0, word.across_ragged(s, from, (k + 2 * i, lane), true));
    }
}

/// Makes rows of pairs.
#[inline(always)]
fn turn(s: Avx512, tile: &mut [f32; TILE]) {
    let rows = tile.as_chunks_mut::<LANES>().0;
    let mut block = [s.splat(0.0); LANES];
    for (v, row) in block.iter_mut().zip(&*rows) {
        *v = mem::load(s, row, 0);
    }
    for (row, v) in rows.iter_mut().zip(s.transpose(block)) {
        mem::store(s, row, 0, v);
    }
}
