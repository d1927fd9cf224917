//! The vector operand of the register tile: lanes that are packed, or that are packed as they are used.
//!
//! Packing apart from multiplying would wait for memory with the multipliers idle. So a panel of columns that meets its
//! first rows is [`Fresh`], if it is whole: loaded from where it lies, multiplied, and stored packed. From then on it is
//! [`Packed`]. Both give the same vectors in the same order, so the sums have the same bits.

use core::marker::PhantomData;

use super::TURN;
use crate::elem::Elem;
use crate::gemm::word::Word;
use crate::isa::{LANES, Simd};
use crate::view::MatRef;

/// Where a register tile finds its lanes.
pub(super) trait Lanes<S: Simd> {
    /// Words of k in one turn of the inner loop.
    const UNROLL: usize;

    /// Vectors for a word of k.
    fn vectors(&self) -> usize;

    /// Steps that are left.
    fn depth(&self) -> usize;

    /// The V vectors of the next step.
    ///
    /// # Safety
    /// There must be one, and V must be `vectors()`.
    unsafe fn take<const V: usize>(&mut self, s: S) -> [S::F32; V];
}

/// Lanes that are packed.
pub(super) struct Packed<'a> {
    at: *const f32,
    vectors: usize,
    depth: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> Packed<'a> {
    #[inline(always)]
    pub(super) fn of(packed: &'a [f32], width: usize) -> Packed<'a> {
        let depth = packed.len() / width;
        Packed { at: packed.as_ptr(), vectors: width / LANES, depth, lifetime: PhantomData }
    }
}

impl<S: Simd> Lanes<S> for Packed<'_> {
    /// Spares the counting, which costs where the front end is shared with another hardware thread.
    const UNROLL: usize = TURN;

    #[inline(always)]
    fn vectors(&self) -> usize {
        self.vectors
    }

    #[inline(always)]
    fn depth(&self) -> usize {
        self.depth
    }

    #[inline(always)]
    unsafe fn take<const V: usize>(&mut self, s: S) -> [S::F32; V] {
        let mut v = [s.splat(0.0); V];
        for (j, v) in v.iter_mut().enumerate() {
            // SAFETY: the caller's contract; `of` counted the vectors.
            *v = unsafe { s.load(self.at.add(j * LANES)) };
        }
        self.at = self.at.wrapping_add(V * LANES);
        v
    }
}

/// Lanes where they lie, packed as they are used, and rounded to bf16 before if they are to be.
pub(super) struct Fresh<'a, W, T, const ROUND: bool> {
    word: W,
    from: *const T,
    stride: usize,
    to: *mut f32,
    vectors: usize,
    rows: usize,
    lifetime: PhantomData<(&'a T, &'a mut f32)>,
}

impl<'a, W, T, const ROUND: bool> Fresh<'a, W, T, ROUND> {
    /// The rows of `from`, whole words and whole vectors each, which go to `to`.
    #[inline(always)]
    pub(super) fn of<S: Simd>(word: W, from: MatRef<'a, T>, to: &'a mut [f32]) -> Self
    where
        W: Word<S>,
    {
        let (rows, width) = (from.rows(), from.cols());
        assert!(rows.is_multiple_of(W::VALUES) && width.is_multiple_of(LANES));
        assert!(to.len() >= rows / W::VALUES * width);
        let stride = from.row_stride();
        let (from, to, vectors) = (from.as_ptr(), to.as_mut_ptr(), width / LANES);
        Fresh { word, from, stride, to, vectors, rows, lifetime: PhantomData }
    }
}

impl<S: Simd, W: Word<S>, T: Elem, const ROUND: bool> Lanes<S> for Fresh<'_, W, T, ROUND> {
    /// More would not leave the registers for the addresses.
    const UNROLL: usize = 1;

    #[inline(always)]
    fn vectors(&self) -> usize {
        self.vectors
    }

    #[inline(always)]
    fn depth(&self) -> usize {
        self.rows / W::VALUES
    }

    #[inline(always)]
    unsafe fn take<const V: usize>(&mut self, s: S) -> [S::F32; V] {
        let mut v = [s.splat(0.0); V];
        for row in 0..W::VALUES {
            let ahead = self.stride.wrapping_mul(words_ahead::<S>() * W::VALUES + row);
            for j in 0..V {
                s.prefetch(self.from.wrapping_add(ahead).wrapping_add(j * LANES).cast());
            }
        }
        for (j, v) in v.iter_mut().enumerate() {
            // SAFETY: the caller's contract; `of` saw whole vectors in each row, and as much room.
            unsafe {
                *v = self.word.across(s, self.from.add(j * LANES), self.stride, ROUND);
                s.store(self.to.add(j * LANES), *v);
            }
        }
        self.from = self.from.wrapping_add(self.stride.wrapping_mul(W::VALUES));
        self.to = self.to.wrapping_add(V * LANES);
        v
    }
}

/// How many rows of weights ahead of those in use a piece is brought into the first-level cache: the hardware
/// does not see where it lies. A third-level cache answers within about as many multiply-adds of vectors.
const fn words_ahead<S: Simd>() -> usize {
    192 / (S::TILE_ROWS * S::TILE_VECTORS)
}
