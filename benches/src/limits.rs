//! The limit that bounds a product: arithmetic, or reading its weights from a cache or from memory.

use std::time::Duration;

use rachis_kernels::probe::{bf16_gflops, fma_gflops, read_gbps};
use rachis_kernels::{Ctx, Level};
use serde_json::{Value, json};

use crate::arena::Arena;
use crate::machine::cache_bytes;

/// The part of a product that takes the most time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Its multiply-adds.
    Compute,
    /// Reading its weights from the second-level cache.
    L2,
    /// Reading its weights from the third-level cache.
    L3,
    /// Reading its weights from memory.
    Dram,
}

impl Limit {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Compute => "compute",
            Limit::L2 => "l2",
            Limit::L3 => "l3",
            Limit::Dram => "dram",
        }
    }
}

/// The measured limits of one core, and the number of cores that share a product.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the first-level data cache, the second-level and the third-level cache.
    pub caches: [usize; 3],
    /// GFLOP/s of f32 multiply-adds.
    pub fma: f64,
    /// GFLOP/s of bfloat16 multiply-adds, if the level has instructions for them.
    pub bf16: Option<f64>,
    /// Whether AMX tiles compute them.
    pub tiles: bool,
    /// GB/s of reading from the second-level cache, the third-level cache, and memory.
    pub read: [f64; 3],
    /// Number of cores. Peaks and bandwidths are assumed to add up.
    pub threads: usize,
}

/// Bytes of each cache, with usual sizes for those that the system does not report.
pub fn caches() -> [usize; 3] {
    const USUAL: [usize; 3] = [32 << 10, 1 << 20, 32 << 20];
    std::array::from_fn(|i| match cache_bytes(i + 1) {
        0 => USUAL[i],
        bytes => bytes,
    })
}

/// More bytes than the caches hold, at most 1 GiB.
pub fn past_caches(caches: &[usize; 3]) -> usize {
    (2 * caches[2]).clamp(64 << 20, 1 << 30)
}

impl Limits {
    /// Measures them on the memory of `arena`.
    pub fn measure(ctx: &Ctx, arena: &Arena) -> Limits {
        let caches = caches();
        let gbps = |bytes, runs| read_gbps(ctx, arena.bytes(bytes), runs);
        Limits {
            caches,
            fma: fma_gflops(ctx, 200),
            bf16: bf16_gflops(ctx, 200),
            tiles: ctx.level() == Level::Amx,
            read: [
                gbps(caches[1] / 2, 200),
                gbps((caches[2] / 4).min(32 << 20), 8),
                gbps(past_caches(&caches), 2),
            ],
            threads: ctx.threads(),
        }
    }

    /// Where weights of this size are that were just used, when each core uses its share of them.
    pub fn hot(&self, bytes: usize) -> Limit {
        let share = bytes / self.threads;
        let [_, l2, l3] = self.caches.map(|cache| cache * 3 / 4);
        if share < l2 {
            Limit::L2
        } else if share < l3 {
            Limit::L3
        } else {
            Limit::Dram
        }
    }

    /// The least time for `flops` at `gflops` for each core and for `bytes` at `gbps` for each core, and whether arithmetic
    /// takes it.
    pub fn bound(&self, (flops, gflops): (f64, f64), (bytes, gbps): (usize, f64)) -> (Duration, bool) {
        let cores = self.threads as f64 * 1e9;
        let (compute, read) = (flops / (gflops * cores), bytes as f64 / (gbps * cores));
        let time = Duration::try_from_secs_f64(compute.max(read)).unwrap_or(Duration::MAX);
        (time, compute >= read)
    }

    /// The limits for the report.
    pub fn peaks(&self) -> Value {
        let [l2, l3, dram] = self.read.map(rounded);
        json!({
            "f32_gflops": rounded(self.fma),
            "bf16_gflops": self.bf16.map(rounded),
            "amx_bf16_gflops": self.bf16.filter(|_| self.tiles).map(rounded),
            "read_gbps": { "l2": l2, "l3": l3, "dram": dram },
        })
    }
}

/// Rounds to three places, which is more than a measurement is precise to.
pub fn rounded(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const LIMITS: Limits = Limits {
        caches: [32 << 10, 1 << 20, 32 << 20],
        fma: 100.0,
        bf16: None,
        tiles: false,
        read: [100.0, 20.0, 10.0],
        threads: 1,
    };

    #[test]
    fn the_slower_of_arithmetic_and_reading_is_the_bound() {
        let bytes = 1_000_000_000;
        let bound = |flops, gbps| LIMITS.bound((flops, 100.0), (bytes, gbps));
        assert_eq!(bound(2e11, 10.0), (Duration::from_secs(2), true));
        assert_eq!(bound(2e9, 10.0), (Duration::from_millis(100), false));
        assert_eq!(bound(2e9, 100.0), (Duration::from_millis(20), true));
        let two = Limits { threads: 2, ..LIMITS };
        assert_eq!(two.bound((2e9, 100.0), (bytes, 10.0)), (Duration::from_millis(50), false));
    }

    #[test]
    fn hot_weights_are_in_the_smallest_cache_that_holds_them() {
        for (bytes, place) in [(1000, Limit::L2), (1 << 20, Limit::L3), (32 << 20, Limit::Dram)] {
            assert_eq!(LIMITS.hot(bytes), place);
        }
        assert_eq!(Limits { threads: 2, ..LIMITS }.hot(1 << 20), Limit::L2);
    }

    #[test]
    fn cold_weights_are_more_than_the_caches_hold() {
        assert_eq!(past_caches(&[0, 0, 1 << 20]), 64 << 20);
        assert_eq!(past_caches(&[0, 0, 100 << 20]), 200 << 20);
        assert_eq!(past_caches(&[0, 0, 4 << 30]), 1 << 30);
    }
}
