//! The ways to compute a product, best first.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::blocking::{Blocking, Unit};
use super::task::Task;
#[cfg(target_arch = "x86_64")]
use super::thin::blocks::{self, Blocks};
use super::thin::{self, Thin};
use super::tile::{Tile, TileUnit};
use super::word::Single;
use super::{Dims, Layout, Product};
use crate::ctx::{Ctx, Precision};
use crate::isa::LANES;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Isa, KernelAt, avx512::Avx512, avx512_bf16::Bf16Pairs};
use crate::level::Level;

/// A way to compute a product: a row of [`PLANS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What reports call it.
    pub name: &'static str,
    /// The levels that can run it.
    pub levels: &'static [Level],
    /// The precisions that it computes. Every plan takes every storage type.
    pub precisions: &'static [Precision],
    /// The layouts of weights that it takes.
    pub layouts: &'static [Layout],
    /// The most rows of activations that it takes.
    pub most_rows: usize,
    /// What its results depend on: plans of one order give the same bits at one level and precision.
    pub order: Order,
    method: Method,
}

/// In which order a plan sums; see the module's numeric contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Ascending k, in blocks.
    Ascending,
    /// Ascending pairs of k, in blocks.
    Pairs,
    /// Blocks of 32 by the tile unit, even and odd k apart.
    Tiles,
    /// As [`Order::Tiles`], with operands in three parts: six products for each block.
    TilesOfParts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// With operands in so many parts.
    Amx(usize),
    Thin(Words),
    /// In the order of the tile unit.
    ThinBlocks,
    Tile(Words),
}

/// bf16 numbers whose sum is an f32.
const PARTS: usize = 3;

/// Rows of activations that are multiplied in the order of the tile unit without it.
#[cfg(target_arch = "x86_64")]
const MOST_IN_BLOCKS: usize = blocks::MOST_ROWS;
#[cfg(not(target_arch = "x86_64"))]
const MOST_IN_BLOCKS: usize = 0;

/// What the lanes of a micro-kernel hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    Single,
    Pairs,
}

/// Every plan. A product is computed by the first that fits; all plans of a level and a precision that could be
/// picked for some number of rows have the same [`Order`].
pub static PLANS: [Plan; 8] = [
    Plan {
        name: "amx-thin",
        levels: &[Level::Amx],
        precisions: &[Precision::Bf16],
        layouts: &[Layout::Kn],
        most_rows: MOST_IN_BLOCKS,
        order: Order::Tiles,
        method: Method::ThinBlocks,
    },
    Plan {
        name: "amx-32x32",
        levels: &[Level::Amx],
        precisions: &[Precision::Bf16],
        layouts: &Layout::ALL,
        most_rows: usize::MAX,
        order: Order::Tiles,
        method: Method::Amx(1),
    },
    Plan {
        name: "amx-32x32x6",
        levels: &[Level::Amx],
        precisions: &[Precision::Bf16x6],
        layouts: &Layout::ALL,
        most_rows: usize::MAX,
        order: Order::TilesOfParts,
        method: Method::Amx(PARTS),
    },
    Plan {
        name: "dot-thin",
        levels: &[Level::Avx512Bf16],
        precisions: &[Precision::Bf16],
        layouts: &Layout::ALL,
        most_rows: thin::MOST_ROWS,
        order: Order::Pairs,
        method: Method::Thin(Words::Pairs),
    },
    Plan {
        name: "dot-tile",
        levels: &[Level::Avx512Bf16],
        precisions: &[Precision::Bf16],
        layouts: &Layout::ALL,
        most_rows: usize::MAX,
        order: Order::Pairs,
        method: Method::Tile(Words::Pairs),
    },
    Plan {
        name: "fma-thin",
        levels: &Level::ALL,
        precisions: &Precision::ALL,
        layouts: &Layout::ALL,
        most_rows: thin::MOST_ROWS,
        order: Order::Ascending,
        method: Method::Thin(Words::Single),
    },
    Plan {
        name: "fma-rows",
        levels: &[Level::Avx512, Level::Avx512Bf16, Level::Amx],
        precisions: &Precision::ALL,
        layouts: &[Layout::Kn],
        most_rows: thin::MOST_ROWS_STRAIGHT,
        order: Order::Ascending,
        method: Method::Thin(Words::Single),
    },
    Plan {
        name: "fma-tile",
        levels: &Level::ALL,
        precisions: &Precision::ALL,
        layouts: &Layout::ALL,
        most_rows: usize::MAX,
        order: Order::Ascending,
        method: Method::Tile(Words::Single),
    },
];

/// Runs a kernel made with the token of AVX512-BF16, which the level of a plan of pairs has.
#[cfg(target_arch = "x86_64")]
fn run_pairs<K: KernelAt<Avx512, Output = ()>>(ctx: &Ctx, kernel: impl FnOnce(Bf16Pairs) -> K) {
    if let Isa::Avx512Bf16(s, word) = ctx.isa() {
        s.run(kernel(word));
    }
}

