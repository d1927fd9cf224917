//! The loops around a micro-kernel: which rows of the broadcast operand meet which lanes of the packed one.

use core::ops::Range;

use super::ahead::Ahead;
use super::blocking::{Blocking, steps};
use super::epilogue::{Orientation, Sums, finish};
use super::pack::Operand;
use super::tile::{BURST, TURN, Tile};
use super::word::Word;
use super::{Layout, Part, Product};
use crate::isa::Simd;

/// Some rows of X against some packed lanes of V.
pub(crate) struct Strip<'a> {
    pub(crate) x: Operand<'a>,
    pub(crate) rows: Range<usize>,
    pub(crate) stage: &'a mut [f32],
    /// The values of k: all, or a block of them, whose sums are added to those of the blocks before.
    pub(crate) k: Range<usize>,
    pub(crate) lanes: Range<usize>,
    /// The lanes, panel after panel: there already, or, with where they come from, to be put there by the way.
    pub(crate) packed: &'a mut [f32],
    pub(crate) unpacked: Option<Operand<'a>>,
    /// Lines of the output that the sums will be stored in, to be asked for by the way, and how many there are.
    pub(crate) out: (Ahead, usize),
    /// The sum of row `i` of the strip and lane `j` goes to `i * stride + j`.
    pub(crate) sums: &'a mut [f32],
    pub(crate) stride: usize,
}

/// One thread's share of a product.
pub(super) struct Task<'a, 'b, W> {
    pub(super) tile: Tile<W>,
    pub(super) product: &'a Product<'b>,
    pub(super) blocking: &'a Blocking,
    pub(super) index: usize,
    pub(super) scratch: &'a mut [f32],
}

impl<W> Task<'_, '_, W> {
    #[inline(always)]
    pub(super) fn run_with<S: Simd>(self, s: S)
    where
        W: Word<S>,
    {
        let Task { tile, product, blocking, index, .. } = self;
        let packed_len = blocking.packed_len();
        let (packed, rest) = self.scratch.split_at_mut(packed_len * blocking.packed_matrices());
        let (stage, sums) = rest.split_at_mut(blocking.stage_len());
        let (rows, depth) = (blocking.rows(index), product.a.cols());
        let mut sweep = Sweep { tile, product, blocking, stage, sums };
        match product.layout() {
            // Activations are packed, and rows of weights meet them.
            Layout::Nk => {
                for m in steps(rows, blocking.lanes) {
                    tile.pack(s, product.activations(), m.clone(), packed);
                    for (group, column) in product.groups() {
                        let columns = blocking.columns(index, group[0].weights.n());
                        sweep.run(s, (group, column), (columns, 0..depth), m.clone(), packed, None);
                    }
                }
            }
            // Weights are packed, some columns at a time, and rows of activations meet them.
            Layout::Kn => {
                for (group, column) in product.groups() {
                    let columns = blocking.columns(index, group[0].weights.n());
                    for n in steps(columns.clone(), blocking.lanes) {
                        let after = n.end..columns.end.min(n.end + n.len());
                        for rows in steps(rows.clone(), blocking.sweep) {
                            for k in blocking.depths(depth) {
                                let next = match k.end < depth {
                                    true => (k.end, n.clone()),
                                    false => (0, after.clone()),
                                };
                                let turns =
                                    blocking.tiles(rows.len(), n.len()) * (k.len() / (TURN * W::VALUES));
                                let mut ahead = next_weights(&group[0], next, blocking.unit.depth, turns);
                                let (rows, n) = (rows.clone(), n.clone());
                                sweep.run(s, (group, column), (rows, k), n, packed, Some(&mut ahead));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The weights that will be packed next, up to `depth` values of k from the first on, to be brought within `turns`
/// turns.
#[inline(always)]
fn next_weights(part: &Part<'_>, (k, columns): (usize, Range<usize>), depth: usize, turns: usize) -> Ahead {
    if columns.is_empty() {
        return Ahead::NONE;
    }
    let depth = depth.min(part.weights.k() - k);
    Ahead::block(part.weights.matrix, (k, columns.start), (depth, columns.len()), turns, BURST)
}

/// The part of a task that multiplies what is packed.
struct Sweep<'a, 'b, W> {
    tile: Tile<W>,
    product: &'a Product<'b>,
    blocking: &'a Blocking,
    stage: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<'a, W> Sweep<'a, '_, W> {
    /// Multiplies the values `k` of the rows `x` of the broadcast operand by those of the lanes `v` of the packed one,
    /// and finishes the sums if they are the last.
    #[inline(always)]
    fn run<S: Simd>(
        &mut self,
        s: S,
        (group, column): (&'a [Part<'a>], usize),
        (x, k): (Range<usize>, Range<usize>),
        v: Range<usize>,
        packed: &mut [f32],
        mut ahead: Option<&mut Ahead>,
    ) where
        W: Word<S>,
    {
        let Sweep { tile, product, blocking, .. } = *self;
        let layout = product.layout();
        let operand = |part: &Part<'a>| match layout {
            Layout::Nk => product.weights(part),
            Layout::Kn => product.activations(),
        };
        let (stride, block) = (blocking.sums_stride(), blocking.sums_len());
        for rows in steps(x.clone(), blocking.strip) {
            let first = rows.start == x.start;
            let at = blocking.sums_at(rows.start - x.start);
            let (orientation, m, n) = match layout {
                Layout::Nk => (Orientation::Turned, v.clone(), rows.clone()),
                Layout::Kn => (Orientation::Straight, rows.clone(), v.clone()),
            };
            for (p, part) in group.iter().enumerate() {
                // The layout says whose operands differ from part to part.
                let (packed_at, unpacked) = match layout {
                    Layout::Nk => (0, None),
                    Layout::Kn => (p * blocking.packed_len(), first.then(|| product.weights(part))),
                };
                let strip = Strip {
                    x: operand(part),
                    rows: rows.clone(),
                    stage: self.stage,
                    k: k.clone(),
                    lanes: v.clone(),
                    packed: &mut packed[packed_at..],
                    unpacked,
                    out: match p + 1 == group.len() && k.end == product.a.cols() {
                        true => Ahead::output(&product.out, m.clone(), column + n.start..column + n.end),
                        false => (Ahead::NONE, 0),
                    },
                    sums: &mut self.sums[p * block..][..block][at..],
                    stride,
                };
                tile.multiply(s, strip, ahead.as_deref_mut());
            }
            if k.end < product.a.cols() {
                continue;
            }
            let sums = Sums { orientation, m, n, stride, data: &mut self.sums[at..], block };
            // SAFETY: `Blocking` gives each task its own rows and columns of every part.
            unsafe { finish(s, product, group, column, sums) };
        }
    }
}
