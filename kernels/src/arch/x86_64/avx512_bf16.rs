//! AVX512-BF16: products of pairs of bfloat16, and rounding to them, on the vectors of [`Avx512`].
//!
//! A 32-bit lane holds a pair, the first number in its low half. The instructions are written with `asm!`: as features of a
//! token beside [`Avx512`] they would need a second copy of the whole vocabulary.

use core::arch::asm;
use core::arch::x86_64::{
    __cpuid, __m256i, __m512, __m512i, _mm512_castps_si512, _mm512_castsi256_si512, _mm512_castsi512_ps,
    _mm512_inserti64x4, _mm512_loadu_si512, _mm512_permutexvar_epi16,
};

use super::avx512::Avx512;

/// The proof of AVX512-BF16.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bf16Pairs {
    _proof: (),
}

impl Bf16Pairs {
    /// The token, if the processor has the feature.
    pub(crate) fn try_new() -> Option<Bf16Pairs> {
        std::arch::is_x86_feature_detected!("avx512bf16").then_some(Bf16Pairs { _proof: () })
    }

    /// Whether a product of pairs is faster than two fused multiply-adds on widened numbers. AMD's processors execute it in
    /// one step; Intel's take several, and have tiles for bfloat16.
    pub(crate) fn is_fast() -> bool {
        let vendor = __cpuid(0);
        let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        ["AuthenticAMD", "HygonGenuine"].iter().any(|amd| amd.as_bytes() == name.as_flattened())
    }

    /// Adds the products of both numbers of each pair to `sum`, as `vdpbf16ps` does.
    #[inline(always)]
    pub(crate) fn mul_add(self, _: Avx512, x: __m512, v: __m512, sum: __m512) -> __m512 {
        // SAFETY: the tokens are the proof of AVX-512 F and AVX512-BF16.
        unsafe { mul_add(x, v, sum) }
    }

    /// [`Bf16Pairs::mul_add`] of one pair, `index` pairs behind `base`, broadcast to all lanes: one instruction reads and
    /// multiplies it.
    ///
    /// # Safety
    /// It must be readable, with no alignment.
    #[inline(always)]
    pub(crate) unsafe fn mul_add_at(
        self,
        _: Avx512,
        base: *const f32,
        index: usize,
        v: __m512,
        sum: __m512,
    ) -> __m512 {
        // SAFETY: the tokens are the proof of AVX-512 F and AVX512-BF16; the caller's contract.
        unsafe { mul_add_at(base, index, v, sum) }
    }

    /// Rounds both vectors to bf16 (to nearest, ties to even, subnormal numbers to zero), one after the other.
    #[inline(always)]
    pub(crate) fn join(self, _: Avx512, first: __m512, second: __m512) -> __m512 {
        // SAFETY: the tokens are the proof of AVX-512 F and AVX512-BF16.
        unsafe { join(first, second) }
    }

    /// Rounds both vectors to bf16 as [`Bf16Pairs::join`] does, and interleaves them: pairs of elements with the same
    /// index.
    #[inline(always)]
    pub(crate) fn interleave(self, s: Avx512, even: __m512, odd: __m512) -> __m512 {
        self.alternate(s, self.join(s, even, odd))
    }

    /// Interleaves vectors that were joined by [`Bf16Pairs::join`].
    #[inline(always)]
    pub(crate) fn alternate(self, _: Avx512, joined: __m512) -> __m512 {
        // SAFETY: the token is the proof of AVX-512 F and BW.
        unsafe { alternate(_mm512_castps_si512(joined)) }
    }

    /// Loads 16 bf16 from each of two addresses, interleaved.
    ///
    /// # Safety
    /// 32 bytes must be readable at both, with no alignment.
    #[inline(always)]
    pub(crate) unsafe fn load_alternating(self, _: Avx512, even: *const u16, odd: *const u16) -> __m512 {
        // SAFETY: the caller's contract, and the token of AVX-512 F and BW.
        unsafe {
            let (even, odd) =
                (even.cast::<__m256i>().read_unaligned(), odd.cast::<__m256i>().read_unaligned());
            alternate(both(even, odd))
        }
    }
}

/// # Safety
/// The processor has AVX-512 F and AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn mul_add(x: __m512, v: __m512, mut sum: __m512) -> __m512 {
    // SAFETY: one instruction on registers, which the caller's processor has.
    unsafe {
        asm!(
            "vdpbf16ps {0}, {1}, {2}",
            inlateout(zmm_reg) sum,
            in(zmm_reg) x,
            in(zmm_reg) v,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// # Safety
/// The processor has AVX-512 F and AVX512-BF16, and 4 bytes are readable `4 * index` behind `base`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn mul_add_at(base: *const f32, index: usize, v: __m512, mut sum: __m512) -> __m512 {
    // SAFETY: one instruction, which the caller's processor has; it reads what the caller vouches for.
    unsafe {
        asm!(
            "vdpbf16ps {sum}, {v}, dword ptr [{base} + 4*{index}]{{1to16}}",
            sum = inlateout(zmm_reg) sum,
            v = in(zmm_reg) v,
            base = in(reg) base,
            index = in(reg) index,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    sum
}

/// # Safety
/// The processor has AVX-512 F and AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn join(first: __m512, second: __m512) -> __m512 {
    let joined;
    // SAFETY: one instruction on registers, which the caller's processor has.
    unsafe {
        asm!(
            "vcvtne2ps2bf16 {0}, {1}, {2}",
            lateout(zmm_reg) joined,
            in(zmm_reg) second,
            in(zmm_reg) first,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    joined
}

/// Concatenates two vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn both(first: __m256i, second: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
}

/// Interleaves the lower and the upper half of 32 16-bit numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn alternate(halves: __m512i) -> __m512 {
    static ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 16 {
            order[2 * i] = i as u16;
            order[2 * i + 1] = 16 + i as u16;
            i += 1;
        }
        order
    };
    // SAFETY: the array has 64 bytes.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, halves))
}
