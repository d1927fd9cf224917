//! The tile unit of AMX: bfloat16 products.
//!
//! Both operands come into the form of tiles (`forms`): some rows of activations once, and weights for 32 columns of
//! the output at a time. Rows of bf16 weights `[N, K]` have that form where they lie; others are copied. The unit
//! computes beside the rest of the core, so the next weights are copied, or asked for, in pieces meanwhile (`chores`).

mod chores;
mod forms;
mod tiles;

use core::ops::Range;

use super::blocking::{Blocking, Unit, steps};
use super::epilogue::{Orientation, Sums, finish};
use super::pack::Operand;
use super::{Layout, Part, Product};
use crate::ctx::Ctx;
use crate::isa::avx512::Avx512;
use crate::isa::avx512_bf16::Bf16Pairs;
use crate::isa::{Isa, KernelAt, LANES};

use chores::Chores;
use forms::parts_of;
pub(crate) use forms::{Lanes, STEP, block_len};
pub(crate) use tiles::{Pairs, Rows, Shape, TileUnit};

/// Columns of the output, and rows, in two tiles by two.
pub(crate) const SIDE: usize = 32;

/// Rows of the output whose sums are finished at a time: of more, they would leave the first-level cache.
const CHUNK: usize = 4 * SIDE;

/// Rows of activations from which on it pays to copy weights that straddle cache lines rather than load them so again
/// and again.
const COPY_FROM: usize = 256;

/// The products of parts that are added for each block of k, of weights and of activations: those that matter.
const PRODUCTS: [(usize, usize); 6] = [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (0, 2)];

/// Blocks of k whose weights are brought at a time. In parts they take six bytes each, twice, and would drive activations
/// out of the second-level cache where k is long; so sums wait for the next blocks. With 2 to 8, which stay in the first
/// level, and with all, models took longer.
fn blocks_at_a_time(parts: usize) -> usize {
    if parts == 1 { usize::MAX } else { 16 }
}

/// With operands in so many parts.
pub(super) fn unit(k: usize, parts: usize) -> Unit {
    let packed = parts * block_len(1) * k.div_ceil(STEP);
    let blocks = blocks_at_a_time(parts).min(k.div_ceil(STEP));
    // Weights of now and next.
    let stage = 2 * SIDE * parts * block_len(1) * blocks;
    Unit { rows: SIDE, lanes: SIDE, depth: k, packed, stage, quarters: if parts == 1 { 2 } else { 3 } }
}

/// One thread's share of a product.
pub(super) struct Share<'a, 'b> {
    pub(super) product: &'a Product<'b>,
    pub(super) blocking: &'a Blocking,
    pub(super) index: usize,
    pub(super) scratch: &'a mut [f32],
    /// Of both operands.
    pub(super) parts: usize,
}

/// Computes a share on the tile unit, which is set up before and released after.
pub(super) fn run(ctx: &Ctx, share: Share<'_, '_>) {
    if let Isa::Amx(s, amx) = ctx.isa() {
        s.run(OnTiles { unit: TileUnit::configure(amx), word: amx.pairs(), share });
    }
}

/// See [`run`].
struct OnTiles<'a, 'b> {
    unit: TileUnit,
    word: Bf16Pairs,
    share: Share<'a, 'b>,
}

impl KernelAt<Avx512> for OnTiles<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let OnTiles { unit, word, share } = self;
        let Share { product, blocking, index, scratch, parts } = share;
        let (layout, depth) = (product.layout(), product.a.cols().div_ceil(STEP));
        let (fused, at_a_time) = (product.dims().fused(), blocks_at_a_time(parts));
        let (packed, rest) = scratch.split_at_mut(blocking.packed_len());
        let (weights, rest) = rest.split_at_mut(fused * depth.min(at_a_time) * parts * block_len(SIDE));
        let (next_weights, rest) = rest.split_at_mut(weights.len());
        let chunk = blocking.lanes.min(CHUNK);
        let lanes = if at_a_time < depth { chunk } else { blocking.lanes };
        let sums = &mut rest[..fused * chunk * SIDE];
        let mut products = Products { unit, layout, depth, parts, chunk, packed, weights, sums };
        let mut chores = Chores::new(word, parts, next_weights);
        for rows in steps(blocking.rows(index), lanes) {
            products.pack(s, word, product.activations(), rows.clone());
            chores.rows = rows.len();
            let mut columns = product.groups().flat_map(|(group, column)| {
                let share = blocking.columns(index, group[0].weights.n());
                steps(share, SIDE).flat_map(move |n| {
                    // One, if there are no values.
                    let blocks = steps(0..depth.max(1), at_a_time.min(depth.max(1)));
                    blocks.map(move |k| Columns {
                        product,
                        group,
                        column,
                        n: n.clone(),
                        blocks: k.start..k.end.min(depth),
                    })
                })
            });
            let panels = rows.len().div_ceil(SIDE);
            // The first weights are brought while nothing is computed.
            chores.expect(columns.next(), panels);
            chores.expect(columns.next(), panels);
            chores.bring_rest(s);
            while let Some(this) = chores.next.clone() {
                core::mem::swap(&mut products.weights, &mut chores.weights);
                chores.expect(columns.next(), panels);
                for chunk in steps(0..rows.len(), chunk) {
                    for panel in steps(chunk.clone(), SIDE) {
                        products.multiply(s, &this, panel, &mut chores);
                    }
                    if this.blocks.end == depth {
                        products.finish(s, &this, rows.start + chunk.start..rows.start + chunk.end);
                    }
                }
                chores.bring_rest(s);
            }
        }
    }
}

