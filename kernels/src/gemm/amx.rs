//! The tile unit of AMX: bfloat16 products.
//!
//! Both operands come into the form of tiles (`forms`): some rows of activations once, and weights for 32 columns of
//! the output at a time. Rows of bf16 weights `[N, K]` have that form where they lie; others are copied. The unit
//! computes beside the rest of the core, so the next weights are copied, or asked for, in pieces meanwhile (`chores`).

mod chores;
mod forms;
mod tiles;

use core::ops::Range;

use super::blocking::{Blocking, Unit, steps, steps_or_empty};
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
pub(crate) use tiles::{Pairs, Rows, Shape, Streamed, TileUnit};

/// Columns of the output, and rows, in two tiles by two.
pub(crate) const SIDE: usize = 32;

/// Rows of activations from which on it pays to copy weights that straddle cache lines rather than load them so again
/// and again.
const COPY_FROM: usize = 256;

/// Blocks of k whose weights meet all rows of activations before the next ones do, while sums wait in memory: those of
/// 32 columns then stay in the first-level cache, as all blocks do where there are few. In parts, all that are brought.
/// With 12 or 16 at a time K = 768 was as fast, but longer rows, which share sets of that cache, were up to a fifth slower.
fn staying(depth: usize, parts: usize) -> usize {
    if depth <= 16 || parts > 1 { 16 } else { 8 }
}

/// The products of parts that are added for each block of k, of weights and of activations: those that matter.
const PRODUCTS: [(usize, usize); 6] = [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (0, 2)];

/// Blocks of k whose weights are brought at a time. In parts they take six bytes each, twice, and would drive activations
/// out of the second-level cache where k is long; so sums wait for the next blocks. With 2 to 8, which stay in the first
/// level, and with all, models took longer. So do weights `[K, N]`, whose rows, each a line in another page, stay there
/// badly: 8 blocks are 30 % faster than all of 3,072 values of k by 128 rows, but a quarter slower from memory by 64, as
/// the next ones are asked for too late; hence more for fewer panels of rows.
fn blocks_at_a_time(layout: Layout, parts: usize, panels: usize) -> usize {
    match layout {
        _ if parts > 1 => 16,
        Layout::Nk => usize::MAX,
        Layout::Kn => (32 / panels.max(1)).max(8),
    }
}