/// Runs a kernel in the order of the tile unit.
#[cfg(target_arch = "x86_64")]
fn run_blocks<K: KernelAt<Avx512, Output = ()>>(ctx: &Ctx, kernel: impl FnOnce(Bf16Pairs) -> K) {
    if let Isa::Amx(s, amx) = ctx.isa() {
        s.run(kernel(amx.pairs()));
    }
}

impl Plan {
    /// Whether this plan can compute a product of `m` rows by weights in this layout in `ctx`.
    pub fn fits(&self, ctx: &Ctx, layout: Layout, m: usize) -> bool {
        self.layouts.contains(&layout)
            && self.levels.contains(&ctx.level())
            && self.precisions.contains(&ctx.precision())
            && m <= self.most_rows
    }

    /// The plan for a product of `m` rows by weights in this layout: the first that fits.
    pub fn pick(ctx: &Ctx, layout: Layout, m: usize) -> &'static Plan {
        PLANS.iter().find(|plan| plan.fits(ctx, layout, m)).unwrap_or(&PLANS[PLANS.len() - 1])
    }

    /// Rows and columns of its register tile at the level of `ctx`, counted in the broadcast and in the vector
    /// operand.
    pub fn tile(&self, ctx: &Ctx) -> (usize, usize) {
        match self.method {
            #[cfg(target_arch = "x86_64")]
            Method::ThinBlocks => blocks::TILE,
            Method::Thin(_) => (ctx.run(thin::Together), LANES),
            _ => {
                let unit = self.unit(ctx, Layout::Nk, 0);
                (unit.rows, unit.lanes)
            }
        }
    }

    /// Of a plan that packs.
    fn unit(&self, ctx: &Ctx, layout: Layout, k: usize) -> Unit {
        match self.method {
            #[cfg(target_arch = "x86_64")]
            Method::Amx(parts) => amx::unit(layout, k, parts),
            Method::Tile(Words::Pairs) => ctx.run(TileUnit { layout, k, values: 2 }),
            _ => ctx.run(TileUnit { layout, k, values: 1 }),
        }
    }

    /// The cut of a product on so many threads.
    fn blocking(&self, ctx: &Ctx, threads: usize, dims: &Dims) -> Blocking {
        let unit = self.unit(ctx, dims.layout, dims.k);
        match self.method {
            // Activations are packed, whatever the layout.
            #[cfg(target_arch = "x86_64")]
            Method::Amx(_) => Blocking::new(unit, threads, &Dims { layout: Layout::Nk, ..*dims }),
            _ => Blocking::new(unit, threads, dims),
        }
    }

    /// Elements of scratch for a product of these dimensions on so many threads.
    pub(super) fn scratch_len(&self, ctx: &Ctx, threads: usize, dims: &Dims) -> usize {
        match self.method {
            Method::Thin(_) | Method::ThinBlocks => thin::Cut::new(threads, dims).scratch_len(),
            _ => self.blocking(ctx, threads, dims).most_scratch_len(),
        }
    }

    /// Computes a product that fits, in scratch that suffices.
    pub(super) fn run(&self, ctx: &Ctx, scratch: &mut [f32], product: &Product<'_>) {
        let dims = product.dims();
        if let Method::Thin(_) | Method::ThinBlocks = self.method {
            let cut = &thin::Cut::new(ctx.threads(), &dims);
            let scratch = &mut scratch[..cut.scratch_len()];
            return ctx.for_each_piece(scratch, cut.piece_len(), |index, scratch| match self.method {
                #[cfg(target_arch = "x86_64")]
                Method::ThinBlocks => run_blocks(ctx, |pairs| Blocks { pairs, product, cut, index, scratch }),
                #[cfg(target_arch = "x86_64")]
                Method::Thin(Words::Pairs) => {
                    run_pairs(ctx, |word| Thin { word, product, cut, index, scratch });
                }
                _ => ctx.run(Thin { word: Single, product, cut, index, scratch }),
            });
        }
        let blocking = &self.blocking(ctx, ctx.threads(), &dims);
        let scratch = &mut scratch[..blocking.scratch_len()];
        ctx.for_each_piece(scratch, blocking.piece_len(), |index, scratch| match self.method {
            #[cfg(target_arch = "x86_64")]
            Method::Amx(parts) => amx::run(ctx, amx::Share { product, blocking, index, scratch, parts }),
            #[cfg(target_arch = "x86_64")]
            Method::Tile(Words::Pairs) => run_pairs(ctx, |word| {
                let tile = Tile(word);
                Task { tile, product, blocking, index, scratch }
            }),
            _ => ctx.run(Task { tile: Tile(Single), product, blocking, index, scratch }),
        });
    }
}
