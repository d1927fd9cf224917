//! Level `Avx2`: two 256-bit registers a vector, low lanes first.

use core::arch::x86_64::{
    __m128, __m128i, __m256, __m256i, _CMP_LT_OQ, _CMP_UNORD_Q, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0,
    _MM_HINT_T1, _mm256_cvtph_ps, _mm256_cvtps_ph,
};

use super::prefetch;
use crate::isa::{Entry, KernelAt, LANES, Simd};

pulp::simd_type! {
    /// AVX2, FMA and F16C, with what they imply.
    pub(crate) struct Avx2 {
        sse: "sse",
        sse2: "sse2",
        sse3: "sse3",
        ssse3: "ssse3",
        sse4_1: "sse4.1",
        sse4_2: "sse4.2",
        popcnt: "popcnt",
        avx: "avx",
        avx2: "avx2",
        fma: "fma",
        f16c: "f16c",
    }
}

type V = [__m256; 2];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(__m256, __m256) -> __m256) -> V {
    [f(a[0], b[0]), f(a[1], b[1])]
}

#[inline(always)]
fn map(a: V, f: impl Fn(__m256) -> __m256) -> V {
    [f(a[0]), f(a[1])]
}

impl Avx2 {
    /// The bf16 bits of each lane, rounded to nearest even, in the high half of the lane.
    #[inline(always)]
    fn bf16_bits(self, v: __m256) -> __m256i {
        let (avx, avx2) = (self.avx, self.avx2);
        let bits = avx._mm256_castps_si256(v);
        let lsb = avx2._mm256_and_si256(avx2._mm256_srli_epi32::<16>(bits), avx._mm256_set1_epi32(1));
        let rounded = avx2._mm256_add_epi32(bits, avx2._mm256_add_epi32(lsb, avx._mm256_set1_epi32(0x7fff)));
        let quiet = avx2._mm256_or_si256(bits, avx._mm256_set1_epi32(0x0040_0000));
        let nan = avx._mm256_castps_si256(avx._mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        avx2._mm256_blendv_epi8(rounded, quiet, nan)
    }

    /// Rounds each lane to bf16. A function and not a closure, as a closure may be left out of line.
    #[inline(always)]
    fn bf16_rounded(self, v: __m256) -> __m256 {
        let high = self.avx._mm256_set1_epi32(0xffff_0000_u32 as i32);
        self.avx._mm256_castsi256_ps(self.avx2._mm256_and_si256(self.bf16_bits(v), high))
    }

    #[inline(always)]
    fn widen_bf16(self, bits: __m128i) -> __m256 {
        let wide = self.avx2._mm256_cvtepu16_epi32(bits);
        self.avx._mm256_castsi256_ps(self.avx2._mm256_slli_epi32::<16>(wide))
    }

    #[inline(always)]
    fn widen_f16(self, bits: __m128i) -> __m256 {
        // SAFETY: the token holds F16C.
        unsafe { _mm256_cvtph_ps(bits) }
    }

    /// Widens the f16 in the low half of each 32-bit lane, whose high half is zero.
    #[inline(always)]
    fn widen_f16_lanes(self, lanes: __m256i) -> __m256 {
        let low = self.avx._mm256_castsi256_si128(lanes);
        let high = self.avx2._mm256_extracti128_si256::<1>(lanes);
        self.widen_f16(self.sse4_1._mm_packus_epi32(low, high))
    }

    /// Transposes the two 4 x 4 blocks in the 128-bit halves.
    #[inline(always)]
    fn transpose_halves(self, [a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
        let avx = self.avx;
        let (ab_lo, ab_hi) = (avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b));
        let (cd_lo, cd_hi) = (avx._mm256_unpacklo_ps(c, d), avx._mm256_unpackhi_ps(c, d));
        [
            avx._mm256_shuffle_ps::<0b01_00_01_00>(ab_lo, cd_lo),
            avx._mm256_shuffle_ps::<0b11_10_11_10>(ab_lo, cd_lo),
            avx._mm256_shuffle_ps::<0b01_00_01_00>(ab_hi, cd_hi),
            avx._mm256_shuffle_ps::<0b11_10_11_10>(ab_hi, cd_hi),
        ]
    }

    #[inline(always)]
    fn transpose8(self, r: [__m256; 8]) -> [__m256; 8] {
        let avx = self.avx;
        let mut t = r;
        for t in t.as_chunks_mut::<4>().0 {
            *t = self.transpose_halves(*t);
        }
        let mut out = r;
        for c in 0..4 {
            out[c] = avx._mm256_permute2f128_ps::<0x20>(t[c], t[4 + c]);
            out[4 + c] = avx._mm256_permute2f128_ps::<0x31>(t[c], t[4 + c]);
        }
        out
    }
}

impl Simd for Avx2 {
    type F32 = V;
    type Mask = V;

    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        prefetch::<_MM_HINT_T0>(at);
    }
    #[inline(always)]
    fn prefetch_far(self, at: *const u8) {
        prefetch::<_MM_HINT_T1>(at);
    }
    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [self.avx._mm256_set1_ps(x); 2]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> V {
        // SAFETY: the trait's contract: 16 elements are readable.
        unsafe { [self.avx._mm256_loadu_ps(from), self.avx._mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> V {
        // SAFETY: the trait's contract: 16 elements of 2 bytes are readable; the read is unaligned.
        let [low, high] = unsafe { from.cast::<[__m128i; 2]>().read_unaligned() };
        [self.widen_bf16(low), self.widen_bf16(high)]
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> V {
        // SAFETY: the trait's contract: 16 elements of 2 bytes are readable; the read is unaligned.
        let [low, high] = unsafe { from.cast::<[__m128i; 2]>().read_unaligned() };
        [self.widen_f16(low), self.widen_f16(high)]
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: V) {
        // SAFETY: the trait's contract: 16 elements are writable.
        unsafe {
            self.avx._mm256_storeu_ps(to, v[0]);
            self.avx._mm256_storeu_ps(to.add(8), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, v: V) {
        let avx2 = self.avx2;
        let low = avx2._mm256_srli_epi32::<16>(self.bf16_bits(v[0]));
        let high = avx2._mm256_srli_epi32::<16>(self.bf16_bits(v[1]));
        // The pack instruction works within 128-bit halves, so the quarters are put back in order.
        let bits = avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(avx2._mm256_packus_epi32(low, high));
        // SAFETY: the trait's contract: 16 elements of 2 bytes are writable; the write is unaligned.
        unsafe { to.cast::<__m256i>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, v: V) {
        // SAFETY: the token holds F16C.
        let bits = unsafe {
            [
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]),
            ]
        };
        // SAFETY: the trait's contract: 16 elements of 2 bytes are writable; the write is unaligned.
        unsafe { to.cast::<[__m128i; 2]>().write_unaligned(bits) }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| self.avx._mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| self.avx._mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| self.avx._mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| self.avx._mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        [self.fma._mm256_fmadd_ps(a[0], b[0], c[0]), self.fma._mm256_fmadd_ps(a[1], b[1], c[1])]
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| self.avx._mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| self.avx._mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        map(a, |a| self.avx._mm256_andnot_ps(self.avx._mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn with_sign(self, magnitude: V, sign: V) -> V {
        let signs = map(sign, |s| self.avx._mm256_and_ps(self.avx._mm256_set1_ps(-0.0), s));
        zip(magnitude, signs, |m, s| self.avx._mm256_or_ps(m, s))
    }
    #[inline(always)]
    fn lt(self, a: V, b: V) -> V {
        zip(a, b, |a, b| self.avx._mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn select(self, mask: V, a: V, b: V) -> V {
        let avx = self.avx;
        [avx._mm256_blendv_ps(b[0], a[0], mask[0]), avx._mm256_blendv_ps(b[1], a[1], mask[1])]
    }
    #[inline(always)]
    fn shift_into_exponent(self, a: V) -> V {
        let (avx, avx2) = (self.avx, self.avx2);
        map(a, |a| avx._mm256_castsi256_ps(avx2._mm256_slli_epi32::<23>(avx._mm256_castps_si256(a))))
    }
    #[inline(always)]
    fn round_to_bf16(self, a: V) -> V {
        [self.bf16_rounded(a[0]), self.bf16_rounded(a[1])]
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        let avx = self.avx;
        let a = avx._mm256_add_ps(a[0], a[1]);
        let a = avx._mm256_add_ps(a, avx._mm256_permute2f128_ps::<0x01>(a, a));
        let a = avx._mm256_add_ps(a, avx._mm256_permute_ps::<0b01_00_11_10>(a));
        let a = avx._mm256_add_ps(a, avx._mm256_permute_ps::<0b10_11_00_01>(a));
        avx._mm256_cvtss_f32(a)
    }
    #[inline(always)]
    fn largest(self, a: V) -> f32 {
        let avx = self.avx;
        let a = avx._mm256_max_ps(a[0], a[1]);
        let a = avx._mm256_max_ps(a, avx._mm256_permute2f128_ps::<0x01>(a, a));
        let a = avx._mm256_max_ps(a, avx._mm256_permute_ps::<0b01_00_11_10>(a));
        let a = avx._mm256_max_ps(a, avx._mm256_permute_ps::<0b10_11_00_01>(a));
        avx._mm256_cvtss_f32(a)
    }
    #[inline(always)]
    unsafe fn load_quad(self, from: *const u8, stride: usize) -> [V; 4] {
        let avx = self.avx;
        let mut out = [self.splat(0.0); 4];
        for half in 0..2 {
            // Vector r holds the values of rows r and 4 + r of this half.
            let mut v = [avx._mm256_setzero_ps(); 4];
            for (r, v) in v.iter_mut().enumerate() {
                let at = from.wrapping_add((8 * half + r) * stride);
                // SAFETY: the caller's contract.
                unsafe {
                    let low = at.cast::<__m128>().read_unaligned();
                    let high = at.wrapping_add(4 * stride).cast::<__m128>().read_unaligned();
                    *v = avx._mm256_insertf128_ps::<1>(avx._mm256_castps128_ps256(low), high);
                }
            }
            for (out, value) in out.iter_mut().zip(self.transpose_halves(v)) {
                out[half] = value;
            }
        }
        out
    }
    #[inline(always)]
    fn split_bf16(self, pairs: V) -> [V; 2] {
        let (avx, avx2) = (self.avx, self.avx2);
        let mut out = [pairs; 2];
        for (i, pairs) in pairs.into_iter().enumerate() {
            let bits = avx._mm256_castps_si256(pairs);
            let high = avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(0xffff_0000_u32 as i32));
            out[0][i] = avx._mm256_castsi256_ps(avx2._mm256_slli_epi32::<16>(bits));
            out[1][i] = avx._mm256_castsi256_ps(high);
        }
        out
    }
    #[inline(always)]
    fn split_f16(self, pairs: V) -> [V; 2] {
        let (avx, avx2) = (self.avx, self.avx2);
        let mut out = [pairs; 2];
        for (i, pairs) in pairs.into_iter().enumerate() {
            let bits = avx._mm256_castps_si256(pairs);
            let low = avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(0xffff));
            out[0][i] = self.widen_f16_lanes(low);
            out[1][i] = self.widen_f16_lanes(avx2._mm256_srli_epi32::<16>(bits));
        }
        out
    }
    #[inline(always)]
    fn transpose(self, rows: [V; LANES]) -> [V; LANES] {
        let mut out = rows;
        for half in 0..2 {
            let top = self.transpose8(core::array::from_fn(|i| rows[i][half]));
            let bottom = self.transpose8(core::array::from_fn(|i| rows[8 + i][half]));
            for i in 0..8 {
                out[8 * half + i] = [top[i], bottom[i]];
            }
        }
        out
    }

    #[inline(always)]
    fn call<K: KernelAt<Self>>(self, kernel: K) -> K::Output {
        self.vectorize(Entry { s: self, kernel })
    }
}
