//! Few rows times `[K, N]` weights: lanes along N as they lie, some rows of weights at a time for all columns.
//!
//! A row of weights in the strip is one long piece of memory. The columns' sums are in registers for [`WORDS`] words of
//! k and in memory in between, so that they are loaded and stored once for so many rows of weights. Sums run in
//! ascending k, in blocks of [`K_BLOCK`] words, each from zero.

use core::ops::Range;

use super::{STRIP, Strip, lines, together};
use crate::elem::Elem;
use crate::gemm::K_BLOCK;
use crate::gemm::ahead::Ahead;
use crate::gemm::blocking::steps;
use crate::gemm::word::{Place, Word};
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{MatRef, any};

/// Words of k of `[K, N]` weights that are added to the sums while those are in registers.
const WORDS: usize = 32;

impl<W: Copy> Strip<'_, W> {
    /// Weights `[K, N]`. Later blocks of k are summed in `block`.
    #[inline(always)]
    pub(super) fn straight<S: Simd>(&self, s: S, sums: &mut [f32], block: &mut [f32])
    where
        W: Word<S>,
    {
        if self.words == 0 {
            sums.fill(0.0);
        }
        for k in steps(0..self.words, K_BLOCK) {
            let first = k.start == 0;
            let to = if first { &mut *sums } else { &mut *block };
            for rows in steps(k.clone(), WORDS) {
                any!(AnyMatRef, self.weights.matrix, w => {
                    for m in steps(0..self.m, together::<S>()) {
                        let piece = Piece { k: rows.clone(), start: rows.start == k.start, m: m.start };
                        self.straight_piece(s, (w, piece, m.len()), &mut to[m.start * STRIP..]);
                    }
                });
            }
            if !first {
                for m in 0..self.m {
                    for at in (m * STRIP..m * STRIP + self.n.len()).step_by(LANES) {
                        let sum = s.add(mem::load(s, sums, at), mem::load(s, block, at));
                        mem::store(s, sums, at, sum);
                    }
                }
            }
        }
    }

    /// Adds some rows of the weights, times `count` rows of x, to the sums.
    #[inline(always)]
    fn straight_piece<S: Simd, T: Elem>(
        &self,
        s: S,
        (w, piece, count): (MatRef<'_, T>, Piece, usize),
        sums: &mut [f32],
    ) where
        W: Word<S>,
    {
        if const { together::<S>() == 8 } {
            match count {
                1 => s.call(StraightRows::<_, _, 1, 8> { strip: self, w, piece, sums }),
                2 => s.call(StraightRows::<_, _, 2, 8> { strip: self, w, piece, sums }),
                3 | 4 => s.call(StraightRows::<_, _, 4, 4> { strip: self, w, piece, sums }),
                _ => s.call(StraightRows::<_, _, 8, 3> { strip: self, w, piece, sums }),
            }
        } else {
            match count {
                1 => s.call(StraightRows::<_, _, 1, 4> { strip: self, w, piece, sums }),
                2 => s.call(StraightRows::<_, _, 2, 2> { strip: self, w, piece, sums }),
                _ => s.call(StraightRows::<_, _, 4, 1> { strip: self, w, piece, sums }),
            }
        }
    }

    /// Adds some rows of the weights, times M rows of x, to the sums, 16 x V columns at a time.
    #[inline(always)]
    fn straight_rows<S: Simd, T: Elem, const M: usize, const V: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        piece: Piece,
        sums: &mut [f32],
    ) where
        W: Word<S>,
    {
        let Range { start, end } = self.n;
        let next = if piece.k.end < self.words { (piece.k.end * W::VALUES, start) } else { (0, end) };
        let mut ahead = Ahead::bursts(w, next, end - start, lines::<T>(V));
        let mut n = start;
        while n + V * LANES <= end {
            self.straight_block::<S, T, M, V>(s, w, &piece, n, &mut sums[n - start..], &mut ahead);
            n += V * LANES;
        }
        while n < end {
            self.straight_block::<S, T, M, 1>(s, w, &piece, n, &mut sums[n - start..], &mut ahead);
            n += LANES;
        }
    }

    /// [`Strip::straight_rows`] for the 16 x V columns from `n` on.
    #[inline(always)]
    fn straight_block<S: Simd, T: Elem, const M: usize, const V: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        piece: &Piece,
        n: usize,
        sums: &mut [f32],
        ahead: &mut Ahead,
    ) where
        W: Word<S>,
    {
        let x = &self.x[piece.m * self.stride()..][..M * self.stride()];
        let sums = &mut sums[..(M - 1) * STRIP + V * LANES];
        // Only a lone vector can pass the end of a row.
        let whole = if V > 1 || n + LANES <= w.cols() { self.depth / W::VALUES } else { 0 };
        let mut bring = *ahead;
        let mut acc = [[s.splat(0.0); V]; M];
        if !piece.start {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = mem::load(s, sums, r * STRIP + j * LANES);
                }
            }
        }
        // Two loops, as vectors from either of two ways would be kept in memory.
        let split = piece.k.end.min(whole).max(piece.k.start);
        for k in piece.k.start..split {
            for _ in 0..W::VALUES {
                bring.bring(s, lines::<T>(V));
            }
            let from = w.as_ptr().wrapping_add(k * W::VALUES * w.row_stride() + n);
            let mut row = [s.splat(0.0); V];
            for (j, v) in row.iter_mut().enumerate() {
                // SAFETY: 16 elements from there on are inside the row, and inside those of the same word.
                *v = unsafe {
                    self.word.across(s, from.wrapping_add(j * LANES), w.row_stride(), self.weights.round)
                };
            }
            self.add_row(s, (x, k), row, &mut acc);
        }
        for k in split..piece.k.end {
            let mut row = [s.splat(0.0); V];
            for (j, v) in row.iter_mut().enumerate() {
                *v = self.word.across_ragged(s, w, (k * W::VALUES, n + j * LANES), self.weights.round);
            }
            self.add_row(s, (x, k), row, &mut acc);
        }
        *ahead = bring;
        for (r, acc) in acc.into_iter().enumerate() {
            for (j, acc) in acc.into_iter().enumerate() {
                mem::store(s, sums, r * STRIP + j * LANES, acc);
            }
        }
    }

    /// Adds word `k` of M rows of x, times a row of weights, to the sums.
    #[inline(always)]
    fn add_row<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        (x, k): (&[f32], usize),
        row: [S::F32; V],
        acc: &mut [[S::F32; V]; M],
    ) where
        W: Word<S>,
    {
        debug_assert!(x.len() == M * self.stride() && k < self.words);
        for (r, acc) in acc.iter_mut().enumerate() {
            let x = Place { base: x.as_ptr().wrapping_add(k), index: r * self.stride() };
            // SAFETY: x has M rows of `stride` words, and k is one of the words.
            unsafe { self.word.mul_add_by(s, x, row, acc) };
        }
    }
}

/// Some rows of `[K, N]` weights, times M rows of x, 16 x V columns at a time: a function of its own for every M and
/// storage type.
struct StraightRows<'a, 'b, W, T, const M: usize, const V: usize> {
    strip: &'a Strip<'b, W>,
    w: MatRef<'a, T>,
    piece: Piece,
    sums: &'a mut [f32],
}

impl<S: Simd, W: Word<S>, T: Elem, const M: usize, const V: usize> KernelAt<S>
    for StraightRows<'_, '_, W, T, M, V>
{
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let StraightRows { strip, w, piece, sums } = self;
        strip.straight_rows::<S, T, M, V>(s, w, piece, sums);
    }
}

/// Some rows of `[K, N]` weights and of activations.
struct Piece {
    /// Words of k.
    k: Range<usize>,
    /// Whether their sums start here.
    start: bool,
    /// The first row of activations.
    m: usize,
}
