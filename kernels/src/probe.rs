//! The limits of the machine, measured with the vocabulary that the kernels use: what a fraction of the peak
//! refers to in benchmarks.

use std::time::Instant;

use crate::ctx::Ctx;
use crate::isa::{Kernel, LANES, Simd};

/// Multiply-adds per second times two on registers alone, in GFLOP/s: the ceiling of every f32 product of this
/// level on one core. The best of `runs` short runs.
pub fn fma_gflops(ctx: &Ctx, runs: usize) -> f64 {
    (0..runs).map(|_| ctx.run(Fma)).fold(0.0, f64::max)
}

/// Bytes per second, in GB/s, at which one core reads `data` and does nothing else with it. The best of `runs`
/// passes.
pub fn read_gbps(ctx: &Ctx, data: &[f32], runs: usize) -> f64 {
    (0..runs).map(|_| ctx.run(Read { data })).fold(0.0, f64::max)
}

/// Sums that run side by side: enough to hide the latency of an addition.
const CHAINS: usize = 24;

struct Fma;

impl Kernel for Fma {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        // As many 16-lane sums as the registers of the level hold.
        match S::TILE_ROWS * S::TILE_VECTORS {
            24.. => fma::<S, CHAINS>(s),
            6.. => fma::<S, 6>(s),
            _ => fma::<S, 3>(s),
        }
    }
}

#[inline(always)]
fn fma<S: Simd, const N: usize>(s: S) -> f64 {
    let steps = 4_000_000 / N;
    let (x, y) = (s.splat(0.999), s.splat(0.001));
    let mut sums = [y; N];
    let start = Instant::now();
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = s.mul_add(*sum, x, y);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let total = sums.into_iter().fold(s.splat(0.0), |total, sum| s.add(total, sum));
    std::hint::black_box(s.sum(total));
    (2 * steps * N * LANES) as f64 / seconds / 1e9
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
