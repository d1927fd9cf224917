//! What a 32-bit lane of the micro-kernels holds: one f32, or two bf16 that one instruction multiplies.
//!
//! A *pack* is one or more successive values of k, interleaved along k: a lane of the vector operand has the values of one
//! column (or row) for k, k + 1, ... side by side. For bf16 this is the layout that Intel calls VNNI. The register tile,
//! the kernels for few rows, packing and attention are written once against [`KPack`] and count k in packs.

use crate::elem::Elem;
use crate::isa::{LANES, Simd};
use crate::mem;
use crate::view::MatRef;

/// The address of a pack: `index` packs behind `base`, with no alignment. Instructions with a memory operand take the two
/// apart.
#[derive(Clone, Copy)]
pub(crate) struct PackPtr {
    pub(crate) base: *const f32,
    pub(crate) index: usize,
}

/// A pack: 4 bytes with [`KPack::LEN`] successive values of k.
///
/// Loads *along k* read a row whose elements are successive values of k; loads *across k* read rows whose elements are
/// lanes, one row for each value of k. With `round`, values are rounded to bf16; storage in bf16 is never rounded.
pub(crate) trait KPack<S: Simd>: Copy + Send + Sync {
    /// Values of k in a pack.
    const LEN: usize;

    /// `sum` plus the products of the values in the packs `x` and `v`, lane by lane.
    fn mul_add(self, s: S, x: S::F32, v: S::F32, sum: S::F32) -> S::F32;

    /// [`KPack::mul_add`] of the pack at `x`, broadcast to all lanes, with each of `v`, into each of `sums`.
    ///
    /// # Safety
    /// The pack must be readable.
    #[inline(always)]
    unsafe fn mul_add_broadcast<const V: usize>(
        self,
        s: S,
        x: PackPtr,
        v: [S::F32; V],
        sums: &mut [S::F32; V],
    ) {
        // SAFETY: the caller's contract.
        let x = s.splat(unsafe { x.base.add(x.index).read_unaligned() });
        for (sum, v) in sums.iter_mut().zip(v) {
            *sum = self.mul_add(s, x, v, *sum);
        }
    }

    /// Loads 16 successive packs of a row along k.
    ///
    /// # Safety
    /// The elements of 16 packs must be readable at `from`.
    unsafe fn load_along_k<T: Elem>(self, s: S, from: *const T, round: bool) -> S::F32;

    /// [`KPack::load_along_k`] from element `at` of a row on; values past the end of the row are zero.
    fn load_along_k_partial<T: Elem>(self, s: S, row: &[T], at: usize, round: bool) -> S::F32;

    /// Loads 16 packs of each of 16 rows, `stride` elements apart, and transposes them: vector `i` holds pack `i` of every
    /// row.
    ///
    /// # Safety
    /// The elements of 16 packs must be readable at `from` and in each further row.
    #[inline(always)]
    unsafe fn load_transposed<T: Elem>(
        self,
        s: S,
        from: *const T,
        stride: usize,
        round: bool,
    ) -> [S::F32; LANES] {
        if size_of::<T>() * Self::LEN == size_of::<f32>() && !round {
            // SAFETY: the caller's contract; the row is stored as packs.
            return unsafe { s.load_transposed(from.cast(), stride.wrapping_mul(size_of::<T>())) };
        }
        let mut block = [s.splat(0.0); LANES];
        for (i, v) in block.iter_mut().enumerate() {
            // SAFETY: the caller's contract.
            *v = unsafe { self.load_along_k(s, from.wrapping_add(i * stride), round) };
        }
        s.transpose(block)
    }

    /// Loads 16 packs side by side, across k: their values come from [`KPack::LEN`] successive rows, `stride` elements
    /// apart.
    ///
    /// # Safety
    /// 16 elements must be readable at `from` and in each further row of a pack.
    unsafe fn load_across_k<T: Elem>(self, s: S, from: *const T, stride: usize, round: bool) -> S::F32;

    /// [`KPack::load_across_k`] from row `at.0` and column `at.1` of a matrix on; values past its ends are zero.
    fn load_across_k_partial<T: Elem>(
        self,
        s: S,
        from: MatRef<'_, T>,
        at: (usize, usize),
        round: bool,
    ) -> S::F32;

    /// Makes a pack of each lane's values. Only the first [`KPack::LEN`] of the two vectors count.
    fn compose(self, s: S, values: [S::F32; 2], round: bool) -> S::F32;

    /// Widens the `i`-th pack from four vectors of raw stored bits, each lane with 4 bytes of its row; there are
    /// [`packs_in`] `16` of them. Storage other than bf16 is rounded if packs hold bf16.
    fn unpack<T: Elem>(self, s: S, stored: [S::F32; 4], i: usize) -> S::F32;
}

/// Packs of `len` values in `bytes` bytes of storage as `T`.
pub(crate) const fn packs_in<T>(bytes: usize, len: usize) -> usize {
    bytes / size_of::<T>() / len
}

/// A pack of one f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct F32Pack;

impl<S: Simd> KPack<S> for F32Pack {
    const LEN: usize = 1;

    #[inline(always)]
    fn mul_add(self, s: S, x: S::F32, v: S::F32, sum: S::F32) -> S::F32 {
        s.mul_add(x, v, sum)
    }

    #[inline(always)]
    unsafe fn load_along_k<T: Elem>(self, s: S, from: *const T, round: bool) -> S::F32 {
        // SAFETY: the caller's contract.
        let v = unsafe { T::load(s, from) };
        if round { s.round_to_bf16(v) } else { v }
    }

    #[inline(always)]
    fn load_along_k_partial<T: Elem>(self, s: S, row: &[T], at: usize, round: bool) -> S::F32 {
        let v = mem::load(s, row, at.min(row.len()));
        if round { s.round_to_bf16(v) } else { v }
    }

    #[inline(always)]
    unsafe fn load_across_k<T: Elem>(self, s: S, from: *const T, _: usize, round: bool) -> S::F32 {
        // SAFETY: the caller's contract.
        unsafe { KPack::<S>::load_along_k(self, s, from, round) }
    }

    #[inline(always)]
    fn load_across_k_partial<T: Elem>(
        self,
        s: S,
        from: MatRef<'_, T>,
        at: (usize, usize),
        round: bool,
    ) -> S::F32 {
        self.load_along_k_partial(s, from.row(at.0), at.1, round)
    }

    #[inline(always)]
    fn compose(self, s: S, [v, _]: [S::F32; 2], round: bool) -> S::F32 {
        if round { s.round_to_bf16(v) } else { v }
    }

    #[inline(always)]
    fn unpack<T: Elem>(self, s: S, stored: [S::F32; 4], i: usize) -> S::F32 {
        let per_lane = size_of::<f32>() / size_of::<T>();
        T::split(s, stored[i / per_lane])[i % per_lane]
    }
}
