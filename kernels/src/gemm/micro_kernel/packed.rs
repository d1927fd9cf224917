//! The packed operand V of the register tile: a panel that is packed, or one that is packed while it is used.
//!
//! Packing apart from multiplying would wait for memory with the multipliers idle. So a panel of weights that meets its
//! first rows is a [`FusedPack`], if it consists of whole vectors and packs: loaded from where it lies, multiplied, and
//! stored packed. From then on it is a [`PackedPanel`]. Both give the same vectors in the same order, so the sums have the
//! same bits.

use core::marker::PhantomData;

use super::K_UNROLL;
use crate::elem::Elem;
use crate::gemm::kpack::KPack;
use crate::isa::{LANES, Simd};
use crate::view::MatRef;

/// The vectors of V, pack of k after pack of k.
pub(super) trait PackedOperand<S: Simd> {
    /// Packs of k in one iteration of the inner loop.
    const UNROLL: usize;

    /// Vectors for one pack of k.
    fn vectors(&self) -> usize;

    /// Packs of k that are left.
    fn depth(&self) -> usize;

    /// Takes the NV vectors of the next pack of k.
    ///
    /// # Safety
    /// There must be one, and NV must be `vectors()`.
    unsafe fn take<const NV: usize>(&mut self, s: S) -> [S::F32; NV];
}

/// A packed panel.
pub(super) struct PackedPanel<'a> {
    at: *const f32,
    vectors: usize,
    depth: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> PackedPanel<'a> {
    #[inline(always)]
    pub(super) fn of(packed: &'a [f32], width: usize) -> PackedPanel<'a> {
        let depth = packed.len() / width;
        PackedPanel { at: packed.as_ptr(), vectors: width / LANES, depth, lifetime: PhantomData }
    }
}

impl<S: Simd> PackedOperand<S> for PackedPanel<'_> {
    /// Unrolling saves the loop's counting, which costs where the front end is shared with another hardware thread.
    const UNROLL: usize = K_UNROLL;

    #[inline(always)]
    fn vectors(&self) -> usize {
        self.vectors
    }

    #[inline(always)]
    fn depth(&self) -> usize {
        self.depth
    }

    #[inline(always)]
    unsafe fn take<const NV: usize>(&mut self, s: S) -> [S::F32; NV] {
        let mut v = [s.splat(0.0); NV];
        for (j, v) in v.iter_mut().enumerate() {
            // SAFETY: the caller's contract; `of` counted the vectors.
            *v = unsafe { s.load(self.at.add(j * LANES)) };
        }
        self.at = self.at.wrapping_add(NV * LANES);
        v
    }
}

/// A panel of weights where it lies, packed while it is used; with `ROUND`, rounded to bf16 first.
pub(super) struct FusedPack<'a, P, T, const ROUND: bool> {
    kpack: P,
    from: *const T,
    stride: usize,
    to: *mut f32,
    vectors: usize,
    rows: usize,
    lifetime: PhantomData<(&'a T, &'a mut f32)>,
}

impl<'a, P, T, const ROUND: bool> FusedPack<'a, P, T, ROUND> {
    /// The rows of `from`, whole packs and whole vectors, which are stored packed in `to`.
    #[inline(always)]
    pub(super) fn of<S: Simd>(kpack: P, from: MatRef<'a, T>, to: &'a mut [f32]) -> Self
    where
        P: KPack<S>,
    {
        let (rows, width) = (from.rows(), from.cols());
        assert!(rows.is_multiple_of(P::LEN) && width.is_multiple_of(LANES));
        assert!(to.len() >= rows / P::LEN * width);
        let stride = from.row_stride();
        let (from, to, vectors) = (from.as_ptr(), to.as_mut_ptr(), width / LANES);
        FusedPack { kpack, from, stride, to, vectors, rows, lifetime: PhantomData }
    }
}

impl<S: Simd, P: KPack<S>, T: Elem, const ROUND: bool> PackedOperand<S> for FusedPack<'_, P, T, ROUND> {
    /// Unrolled, the loop would not leave the registers for the addresses.
    const UNROLL: usize = 1;

    #[inline(always)]
    fn vectors(&self) -> usize {
        self.vectors
    }

    #[inline(always)]
    fn depth(&self) -> usize {
        self.rows / P::LEN
    }

    #[inline(always)]
    unsafe fn take<const NV: usize>(&mut self, s: S) -> [S::F32; NV] {
        let mut v = [s.splat(0.0); NV];
        for row in 0..P::LEN {
            let distance = self.stride.wrapping_mul(prefetch_distance::<S>() * P::LEN + row);
            for j in 0..NV {
                s.prefetch(self.from.wrapping_add(distance).wrapping_add(j * LANES).cast());
            }
        }
        for (j, v) in v.iter_mut().enumerate() {
            // SAFETY: the caller's contract; `of` checked for whole vectors in each row, and for as much room in `to`.
            unsafe {
                *v = self.kpack.load_across_k(s, self.from.add(j * LANES), self.stride, ROUND);
                s.store(self.to.add(j * LANES), *v);
            }
        }
        self.from = self.from.wrapping_add(self.stride.wrapping_mul(P::LEN));
        self.to = self.to.wrapping_add(NV * LANES);
        v
    }
}

/// How many packs of k ahead rows of weights are prefetched into the first-level cache, since the hardware prefetcher does
/// not see where the panel's next row lies. A third-level cache answers within about 192 multiply-adds of vectors.
const fn prefetch_distance<S: Simd>() -> usize {
    192 / (S::TILE_ROWS * S::TILE_VECTORS)
}
