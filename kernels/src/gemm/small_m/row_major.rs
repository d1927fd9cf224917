//! Few rows times `[K, N]` weights: lanes along N as they lie, a slab of rows of weights at a time for all NC columns.
//!
//! A row of weights is one long piece of memory over NC columns. The columns' sums are in registers for [`SLAB_PACKS`] packs
//! of k and in memory in between, so that they are loaded and stored once for each slab of weights. Sums run in ascending
//! k, in blocks of [`K_BLOCK`] packs, each from zero.

use core::ops::Range;

use super::{NBlock, NC, lines, rows_in_registers};
use crate::elem::Elem;
use crate::gemm::K_BLOCK;
use crate::gemm::blocking::steps;
use crate::gemm::kpack::{KPack, PackPtr};
use crate::gemm::prefetch::BlockPrefetch;
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{MatRef, any};

/// Packs of k that are added to the sums while the sums are in registers.
const SLAB_PACKS: usize = 32;

impl<P: Copy> NBlock<'_, P> {
    /// Computes the sums with weights `[K, N]`. All blocks of k but the first are summed in `k_block_sums`.
    #[inline(always)]
    pub(super) fn multiply_row_major<S: Simd>(&self, s: S, sums: &mut [f32], k_block_sums: &mut [f32])
    where
        P: KPack<S>,
    {
        if self.packs == 0 {
            sums.fill(0.0);
        }
        for k in steps(0..self.packs, K_BLOCK) {
            let first = k.start == 0;
            let to = if first { &mut *sums } else { &mut *k_block_sums };
            for rows in steps(k.clone(), SLAB_PACKS) {
                any!(AnyMatRef, self.weights.matrix, w => {
                    for m in steps(0..self.m, rows_in_registers::<S>()) {
                        let slab = KSlab { k: rows.clone(), start: rows.start == k.start, m: m.start };
                        self.multiply_slab(s, (w, slab, m.len()), &mut to[m.start * NC..]);
                    }
                });
            }
            if !first {
                for m in 0..self.m {
                    for at in (m * NC..m * NC + self.n.len()).step_by(LANES) {
                        let sum = s.add(mem::load(s, sums, at), mem::load(s, k_block_sums, at));
                        mem::store(s, sums, at, sum);
                    }
                }
            }
        }
    }

    /// Adds a slab of weights, times `count` rows of x, to the sums.
    #[inline(always)]
    fn multiply_slab<S: Simd, T: Elem>(
        &self,
        s: S,
        (w, slab, count): (MatRef<'_, T>, KSlab, usize),
        sums: &mut [f32],
    ) where
        P: KPack<S>,
    {
        if const { rows_in_registers::<S>() == 8 } {
            match count {
                1 => s.call(RowMajorRows::<_, _, 1, 8> { n_block: self, w, slab, sums }),
                2 => s.call(RowMajorRows::<_, _, 2, 8> { n_block: self, w, slab, sums }),
                3 | 4 => s.call(RowMajorRows::<_, _, 4, 4> { n_block: self, w, slab, sums }),
                _ => s.call(RowMajorRows::<_, _, 8, 3> { n_block: self, w, slab, sums }),
            }
        } else {
            match count {
                1 => s.call(RowMajorRows::<_, _, 1, 4> { n_block: self, w, slab, sums }),
                2 => s.call(RowMajorRows::<_, _, 2, 2> { n_block: self, w, slab, sums }),
                _ => s.call(RowMajorRows::<_, _, 4, 1> { n_block: self, w, slab, sums }),
            }
        }
    }

    /// Adds a slab of weights, times M rows of x, to the sums, 16 x V columns at a time.
    #[inline(always)]
    fn multiply_slab_rows<S: Simd, T: Elem, const M: usize, const V: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        slab: KSlab,
        sums: &mut [f32],
    ) where
        P: KPack<S>,
    {
        let Range { start, end } = self.n;
        let next = if slab.k.end < self.packs { (slab.k.end * P::LEN, start) } else { (0, end) };
        let mut prefetch = BlockPrefetch::bursts(w, next, end - start, lines::<T>(V));
        let mut n = start;
        while n + V * LANES <= end {
            self.multiply_slab_tile::<S, T, M, V>(s, w, &slab, n, &mut sums[n - start..], &mut prefetch);
            n += V * LANES;
        }
        while n < end {
            self.multiply_slab_tile::<S, T, M, 1>(s, w, &slab, n, &mut sums[n - start..], &mut prefetch);
            n += LANES;
        }
    }

    /// [`NBlock::multiply_slab_rows`] for the 16 x V columns from `n` on.
    #[inline(always)]
    fn multiply_slab_tile<S: Simd, T: Elem, const M: usize, const V: usize>(
        &self,
        s: S,
        w: MatRef<'_, T>,
        slab: &KSlab,
        n: usize,
        sums: &mut [f32],
        prefetch: &mut BlockPrefetch,
    ) where
        P: KPack<S>,
    {
        let x = &self.x[slab.m * self.stride()..][..M * self.stride()];
        let sums = &mut sums[..(M - 1) * NC + V * LANES];
        // Only a single vector can reach past the end of a row.
        let whole = if V > 1 || n + LANES <= w.cols() { self.depth / P::LEN } else { 0 };
        let mut local = *prefetch;
        let mut acc = [[s.splat(0.0); V]; M];
        if !slab.start {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = mem::load(s, sums, r * NC + j * LANES);
                }
            }
        }
        // Two loops: vectors that come from either of two loads would be kept in memory.
        let split = slab.k.end.min(whole).max(slab.k.start);
        for k in slab.k.start..split {
            for _ in 0..P::LEN {
                local.prefetch_lines(s, lines::<T>(V));
            }
            let from = w.as_ptr().wrapping_add(k * P::LEN * w.row_stride() + n);
            let mut row = [s.splat(0.0); V];
            for (j, v) in row.iter_mut().enumerate() {
                // SAFETY: 16 elements from there on are inside the row, and inside the other rows of the pack.
                *v = unsafe {
                    self.kpack.load_across_k(
                        s,
                        from.wrapping_add(j * LANES),
                        w.row_stride(),
                        self.weights.round,
                    )
                };
            }
            self.add_row(s, (x, k), row, &mut acc);
        }
        for k in split..slab.k.end {
            let mut row = [s.splat(0.0); V];
            for (j, v) in row.iter_mut().enumerate() {
                *v = self.kpack.load_across_k_partial(s, w, (k * P::LEN, n + j * LANES), self.weights.round);
            }
            self.add_row(s, (x, k), row, &mut acc);
        }
        *prefetch = local;
        for (r, acc) in acc.into_iter().enumerate() {
            for (j, acc) in acc.into_iter().enumerate() {
                mem::store(s, sums, r * NC + j * LANES, acc);
            }
        }
    }

    /// Adds pack `k` of M rows of x, times a row of weights, to the sums.
    #[inline(always)]
    fn add_row<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        (x, k): (&[f32], usize),
        row: [S::F32; V],
        acc: &mut [[S::F32; V]; M],
    ) where
        P: KPack<S>,
    {
        debug_assert!(x.len() == M * self.stride() && k < self.packs);
        for (r, acc) in acc.iter_mut().enumerate() {
            let x = PackPtr { base: x.as_ptr().wrapping_add(k), index: r * self.stride() };
            // SAFETY: x has M rows of `stride` packs, and k is one of the packs.
            unsafe { self.kpack.mul_add_broadcast(s, x, row, acc) };
        }
    }
}

/// A slab of `[K, N]` weights, times M rows of x, 16 x V columns at a time: a function of its own for every M and storage
/// type.
struct RowMajorRows<'a, 'b, P, T, const M: usize, const V: usize> {
    n_block: &'a NBlock<'b, P>,
    w: MatRef<'a, T>,
    slab: KSlab,
    sums: &'a mut [f32],
}

impl<S: Simd, P: KPack<S>, T: Elem, const M: usize, const V: usize> KernelAt<S>
    for RowMajorRows<'_, '_, P, T, M, V>
{
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let RowMajorRows { n_block, w, slab, sums } = self;
        n_block.multiply_slab_rows::<S, T, M, V>(s, w, slab, sums);
    }
}

/// A slab: rows of `[K, N]` weights, and the rows of activations that they are multiplied by.
struct KSlab {
    /// Packs of k.
    k: Range<usize>,
    /// Whether a block of k starts here, and its sums from zero.
    start: bool,
    /// The first row of activations.
    m: usize,
}