/// With operands in so many parts.
pub(super) fn unit(layout: Layout, k: usize, parts: usize) -> Unit {
    let packed = parts * block_len(1) * k.div_ceil(STEP);
    let blocks = blocks_at_a_time(layout, parts, 1).min(k.div_ceil(STEP));
    // Weights of now and next.
    let stage = 2 * SIDE * parts * block_len(1) * blocks;
    let (quarters, converts) = (if parts == 1 { 2 } else { 3 }, layout == Layout::Kn || parts > 1);
    Unit { rows: SIDE, lanes: SIDE, depth: k, packed, stage, quarters, converts }
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
        let fused = product.dims().fused();
        let blocks = depth.min(blocks_at_a_time(layout, parts, 1));
        let (packed, rest) = scratch.split_at_mut(blocking.packed_len());
        let (weights, rest) = rest.split_at_mut(fused * blocks * parts * block_len(SIDE));
        let (next_weights, rest) = rest.split_at_mut(weights.len());
        let (staying, of_matrix) = (staying(depth, parts), blocking.lanes * SIDE);
        let sums = &mut rest[..fused * of_matrix];
        let waiting = fused > 1 || depth > staying;
        let mut products =
            Products { unit, layout, depth, parts, fused, waiting, packed, weights, sums, of_matrix };
        let mut chores = Chores::new(word, parts, next_weights);
        for rows in steps(blocking.rows(index), blocking.lanes) {
            products.pack(s, word, product.activations(), rows.clone());
            let count = rows.len();
            let panels = count.div_ceil(SIDE);
            let at_a_time = blocks_at_a_time(layout, parts, panels);
            let mut columns = product.groups().flat_map(|(group, column)| {
                let share = blocking.columns(index, group[0].weights.n());
                steps(share, SIDE).flat_map(move |n| {
                    let columns = Columns::new(product, (group, column), n, count);
                    steps_or_empty(0..depth, at_a_time).map(move |blocks| Columns {
                        blocks,
                        n: columns.n.clone(),
                        ..columns
                    })
                })
            });
            // The first weights are brought while nothing is computed.
            chores.expect(columns.next(), panels);
            chores.expect(columns.next(), panels);
            chores.bring_rest(s);
            while let Some(this) = chores.next.clone() {
                core::mem::swap(&mut products.weights, &mut chores.weights);
                chores.expect(columns.next(), panels);
                for blocks in steps_or_empty(this.blocks.clone(), staying) {
                    for part in 0..fused {
                        products.multiply(s, (&this, part), blocks.clone(), rows.clone(), &mut chores);
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
    /// Whether the weights, of all parts, are multiplied from where they lie.
    in_place: bool,
}

impl<'a> Columns<'a> {
    /// Columns that meet so many rows of activations, without blocks yet.
    #[inline(always)]
    fn new(
        product: &'a Product<'a>,
        (group, column): (&'a [Part<'a>], usize),
        n: Range<usize>,
        rows: usize,
    ) -> Columns<'a> {
        let columns = Columns { product, group, column, n, blocks: 0..0, in_place: false };
        let fits = |rows_of: Rows| rows < COPY_FROM || rows_of.aligned();
        let in_place = (0..group.len()).all(|part| columns.lanes(part).in_place().is_some_and(fits));
        Columns { in_place, ..columns }
    }

    /// The weights of one part.
    #[inline(always)]
    fn lanes(&self, part: usize) -> Lanes<'a> {
        let operand = self.product.weights(&self.group[part]);
        Lanes { operand, lanes: self.n.clone(), pairs: !operand.k_in_rows }
    }
}

/// What the tile unit works on.
struct Products<'a> {
    unit: TileUnit,
    layout: Layout,
    /// Blocks of k, and parts of each.
    depth: usize,
    parts: usize,
    /// Matrices that are multiplied before a result is stored.
    fused: usize,
    /// Whether sums wait in memory for other blocks or matrices.
    waiting: bool,
    /// Panels of 32 rows of activations, block after block in each.
    packed: &'a mut [f32],
    /// For each matrix 32 columns of the output, block after block.
    weights: &'a mut [f32],
    /// For each matrix, `of_matrix` elements: two tiles by two for each panel of rows.
    sums: &'a mut [f32],
    of_matrix: usize,
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

    /// Multiplies some blocks of one matrix's columns by all panels of the packed `rows`, while chores are done, and
    /// finishes sums that are complete.
    #[inline(always)]
    fn multiply(
        &mut self,
        s: Avx512,
        (columns, part): (&Columns<'_>, usize),
        blocks: Range<usize>,
        rows: Range<usize>,
        chores: &mut Chores<'_, '_>,
    ) {
        let most = self.parts;
        let first = part * columns.blocks.len() + blocks.start - columns.blocks.start;
        let weights = first * most * block_len(SIDE)..(first + blocks.len()) * most * block_len(SIDE);
        let in_place = columns.lanes(part).in_place().filter(|_| columns.in_place);
        let in_place = in_place.map(|rows| rows.offset(blocks.start * rows.step));
        let complete = blocks.end == self.depth && part + 1 == self.fused;
        for panel in steps(0..rows.len(), SIDE) {
            let tiles = panel.len().div_ceil(LANES);
            let block = most * block_len(tiles * LANES);
            let packed = &self.packed[panel.start * self.depth * most * block_len(1)..];
            let packed = &packed[blocks.start * block..blocks.end * block];
            let weights = &self.weights[weights.clone()];
            let shape = match self.layout {
                _ if tiles == 2 => Shape::Square,
                Layout::Nk => Shape::Narrow,
                Layout::Kn => Shape::Flat,
            };
            let (rows_of, pairs, block, streamed) = match self.layout {
                Layout::Nk => {
                    let rows = in_place.unwrap_or(Rows::staged(weights, SIDE).in_parts(most));
                    (rows, packed, block, Streamed::Pairs)
                }
                Layout::Kn => {
                    let rows = Rows::staged(packed, tiles * LANES).in_parts(most);
                    (rows, weights, most * block_len(SIDE), Streamed::Rows)
                }
            };
            let at = part * self.of_matrix + self.sums_at(panel.start);
            let sums = &mut self.sums[at..];
            if blocks.start == 0 {
                self.unit.zero();
            } else {
                self.unit.load(shape, sums, SIDE);
            }
            let of_panel = Blocks { rows: rows_of, pairs, block, shape, streamed };
            if most > 1 {
                let operands = [columns.lanes(part).operand, columns.product.activations()];
                of_panel.multiply_parts(s, &self.unit, (self.layout, operands, most), chores);
            } else if chores.bringing() {
                of_panel.multiply(&self.unit, || chores.turn(s));
            } else {
                of_panel.multiply(&self.unit, || chores.ask(s));
            }
            self.unit.store(shape, sums, SIDE);
            if complete {
                self.finish(s, columns, rows.start, panel);
            }
        }
    }

    /// Where the sums of a panel of rows are in those of a matrix. They are kept where others come before they are
    /// finished.
    #[inline(always)]
    fn sums_at(&self, start: usize) -> usize {
        if self.waiting { start * SIDE } else { 0 }
    }

    /// Finishes the sums of some columns and a panel of the rows from `first` on.
    #[inline(always)]
    fn finish(&mut self, s: Avx512, columns: &Columns<'_>, first: usize, panel: Range<usize>) {
        let Columns { product, group, column, n, .. } = columns;
        let at = self.sums_at(panel.start);
        let orientation = match self.layout {
            Layout::Nk => Orientation::Turned,
            Layout::Kn => Orientation::Straight,
        };
        let (m, block) = (first + panel.start..first + panel.end, self.of_matrix);
        let sums = Sums { orientation, m, n: n.clone(), stride: SIDE, data: &mut self.sums[at..], block };
        // SAFETY: `Blocking` gives each share its own rows and columns of every part.
        unsafe { finish(s, product, group, *column, sums) };
    }
}

/// Blocks of k that are multiplied one after the other.
#[derive(Clone, Copy)]
struct Blocks<'a> {
    rows: Rows,
    /// Pairs, `block` elements of scratch for each block.
    pairs: &'a [f32],
    block: usize,
    shape: Shape,
    streamed: Streamed,
}

