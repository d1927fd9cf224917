//! Few rows times `[N, K]` weights: 16 columns of the output at a time, whose rows of weights are transposed in registers.
//!
//! One step takes a cache line of each of the 16 rows, as stored, so that nothing is loaded twice. The edges (ends of rows
//! and of blocks of k, the last rows, and f32 packs that must be rounded) are loaded as 16 packs of 16 rows, with zeros for
//! missing values, and transposed. Either way sums run in ascending k, in blocks of [`K_BLOCK`] packs, each from zero.

use core::array::from_mut;
use core::ops::Range;

use super::{NBlock, NC, rows_in_registers};
use crate::elem::Elem;
use crate::gemm::K_BLOCK;
use crate::gemm::blocking::steps;
use crate::gemm::kpack::{KPack, PackPtr, packs_in};
use crate::gemm::pack::rows_from;
use crate::gemm::prefetch::LINE;
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{MatRef, any};

/// The prefetch distance in cache lines, within the same 16 rows.
const PREFETCH_LINES: usize = 8;

/// Bytes after which cache lines fall into the same set of the first-level cache.
const L1_SET_PERIOD: usize = 4096;

impl<P: Copy> NBlock<'_, P> {
    /// Computes the sums with weights `[N, K]`.
    #[inline(always)]
    pub(super) fn multiply_transposed<S: Simd>(&self, s: S, sums: &mut [f32])
    where
        P: KPack<S>,
    {
        any!(AnyMatRef, self.weights.matrix, w => {
            for m in steps(0..self.m, rows_in_registers::<S>()) {
                let sums = &mut sums[m.start * NC..];
                match m.len() {
                    1 => s.call(TransposedRows::<_, _, 1> { n_block: self, w, m: m.start, sums }),
                    2 => s.call(TransposedRows::<_, _, 2> { n_block: self, w, m: m.start, sums }),
                    5.. if const { rows_in_registers::<S>() == 8 } => {
                        s.call(TransposedRows::<_, _, 8> { n_block: self, w, m: m.start, sums });
                    }
                    _ => s.call(TransposedRows::<_, _, 4> { n_block: self, w, m: m.start, sums }),
                }
            }
        });
    }

    /// Computes the sums of M rows from `m` on and 16 columns from `n` on.
    #[inline(always)]
    fn multiply_columns<S: Simd, T: Elem, const M: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        m: usize,
        n: usize,
        sums: &mut [f32],
    ) where
        P: KPack<S>,
    {
        let stride = self.stride();
        let x = &self.x[m * stride..][..M * stride];
        let (line, lines) = (packs_in::<T>(LINE, P::LEN), self.lines(w, n));
        let mut prefetch = LinePrefetch::of(w, n);
        for k in steps(0..self.packs.max(1), K_BLOCK) {
            let end = k.end.min(self.packs);
            let first = lines.start + k.start.saturating_sub(lines.start).next_multiple_of(line);
            let first = first.min(end);
            let last = first + end.min(lines.end).saturating_sub(first) / line * line;
            let mut acc = [s.splat(0.0); M];
            self.add_edge(s, w, (n, k.start..first), x, &mut prefetch, &mut acc);
            for at in (first..last).step_by(line) {
                // SAFETY: a line's packs from `at` on are inside each of the 16 rows, and inside the M rows of x.
                unsafe { add_line(s, self.kpack, w, (n, at), (x, stride), &mut prefetch, &mut acc) };
            }
            self.add_edge(s, w, (n, last..end), x, &mut prefetch, &mut acc);
            for (r, acc) in acc.into_iter().enumerate() {
                let to = &mut sums[r * NC..];
                let sum = if k.start == 0 { acc } else { s.add(mem::load(s, to, 0), acc) };
                mem::store(s, to, 0, sum);
            }
        }
    }

    /// The packs of the 16 rows from `n` on that are read line by line. If the 16 rows fall into the same set of the
    /// first-level cache, a line that two steps need does not survive there: then the steps start at line boundaries.
    #[inline(always)]
    fn lines<S: Simd, T: Elem>(&self, w: MatRef<'_, T>, n: usize) -> Range<usize>
    where
        P: KPack<S>,
    {
        // f32 packs that must be rounded are loaded as edges, which is slower.
        if n + LANES > w.rows() || (P::LEN == 1 && self.weights.round) {
            return self.packs..self.packs;
        }
        let pack_bytes = P::LEN * size_of::<T>();
        let before = w.as_ptr().addr().wrapping_neg() % LINE;
        let same_set = w.row_stride().wrapping_mul(size_of::<T>()).is_multiple_of(L1_SET_PERIOD)
            && before.is_multiple_of(pack_bytes);
        let start = if same_set { before / pack_bytes } else { 0 };
        start..self.depth / P::LEN
    }

    /// Adds the packs `k` of 16 columns, 16 packs at a time; the last 16 are padded with zeros.
    #[inline(always)]
    fn add_edge<S: Simd, T: Elem, const M: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        (n, k): (usize, Range<usize>),
        x: &[f32],
        prefetch: &mut LinePrefetch,
        acc: &mut [S::F32; M],
    ) where
        P: KPack<S>,
    {
        for k in steps(k, LANES) {
            for quarter in 0..4 {
                prefetch.prefetch_rows(s, quarter);
            }
            prefetch.advance();
            let block = self.load_transposed_edge(s, w, n, k.start);
            for (at, w) in k.zip(block) {
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc = self.kpack.mul_add(s, s.splat(x[r * self.stride() + at]), w, *acc);
                }
            }
        }
    }

    /// Loads 16 packs of 16 rows from `(n, at)` on and transposes them. Values outside the matrix are zero.
    #[inline(always)]
    fn load_transposed_edge<S: Simd, T: Elem>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        n: usize,
        at: usize,
    ) -> [S::F32; LANES]
    where
        P: KPack<S>,
    {
        let mut block = [s.splat(0.0); LANES];
        for (v, row) in block.iter_mut().zip(rows_from(w, n)) {
            *v = self.kpack.load_along_k_partial(s, row, at * P::LEN, self.weights.round);
        }
        s.transpose(block)
    }
}

