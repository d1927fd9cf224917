//! Level `Avx512`: one 512-bit register a vector.

use core::arch::x86_64::{
    __m128, __m256i, __m512, __m512i, __mmask16, _CMP_LT_OQ, _MM_FROUND_NO_EXC, _MM_HINT_T0, _MM_HINT_T1,
};

use super::prefetch;
use crate::isa::{Entry, KernelAt, LANES, Simd};

pulp::simd_type! {
    /// AVX-512 F, BW, CD, DQ and VL, with what they imply.
    pub(crate) struct Avx512 {
        sse: "sse",
        sse2: "sse2",
        sse3: "sse3",
        ssse3: "ssse3",
        sse4_1: "sse4.1",
        sse4_2: "sse4.2",
        popcnt: "popcnt",
        avx: "avx",
        avx2: "avx2",
        bmi1: "bmi1",
        bmi2: "bmi2",
        fma: "fma",
        lzcnt: "lzcnt",
        avx512f: "avx512f",
        avx512bw: "avx512bw",
        avx512cd: "avx512cd",
        avx512dq: "avx512dq",
        avx512vl: "avx512vl",
    }
}

impl Avx512 {
    /// The bf16 bits of each lane, rounded to nearest even, in the high half of the lane.
    #[inline(always)]
    fn bf16_bits(self, v: __m512) -> __m512i {
        let f = self.avx512f;
        let bits = f._mm512_castps_si512(v);
        let lsb = f._mm512_and_si512(f._mm512_srli_epi32::<16>(bits), f._mm512_set1_epi32(1));
        let rounded = f._mm512_add_epi32(bits, f._mm512_add_epi32(lsb, f._mm512_set1_epi32(0x7fff)));
        let quiet = f._mm512_or_si512(bits, f._mm512_set1_epi32(0x0040_0000));
        let nan = f._mm512_cmp_ps_mask::<{ core::arch::x86_64::_CMP_UNORD_Q }>(v, v);
        f._mm512_mask_blend_epi32(nan, rounded, quiet)
    }

    /// Transposes the four 4 x 4 blocks in the 128-bit quarters.
    #[inline(always)]
    fn transpose_quarters(self, [a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
        let f = self.avx512f;
        let pd = |v| f._mm512_castps_pd(v);
        let ps = |v| f._mm512_castpd_ps(v);
        let (ab_lo, ab_hi) = (f._mm512_unpacklo_ps(a, b), f._mm512_unpackhi_ps(a, b));
        let (cd_lo, cd_hi) = (f._mm512_unpacklo_ps(c, d), f._mm512_unpackhi_ps(c, d));
        [
            ps(f._mm512_unpacklo_pd(pd(ab_lo), pd(cd_lo))),
            ps(f._mm512_unpackhi_pd(pd(ab_lo), pd(cd_lo))),
            ps(f._mm512_unpacklo_pd(pd(ab_hi), pd(cd_hi))),
            ps(f._mm512_unpackhi_pd(pd(ab_hi), pd(cd_hi))),
        ]
    }
}

impl Simd for Avx512 {
    type F32 = __m512;
    type Mask = __mmask16;

