//! From a plan to the routine that computes it: block sizes, scratch, and a slice of the product for each thread.

use super::blocking::{Blocking, MicroTile};
use super::kpack::F32Pack;
use super::macro_kernel::{RegisterTileGemm, ThreadSlice};
use super::micro_kernel::{MicroTileOf, RegisterTile};
use super::plan::{GemmPlan, KPackKind};
use super::small_m::{self, RowsInRegisters, SmallM, SmallMSlice, ThreadPartition};
use super::{Dims, Layout, Product};
use crate::arch::Extensions;
use crate::ctx::Ctx;
use crate::isa::LANES;

/// The routines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoutineKind {
    /// AMX tiles, with each f32 operand split into so many bf16 terms.
    AmxTiles { terms: usize },
    /// Few rows: lanes along N, without packing weights.
    SmallM(KPackKind),
    /// Few rows by `[K, N]` weights in the summation order of AMX tiles, without AMX.
    SmallMTileOrder,
    /// A register tile of multiply-adds on a packed operand.
    RegisterTile(KPackKind),
}

impl GemmPlan {
    /// MR and NR of its micro-tile at the level of `ctx`: rows of the broadcast operand and lanes of the vector operand.
    pub fn tile(&self, ctx: &Ctx) -> (usize, usize) {
        match self.kind {
            RoutineKind::SmallMTileOrder => small_m::TILE_ORDER_TILE,
            RoutineKind::SmallM(_) => (ctx.run(RowsInRegisters), LANES),
            RoutineKind::AmxTiles { .. } | RoutineKind::RegisterTile(_) => {
                let tile = self.micro_tile(ctx, Layout::Nk, 0);
                (tile.mr, tile.nr)
            }
        }
    }

    /// The micro-tile of a plan that packs an operand.
    fn micro_tile(&self, ctx: &Ctx, layout: Layout, k: usize) -> MicroTile {
        let native = ctx.isa().native().and_then(|native| native.micro_tile(self.kind, layout, k));
        native.unwrap_or_else(|| ctx.run(MicroTileOf { layout, k, pack_len: 1 }))
    }

    fn blocking(&self, ctx: &Ctx, threads: usize, dims: &Dims) -> Blocking {
        let tile = self.micro_tile(ctx, dims.layout, dims.k);
        match self.kind {
            // AMX packs activations in both layouts.
            RoutineKind::AmxTiles { .. } => {
                Blocking::new(tile, threads, &Dims { layout: Layout::Nk, ..*dims })
            }
            _ => Blocking::new(tile, threads, dims),
        }
    }

    /// Elements of scratch for a product of these dimensions on `threads` threads.
    pub(super) fn scratch_len(&self, ctx: &Ctx, threads: usize, dims: &Dims) -> usize {
        match self.kind {
            RoutineKind::SmallM(_) | RoutineKind::SmallMTileOrder => {
                ThreadPartition::new(threads, dims).scratch_len()
            }
            _ => self.blocking(ctx, threads, dims).max_scratch_len(),
        }
    }

    /// Computes a product that fits the plan. `scratch` has at least [`GemmPlan::scratch_len`] elements.
    pub(super) fn run(&self, ctx: &Ctx, scratch: &mut [f32], product: &Product<'_>) {
        match self.kind {
            RoutineKind::SmallM(_) | RoutineKind::SmallMTileOrder => self.run_small_m(ctx, scratch, product),
            RoutineKind::AmxTiles { .. } | RoutineKind::RegisterTile(_) => {
                self.run_packed(ctx, scratch, product)
            }
        }
    }

    fn run_small_m(&self, ctx: &Ctx, scratch: &mut [f32], product: &Product<'_>) {
        let partition = &ThreadPartition::new(ctx.threads(), &product.dims());
        let scratch = &mut scratch[..partition.scratch_len()];
        ctx.for_each_piece(scratch, partition.piece_len(), |index, scratch| {
            let slice = SmallMSlice { product, partition, index, scratch };
            match (self.kind, ctx.isa().native()) {
                (RoutineKind::SmallM(KPackKind::F32), _) | (_, None) => {
                    ctx.run(SmallM { kpack: F32Pack, slice });
                }
                (kind, Some(native)) => native.run_small_m(kind, slice),
            }
        });
    }

    fn run_packed(&self, ctx: &Ctx, scratch: &mut [f32], product: &Product<'_>) {
        let blocking = &self.blocking(ctx, ctx.threads(), &product.dims());
        let scratch = &mut scratch[..blocking.scratch_len()];
        ctx.for_each_piece(scratch, blocking.piece_len(), |index, scratch| {
            let slice = ThreadSlice { product, blocking, index, scratch };
            match (self.kind, ctx.isa().native()) {
                (RoutineKind::RegisterTile(KPackKind::F32), _) | (_, None) => {
                    ctx.run(RegisterTileGemm { tile: RegisterTile(F32Pack), slice });
                }
                (kind, Some(native)) => native.run_slice(kind, slice),
            }
        });
    }
}
