//! Products of a few rows: lanes along N, every weight read once and used for all rows.
//!
//! With so few rows the weights' way from memory is the limit, and the register tile would leave most of its
//! lanes idle. `[K, N]` weights have their lanes along N already. `[N, K]` weights are turned 16 x 16 at a time
//! in registers. The sums run in the order of the register tile, so the bits are the same.

use core::ops::Range;

use super::K_BLOCK;
use super::ahead::LINE;
use super::blocking::{Unit, steps};
use super::epilogue::{Orientation, Sums, finish};
use super::pack::{Operand, load, rows_from, stage_rows};
use super::{Dims, Layout, Product};
use crate::elem::Elem;
use crate::isa::{Kernel, LANES, Simd};
use crate::mem;
use crate::view::{MatRef, any};

/// The most rows of activations.
pub(super) const MOST_ROWS: usize = 8;

/// Columns of the output that are summed before they are stored.
const STRIP: usize = 512;

/// Rows of `[K, N]` weights that are added to the sums while those are in registers.
const ROWS: usize = 8;

/// How far ahead weights are asked for, in bytes of a row.
const AHEAD: usize = 8 * LINE;

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
pub(super) struct Thin<'a, 'b> {
    pub(super) product: &'a Product<'b>,
    pub(super) cut: &'a Cut,
    pub(super) index: usize,
    pub(super) scratch: &'a mut [f32],
}