/// Up to 32 columns of the output, of a group of parts.
#[derive(Clone)]
struct Columns<'a> {
    product: &'a Product<'a>,
    group: &'a [Part<'a>],
    /// The group's first column in the output.
    column: usize,
    /// Columns within the group.
    n: Range<usize>,
    /// Blocks of k.
    blocks: Range<usize>,
}

/// What the tile unit works on.
struct Products<'a> {
    unit: TileUnit,
    layout: Layout,
    /// Blocks of k, and parts of each.
    depth: usize,
    parts: usize,
    /// Rows of activations whose sums are kept.
    chunk: usize,
    /// Panels of 32 rows of activations, block after block in each.
    packed: &'a mut [f32],
    /// For each matrix 32 columns of the output, block after block.
    weights: &'a mut [f32],
    /// For each matrix a row for each row of the tiles of rows.
    sums: &'a mut [f32],
}

impl Products<'_> {
    /// Brings rows of activations into tiles.
    #[inline(always)]
    fn pack(&mut self, s: Avx512, word: Bf16Pairs, operand: Operand<'_>, rows: Range<usize>) {
        for (i, lanes) in steps(rows, SIDE).enumerate() {
            let lanes = Lanes { operand, lanes, pairs: self.layout == Layout::Nk };
            let blocks = self.depth * self.parts;
            let len = block_len(lanes.tiles() * LANES);
            let panel = &mut self.packed[i * blocks * block_len(SIDE)..][..blocks * len];
            for (block, to) in panel.chunks_exact_mut(self.parts * len).enumerate() {
                lanes.bring_parts(s, word, block, (to, self.parts));
            }
        }
    }

    /// The sums of some columns and a panel of the packed rows, while chores are done.
    #[inline(always)]
    fn multiply(
        &mut self,
        s: Avx512,
        columns: &Columns<'_>,
        panel: Range<usize>,
        chores: &mut Chores<'_, '_>,
    ) {
        let (blocks, most, tiles) = (columns.blocks.clone(), self.parts, panel.len().div_ceil(LANES));
        let shape = match (tiles, self.layout) {
            (2, _) => Shape::Square,
            (_, Layout::Nk) => Shape::Narrow,
            (_, Layout::Kn) => Shape::Flat,
        };
        let block = block_len(tiles * LANES);
        let packed = &self.packed[panel.start * self.depth * most * block_len(1)..];
        let packed = &packed[blocks.start * most * block..blocks.end * most * block];
        let (stride, at) = match self.layout {
            Layout::Nk => (self.chunk, panel.start % self.chunk),
            Layout::Kn => (SIDE, panel.start % self.chunk * SIDE),
        };
        let in_place = chores.in_place(columns);
        for (part, sums) in self.sums.chunks_exact_mut(self.chunk * SIDE).enumerate() {
            let len = blocks.len() * most * block_len(SIDE);
            let weights = &self.weights[part * len..][..len];
            let (mut rows, pairs, pairs_block) = match self.layout {
                Layout::Nk => {
                    let rows = columns.lanes(part).in_place().filter(|_| in_place);
                    let rows = rows.map(|rows| rows.offset(blocks.start * rows.step));
                    (rows.unwrap_or(Rows::staged(weights, SIDE).in_parts(most)), packed, block)
                }
                Layout::Kn => (Rows::staged(packed, tiles * LANES).in_parts(most), weights, block_len(SIDE)),
            };
            if blocks.start == 0 {
                self.unit.zero();
            } else {
                self.unit.load(shape, &sums[at..], stride);
            }
            if most == 1 {
                // Apart, since a loop over one product took 4 % of MiniLM's time.
                for pairs in pairs.chunks_exact(pairs_block) {
                    // SAFETY: there are tiles for these blocks: staged ones as the lengths say, those in place as
                    // `Lanes::in_place` does.
                    unsafe { self.unit.multiply(shape, rows, Pairs::staged(pairs)) };
                    rows.advance();
                    chores.turn(s);
                }
            } else {
                let of_weights = parts_of(columns.lanes(part).operand, most);
                let of_activations = parts_of(columns.product.activations(), most);
                let mut products = [(0, 0); PRODUCTS.len()];
                let mut count = 0;
                for (of_weight, of_activation) in PRODUCTS {
                    if of_weight < of_weights && of_activation < of_activations {
                        let (row, pair) = match self.layout {
                            Layout::Nk => (of_weight, of_activation),
                            Layout::Kn => (of_activation, of_weight),
                        };
                        products[count] = (row * (rows.step / most), pair * pairs_block);
                        count += 1;
                    }
                }
                for pairs in pairs.chunks_exact(most * pairs_block) {
                    for (row, pair) in &products[..count] {
                        // SAFETY: there are tiles for these blocks: staged ones as the lengths say, those in place as
                        // `Lanes::in_place` does; these have one part.
                        unsafe {
                            self.unit.multiply(shape, rows.offset(*row), Pairs::staged(&pairs[*pair..]))
                        };
                    }
                    rows.advance();
                    chores.turn(s);
                }
            }
            self.unit.store(shape, &mut sums[at..], stride);
        }
    }

    /// Finishes the sums of some columns and a chunk of rows.
    #[inline(always)]
    fn finish(&mut self, s: Avx512, columns: &Columns<'_>, rows: Range<usize>) {
        let Columns { product, group, column, n, .. } = columns;
        let (orientation, stride) = match self.layout {
            Layout::Nk => (Orientation::Turned, self.chunk),
            Layout::Kn => (Orientation::Straight, SIDE),
        };
        let sums =
            Sums { orientation, m: rows, n: n.clone(), stride, data: self.sums, block: self.chunk * SIDE };
        // SAFETY: `Blocking` gives each share its own rows and columns of every part.
        unsafe { finish(s, product, group, *column, sums) };
    }
}
