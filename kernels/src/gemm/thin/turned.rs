//! Few rows times `[N, K]` weights: 16 columns of the output at a time, whose rows of weights are turned in registers.
//!
//! A step takes a cache line of each of the 16 rows, as stored, so that nothing is loaded twice. What no step can take
//! (the ends of rows and of blocks of k, the last rows, and f32 words that must be rounded) is turned as 16 words of
//! 16 rows, with zeros for what is not there. Either way sums run in ascending k, in blocks of [`K_BLOCK`] words, each
//! from zero.

use core::array::from_mut;
use core::ops::Range;

use super::{STRIP, Strip, together};
use crate::elem::Elem;
use crate::gemm::K_BLOCK;
use crate::gemm::ahead::LINE;
use crate::gemm::blocking::steps;
use crate::gemm::pack::rows_from;
use crate::gemm::word::{Place, Word, words_in};
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{MatRef, any};

/// Lines ahead of the ones in use that the same rows are asked for.
const AHEAD: usize = 8;

/// Bytes after which lines of memory share a set of the first level.
const SETS: usize = 4096;

impl<W: Copy> Strip<'_, W> {
    /// Weights `[N, K]`.
    #[inline(always)]
    pub(super) fn turned<S: Simd>(&self, s: S, sums: &mut [f32])
    where
        W: Word<S>,
    {
        any!(AnyMatRef, self.weights.matrix, w => {
            for m in steps(0..self.m, together::<S>()) {
                let sums = &mut sums[m.start * STRIP..];
                match m.len() {
                    1 => s.call(TurnedRows::<_, _, 1> { strip: self, w, m: m.start, sums }),
                    2 => s.call(TurnedRows::<_, _, 2> { strip: self, w, m: m.start, sums }),
                    5.. if const { together::<S>() == 8 } => {
                        s.call(TurnedRows::<_, _, 8> { strip: self, w, m: m.start, sums });
                    }
                    _ => s.call(TurnedRows::<_, _, 4> { strip: self, w, m: m.start, sums }),
                }
            }
        });
    }

    /// The sums of M rows from `m` on and 16 columns from `n` on.
    #[inline(always)]
    fn turned_block<S: Simd, T: Elem, const M: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        m: usize,
        n: usize,
        sums: &mut [f32],
    ) where
        W: Word<S>,
    {
        let stride = self.stride();
        let x = &self.x[m * stride..][..M * stride];
        let (line, lines) = (words_in::<T>(LINE, W::VALUES), self.lines(w, n));
        let mut ahead = NextLines::of(w, n);
        for k in steps(0..self.words.max(1), K_BLOCK) {
            let end = k.end.min(self.words);
            let first = lines.start + k.start.saturating_sub(lines.start).next_multiple_of(line);
            let first = first.min(end);
            let last = first + end.min(lines.end).saturating_sub(first) / line * line;
            let mut acc = [s.splat(0.0); M];
            self.add_edge(s, w, (n, k.start..first), x, &mut ahead, &mut acc);
            for at in (first..last).step_by(line) {
                // SAFETY: a line's words from `at` on are inside each of the 16 rows, and inside the M rows of x.
                unsafe { add_line(s, self.word, w, (n, at), (x, stride), &mut ahead, &mut acc) };
            }
            self.add_edge(s, w, (n, last..end), x, &mut ahead, &mut acc);
            for (r, acc) in acc.into_iter().enumerate() {
                let to = &mut sums[r * STRIP..];
                let sum = if k.start == 0 { acc } else { s.add(mem::load(s, to, 0), acc) };
                mem::store(s, to, 0, sum);
            }
        }
    }

    /// The words of the 16 rows from `n` on that are read by lines. 16 rows that share a set of the first level leave
    /// no room there for a line of memory that two steps need: there the steps start where the lines do.
    #[inline(always)]
    fn lines<S: Simd, T: Elem>(&self, w: MatRef<'_, T>, n: usize) -> Range<usize>
    where
        W: Word<S>,
    {
        // f32 words that must be rounded take the slower way of an edge.
        if n + LANES > w.rows() || (W::VALUES == 1 && self.weights.round) {
            return self.words..self.words;
        }
        let word = W::VALUES * size_of::<T>();
        let before = w.as_ptr().addr().wrapping_neg() % LINE;
        let together =
            w.row_stride().wrapping_mul(size_of::<T>()).is_multiple_of(SETS) && before.is_multiple_of(word);
        let start = if together { before / word } else { 0 };
        start..self.depth / W::VALUES
    }

    /// Adds the words `k` of 16 columns, 16 words at a time, the last ones filled up with zeros.
    #[inline(always)]
    fn add_edge<S: Simd, T: Elem, const M: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        (n, k): (usize, Range<usize>),
        x: &[f32],
        ahead: &mut NextLines,
        acc: &mut [S::F32; M],
    ) where
        W: Word<S>,
    {
        for k in steps(k, LANES) {
            for quarter in 0..4 {
                ahead.ask(s, quarter);
            }
            ahead.step();
            let block = self.turned_edge(s, w, n, k.start);
            for (at, w) in k.zip(block) {
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc = self.word.mul_add(s, s.splat(x[r * self.stride() + at]), w, *acc);
                }
            }
        }
    }

    /// 16 words of 16 rows from `(n, at)` on, turned; what is not there is zero.
    #[inline(always)]
    fn turned_edge<S: Simd, T: Elem>(&self, s: S, w: MatRef<'_, T>, n: usize, at: usize) -> [S::F32; LANES]
    where
        W: Word<S>,
    {
        let mut block = [s.splat(0.0); LANES];
        for (v, row) in block.iter_mut().zip(rows_from(w, n)) {
            *v = self.word.along_ragged(s, row, at * W::VALUES, self.weights.round);
        }
        s.transpose(block)
    }
}

