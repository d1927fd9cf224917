//! Products of a few rows: lanes along N, every weight read once and used for all rows.
//!
//! With so few rows the weights' way from memory is the limit, and the register tile would leave most of its
//! lanes idle. `[K, N]` weights have their lanes along N already. `[N, K]` weights are turned 16 x 16 at a time
//! in registers. The sums run in the order of the register tile, so the bits are the same.

use core::ops::Range;

use super::K_BLOCK;
use super::ahead::{Ahead, LINE};
use super::blocking::{Unit, steps};
use super::epilogue::{Orientation, Sums, finish};
use super::pack::{Operand, rows_from, stage_rows};
use super::word::{Single, Word, words_in};
use super::{Dims, Layout, Product};
use crate::elem::Elem;
use crate::isa::{Kernel, KernelAt, LANES, Simd};
#[cfg(target_arch = "x86_64")]
use crate::isa::{avx512::Avx512, avx512_bf16::Bf16Pairs};
use crate::mem;
use crate::view::{MatRef, any};

/// The most rows of activations.
pub(super) const MOST_ROWS: usize = 8;

/// Columns of the output that are summed before they are stored. Pieces of rows of that length come from memory
/// as fast as whole rows.
const STRIP: usize = 1024;

/// Cache lines of `[N, K]` weights that are asked for at a time.
const BURST: usize = 4;

/// Words of k of `[K, N]` weights that are added to the sums while those are in registers.
const WORDS: usize = 32;

/// Multiplications below which another thread costs more than it brings.
const WORK_PER_THREAD: usize = 1 << 19;

/// The cut of one product into tasks: N only.
pub(super) struct Cut {
    tasks: usize,
    piece: usize,
}

impl Cut {
    pub(super) fn new(threads: usize, dims: &Dims) -> Cut {
        let tasks = threads.min(dims.work() / WORK_PER_THREAD).min(dims.n.div_ceil(LANES)).max(1);
        let blocks = 1 + dims.fused();
        let piece = MOST_ROWS * (dims.k.next_multiple_of(LANES) + blocks * STRIP);
        Cut { tasks, piece }
    }

    pub(super) fn piece_len(&self) -> usize {
        self.piece
    }

    pub(super) fn scratch_len(&self) -> usize {
        self.tasks * self.piece
    }

    /// The columns that task `i` computes of a part with `n` of them.
    fn columns(&self, i: usize, n: usize) -> Range<usize> {
        let step = n.div_ceil(LANES).div_ceil(self.tasks) * LANES;
        (i * step).min(n)..((i + 1) * step).min(n)
    }
}

/// The register tile of the level whose vocabulary runs this.
pub(super) struct ThinUnit;

impl Kernel for ThinUnit {
    type Output = Unit;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Unit {
        Unit { rows: together::<S>(), lanes: LANES, ..Unit::WHOLE }
    }
}

/// Rows of activations whose sums are in registers together.
const fn together<S: Simd>() -> usize {
    if S::TILE_ROWS >= 8 { 8 } else { 4 }
}

/// One thread's share of a product.
pub(super) struct Thin<'a, 'b, W> {
    pub(super) word: W,
    pub(super) product: &'a Product<'b>,
    pub(super) cut: &'a Cut,
    pub(super) index: usize,
    pub(super) scratch: &'a mut [f32],
}

impl Kernel for Thin<'_, '_, Single> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

#[cfg(target_arch = "x86_64")]
impl KernelAt<Avx512> for Thin<'_, '_, Bf16Pairs> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl<W: Copy> Thin<'_, '_, W> {
    #[inline(always)]
    fn run_with<S: Simd>(self, s: S)
    where
        W: Word<S>,
    {
        let Thin { word, product, cut, index, scratch } = self;
        let (m, depth) = (product.a.rows(), product.a.cols());
        let words = depth.div_ceil(W::VALUES);
        let stride = words.next_multiple_of(LANES);
        let (x, rest) = scratch.split_at_mut(MOST_ROWS * stride);
        let (block, data) = rest.split_at_mut(MOST_ROWS * STRIP);
        // Rows that are not there are zero: they are multiplied, and not stored.
        x[m * stride..].fill(0.0);
        if depth > 0 {
            stage_rows(s, word, product.activations(), 0..m, 0..depth, (x, stride));
        }
        for (group, column) in product.groups() {
            for n in steps(cut.columns(index, group[0].weights.n()), STRIP) {
                for (part, sums) in group.iter().zip(data.chunks_exact_mut(MOST_ROWS * STRIP)) {
                    let weights = product.weights(part);
                    let strip = Strip { word, weights, n: n.clone(), x, depth, words, m };
                    match product.layout() {
                        Layout::Nk => strip.turned(s, sums),
                        Layout::Kn => strip.straight(s, sums, block),
                    }
                }
                let (orientation, block) = (Orientation::Straight, MOST_ROWS * STRIP);
                let sums = Sums { orientation, m: 0..m, n, stride: STRIP, data, block };
                // SAFETY: `Cut` gives each task its own columns of every part.
                unsafe { finish(s, product, group, column, sums) };
            }
        }
    }
}

/// Some columns of the output, for all rows.
struct Strip<'a, W> {
    word: W,
    weights: Operand<'a>,
    n: Range<usize>,
    /// `[MOST_ROWS, words.next_multiple_of(16)]`
    x: &'a [f32],
    /// Values of k, and their words.
    depth: usize,
    words: usize,
    m: usize,
}

impl<W: Copy> Strip<'_, W> {
    /// Words between rows of x.
    #[inline(always)]
    fn stride(&self) -> usize {
        self.words.next_multiple_of(LANES)
    }

    /// Weights `[N, K]`.
    #[inline(always)]
    fn turned<S: Simd>(&self, s: S, sums: &mut [f32])
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

    /// Weights `[K, N]`. Later blocks of k are summed in `block`.
    #[inline(always)]
    fn straight<S: Simd>(&self, s: S, sums: &mut [f32], block: &mut [f32])
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
            // SAFETY: x has M rows of `stride` words, and k is one of the words.
            let x = s.splat(unsafe { *x.get_unchecked(r * self.stride() + k) });
            for (acc, v) in acc.iter_mut().zip(row) {
                *acc = self.word.mul_add(s, x, v, *acc);
            }
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

/// The same for `[K, N]` weights, 16 x V columns at a time.
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

/// Cache lines of that many vectors.
const fn lines<T>(vectors: usize) -> usize {
    (vectors * LANES * size_of::<T>()).div_ceil(LINE)
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

/// Some rows of `[K, N]` weights and of activations.
struct Piece {
    /// Words of k.
    k: Range<usize>,
    /// Whether their sums start here.
    start: bool,
    /// The first row of activations.
    m: usize,
}
