//! Level `Neon`: four 128-bit registers a vector, low lanes first.

use core::arch::aarch64::*;

use crate::isa::{Entry, KernelAt, LANES, Simd};

pulp::simd_type! {
    /// Advanced SIMD.
    pub(crate) struct Neon {
        neon: "neon",
    }
}

type V = [float32x4_t; 4];

/// Forwards to NEON intrinsics, whose one obligation is the feature.
macro_rules! neon {
    ($body:expr) => {
        // SAFETY: the token is the proof of NEON; the intrinsics used here touch registers only.
        unsafe { $body }
    };
}

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> V {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

#[inline(always)]
fn map(a: V, f: impl Fn(float32x4_t) -> float32x4_t) -> V {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

impl Neon {
    /// The bf16 bits of each lane, rounded to nearest even, in the high half of the lane.
    #[inline(always)]
    fn bf16_bits(self, v: float32x4_t) -> uint32x4_t {
        neon!({
            let bits = vreinterpretq_u32_f32(v);
            let lsb = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(lsb, vdupq_n_u32(0x7fff)));
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            vbslq_u32(vceqq_f32(v, v), rounded, quiet)
        })
    }

    /// `a > b ? a : b`
    #[inline(always)]
    fn larger(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vbslq_f32(vcgtq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn widen_f16(self, bits: uint16x4_t) -> float32x4_t {
        let wide: float32x4_t;
        // SAFETY: FCVTL is base Advanced SIMD, of which the token is the proof; registers only.
        unsafe {
            core::arch::asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) bits, options(pure, nomem, nostack));
        }
        wide
    }

    #[inline(always)]
    fn narrow_f16(self, v: float32x4_t) -> uint16x4_t {
        let bits: uint16x4_t;
        // SAFETY: FCVTN is base Advanced SIMD, of which the token is the proof; registers only.
        unsafe {
            core::arch::asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) bits, in(vreg) v, options(pure, nomem, nostack));
        }
        bits
    }

    #[inline(always)]
    fn transpose4(self, r: [float32x4_t; 4]) -> [float32x4_t; 4] {
        neon!({
            let d = |v| vreinterpretq_f64_f32(v);
            let s = |v| vreinterpretq_f32_f64(v);
            let (ab_even, ab_odd) = (vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]));
            let (cd_even, cd_odd) = (vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3]));
            [
                s(vtrn1q_f64(d(ab_even), d(cd_even))),
                s(vtrn1q_f64(d(ab_odd), d(cd_odd))),
                s(vtrn2q_f64(d(ab_even), d(cd_even))),
                s(vtrn2q_f64(d(ab_odd), d(cd_odd))),
            ]
        })
    }
}