/// Prefetches a cache line of each of 16 rows, [`PREFETCH_LINES`] ahead of the lines in use, and at the end of the rows the
/// first lines of the next 16 rows. The hardware prefetcher then follows 16 rows at once.
struct LinePrefetch {
    /// The line of the first row. It may lie past the end of the matrix.
    at: *const u8,
    /// Bytes from row to row.
    stride: usize,
    /// Lines until the end of the rows; after the end, more than the next rows have.
    left: usize,
    /// Bytes from the end of the rows to the start of the next 16.
    gap: usize,
}

impl LinePrefetch {
    /// For the 16 rows from `n` on.
    #[inline(always)]
    fn of<T>(w: MatRef<'_, T>, n: usize) -> LinePrefetch {
        let lines = (w.cols() * size_of::<T>()).div_ceil(LINE);
        let stride = w.row_stride().wrapping_mul(size_of::<T>());
        let at = w.as_ptr().wrapping_add(n * w.row_stride()).cast::<u8>();
        let distance = PREFETCH_LINES.min(lines);
        let gap = stride.wrapping_mul(LANES).wrapping_sub(lines * LINE);
        let at = at.wrapping_add(distance * LINE);
        let mut prefetch = LinePrefetch { at, stride, left: lines - distance + 1, gap };
        prefetch.wrap_at_row_end();
        prefetch
    }

    /// Prefetches the line of four of the rows.
    #[inline(always)]
    fn prefetch_rows<S: Simd>(&self, s: S, quarter: usize) {
        for row in 4 * quarter..4 * quarter + 4 {
            s.prefetch(self.at.wrapping_add(row.wrapping_mul(self.stride)));
        }
    }

    #[inline(always)]
    fn advance(&mut self) {
        self.at = self.at.wrapping_add(LINE);
        self.wrap_at_row_end();
    }

    #[inline(always)]
    fn wrap_at_row_end(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            self.at = self.at.wrapping_add(self.gap);
            self.left = usize::MAX;
        }
    }
}

/// M rows from `m` on, times `[N, K]` weights: a function of its own for every M and storage type.
struct TransposedRows<'a, 'b, P, T, const M: usize> {
    n_block: &'a NBlock<'b, P>,
    w: MatRef<'a, T>,
    m: usize,
    sums: &'a mut [f32],
}

