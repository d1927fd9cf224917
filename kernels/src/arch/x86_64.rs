//! x86-64: AVX2, AVX-512, AVX512-BF16 and AMX.

mod amx;
mod avx2;
mod avx512;
mod avx512_bf16;
mod bf16_pairs;
mod l2_cache;

pub(crate) use l2_cache::l2_cache_bytes;

use core::arch::x86_64::_mm_prefetch;

use crate::arch::Extensions;
use crate::attention::{Head, RunHead};
use crate::gemm::macro_kernel::RegisterTileGemm;
use crate::gemm::micro_kernel::MicroTileOf;
use crate::gemm::plan::KPackKind;
use crate::gemm::small_m::SmallM;
use crate::gemm::{Layout, MicroTile, RegisterTile, RoutineKind, SmallMSlice, ThreadSlice};
use crate::isa::{Kernel, Simd};
use crate::level::Level;
use crate::probe::Peak;

use amx::{Amx, AmxProducts, TileOrderSmallM};
use avx2::Avx2;
use avx512::Avx512;
use avx512_bf16::Bf16Pairs;

/// Prefetches the cache line of `at` with a hint of `_mm_prefetch`.
#[inline(always)]
fn prefetch<const HINT: i32>(at: *const u8) {
    // SAFETY: a prefetch of any address is allowed; SSE is part of the architecture.
    unsafe { _mm_prefetch::<HINT>(at.cast()) }
}

/// The levels of this architecture.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Native {
    Avx2(Avx2),
    Avx512(Avx512),
    Avx512Bf16(Avx512, Bf16Pairs),
    Amx(Avx512, Amx),
}

impl Native {
    /// The tokens of `level`, if this processor (and for AMX the operating system) has what it needs.
    pub(crate) fn new(level: Level) -> Option<Native> {
        match level {
            Level::Avx2 => Avx2::try_new().map(Native::Avx2),
            Level::Avx512 => Avx512::try_new().map(Native::Avx512),
            Level::Avx512Bf16 => Some(Native::Avx512Bf16(Avx512::try_new()?, Bf16Pairs::try_new()?)),
            Level::Amx => Some(Native::Amx(Avx512::try_new()?, Amx::try_new()?)),
            Level::Scalar | Level::Neon => None,
        }
    }

    pub(crate) fn level(self) -> Level {
        match self {
            Native::Avx2(_) => Level::Avx2,
            Native::Avx512(_) => Level::Avx512,
            Native::Avx512Bf16(..) => Level::Avx512Bf16,
            Native::Amx(..) => Level::Amx,
        }
    }

    /// Whether a supported level is faster than the ones before it.
    pub(crate) fn is_preferred(level: Level) -> bool {
        level != Level::Avx512Bf16 || Bf16Pairs::is_fast()
    }

    /// Runs `kernel` compiled for this level.
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Native::Avx2(s) => s.call(kernel),
            Native::Avx512(s) | Native::Avx512Bf16(s, _) | Native::Amx(s, _) => s.call(kernel),
        }
    }
}

impl Extensions for Native {
    fn micro_tile(self, kind: RoutineKind, layout: Layout, k: usize) -> Option<MicroTile> {
        match (self, kind) {
            (Native::Amx(..), RoutineKind::AmxTiles { terms }) => Some(amx::micro_tile(layout, k, terms)),
            (Native::Avx512Bf16(s, _), RoutineKind::RegisterTile(KPackKind::Bf16Pairs)) => {
                Some(s.call(MicroTileOf { layout, k, pack_len: 2 }))
            }
            _ => None,
        }
    }

    fn run_slice(self, kind: RoutineKind, slice: ThreadSlice<'_, '_>) {
        match (self, kind) {
            (Native::Amx(s, amx), RoutineKind::AmxTiles { terms }) => amx::run(s, amx, slice, terms),
            (Native::Avx512Bf16(s, pairs), RoutineKind::RegisterTile(KPackKind::Bf16Pairs)) => {
                s.call(RegisterTileGemm { tile: RegisterTile(pairs), slice });
            }
            _ => debug_assert!(false, "no plan of this level has such a routine"),
        }
    }

    fn run_small_m(self, kind: RoutineKind, slice: SmallMSlice<'_, '_>) {
        match (self, kind) {
            (Native::Amx(s, amx), RoutineKind::SmallMTileOrder) => {
                s.call(TileOrderSmallM { pairs: amx.pairs(), slice });
            }
            (Native::Avx512Bf16(s, kpack), RoutineKind::SmallM(KPackKind::Bf16Pairs)) => {
                s.call(SmallM { kpack, slice });
            }
            _ => debug_assert!(false, "no plan of this level has such a routine"),
        }
    }

    fn bf16_attention_scratch_len(self, head_dim: usize) -> Option<usize> {
        match self {
            Native::Amx(..) => Some(amx::attention_scratch_len(head_dim)),
            _ => None,
        }
    }

    fn run_bf16_attention<'a>(
        self,
        head: Head<'a>,
        scratch: &'a mut [f32],
    ) -> Option<(Head<'a>, &'a mut [f32])> {
        match self {
            Native::Avx512Bf16(s, pairs) => s.call(RunHead { products: RegisterTile(pairs), head, scratch }),
            Native::Amx(s, amx) => s.call(RunHead { products: AmxProducts::new(amx), head, scratch }),
            _ => return Some((head, scratch)),
        }
        None
    }

    fn measure_bf16_gflops(self) -> Option<f64> {
        match self {
            Native::Avx512Bf16(s, pairs) => Some(s.call(Peak(pairs))),
            Native::Amx(_, amx) => Some(amx::measure_gflops(amx)),
            _ => None,
        }
    }
}
