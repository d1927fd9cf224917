//! The loops around the register tile: which rows of the broadcast operand X meet which lanes of the packed operand V.

use core::ops::Range;

use super::blocking::{Blocking, steps};
use super::epilogue::{Orientation, Sums, epilogue};
use super::kpack::{F32Pack, KPack};
use super::micro_kernel::{K_UNROLL, MBlock, OutputPrefetch, RegisterTile};
use super::prefetch::{BlockPrefetch, PREFETCH_BURST};
use super::{Layout, Part, Product};
use crate::isa::{Kernel, Simd};

/// One thread's slice of a product whose routine packs an operand.
pub(crate) struct ThreadSlice<'a, 'b> {
    pub(crate) product: &'a Product<'b>,
    pub(crate) blocking: &'a Blocking,
    /// The slice's number in the blocking.
    pub(crate) index: usize,
    pub(crate) scratch: &'a mut [f32],
}

/// A slice that the register tile computes.
pub(crate) struct RegisterTileGemm<'a, 'b, P> {
    pub(crate) tile: RegisterTile<P>,
    pub(crate) slice: ThreadSlice<'a, 'b>,
}

impl Kernel for RegisterTileGemm<'_, '_, F32Pack> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

impl<P> RegisterTileGemm<'_, '_, P> {
    #[inline(always)]
    pub(crate) fn run_with<S: Simd>(self, s: S)
    where
        P: KPack<S>,
    {
        let RegisterTileGemm { tile, slice: ThreadSlice { product, blocking, index, scratch } } = self;
        let (packed, rest) = scratch.split_at_mut(blocking.packed_len() * blocking.packed_matrices());
        let (staging, sums) = rest.split_at_mut(blocking.staging_len());
        let (rows, depth) = (blocking.rows(index), product.a.cols());
        let mut macro_kernel = MacroKernel { tile, product, blocking, staging, sums };
        match product.layout() {
            // V is the activations, packed for all of K; X is the weights, read in place.
            Layout::Nk => {
                for m in steps(rows, blocking.nc()) {
                    tile.pack(s, product.activations(), m.clone(), packed);
                    for (parts, column) in product.fused_parts() {
                        let columns = blocking.columns(index, parts[0].weights.n());
                        let block = Block { x: columns, k: 0..depth, v: m.clone() };
                        macro_kernel.run(s, (parts, column), block, packed, None);
                    }
                }
            }
            // V is the weights, packed KC values of k by NC columns at a time; X is the activations.
            Layout::Kn => {
                for (parts, column) in product.fused_parts() {
                    let columns = blocking.columns(index, parts[0].weights.n());
                    for n in steps(columns.clone(), blocking.nc()) {
                        let next_columns = n.end..columns.end.min(n.end + n.len());
                        for rows in steps(rows.clone(), blocking.mc()) {
                            for k in blocking.k_blocks(depth) {
                                let next = match k.end < depth {
                                    true => (k.end, n.clone()),
                                    false => (0, next_columns.clone()),
                                };
                                let iterations = blocking.micro_tiles(rows.len(), n.len())
                                    * (k.len() / (K_UNROLL * P::LEN));
                                let mut prefetch =
                                    prefetch_weights(&parts[0], next, blocking.kc(), iterations);
                                let block = Block { x: rows.clone(), k, v: n.clone() };
                                macro_kernel.run(s, (parts, column), block, packed, Some(&mut prefetch));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Prefetches the weights that will be packed next, up to `kc` values of k from the first one on, within `iterations`
/// iterations of the micro-kernel's loop.
#[inline(always)]
fn prefetch_weights(
    part: &Part<'_>,
    (k, columns): (usize, Range<usize>),
    kc: usize,
    iterations: usize,
) -> BlockPrefetch {
    if columns.is_empty() {
        return BlockPrefetch::NONE;
    }
    let kc = kc.min(part.weights.k() - k);
    let (at, shape) = ((k, columns.start), (kc, columns.len()));
    BlockPrefetch::block(part.weights.matrix, at, shape, iterations, PREFETCH_BURST)
}

/// The rows of X, values of k and lanes of V of one macro-kernel call.
struct Block {
    x: Range<usize>,
    k: Range<usize>,
    v: Range<usize>,
}

/// The loops over the micro-tiles of packed lanes.
struct MacroKernel<'a, 'b, P> {
    tile: RegisterTile<P>,
    product: &'a Product<'b>,
    blocking: &'a Blocking,
    staging: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<'a, P> MacroKernel<'a, '_, P> {
    /// Multiplies a block by the parts that are fused into one result, whose first column in the output is `column`. After
    /// the last values of k, runs the epilogue on the sums.
    #[inline(always)]
    fn run<S: Simd>(
        &mut self,
        s: S,
        (parts, column): (&'a [Part<'a>], usize),
        Block { x, k, v }: Block,
        packed: &mut [f32],
        mut prefetch: Option<&mut BlockPrefetch>,
    ) where
        P: KPack<S>,
    {
        let MacroKernel { tile, product, blocking, .. } = *self;
        let layout = product.layout();
        let broadcast = |part: &Part<'a>| match layout {
            Layout::Nk => product.weights(part),
            Layout::Kn => product.activations(),
        };
        let (stride, sums_len) = (blocking.sums_stride(), blocking.sums_len());
        for rows in steps(x.clone(), blocking.m_block()) {
            let is_first = rows.start == x.start;
            let at = blocking.sums_at(rows.start - x.start);
            let (orientation, m, n) = match layout {
                Layout::Nk => (Orientation::Transposed, v.clone(), rows.clone()),
                Layout::Kn => (Orientation::RowMajor, rows.clone(), v.clone()),
            };
            for (p, part) in parts.iter().enumerate() {
                // Each part has its own packed weights, but all share packed activations.
                let (packed_at, unpacked) = match layout {
                    Layout::Nk => (0, None),
                    Layout::Kn => (p * blocking.packed_len(), is_first.then(|| product.weights(part))),
                };
                let m_block = MBlock {
                    x: broadcast(part),
                    rows: rows.clone(),
                    staging: self.staging,
                    k: k.clone(),
                    lanes: v.clone(),
                    packed: &mut packed[packed_at..],
                    unpacked,
                    output: match p + 1 == parts.len() && k.end == product.a.cols() {
                        true => OutputPrefetch::of(&product.out, m.clone(), column + n.start..column + n.end),
                        false => OutputPrefetch::NONE,
                    },
                    sums: &mut self.sums[p * sums_len..][..sums_len][at..],
                    stride,
                };
                tile.multiply(s, m_block, prefetch.as_deref_mut());
            }
            if k.end < product.a.cols() {
                continue;
            }
            let sums = Sums { orientation, m, n, stride, data: &mut self.sums[at..], part_len: sums_len };
            // SAFETY: `Blocking` gives each slice its own rows and columns of every part.
            unsafe { epilogue(s, product, parts, column, sums) };
        }
    }
}