impl<S: Simd, P: KPack<S>, T: Elem, const M: usize> KernelAt<S> for TransposedRows<'_, '_, P, T, M> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let TransposedRows { n_block, w, m, sums } = self;
        for (j, n) in n_block.n.clone().step_by(LANES).enumerate() {
            n_block.multiply_columns::<S, T, M>(s, w, m, n, &mut sums[j * LANES..]);
        }
    }
}

/// Adds 16 columns of `[N, K]` weights, a cache line of each from pack `(n, k)` on, times M rows of x to their sums, and
/// prefetches as many lines.
///
/// # Safety
/// The weights must have a cache line from pack `k` on in each of the 16 rows from `n` on, and x as many packs from `k` on
/// in each of M rows that lie `stride` packs apart.
#[inline(always)]
unsafe fn add_line<S: Simd, P: KPack<S>, T: Elem, const M: usize>(
    s: S,
    kpack: P,
    w: MatRef<'_, T>,
    (n, k): (usize, usize),
    (x, stride): (&[f32], usize),
    prefetch: &mut LinePrefetch,
    acc: &mut [S::F32; M],
) {
    let from = w.as_ptr().wrapping_add(n * w.row_stride() + k * P::LEN);
    let bytes = w.row_stride() * size_of::<T>();
    let x = x.as_ptr().wrapping_add(k);
    let quad = packs_in::<T>(LINE / 4, P::LEN);
    let stored = |quarter: usize| from.cast::<u8>().wrapping_add(quarter * LINE / 4);
    // In f32, loading a quarter of the lines at a time leaves room in the registers: 8 rows are a quarter faster. In 16
    // bits, with twice as many products, loading whole lines at once is faster, 8 rows by a fifth. As a loop over quarters
    // both are slower, and so is prefetching inside `add_quad`.
    // SAFETY: the caller's contract.
    unsafe {
        if size_of::<T>() == size_of::<f32>() {
            let v = s.load_quad(stored(0), bytes);
            prefetch.prefetch_rows(s, 0);
            add_quad::<S, P, T, M>(s, kpack, v, x, stride, acc);
            let v = s.load_quad(stored(1), bytes);
            prefetch.prefetch_rows(s, 1);
            add_quad::<S, P, T, M>(s, kpack, v, x.add(quad), stride, acc);
            let v = s.load_quad(stored(2), bytes);
            prefetch.prefetch_rows(s, 2);
            add_quad::<S, P, T, M>(s, kpack, v, x.add(2 * quad), stride, acc);
            let v = s.load_quad(stored(3), bytes);
            prefetch.prefetch_rows(s, 3);
            add_quad::<S, P, T, M>(s, kpack, v, x.add(3 * quad), stride, acc);
        } else {
            let first = s.load_quad(stored(0), bytes);
            let second = s.load_quad(stored(1), bytes);
            let third = s.load_quad(stored(2), bytes);
            let fourth = s.load_quad(stored(3), bytes);
            prefetch.prefetch_rows(s, 0);
            add_quad::<S, P, T, M>(s, kpack, first, x, stride, acc);
            prefetch.prefetch_rows(s, 1);
            add_quad::<S, P, T, M>(s, kpack, second, x.add(quad), stride, acc);
            prefetch.prefetch_rows(s, 2);
            add_quad::<S, P, T, M>(s, kpack, third, x.add(2 * quad), stride, acc);
            prefetch.prefetch_rows(s, 3);
            add_quad::<S, P, T, M>(s, kpack, fourth, x.add(3 * quad), stride, acc);
        }
    }
    prefetch.advance();
}

/// [`add_line`] for a quarter of a cache line.
///
/// # Safety
/// `x` must have as many packs as a quarter of a cache line has, in each of M rows, `stride` apart.
#[inline(always)]
unsafe fn add_quad<S: Simd, P: KPack<S>, T: Elem, const M: usize>(
    s: S,
    kpack: P,
    stored: [S::F32; 4],
    x: *const f32,
    stride: usize,
    acc: &mut [S::F32; M],
) {
    for i in 0..packs_in::<T>(LINE / 4, P::LEN) {
        let value = kpack.unpack::<T>(s, stored, i);
        for (r, acc) in acc.iter_mut().enumerate() {
            let x = PackPtr { base: x.wrapping_add(r * stride), index: i };
            // SAFETY: the caller's contract.
            unsafe { kpack.mul_add_broadcast(s, x, [value], from_mut(acc)) };
        }
    }
}