impl Kernel for Thin<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Thin { product, cut, index, scratch } = self;
        let (m, k) = (product.a.rows(), product.a.cols());
        let stride = k.next_multiple_of(LANES);
        let (x, rest) = scratch.split_at_mut(MOST_ROWS * stride);
        let (block, data) = rest.split_at_mut(MOST_ROWS * STRIP);
        // Rows that are not there are zero: they are multiplied, and not stored.
        x[m * stride..].fill(0.0);
        if k > 0 {
            stage_rows(s, product.activations(), 0..m, 0..k, (x, stride));
        }
        for (group, column) in product.groups() {
            for n in steps(cut.columns(index, group[0].weights.n()), STRIP) {
                for (part, sums) in group.iter().zip(data.chunks_exact_mut(MOST_ROWS * STRIP)) {
                    let strip = Strip { weights: product.weights(part), n: n.clone(), x, k, m };
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
struct Strip<'a> {
    weights: Operand<'a>,
    n: Range<usize>,
    /// `[MOST_ROWS, k.next_multiple_of(16)]`
    x: &'a [f32],
    k: usize,
    m: usize,
}

impl Strip<'_> {
    /// Weights `[N, K]`.
    #[inline(always)]
    fn turned<S: Simd>(&self, s: S, sums: &mut [f32]) {
        for m in steps(0..self.m, together::<S>()) {
            for (j, n) in self.n.clone().step_by(LANES).enumerate() {
                let sums = &mut sums[m.start * STRIP + j * LANES..];
                any!(AnyMatRef, self.weights.matrix, w => match m.len() {
                    1 => self.turned_rows::<S, _, 1>(s, w, m.start, n, sums),
                    2 => self.turned_rows::<S, _, 2>(s, w, m.start, n, sums),
                    5.. if together::<S>() == 8 => self.turned_rows::<S, _, 8>(s, w, m.start, n, sums),
                    _ => self.turned_rows::<S, _, 4>(s, w, m.start, n, sums),
                });
            }
        }
    }

    /// The sums of M rows from `m` on and 16 columns from `n` on.
    #[inline(always)]
    fn turned_rows<S: Simd, T: Elem, const M: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        m: usize,
        n: usize,
        sums: &mut [f32],
    ) {
        let rows = rows_from(w, n);
        let stride = self.k.next_multiple_of(LANES);
        let x: [&[f32]; M] = core::array::from_fn(|i| &self.x[(m + i) * stride..][..stride]);
        let whole = n + LANES <= w.rows();
        for k in steps(0..self.k.max(1), K_BLOCK) {
            let mut acc = [s.splat(0.0); M];
            for at in (k.start..k.end.min(self.k)).step_by(LANES) {
                let mut block = [s.splat(0.0); LANES];
                if whole && at + LANES <= self.k {
                    for (v, row) in block.iter_mut().zip(rows) {
                        // SAFETY: 16 elements from `at` on are inside each of the 16 rows.
                        *v = unsafe { T::load(s, row.as_ptr().add(at)) };
                        s.prefetch(row.as_ptr().wrapping_add(at).cast::<u8>().wrapping_add(AHEAD));
                    }
                } else {
                    for (v, row) in block.iter_mut().zip(rows) {
                        *v = mem::load(s, row, at.min(row.len()));
                    }
                }
                if self.weights.round {
                    for v in &mut block {
                        *v = s.round_to_bf16(*v);
                    }
                }
                let block = s.transpose(block);
                if at + LANES <= self.k {
                    for (i, w) in block.into_iter().enumerate() {
                        for (acc, x) in acc.iter_mut().zip(x) {
                            *acc = s.mul_add(s.splat(x[at + i]), w, *acc);
                        }
                    }
                } else {
                    for (i, w) in block.into_iter().enumerate().take(self.k - at) {
                        for (acc, x) in acc.iter_mut().zip(x) {
                            *acc = s.mul_add(s.splat(x[at + i]), w, *acc);
                        }
                    }
                }
            }
            for (i, acc) in acc.into_iter().enumerate() {
                let to = &mut sums[i * STRIP..];
                let sum = if k.start == 0 { acc } else { s.add(mem::load(s, to, 0), acc) };
                mem::store(s, to, 0, sum);
            }
        }
    }

    /// Weights `[K, N]`.
    #[inline(always)]
    fn straight<S: Simd>(&self, s: S, sums: &mut [f32], block: &mut [f32]) {
        let lanes = self.n.len().next_multiple_of(LANES);
        if self.k == 0 {
            sums.fill(0.0);
        }
        for k in steps(0..self.k, K_BLOCK) {
            // The first block is summed in place, later ones apart.
            let first = k.start == 0;
            let to = if first { &mut *sums } else { &mut *block };
            for rows in steps(k.clone(), ROWS) {
                let start = rows.start == k.start;
                for m in steps(0..self.m, together::<S>()) {
                    any!(AnyMatRef, self.weights.matrix, w => match m.len() {
                        1 => self.straight_rows::<S, _, 1, 4>(s, w, m.start, rows.clone(), start, to),
                        2 => self.straight_rows::<S, _, 2, 4>(s, w, m.start, rows.clone(), start, to),
                        5.. if together::<S>() == 8 => {
                            self.straight_rows::<S, _, 8, 2>(s, w, m.start, rows.clone(), start, to);
                        }
                        _ => self.straight_rows::<S, _, 4, 2>(s, w, m.start, rows.clone(), start, to),
                    });
                }
            }
            if !first {
                for m in 0..self.m {
                    for at in (m * STRIP..m * STRIP + lanes).step_by(LANES) {
                        let sum = s.add(mem::load(s, sums, at), mem::load(s, block, at));
                        mem::store(s, sums, at, sum);
                    }
                }
            }
        }
    }

    /// Adds the rows `k` of the weights times M rows of x from `m` on to the sums, or starts these; V vectors at
    /// a time.
    #[inline(always)]
    fn straight_rows<S: Simd, T: Elem, const M: usize, const V: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        m: usize,
        k: Range<usize>,
        start: bool,
        sums: &mut [f32],
    ) {
        let stride = self.k.next_multiple_of(LANES);
        let x: [&[f32]; M] = core::array::from_fn(|i| &self.x[(m + i) * stride..][..stride]);
        let rows: [&[T]; ROWS] =
            core::array::from_fn(
                |i| {
                    if k.start + i < k.end { &w.row(k.start + i)[self.n.clone()] } else { &[] }
                },
            );
        let sums = &mut sums[m * STRIP..];
        let mut at = 0;
        while at < self.n.len() {
            let count = (self.n.len() - at).div_ceil(LANES).min(V);
            if count == V && at + V * LANES <= self.n.len() {
                self.add_rows::<S, T, M, V>(s, rows, &x, k.clone(), start, at, sums);
                at += V * LANES;
            } else {
                self.add_rows::<S, T, M, 1>(s, rows, &x, k.clone(), start, at, sums);
                at += LANES;
            }
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn add_rows<S: Simd, T: Elem, const M: usize, const V: usize>(
        &self,
        s: S,
        rows: [&[T]; ROWS],
        x: &[&[f32]; M],
        k: Range<usize>,
        start: bool,
        at: usize,
        sums: &mut [f32],
    ) {
        let mut acc = [[s.splat(0.0); V]; M];
        if !start {
            for (i, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = mem::load(s, sums, i * STRIP + at + j * LANES);
                }
            }
        }
        for (k, row) in k.zip(rows) {
            s.prefetch(row.as_ptr().wrapping_add(at).cast::<u8>().wrapping_add(AHEAD));
            let w: [S::F32; V] = core::array::from_fn(|j| load(s, row, at + j * LANES, self.weights.round));
            for (acc, x) in acc.iter_mut().zip(x) {
                let x = s.splat(x[k]);
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = s.mul_add(x, w, *acc);
                }
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            for (j, acc) in acc.into_iter().enumerate() {
                mem::store(s, sums, i * STRIP + at + j * LANES, acc);
            }
        }
    }
}
