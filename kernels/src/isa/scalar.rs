//! Level `Scalar`: arrays and loops, correct everywhere. The compiler may vectorise them with the target's
//! baseline; multiplication and addition round separately.

use half::{bf16, f16};

use super::{KernelAt, LANES, Simd};

/// The token of the level that needs no proof.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

type V = [f32; LANES];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    core::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn halve(a: V, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut a = a;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            a[i] = f(a[i], a[i + half]);
        }
    }
    a[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Simd for Scalar {
    type F32 = V;
    type Mask = [bool; LANES];

    const TILE_ROWS: usize = 3;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> V {
        // SAFETY: the trait's contract: 16 elements are readable and aligned.
        unsafe { from.cast::<V>().read() }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> V {
        // SAFETY: the trait's contract: 16 elements are readable and aligned.
        let bits = unsafe { from.cast::<[u16; LANES]>().read() };
        bits.map(|b| bf16::from_bits(b).to_f32())
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> V {
        // SAFETY: the trait's contract: 16 elements are readable and aligned.
        let bits = unsafe { from.cast::<[u16; LANES]>().read() };
        bits.map(|b| f16::from_bits(b).to_f32())
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: V) {
        // SAFETY: the trait's contract: 16 elements are writable and aligned.
        unsafe { to.cast::<V>().write(v) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, v: V) {
        // SAFETY: the trait's contract: 16 elements are writable and aligned.
        unsafe { to.cast::<[u16; LANES]>().write(v.map(|x| bf16::from_f32(x).to_bits())) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, v: V) {
        // SAFETY: the trait's contract: 16 elements are writable and aligned.
        unsafe { to.cast::<[u16; LANES]>().write(v.map(|x| f16::from_f32(x).to_bits())) }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        core::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, larger)
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn with_sign(self, magnitude: V, sign: V) -> V {
        zip(magnitude, sign, f32::copysign)
    }
    #[inline(always)]
    fn lt(self, a: V, b: V) -> [bool; LANES] {
        core::array::from_fn(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn select(self, mask: [bool; LANES], a: V, b: V) -> V {
        core::array::from_fn(|i| if mask[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn shift_into_exponent(self, a: V) -> V {
        a.map(|x| f32::from_bits(x.to_bits() << 23))
    }
    #[inline(always)]
    fn round_to_bf16(self, a: V) -> V {
        a.map(|x| bf16::from_f32(x).to_f32())
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        halve(a, |a, b| a + b)
    }
    #[inline(always)]
    fn largest(self, a: V) -> f32 {
        halve(a, larger)
    }
    #[inline(always)]
    unsafe fn load_quad(self, from: *const u8, stride: usize) -> [V; 4] {
        let value = |i: usize, row: usize| {
            // SAFETY: the caller's contract.
            unsafe { from.wrapping_add(row * stride + 4 * i).cast::<f32>().read_unaligned() }
        };
        core::array::from_fn(|i| core::array::from_fn(|row| value(i, row)))
    }
    #[inline(always)]
    fn split_bf16(self, pairs: V) -> [V; 2] {
        let bits = pairs.map(f32::to_bits);
        [bits.map(|bits| f32::from_bits(bits << 16)), bits.map(|bits| f32::from_bits(bits & 0xffff_0000))]
    }
    #[inline(always)]
    fn split_f16(self, pairs: V) -> [V; 2] {
        let bits = pairs.map(f32::to_bits);
        let widen = |bits: u32| f16::from_bits(bits as u16).to_f32();
        [bits.map(widen), bits.map(|bits| widen(bits >> 16))]
    }
    #[inline(always)]
    fn transpose(self, rows: [V; LANES]) -> [V; LANES] {
        core::array::from_fn(|i| core::array::from_fn(|j| rows[j][i]))
    }

    #[inline(never)]
    fn call<K: KernelAt<Self>>(self, kernel: K) -> K::Output {
        kernel.run_at(self)
    }
}