impl Blocks<'_> {
    /// With a turn after each.
    #[inline(always)]
    fn multiply(self, unit: &TileUnit, mut turn: impl FnMut()) {
        let Blocks { mut rows, pairs, block, shape, streamed } = self;
        for pairs in pairs.chunks_exact(block) {
            // SAFETY: there are tiles for these blocks: staged ones as the lengths say, those in place as
            // `Lanes::in_place` does.
            unsafe { unit.multiply(shape, rows, Pairs::staged(pairs), streamed) };
            rows.advance();
            turn();
        }
    }

    /// In parts.
    #[inline(always)]
    fn multiply_parts(
        self,
        s: Avx512,
        unit: &TileUnit,
        (layout, [of_weights, of_activations], most): (Layout, [Operand<'_>; 2], usize),
        chores: &mut Chores<'_, '_>,
    ) {
        let Blocks { mut rows, pairs, block, shape, .. } = self;
        let [of_weights, of_activations] =
            [of_weights, of_activations].map(|operand| parts_of(operand, most));
        let mut products = [(0, 0); PRODUCTS.len()];
        let mut count = 0;
        for (of_weight, of_activation) in PRODUCTS {
            if of_weight < of_weights && of_activation < of_activations {
                let (row, pair) = match layout {
                    Layout::Nk => (of_weight, of_activation),
                    Layout::Kn => (of_activation, of_weight),
                };
                products[count] = (row * (rows.step / most), pair * (block / most));
                count += 1;
            }
        }
        for pairs in pairs.chunks_exact(block) {
            for (row, pair) in &products[..count] {
                // SAFETY: as in `multiply`; weights in place have one part.
                unsafe {
                    unit.multiply(shape, rows.offset(*row), Pairs::staged(&pairs[*pair..]), Streamed::Neither)
                };
            }
            rows.advance();
            chores.turn(s);
        }
    }
}
