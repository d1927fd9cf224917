//! Few rows times `[N, K]` weights: 16 columns of the output at a time, whose rows of weights are turned in registers.
//!
//! A step takes a cache line of each of the 16 rows, as stored, so that nothing is loaded twice. What no step can take
//! (the ends of rows, the last rows, and f32 words that must be rounded) is turned as 16 words of 16 rows, with zeros
//! for what is not there. Either way sums run in ascending k, in blocks of [`K_BLOCK`] words, each from zero.

use super::{STRIP, Strip, together};
use crate::elem::Elem;
use crate::gemm::K_BLOCK;
use crate::gemm::ahead::{Ahead, LINE};
use crate::gemm::blocking::steps;
use crate::gemm::pack::rows_from;
use crate::gemm::word::{Word, words_in};
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{MatRef, any};

/// Cache lines of `[N, K]` weights that are asked for at a time.
const BURST: usize = 4;

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
        // A step is a cache line of each row. f32 words that must be rounded take the slower way of an edge.
        let step = words_in::<T>(LINE, W::VALUES);
        let plain = n + LANES <= w.rows() && (W::VALUES > 1 || !self.weights.round);
        let whole = if plain { self.depth / (step * W::VALUES) * step } else { 0 };
        for k in steps(0..self.words.max(1), K_BLOCK) {
            let next = if k.end < self.words { (n, k.end * W::VALUES) } else { (n + LANES, 0) };
            let mut ahead = Ahead::bursts(w, next, k.len() * W::VALUES, BURST);
            let mut acc = [s.splat(0.0); M];
            let mut at = k.start;
            while at < k.end.min(whole) {
                for _ in 0..LANES / BURST {
                    ahead.bring(s, BURST);
                }
                // SAFETY: a step's words from `at` on are inside each of the 16 rows, and inside the M rows of x.
                unsafe { add_step(s, self.word, w, (n, at), x, stride, &mut acc) };
                at += step;
            }
            while at < k.end.min(self.words) {
                let block = self.turned_edge(s, w, n, at);
                for (i, w) in block.into_iter().enumerate().take(self.words - at) {
                    for (r, acc) in acc.iter_mut().enumerate() {
                        *acc = self.word.mul_add(s, s.splat(x[r * stride + at + i]), w, *acc);
                    }
                }
                at += LANES;
            }
            for (r, acc) in acc.into_iter().enumerate() {
                let to = &mut sums[r * STRIP..];
                let sum = if k.start == 0 { acc } else { s.add(mem::load(s, to, 0), acc) };
                mem::store(s, to, 0, sum);
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
/// sums.
///
/// # Safety
/// The weights must have a cache line from word `k` on in each of the 16 rows from `n` on, and x as many words from
/// `k` on in each of M rows that lie `stride` words apart.
#[inline(always)]
unsafe fn add_step<S: Simd, W: Word<S>, T: Elem, const M: usize>(
    s: S,
    word: W,
    w: MatRef<'_, T>,
    (n, k): (usize, usize),
    x: &[f32],
    stride: usize,
    acc: &mut [S::F32; M],
) {
    let from = w.as_ptr().wrapping_add(n * w.row_stride() + k * W::VALUES);
    let x = x.as_ptr().wrapping_add(k);
    let quad = words_in::<T>(LINE / 4, W::VALUES);
    // SAFETY: the caller's contract.
    unsafe {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] =
            s.load_turned(from.cast(), w.row_stride() * size_of::<T>());
        add_quad::<S, W, T, M>(s, word, [a, b, c, d], x, stride, acc);
        add_quad::<S, W, T, M>(s, word, [e, f, g, h], x.add(quad), stride, acc);
        add_quad::<S, W, T, M>(s, word, [i, j, k, l], x.add(2 * quad), stride, acc);
        add_quad::<S, W, T, M>(s, word, [m, n, o, p], x.add(3 * quad), stride, acc);
    }
}

/// [`add_step`] for a quarter of a cache line.
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
            // SAFETY: the caller's contract.
            let x = s.splat(unsafe { *x.add(r * stride + i) });
            *acc = word.mul_add(s, x, value, *acc);
        }
    }
}
