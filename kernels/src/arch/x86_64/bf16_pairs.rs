//! [`KPack`] for pairs of bf16, and the kernels that run on them.

use core::arch::x86_64::__m512;

use super::avx512::Avx512;
use super::avx512_bf16::Bf16Pairs;
use crate::attention::RunHead;
use crate::elem::Elem;
use crate::gemm::RegisterTile;
use crate::gemm::kpack::{KPack, PackPtr};
use crate::gemm::macro_kernel::RegisterTileGemm;
use crate::gemm::small_m::SmallM;
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::probe::{Peak, peak};
use crate::view::MatRef;

/// A pack of two bf16: the VNNI layout, which `vdpbf16ps` and AMX take.
impl KPack<Avx512> for Bf16Pairs {
    const LEN: usize = 2;

    #[inline(always)]
    fn mul_add(self, s: Avx512, x: __m512, v: __m512, sum: __m512) -> __m512 {
        Bf16Pairs::mul_add(self, s, x, v, sum)
    }

    /// Where few vectors share a broadcast, each product reads the pack from memory itself: a broadcast takes as long as a
    /// product. 16 rows of `[N, K]` weights run at 0.9 of the peak instead of 0.65, 8 rows at 0.75 instead of 0.5. For 8
    /// vectors, one broadcast is faster by 0.05 of the peak.
    #[inline(always)]
    unsafe fn mul_add_broadcast<const V: usize>(
        self,
        s: Avx512,
        x: PackPtr,
        v: [__m512; V],
        sums: &mut [__m512; V],
    ) {
        // SAFETY: the caller's contract.
        unsafe {
            let shared = s.splat(x.base.add(x.index).read_unaligned());
            for (sum, v) in sums.iter_mut().zip(v) {
                *sum = match V {
                    0..=4 => self.mul_add_at(s, x.base, x.index, v, *sum),
                    _ => KPack::mul_add(self, s, shared, v, *sum),
                };
            }
        }
    }

    #[inline(always)]
    unsafe fn load_along_k<T: Elem>(self, s: Avx512, from: *const T, _: bool) -> __m512 {
        // SAFETY: the caller's contract: 32 elements.
        unsafe {
            if T::IS_BF16 {
                s.load(from.cast())
            } else {
                self.join(s, T::load(s, from), T::load(s, from.add(LANES)))
            }
        }
    }

    #[inline(always)]
    fn load_along_k_partial<T: Elem>(self, s: Avx512, row: &[T], at: usize, round: bool) -> __m512 {
        if at + 2 * LANES <= row.len() {
            // SAFETY: the row has 32 elements from `at` on.
            return unsafe { self.load_along_k(s, row[at..].as_ptr(), round) };
        }
        let (first, second) = (at.min(row.len()), (at + LANES).min(row.len()));
        self.join(s, mem::load(s, row, first), mem::load(s, row, second))
    }

    #[inline(always)]
    unsafe fn load_across_k<T: Elem>(self, s: Avx512, from: *const T, stride: usize, _: bool) -> __m512 {
        let next = from.wrapping_add(stride);
        // SAFETY: the caller's contract: 16 elements of two rows.
        unsafe {
            if T::IS_BF16 {
                self.load_alternating(s, from.cast(), next.cast())
            } else {
                self.interleave(s, T::load(s, from), T::load(s, next))
            }
        }
    }

    #[inline(always)]
    fn load_across_k_partial<T: Elem>(
        self,
        s: Avx512,
        from: MatRef<'_, T>,
        at: (usize, usize),
        _: bool,
    ) -> __m512 {
        let row = |k: usize| if k < from.rows() { from.row(k) } else { &[] };
        let (even, odd) = (row(at.0), row(at.0 + 1));
        self.interleave(s, mem::load(s, even, at.1.min(even.len())), mem::load(s, odd, at.1.min(odd.len())))
    }

    #[inline(always)]
    fn compose(self, s: Avx512, [even, odd]: [__m512; 2], _: bool) -> __m512 {
        self.interleave(s, even, odd)
    }

    #[inline(always)]
    fn unpack<T: Elem>(self, s: Avx512, stored: [__m512; 4], i: usize) -> __m512 {
        if T::IS_BF16 {
            return stored[i];
        }
        if size_of::<T>() == size_of::<f32>() {
            return self.interleave(s, stored[2 * i], stored[2 * i + 1]);
        }
        let [even, odd] = T::split(s, stored[i]);
        self.interleave(s, even, odd)
    }
}

impl KernelAt<Avx512> for RegisterTileGemm<'_, '_, Bf16Pairs> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl KernelAt<Avx512> for SmallM<'_, '_, Bf16Pairs> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl KernelAt<Avx512> for RunHead<'_, RegisterTile<Bf16Pairs>> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl KernelAt<Avx512> for Peak<Bf16Pairs> {
    type Output = f64;

    #[inline(always)]
    fn run_at(self, s: Avx512) -> f64 {
        peak::<Avx512, Bf16Pairs, 8, 3>(s, self.0)
    }
}
