//! The vector vocabulary: the operations that each instruction-set level implements, and none that could be built from
//! others.
//!
//! Every level presents the same 16-lane f32 vector ([`Simd::F32`]), whatever its registers: one AVX-512 register, two
//! AVX2 registers, four NEON registers, an array. An operation is therefore written once, sums in one order, and gives the
//! same bits on AVX2, AVX-512 and NEON. [`scalar`] rounds after each multiplication, as a fused multiply-add without
//! hardware is a slow library call, and so differs in the last bits.
//!
//! A value of a level's token type is the proof that the processor has its instructions: tokens come only from
//! [`Isa::new`], which asks the processor. [`Isa::dispatch`] is the one place where code crosses into
//! `#[target_feature]`; everything below it must be `#[inline(always)]`, or the compiler falls back to calls and plain SSE
//! (the code generation test guards this). The levels of the processor's architecture are in [`arch`](crate::arch).

mod scalar;

use crate::arch::Native;
use crate::level::Level;

/// Lanes of [`Simd::F32`] at every level.
pub(crate) const LANES: usize = 16;

/// The operations of one level on vectors of 16 f32 lanes.
///
/// The `load*` and `store*` functions share one contract: 16 elements must be readable or writable at the pointer, which
/// needs no alignment beyond the element's.
pub trait Simd: Copy + Send + Sync + core::fmt::Debug + 'static {
    /// 16 lanes of f32.
    type F32: Copy;
    /// 16 truth values.
    type Mask: Copy;

    /// Rows of the register tile of a matrix product.
    const TILE_ROWS: usize;
    /// 16-lane vectors in each row of that tile.
    const TILE_VECTORS: usize;

    /// Prefetches the cache line at `at` into the first-level cache. The address need not be readable.
    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}

    /// [`Simd::prefetch`] into the second-level cache.
    #[inline(always)]
    fn prefetch_far(self, at: *const u8) {
        self.prefetch(at);
    }

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;

    /// Loads 16 f32.
    ///
    /// # Safety
    /// The contract of the trait.
    unsafe fn load(self, from: *const f32) -> Self::F32;
    /// Loads 16 bf16, widened exactly.
    ///
    /// # Safety
    /// The contract of the trait.
    unsafe fn load_bf16(self, from: *const u16) -> Self::F32;
    /// Loads 16 f16, widened exactly.
    ///
    /// # Safety
    /// The contract of the trait.
    unsafe fn load_f16(self, from: *const u16) -> Self::F32;
    /// Stores 16 f32.
    ///
    /// # Safety
    /// The contract of the trait.
    unsafe fn store(self, to: *mut f32, v: Self::F32);
    /// Stores 16 bf16, rounded to nearest even.
    ///
    /// # Safety
    /// The contract of the trait.
    unsafe fn store_bf16(self, to: *mut u16, v: Self::F32);
    /// Stores 16 f16, rounded to nearest even.
    ///
    /// # Safety
    /// The contract of the trait.
    unsafe fn store_f16(self, to: *mut u16, v: Self::F32);

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`, correctly rounded
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once (twice on [`Level::Scalar`])
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `a > b ? a : b`: the second operand where either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a < b ? a : b`: the second operand where either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`
    fn abs(self, a: Self::F32) -> Self::F32;
    /// `magnitude` with the sign of `sign`; the magnitude must be non-negative or NaN.
    fn with_sign(self, magnitude: Self::F32, sign: Self::F32) -> Self::F32;
    /// `a < b`, false where either is NaN.
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `mask ? a : b`
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Shifts the bits of each lane left by 23, which turns `2^23 + 127 + n` into `2^n` for `-126 <= n <= 127`.
    fn shift_into_exponent(self, a: Self::F32) -> Self::F32;
    /// `a * 2^n` for integral `n` in `-252..=254`, rounded once, also into the subnormal range.
    #[inline(always)]
    fn scale(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        // Two multiplications by powers of two that f32 can represent; the first one is exact.
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
        const BIAS: f32 = 8_388_735.0; // 2^23 + 127
        let half = self.sub(self.mul_add(n, self.splat(0.5), self.splat(ROUND)), self.splat(ROUND));
        let rest = self.sub(n, half);
        let first = self.shift_into_exponent(self.add(half, self.splat(BIAS)));
        let second = self.shift_into_exponent(self.add(rest, self.splat(BIAS)));
        self.mul(self.mul(a, first), second)
    }
    /// Rounds to the nearest bf16, ties to even, and widens again; NaN stays NaN.
    fn round_to_bf16(self, a: Self::F32) -> Self::F32;
    /// The sum of all lanes, by adding halves: 8, 4, 2 and 1 lanes.
    fn sum(self, a: Self::F32) -> f32;
    /// The largest lane, by [`Simd::max`] of halves.
    fn largest(self, a: Self::F32) -> f32;
    /// Loads 16 bytes from each of 16 rows, `stride` bytes apart, and transposes them as 4-byte values: vector `i` holds
    /// value `i` of every row.
    ///
    /// # Safety
    /// 16 bytes must be readable at each row, with no alignment.
    unsafe fn load_quad(self, from: *const u8, stride: usize) -> [Self::F32; 4];
    /// [`Simd::load_quad`] of 64 bytes of each row: 16 vectors.
    ///
    /// # Safety
    /// 64 bytes must be readable at each row, with no alignment.
    #[inline(always)]
    unsafe fn load_transposed(self, from: *const u8, stride: usize) -> [Self::F32; LANES] {
        let mut out = [self.splat(0.0); LANES];
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // SAFETY: the caller's contract.
            *out = unsafe { self.load_quad(from.wrapping_add(16 * i), stride) };
        }
        out
    }
    /// Widens the two bf16 in each lane's bits: the low halves, and the high halves.
    fn split_bf16(self, pairs: Self::F32) -> [Self::F32; 2];
    /// Widens the two f16 in each lane's bits: the low halves, and the high halves.
    fn split_f16(self, pairs: Self::F32) -> [Self::F32; 2];
    /// Transposes a 16 x 16 block.
    fn transpose(self, rows: [Self::F32; LANES]) -> [Self::F32; LANES];
    /// Runs `kernel` in a separate function, compiled for this level, so that code that several kernels share exists once.
    fn call<K: KernelAt<Self>>(self, kernel: K) -> K::Output;
}

/// The body of an operation, written once for all levels.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// The body. Implementations must be `#[inline(always)]`.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// A level with the proof that it can run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Isa {
    Scalar(scalar::Scalar),
    Native(Native),
}

