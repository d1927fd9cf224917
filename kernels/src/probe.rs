//! The limits of the machine, measured with the vocabulary that the kernels use: the peak that benchmarks refer to.

use std::time::Instant;

use crate::arch::Extensions;
use crate::ctx::Ctx;
use crate::gemm::kpack::{F32Pack, KPack};
use crate::isa::{Kernel, LANES, Simd};

/// Measures multiply-adds on registers alone, in GFLOP/s (two operations each): the peak of f32 products of this level on
/// one core. The best of `runs` short runs.
pub fn fma_gflops(ctx: &Ctx, runs: usize) -> f64 {
    (0..runs).map(|_| ctx.run(Peak(F32Pack))).fold(0.0, f64::max)
}

/// Measures multiply-adds of bfloat16 on registers alone, in GFLOP/s, with AMX tiles or with pairs: the peak of bfloat16
/// products on one core at the levels that have instructions for them, `None` at others. The best of `runs` short runs.
pub fn bf16_gflops(ctx: &Ctx, runs: usize) -> Option<f64> {
    let native = ctx.isa().native()?;
    (0..runs).filter_map(|_| native.measure_bf16_gflops()).reduce(f64::max)
}

/// Measures the rate, in GB/s, at which one core reads `data`. The best of `runs` passes.
pub fn read_gbps(ctx: &Ctx, data: &[f32], runs: usize) -> f64 {
    (0..runs).map(|_| ctx.run(Read { data })).fold(0.0, f64::max)
}

/// Measures multiply-adds of packs on registers alone.
pub(crate) struct Peak<P>(pub(crate) P);

impl Kernel for Peak<F32Pack> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        match S::TILE_ROWS {
            8 => peak::<S, F32Pack, 8, 3>(s, self.0),
            6 => peak::<S, F32Pack, 6, 1>(s, self.0),
            _ => peak::<S, F32Pack, 3, 1>(s, self.0),
        }
    }
}

/// Unrolled iterations of the loop: enough that the loop's own instructions do not show.
const UNROLL: usize = 8;

/// The register tile of a product without its loads. The operands are ordinary numbers and change from one instruction to
/// the next: constants would draw less power, and run at a clock that no product reaches. The two values of `x` stay in
/// registers beside the sums even where there are 16 registers of half a vector.
#[inline(always)]
pub(crate) fn peak<S: Simd, P: KPack<S>, const R: usize, const V: usize>(s: S, kpack: P) -> f64 {
    let iterations = 4_000_000 / (UNROLL * R * V);
    // Both halves of each f32 are a bf16 of moderate size.
    let data: [f32; 4 * LANES] = core::array::from_fn(|i| {
        let x = ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5;
        f32::from_bits(x.to_bits() & 0xffff_0000 | x.to_bits() >> 16 & 0xbfff)
    });
    let data = std::hint::black_box(data);
    let x = [s.splat(data[0]), s.splat(data[1])];
    // SAFETY: the data has four vectors.
    let v: [S::F32; V] = core::array::from_fn(|j| unsafe { s.load(data.as_ptr().add(j * LANES)) });
    let mut sums = [[s.splat(0.0); V]; R];
    let start = Instant::now();
    for _ in 0..iterations {
        for _ in 0..UNROLL {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (sum, v) in sums.iter_mut().zip(v) {
                    *sum = kpack.mul_add(s, x[r % 2], v, *sum);
                }
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let total = sums.into_iter().flatten().fold(s.splat(0.0), |total, sum| s.add(total, sum));
    std::hint::black_box(s.sum(total));
    (2 * iterations * UNROLL * R * V * LANES * P::LEN) as f64 / seconds / 1e9
}

struct Read<'a> {
    data: &'a [f32],
}

impl Kernel for Read<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        const STEP: usize = 4 * LANES;
        let start = Instant::now();
        let mut sums = [s.splat(0.0); 4];
        let (steps, _) = self.data.as_chunks::<STEP>();
        for step in steps {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `step` has four vectors of 16.
                *sum = s.max(*sum, unsafe { s.load(step.as_ptr().add(i * LANES)) });
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let total = sums.into_iter().fold(s.splat(0.0), |total, sum| s.add(total, sum));
        std::hint::black_box(s.sum(total));
        size_of_val(self.data) as f64 / seconds / 1e9
    }
}
