//! What differs between processor architectures: one module for each, with the same items, and no `cfg` elsewhere.
//!
//! Each module has a type `Native`: the levels of its architecture, each with the proof that the processor has its
//! instructions. [`Extensions`] says what some levels offer beyond the vector vocabulary of [`Simd`](crate::isa::Simd):
//! products of bfloat16 pairs and AMX tiles. An architecture without any of it keeps the defaults.

use crate::attention::Head;
use crate::gemm::{Layout, MicroTile, RoutineKind, SmallMSlice, ThreadSlice};

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Native, l2_cache_bytes};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{Native, l2_cache_bytes};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod portable;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use portable::{Native, l2_cache_bytes};

/// What a level offers beyond its vectors. The defaults are those of a level that offers nothing.
///
/// The routines of GEMM are picked by the table of plans, which names the levels of each: a level is never asked for a
/// routine that it does not have.
pub(crate) trait Extensions: Copy {
    /// The micro-tile and block sizes of a routine for weights in this layout with this K.
    fn micro_tile(self, _kind: RoutineKind, _layout: Layout, _k: usize) -> Option<MicroTile> {
        None
    }

    /// Computes one thread's slice of a product that packs an operand.
    fn run_slice(self, _kind: RoutineKind, _slice: ThreadSlice<'_, '_>) {
        debug_assert!(false, "no plan of this level has such a routine");
    }

    /// Computes one thread's slice of a product with few rows.
    fn run_small_m(self, _kind: RoutineKind, _slice: SmallMSlice<'_, '_>) {
        debug_assert!(false, "no plan of this level has such a routine");
    }

    /// Elements of scratch for bfloat16 attention over one head of this width, where the level has its own layout.
    fn bf16_attention_scratch_len(self, _head_dim: usize) -> Option<usize> {
        None
    }

    /// Computes one head of one sequence with bfloat16 instructions, or gives it back where the level has none.
    fn run_bf16_attention<'a>(
        self,
        head: Head<'a>,
        scratch: &'a mut [f32],
    ) -> Option<(Head<'a>, &'a mut [f32])> {
        Some((head, scratch))
    }

    /// Measures the peak of bfloat16 products on registers alone, in GFLOP/s, where there are instructions for them.
    fn measure_bf16_gflops(self) -> Option<f64> {
        None
    }
}
