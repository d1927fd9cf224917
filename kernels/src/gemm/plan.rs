//! The table of GEMM routines, best first.

use super::small_m;
use super::{Layout, RoutineKind};
use crate::ctx::{Ctx, Precision};
use crate::level::Level;

/// A routine that computes a product, and when it may be picked: a row of [`PLANS`].
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemmPlan {
    /// The name in reports.
    pub name: &'static str,
    /// The levels that can run it.
    pub levels: &'static [Level],
    /// The precisions that it computes. Every plan takes every storage type.
    pub precisions: &'static [Precision],
    /// The layouts of weights that it takes.
    pub layouts: &'static [Layout],
    /// The largest M (rows of activations) that it takes.
    pub max_rows: usize,
    /// The order of summation, on which the bits of a result depend: at one level and precision, plans with the same
    /// order give the same bits.
    pub order: SummationOrder,
    /// The routine itself.
    pub(super) kind: RoutineKind,
}

/// The order in which a plan sums; see the numeric contract of [`gemm`](crate::gemm()).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SummationOrder {
    /// Ascending k, in blocks.
    Ascending,
    /// Ascending pairs of k, in blocks.
    Pairs,
    /// Blocks of 32 values of k as AMX tiles sum them: even and odd k apart.
    Tiles,
    /// As [`SummationOrder::Tiles`], with each f32 operand split into three bf16 terms: six products for each block.
    SplitTiles,
}

/// The bf16 terms that an f32 is split into: [`Precision::Bf16x6`].
const BF16X6_TERMS: usize = 3;

/// Every plan. A product is computed by the first plan that fits. All plans of one level and precision that can be picked
/// for some number of rows have the same [`SummationOrder`], so that bits do not depend on the number of rows.
#[doc(hidden)]
pub static PLANS: [GemmPlan; 8] = [
    GemmPlan {
        name: "amx-order-small-m",
        levels: &[Level::Amx],
        precisions: &[Precision::Bf16],
        layouts: &[Layout::Kn],
        max_rows: small_m::TILE_ORDER_MAX_ROWS,
        order: SummationOrder::Tiles,
        kind: RoutineKind::SmallMTileOrder,
    },
    GemmPlan {
        name: "amx-32x32",
        levels: &[Level::Amx],
        precisions: &[Precision::Bf16],
        layouts: &Layout::ALL,
        max_rows: usize::MAX,
        order: SummationOrder::Tiles,
        kind: RoutineKind::AmxTiles { terms: 1 },
    },
    GemmPlan {
        name: "amx-32x32x6",
        levels: &[Level::Amx],
        precisions: &[Precision::Bf16x6],
        layouts: &Layout::ALL,
        max_rows: usize::MAX,
        order: SummationOrder::SplitTiles,
        kind: RoutineKind::AmxTiles { terms: BF16X6_TERMS },
    },
    GemmPlan {
        name: "dot-small-m",
        levels: &[Level::Avx512Bf16],
        precisions: &[Precision::Bf16],
        layouts: &Layout::ALL,
        max_rows: small_m::MAX_ROWS,
        order: SummationOrder::Pairs,
        kind: RoutineKind::SmallM(KPackKind::Bf16Pairs),
    },
    GemmPlan {
        name: "dot-tile",
        levels: &[Level::Avx512Bf16],
        precisions: &[Precision::Bf16],
        layouts: &Layout::ALL,
        max_rows: usize::MAX,
        order: SummationOrder::Pairs,
        kind: RoutineKind::RegisterTile(KPackKind::Bf16Pairs),
    },
    GemmPlan {
        name: "fma-small-m",
        levels: &Level::ALL,
        precisions: &Precision::ALL,
        layouts: &Layout::ALL,
        max_rows: small_m::MAX_ROWS,
        order: SummationOrder::Ascending,
        kind: RoutineKind::SmallM(KPackKind::F32),
    },
    GemmPlan {
        name: "fma-small-m-kn",
        levels: &[Level::Avx512, Level::Avx512Bf16, Level::Amx],
        precisions: &Precision::ALL,
        layouts: &[Layout::Kn],
        max_rows: small_m::MAX_ROWS_ROW_MAJOR,
        order: SummationOrder::Ascending,
        kind: RoutineKind::SmallM(KPackKind::F32),
    },
    GemmPlan {
        name: "fma-tile",
        levels: &Level::ALL,
        precisions: &Precision::ALL,
        layouts: &Layout::ALL,
        max_rows: usize::MAX,
        order: SummationOrder::Ascending,
        kind: RoutineKind::RegisterTile(KPackKind::F32),
    },
];

/// What a lane of a routine's vectors holds; see [`KPack`](super::kpack::KPack).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KPackKind {
    F32,
    Bf16Pairs,
}

impl GemmPlan {
    /// Whether this plan can compute a product of `m` rows by weights in this layout in `ctx`.
    pub fn fits(&self, ctx: &Ctx, layout: Layout, m: usize) -> bool {
        self.layouts.contains(&layout)
            && self.levels.contains(&ctx.level())
            && self.precisions.contains(&ctx.precision())
            && m <= self.max_rows
    }

    /// The plan for a product of `m` rows by weights in this layout: the first that fits.
    pub fn pick(ctx: &Ctx, layout: Layout, m: usize) -> &'static GemmPlan {
        // The last plan fits every product of every level.
        PLANS.iter().find(|plan| plan.fits(ctx, layout, m)).unwrap_or(&PLANS[PLANS.len() - 1])
    }
}