/// A cache line of each of 16 rows, some lines ahead of the ones in use, and at the end of the rows the first ones of the
/// next 16: the processor's own prefetch then follows 16 rows at once.
struct NextLines {
    /// The line of the first row; it need not exist, as past the end of a matrix.
    at: *const u8,
    /// Bytes between rows.
    stride: usize,
    /// Lines until the end of the rows, then more than there are, and the bytes from there to the next ones.
    left: usize,
    gap: usize,
}

impl NextLines {
    /// For the 16 rows from `n` on.
    #[inline(always)]
    fn of<T>(w: MatRef<'_, T>, n: usize) -> NextLines {
        let lines = (w.cols() * size_of::<T>()).div_ceil(LINE);
        let stride = w.row_stride().wrapping_mul(size_of::<T>());
        let at = w.as_ptr().wrapping_add(n * w.row_stride()).cast::<u8>();
        let ahead = AHEAD.min(lines);
        let gap = stride.wrapping_mul(LANES).wrapping_sub(lines * LINE);
        let mut ahead = NextLines { at: at.wrapping_add(ahead * LINE), stride, left: lines - ahead + 1, gap };
        ahead.step_to_next();
        ahead
    }

    /// Asks for the line of four of the rows.
    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, quarter: usize) {
        for row in 4 * quarter..4 * quarter + 4 {
            s.prefetch(self.at.wrapping_add(row.wrapping_mul(self.stride)));
        }
    }

    #[inline(always)]
    fn step(&mut self) {
        self.at = self.at.wrapping_add(LINE);
        self.step_to_next();
    }

    #[inline(always)]
    fn step_to_next(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            self.at = self.at.wrapping_add(self.gap);
            self.left = usize::MAX;
        }
    }
}

/// M rows from `m` on, times `[N, K]` weights: a function of its own for every M and storage type.
struct TurnedRows<'a, 'b, W, T, const M: usize> {
    strip: &'a Strip<'b, W>,
    w: MatRef<'a, T>,
    m: usize,
    sums: &'a mut [f32],
}

