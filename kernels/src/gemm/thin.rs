//! Products of a few rows: lanes along N, every weight read once and used for all rows.
//!
//! With so few rows the weights' way from memory is the limit, and the register tile would leave most of its
//! lanes idle. `[K, N]` weights have their lanes along N already (`straight`). `[N, K]` weights are turned 16 x 16
//! at a time in registers (`turned`). The sums run in the order of the register tile, so the bits are the same; in the
//! order of the tile unit `[K, N]` weights have kernels of their own (`blocks`). Here are the cut of a product into
//! tasks, which all share, and the loop over strips of columns of the former two.

#[cfg(target_arch = "x86_64")]
pub(super) mod blocks;
mod straight;
mod turned;

use core::ops::Range;

use super::ahead::LINE;
use super::blocking::steps;
use super::epilogue::{Orientation, Sums, finish};
use super::pack::{Operand, stage_rows};
use super::word::{Single, Word};
use super::{Dims, Layout, Product};
use crate::isa::{Kernel, LANES, Simd};
#[cfg(target_arch = "x86_64")]
use crate::isa::{KernelAt, avx512::Avx512, avx512_bf16::Bf16Pairs};

/// The most rows of activations, by weights in either layout.
pub(super) const MOST_ROWS: usize = 8;

/// The most rows by `[K, N]` weights where the sums of eight are in registers together. Weights would have to be packed for
/// the register tile, which as few rows do not repay: of f32 it takes a third longer, and as long for 32 rows.
pub(super) const MOST_ROWS_STRAIGHT: usize = 16;

/// Columns of the output that are summed before they are stored. Pieces of rows of that length come from memory
/// as fast as whole rows.
const STRIP: usize = 1024;

/// Multiplications below which another thread costs more than it brings.
const WORK_PER_THREAD: usize = 1 << 19;

/// The cut of one product into tasks: N only.
pub(super) struct Cut {
    tasks: usize,
    /// Rows that there is room for: whole groups of those whose sums are in registers together.
    rows: usize,
    piece: usize,
}

impl Cut {
    pub(super) fn new(threads: usize, dims: &Dims) -> Cut {
        let tasks = threads.min(dims.work() / WORK_PER_THREAD).min(dims.n.div_ceil(LANES)).max(1);
        let rows = dims.m.next_multiple_of(MOST_ROWS);
        let blocks = 1 + dims.fused();
        let piece = rows * (dims.k.next_multiple_of(LANES) + blocks * STRIP);
        Cut { tasks, rows, piece }
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

/// Rows of activations whose sums are in registers together at the level whose vocabulary runs this.
pub(super) struct Together;

impl Kernel for Together {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        together::<S>()
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
        let block = cut.rows * STRIP;
        let (x, rest) = scratch.split_at_mut(cut.rows * stride);
        let (later, data) = rest.split_at_mut(block);
        // Rows that are not there are zero: they are multiplied, and not stored.
        x[m * stride..].fill(0.0);
        if depth > 0 {
            stage_rows(s, word, product.activations(), 0..m, 0..depth, (x, stride));
        }
        for (group, column) in product.groups() {
            for n in steps(cut.columns(index, group[0].weights.n()), STRIP) {
                for (part, sums) in group.iter().zip(data.chunks_exact_mut(block)) {
                    let weights = product.weights(part);
                    let strip = Strip { word, weights, n: n.clone(), x, depth, words, m };
                    match product.layout() {
                        Layout::Nk => strip.turned(s, sums),
                        Layout::Kn => strip.straight(s, sums, later),
                    }
                }
                let sums =
                    Sums { orientation: Orientation::Straight, m: 0..m, n, stride: STRIP, data, block };
                // SAFETY: `Cut` gives each task its own columns of every part.
                unsafe { finish(s, product, group, column, sums) };
            }
        }
    }
}

/// Cache lines of that many vectors.
const fn lines<T>(vectors: usize) -> usize {
    (vectors * LANES * size_of::<T>()).div_ceil(LINE)
}

/// Some columns of the output, for all rows.
struct Strip<'a, W> {
    word: W,
    weights: Operand<'a>,
    n: Range<usize>,
    /// `[Cut::rows, words.next_multiple_of(16)]`
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
}