    const TILE_ROWS: usize = 8;
    const TILE_VECTORS: usize = 3;

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        prefetch::<_MM_HINT_T0>(at);
    }
    #[inline(always)]
    fn prefetch_far(self, at: *const u8) {
        prefetch::<_MM_HINT_T1>(at);
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        self.avx512f._mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the trait's contract: 16 elements are readable.
        unsafe { self.avx512f._mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> __m512 {
        let f = self.avx512f;
        // SAFETY: the trait's contract: 16 elements of 2 bytes are readable; the read is unaligned.
        let bits = unsafe { from.cast::<__m256i>().read_unaligned() };
        f._mm512_castsi512_ps(f._mm512_slli_epi32::<16>(f._mm512_cvtepu16_epi32(bits)))
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> __m512 {
        // SAFETY: the trait's contract: 16 elements of 2 bytes are readable; the read is unaligned.
        let bits = unsafe { from.cast::<__m256i>().read_unaligned() };
        self.avx512f._mm512_cvtph_ps(bits)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m512) {
        // SAFETY: the trait's contract: 16 elements are writable.
        unsafe { self.avx512f._mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, v: __m512) {
        let f = self.avx512f;
        let bits = f._mm512_cvtepi32_epi16(f._mm512_srli_epi32::<16>(self.bf16_bits(v)));
        // SAFETY: the trait's contract: 16 elements of 2 bytes are writable; the write is unaligned.
        unsafe { to.cast::<__m256i>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, v: __m512) {
        let bits = self.avx512f._mm512_cvtps_ph::<_MM_FROUND_NO_EXC>(v);
        // SAFETY: the trait's contract: 16 elements of 2 bytes are writable; the write is unaligned.
        unsafe { to.cast::<__m256i>().write_unaligned(bits) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_add_ps(a, b)
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_sub_ps(a, b)
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_mul_ps(a, b)
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_div_ps(a, b)
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.avx512f._mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_max_ps(a, b)
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_min_ps(a, b)
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        self.avx512f._mm512_abs_ps(a)
    }
    #[inline(always)]
    fn with_sign(self, magnitude: __m512, sign: __m512) -> __m512 {
        let dq = self.avx512dq;
        dq._mm512_or_ps(magnitude, dq._mm512_and_ps(sign, self.splat(-0.0)))
    }
    #[inline(always)]
    fn lt(self, a: __m512, b: __m512) -> __mmask16 {
        self.avx512f._mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b)
    }
    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_mask_blend_ps(mask, b, a)
    }
    #[inline(always)]
    fn shift_into_exponent(self, a: __m512) -> __m512 {
        let f = self.avx512f;
        f._mm512_castsi512_ps(f._mm512_slli_epi32::<23>(f._mm512_castps_si512(a)))
    }
    #[inline(always)]
    fn scale(self, a: __m512, n: __m512) -> __m512 {
        self.avx512f._mm512_scalef_ps(a, n)
    }
    #[inline(always)]
    fn round_to_bf16(self, a: __m512) -> __m512 {
        let f = self.avx512f;
        let high = f._mm512_set1_epi32(0xffff_0000_u32 as i32);
        f._mm512_castsi512_ps(f._mm512_and_si512(self.bf16_bits(a), high))
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        let f = self.avx512f;
        let a = f._mm512_add_ps(a, f._mm512_shuffle_f32x4::<0b01_00_11_10>(a, a));
        let a = f._mm512_add_ps(a, f._mm512_shuffle_f32x4::<0b10_11_00_01>(a, a));
        let a = f._mm512_add_ps(a, f._mm512_permute_ps::<0b01_00_11_10>(a));
        let a = f._mm512_add_ps(a, f._mm512_permute_ps::<0b10_11_00_01>(a));
        self.sse._mm_cvtss_f32(f._mm512_castps512_ps128(a))
    }
    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        let f = self.avx512f;
        let a = f._mm512_max_ps(a, f._mm512_shuffle_f32x4::<0b01_00_11_10>(a, a));
        let a = f._mm512_max_ps(a, f._mm512_shuffle_f32x4::<0b10_11_00_01>(a, a));
        let a = f._mm512_max_ps(a, f._mm512_permute_ps::<0b01_00_11_10>(a));
        let a = f._mm512_max_ps(a, f._mm512_permute_ps::<0b10_11_00_01>(a));
        self.sse._mm_cvtss_f32(f._mm512_castps512_ps128(a))
    }
    #[inline(always)]
    unsafe fn load_quad(self, from: *const u8, stride: usize) -> [__m512; 4] {
        let f = self.avx512f;
        // Vector r holds the values of rows r, 4 + r, 8 + r and 12 + r, a quarter each. Inserting them from memory saves
        // half of the shuffles. Masked broadcasts were no faster.
        let mut v = [self.splat(0.0); 4];
        for (r, v) in v.iter_mut().enumerate() {
            // SAFETY: the caller's contract.
            unsafe {
                let quarter =
                    |q: usize| from.wrapping_add((r + 4 * q) * stride).cast::<__m128>().read_unaligned();
                let mut x = f._mm512_castps128_ps512(quarter(0));
                x = f._mm512_insertf32x4::<1>(x, quarter(1));
                x = f._mm512_insertf32x4::<2>(x, quarter(2));
                *v = f._mm512_insertf32x4::<3>(x, quarter(3));
            }
        }
        self.transpose_quarters(v)
    }
    #[inline(always)]
    fn split_bf16(self, pairs: __m512) -> [__m512; 2] {
        let f = self.avx512f;
        let bits = f._mm512_castps_si512(pairs);
        let high = f._mm512_and_si512(bits, f._mm512_set1_epi32(0xffff_0000_u32 as i32));
        [f._mm512_castsi512_ps(f._mm512_slli_epi32::<16>(bits)), f._mm512_castsi512_ps(high)]
    }
    #[inline(always)]
    fn split_f16(self, pairs: __m512) -> [__m512; 2] {
        let f = self.avx512f;
        let bits = f._mm512_castps_si512(pairs);
        let widen = |bits| f._mm512_cvtph_ps(f._mm512_cvtepi32_epi16(bits));
        [widen(bits), widen(f._mm512_srli_epi32::<16>(bits))]
    }
    #[inline(always)]
    fn transpose(self, r: [__m512; LANES]) -> [__m512; LANES] {
        let f = self.avx512f;
        // t[4g..4g + 4] holds rows 4g..4g + 4, one column of each quarter in each vector.
        let mut t = r;
        for t in t.as_chunks_mut::<4>().0 {
            *t = self.transpose_quarters(*t);
        }
        // t[4g + c] holds, in quarter q, rows 4g..4g+4 of column 4q + c: gather the quarters.
        let mut out = r;
        for c in 0..4 {
            let (a, b, d, e) = (t[c], t[4 + c], t[8 + c], t[12 + c]);
            let ab_even = f._mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
            let ab_odd = f._mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
            let de_even = f._mm512_shuffle_f32x4::<0b10_00_10_00>(d, e);
            let de_odd = f._mm512_shuffle_f32x4::<0b11_01_11_01>(d, e);
            out[c] = f._mm512_shuffle_f32x4::<0b10_00_10_00>(ab_even, de_even);
            out[8 + c] = f._mm512_shuffle_f32x4::<0b11_01_11_01>(ab_even, de_even);
            out[4 + c] = f._mm512_shuffle_f32x4::<0b10_00_10_00>(ab_odd, de_odd);
            out[12 + c] = f._mm512_shuffle_f32x4::<0b11_01_11_01>(ab_odd, de_odd);
        }
        out
    }

    #[inline(always)]
    fn call<K: KernelAt<Self>>(self, kernel: K) -> K::Output {
        self.vectorize(Entry { s: self, kernel })
    }
}