impl Isa {
    pub(crate) const SCALAR: Isa = Isa::Scalar(scalar::Scalar);

    /// The tokens of `level`, if this processor has its instructions.
    pub(crate) fn new(level: Level) -> Option<Isa> {
        match level {
            Level::Scalar => Some(Isa::SCALAR),
            _ => Native::new(level).map(Isa::Native),
        }
    }

    pub(crate) fn level(self) -> Level {
        match self {
            Isa::Scalar(_) => Level::Scalar,
            Isa::Native(native) => native.level(),
        }
    }

    /// The architecture's level, unless this is `Scalar`.
    pub(crate) fn native(self) -> Option<Native> {
        match self {
            Isa::Scalar(_) => None,
            Isa::Native(native) => Some(native),
        }
    }

    /// Runs `kernel` compiled for this level.
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Scalar(s) => kernel.run(s),
            Isa::Native(native) => native.dispatch(kernel),
        }
    }
}

/// A body for one vocabulary: a [`Kernel`], or code that needs more than the vocabulary.
pub trait KernelAt<S> {
    /// What it returns.
    type Output;
    /// The body. Implementations must be `#[inline(always)]`.
    fn run_at(self, s: S) -> Self::Output;
}

impl<S: Simd, K: Kernel> KernelAt<S> for K {
    type Output = K::Output;

    #[inline(always)]
    fn run_at(self, s: S) -> K::Output {
        self.run(s)
    }
}

/// A kernel with its token, in the form that pulp's `vectorize` calls.
pub(crate) struct Entry<S, K> {
    pub(crate) s: S,
    pub(crate) kernel: K,
}

impl<S, K: KernelAt<S>> pulp::NullaryFnOnce for Entry<S, K> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.kernel.run_at(self.s)
    }
}