impl<S: Simd, W: Word<S>, T: Elem, const M: usize> KernelAt<S> for TurnedRows<'_, '_, W, T, M> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let TurnedRows { strip, w, m, sums } = self;
        for (j, n) in strip.n.clone().step_by(LANES).enumerate() {
            strip.turned_block::<S, T, M>(s, w, m, n, &mut sums[j * LANES..]);
        }
    }
}

/// Adds 16 columns of `[N, K]` weights, a cache line of each from word `(n, k)` on, times M rows of x to their
/// sums, and asks for as many lines ahead.
///
/// # Safety
/// The weights must have a cache line from word `k` on in each of the 16 rows from `n` on, and x as many words from
/// `k` on in each of M rows that lie `stride` words apart.
#[inline(always)]
unsafe fn add_line<S: Simd, W: Word<S>, T: Elem, const M: usize>(
    s: S,
    word: W,
    w: MatRef<'_, T>,
    (n, k): (usize, usize),
    (x, stride): (&[f32], usize),
    ahead: &mut NextLines,
    acc: &mut [S::F32; M],
) {
    let from = w.as_ptr().wrapping_add(n * w.row_stride() + k * W::VALUES);
    let bytes = w.row_stride() * size_of::<T>();
    let x = x.as_ptr().wrapping_add(k);
    let quad = words_in::<T>(LINE / 4, W::VALUES);
    let stored = |quarter: usize| from.cast::<u8>().wrapping_add(quarter * LINE / 4);
    // Of f32, a quarter of the lines at a time leaves room in the registers: 8 rows are a quarter faster. Of 16 bits,
    // whose products are twice as many, whole lines at once are: 8 rows by a fifth. Both as a loop over quarters are
    // slower, and so is asking in `add_quad`.
    // SAFETY: the caller's contract.
    unsafe {
        if size_of::<T>() == size_of::<f32>() {
            let v = s.load_quad(stored(0), bytes);
            ahead.ask(s, 0);
            add_quad::<S, W, T, M>(s, word, v, x, stride, acc);
            let v = s.load_quad(stored(1), bytes);
            ahead.ask(s, 1);
            add_quad::<S, W, T, M>(s, word, v, x.add(quad), stride, acc);
            let v = s.load_quad(stored(2), bytes);
            ahead.ask(s, 2);
            add_quad::<S, W, T, M>(s, word, v, x.add(2 * quad), stride, acc);
            let v = s.load_quad(stored(3), bytes);
            ahead.ask(s, 3);
            add_quad::<S, W, T, M>(s, word, v, x.add(3 * quad), stride, acc);
        } else {
            let first = s.load_quad(stored(0), bytes);
            let second = s.load_quad(stored(1), bytes);
            let third = s.load_quad(stored(2), bytes);
            let fourth = s.load_quad(stored(3), bytes);
            ahead.ask(s, 0);
            add_quad::<S, W, T, M>(s, word, first, x, stride, acc);
            ahead.ask(s, 1);
            add_quad::<S, W, T, M>(s, word, second, x.add(quad), stride, acc);
            ahead.ask(s, 2);
            add_quad::<S, W, T, M>(s, word, third, x.add(2 * quad), stride, acc);
            ahead.ask(s, 3);
            add_quad::<S, W, T, M>(s, word, fourth, x.add(3 * quad), stride, acc);
        }
    }
    ahead.step();
}

/// [`add_line`] for a quarter of a cache line.
///
/// # Safety
/// `x` must have as many words as there are in a quarter of a cache line in each of M rows, `stride` apart.
#[inline(always)]
unsafe fn add_quad<S: Simd, W: Word<S>, T: Elem, const M: usize>(
    s: S,
    word: W,
    stored: [S::F32; 4],
    x: *const f32,
    stride: usize,
    acc: &mut [S::F32; M],
) {
    for i in 0..words_in::<T>(LINE / 4, W::VALUES) {
        let value = word.unpack::<T>(s, stored, i);
        for (r, acc) in acc.iter_mut().enumerate() {
            let x = Place { base: x.wrapping_add(r * stride), index: i };
            // SAFETY: the caller's contract.
            unsafe { word.mul_add_by(s, x, [value], from_mut(acc)) };
        }
    }
}