impl Simd for Neon {
    type F32 = V;
    type Mask = [uint32x4_t; 4];

    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        neon!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> V {
        // SAFETY: the trait's contract: 16 elements are readable.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> V {
        core::array::from_fn(|i| {
            // SAFETY: the trait's contract: 16 elements of 2 bytes are readable.
            unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.add(4 * i)))) }
        })
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> V {
        // SAFETY: the trait's contract: 16 elements of 2 bytes are readable.
        core::array::from_fn(|i| self.widen_f16(unsafe { vld1_u16(from.add(4 * i)) }))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: V) {
        for i in 0..4 {
            // SAFETY: the trait's contract: 16 elements are writable.
            unsafe { vst1q_f32(to.add(4 * i), v[i]) }
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, v: V) {
        for i in 0..4 {
            // SAFETY: the trait's contract: 16 elements of 2 bytes are writable.
            unsafe { vst1_u16(to.add(4 * i), vshrn_n_u32::<16>(self.bf16_bits(v[i]))) }
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, v: V) {
        for i in 0..4 {
            // SAFETY: the trait's contract: 16 elements of 2 bytes are writable.
            unsafe { vst1_u16(to.add(4 * i), self.narrow_f16(v[i])) }
        }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| neon!(vaddq_f32(a, b)))
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| neon!(vsubq_f32(a, b)))
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| neon!(vmulq_f32(a, b)))
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| neon!(vdivq_f32(a, b)))
    }
    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        core::array::from_fn(|i| neon!(vfmaq_f32(c[i], a[i], b[i])))
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| self.larger(a, b))
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| neon!(vbslq_f32(vcltq_f32(a, b), a, b)))
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        map(a, |a| neon!(vabsq_f32(a)))
    }
    #[inline(always)]
    fn with_sign(self, magnitude: V, sign: V) -> V {
        zip(magnitude, sign, |m, s| neon!(vbslq_f32(vdupq_n_u32(0x8000_0000), s, m)))
    }
    #[inline(always)]
    fn lt(self, a: V, b: V) -> [uint32x4_t; 4] {
        core::array::from_fn(|i| neon!(vcltq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn select(self, mask: [uint32x4_t; 4], a: V, b: V) -> V {
        core::array::from_fn(|i| neon!(vbslq_f32(mask[i], a[i], b[i])))
    }
    #[inline(always)]
    fn shift_into_exponent(self, a: V) -> V {
        map(a, |a| neon!(vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(a)))))
    }
    #[inline(always)]
    fn round_to_bf16(self, a: V) -> V {
        map(a, |a| neon!(vreinterpretq_f32_u32(vandq_u32(self.bf16_bits(a), vdupq_n_u32(0xffff_0000)))))
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        neon!({
            let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let a = vaddq_f32(a, vextq_f32::<2>(a, a));
            vgetq_lane_f32::<0>(a) + vgetq_lane_f32::<1>(a)
        })
    }
    #[inline(always)]
    fn largest(self, a: V) -> f32 {
        let a = self.larger(self.larger(a[0], a[2]), self.larger(a[1], a[3]));
        neon!({
            let a = self.larger(a, vextq_f32::<2>(a, a));
            let (x, y) = (vgetq_lane_f32::<0>(a), vgetq_lane_f32::<1>(a));
            if x > y { x } else { y }
        })
    }
    #[inline(always)]
    unsafe fn load_quad(self, from: *const u8, stride: usize) -> [V; 4] {
        let mut out = [self.splat(0.0); 4];
        for q in 0..4 {
            let mut rows = [neon!(vdupq_n_f32(0.0)); 4];
            for (i, row) in rows.iter_mut().enumerate() {
                let at = from.wrapping_add((4 * q + i) * stride);
                // SAFETY: the caller's contract; the read is of bytes.
                *row = unsafe { vreinterpretq_f32_u8(vld1q_u8(at)) };
            }
            for (out, value) in out.iter_mut().zip(self.transpose4(rows)) {
                out[q] = value;
            }
        }
        out
    }
    #[inline(always)]
    fn split_bf16(self, pairs: V) -> [V; 2] {
        let mut out = [pairs; 2];
        for (i, pairs) in pairs.into_iter().enumerate() {
            neon!({
                let bits = vreinterpretq_u32_f32(pairs);
                out[0][i] = vreinterpretq_f32_u32(vshlq_n_u32::<16>(bits));
                out[1][i] = vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xffff_0000)));
            });
        }
        out
    }
    #[inline(always)]
    fn split_f16(self, pairs: V) -> [V; 2] {
        let mut out = [pairs; 2];
        for (i, pairs) in pairs.into_iter().enumerate() {
            neon!({
                let bits = vreinterpretq_u32_f32(pairs);
                out[0][i] = self.widen_f16(vmovn_u32(bits));
                out[1][i] = self.widen_f16(vshrn_n_u32::<16>(bits));
            });
        }
        out
    }
    #[inline(always)]
    fn transpose(self, rows: [V; LANES]) -> [V; LANES] {
        let mut out = rows;
        for r in 0..4 {
            for c in 0..4 {
                let block = self.transpose4(core::array::from_fn(|i| rows[4 * r + i][c]));
                for i in 0..4 {
                    out[4 * c + i][r] = block[i];
                }
            }
        }
        out
    }

    #[inline(always)]
    fn call<K: KernelAt<Self>>(self, kernel: K) -> K::Output {
        self.vectorize(Entry { s: self, kernel })
    }
}
