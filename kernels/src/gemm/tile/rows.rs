//! The broadcast operand of the register tile: rows in memory, rows in a stage, or columns.
//!
//! The tile reads one word of each of its rows at a time and does not care where it lies: each form gives a
//! [`WordsOf`], whose addresses the inner loop keeps in registers. Rows that have the form of words already are read in
//! place; a stage in the first-level cache holds others as words, a block of k at a time. Columns are for attention's
//! values, where a row has the words of one k.

use core::marker::PhantomData;
use core::ops::Range;

use crate::gemm::K_BLOCK;
use crate::gemm::pack::{Operand, stage_rows};
use crate::gemm::word::{Place, Word};
use crate::isa::{LANES, Simd};
use crate::view::{AnyMatRef, MatRef};

/// The broadcast operand of a register tile.
pub(super) trait Factors {
    /// Its words in R rows, those that are not there repeating others.
    fn rows<const R: usize>(&self) -> impl WordsOf<R>;
}

/// The words of R rows of the broadcast operand, from some word on.
pub(super) trait WordsOf<const R: usize>: Copy {
    /// Where word `i` of row `r` is, if there is one.
    fn at(&self, r: usize, i: usize) -> Place;

    /// Goes on by so many words.
    fn advance(&mut self, words: usize);
}

/// The rows of a register tile: where each starts, and how many words of it are readable.
pub(super) struct Rows<'a> {
    first: *const u8,
    /// Bytes between rows.
    stride: usize,
    /// Rows that there are; the others repeat the last.
    count: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> Rows<'a> {
    /// The columns `k` of `rows`, of which there is at least one: in place, or copied into `stage`.
    #[inline(always)]
    pub(super) fn at<'b: 'a, S: Simd, W: Word<S>>(
        s: S,
        word: W,
        x: Operand<'b>,
        rows: Range<usize>,
        k: Range<usize>,
        stage: &'a mut [f32],
    ) -> Rows<'a> {
        match x.matrix {
            AnyMatRef::F32(matrix) if W::VALUES == 1 && !x.round => Rows::of(matrix.block(rows, k)),
            AnyMatRef::Bf16(matrix) if W::VALUES == 2 && k.len().is_multiple_of(2) => {
                Rows::of(matrix.block(rows, k))
            }
            _ => {
                let count = rows.len();
                stage_rows(s, word, x, rows, k, (&mut *stage, STAGE_STRIDE));
                let stride = STAGE_STRIDE * size_of::<f32>();
                Rows { first: stage.as_ptr().cast(), stride, count, lifetime: PhantomData }
            }
        }
    }

    #[inline(always)]
    fn of<T>(block: MatRef<'a, T>) -> Rows<'a> {
        let stride = block.row_stride().wrapping_mul(size_of::<T>());
        Rows { first: block.as_ptr().cast(), stride, count: block.rows(), lifetime: PhantomData }
    }
}

impl Factors for Rows<'_> {
    #[inline(always)]
    fn rows<const R: usize>(&self) -> impl WordsOf<R> {
        let row = |r: usize| self.first.wrapping_add(r.min(self.count - 1).wrapping_mul(self.stride));
        Pointers { rows: core::array::from_fn::<_, R, _>(|r| row(r).cast()), index: 0 }
    }
}

/// A pointer for each row, and one index for all.
#[derive(Clone, Copy)]
struct Pointers<const R: usize> {
    rows: [*const f32; R],
    index: usize,
}

impl<const R: usize> WordsOf<R> for Pointers<R> {
    #[inline(always)]
    fn at(&self, r: usize, i: usize) -> Place {
        Place { base: self.rows[r], index: self.index + i }
    }

    #[inline(always)]
    fn advance(&mut self, words: usize) {
        self.index += words;
    }
}

/// The rows of a register tile that are columns in memory: the words of one k side by side, those of the next
/// some bytes on.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    first: *const f32,
    step: usize,
    rows: usize,
    pub(super) depth: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> Columns<'a> {
    /// The columns of a matrix of words, from column `at` on.
    #[inline(always)]
    pub(crate) fn of(matrix: MatRef<'a, f32>, at: usize) -> Columns<'a> {
        let (depth, rows) = (matrix.rows(), matrix.cols() - at);
        let step = matrix.row_stride();
        Columns { first: matrix.as_ptr().wrapping_add(at), step, rows, depth, lifetime: PhantomData }
    }
}

impl Factors for Columns<'_> {
    #[inline(always)]
    fn rows<const R: usize>(&self) -> impl WordsOf<R> {
        assert!(R <= self.rows);
        *self
    }
}

impl<const R: usize> WordsOf<R> for Columns<'_> {
    #[inline(always)]
    fn at(&self, r: usize, i: usize) -> Place {
        Place { base: self.first.wrapping_add(i * self.step), index: r }
    }

    #[inline(always)]
    fn advance(&mut self, words: usize) {
        self.first = self.first.wrapping_add(words * self.step);
    }
}

/// Words between staged rows: a block and a cache line, so that the rows do not fall into the same sets.
const STAGE_STRIDE: usize = K_BLOCK + LANES;

/// Words that a tile's rows are staged in.
pub(crate) const fn stage_len<S: Simd>() -> usize {
    S::TILE_ROWS * STAGE_STRIDE
}
