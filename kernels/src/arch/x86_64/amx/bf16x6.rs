//! Products of f32 operands on bfloat16 tiles, each operand split into three bf16 terms (Henry et al., arXiv:1904.06376).
//!
//! The first term is the bf16 nearest to the number, the second the bf16 nearest to what that leaves, the third the rest.
//! Of the nine products of two such sums the six largest are added, for each block of 32 values of k. Numbers stored as
//! bf16 have one term.

use core::ops::Range;

use super::TILE_K;
use super::gemm::KBlocks;
use super::overlap::Overlap;
use super::packing::{TileSource, load_pair_of_rows, load_row, transpose_tiles};
use super::tiles::{StreamedOperand, TileAccumulators, TilePairs};
use crate::arch::x86_64::avx512::Avx512;
use crate::arch::x86_64::avx512_bf16::Bf16Pairs;
use crate::gemm::Layout;
use crate::gemm::pack::Operand;
use crate::isa::{LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, any};

/// The products of terms that are added for each block of k, as (term of the weights, term of the activations), in order:
/// the numeric contract of [`SummationOrder::SplitTiles`](crate::gemm::SummationOrder::SplitTiles).
const TERM_PRODUCTS: [(usize, usize); 6] = [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (0, 2)];

/// The terms of an operand that has at most `max`: numbers stored as bf16 have one.
pub(super) fn terms_of(operand: Operand<'_>, max: usize) -> usize {
    if matches!(operand.matrix, AnyMatRef::Bf16(_)) { 1 } else { max }
}

/// The operands of a product in terms.
pub(super) struct TermOperands<'a> {
    pub(super) layout: Layout,
    pub(super) weights: Operand<'a>,
    pub(super) activations: Operand<'a>,
    /// The most terms of an operand, for which there is scratch.
    pub(super) terms: usize,
}

/// Adds the products of the terms of all blocks to the tiles, with a step of the overlapped work after each block.
#[inline(always)]
pub(super) fn multiply_terms(
    blocks: KBlocks<'_>,
    s: Avx512,
    tiles: &TileAccumulators,
    operands: TermOperands<'_>,
    overlap: &mut Overlap<'_, '_>,
) {
    let KBlocks { mut rows, pairs, block, shape, .. } = blocks;
    let TermOperands { layout, weights, activations, terms } = operands;
    let [of_weights, of_activations] = [weights, activations].map(|operand| terms_of(operand, terms));
    // Offsets of the terms: bytes for rows, elements for pairs.
    let mut products = [(0, 0); TERM_PRODUCTS.len()];
    let mut count = 0;
    for (weight, activation) in TERM_PRODUCTS {
        if weight < of_weights && activation < of_activations {
            let (row, pair) = match layout {
                Layout::Nk => (weight, activation),
                Layout::Kn => (activation, weight),
            };
            products[count] = (row * (rows.step / terms), pair * (block / terms));
            count += 1;
        }
    }
    for pairs in pairs.chunks_exact(block) {
        for (row, pair) in &products[..count] {
            let pairs = TilePairs::packed(&pairs[*pair..]);
            // SAFETY: both operands have tiles for each term of these blocks; weights in place have one term.
            unsafe { tiles.multiply(shape, rows.offset(*row), pairs, StreamedOperand::Neither) };
        }
        rows.advance();
        overlap.step(s);
    }
}

impl TileSource<'_> {
    /// Packs a block of k into `to`, in one term or in `terms` terms of as many tiles each.
    #[inline(always)]
    pub(super) fn pack_terms(
        &self,
        s: Avx512,
        pairs: Bf16Pairs,
        block: usize,
        (to, terms): (&mut [f32], usize),
    ) {
        let len = to.len() / terms;
        if terms_of(self.operand, terms) == 1 {
            return self.pack(s, pairs, block, &mut to[..len]);
        }
        self.pack_rows_in_terms(s, pairs, block, 0..len / LANES, to);
        if self.operand.k_in_rows && self.pairs {
            transpose_tiles(s, to);
        }
    }

    /// Packs some rows of the tiles of a block in three terms. Tiles that must be transposed are not transposed yet.
    #[inline(always)]
    pub(super) fn pack_rows_in_terms(
        &self,
        s: Avx512,
        pairs: Bf16Pairs,
        block: usize,
        rows: Range<usize>,
        to: &mut [f32],
    ) {
        let (k, along_k) = (block * TILE_K, self.operand.k_in_rows);
        let (first, rest) = to.split_at_mut(to.len() / 3);
        let (second, third) = rest.split_at_mut(first.len());
        let [first, second, third] =
            [first, second, third].map(|term| &mut term.as_chunks_mut::<LANES>().0[rows.clone()]);
        any!(AnyMatRef, self.operand.matrix, from => {
            for (((i, first), second), third) in rows.zip(first).zip(second).zip(third) {
                let (tile, row) = (i / LANES * LANES, i % LANES);
                let values = match along_k {
                    true => load_row(s, from, self.lanes.start + i, k),
                    false => load_pair_of_rows(s, from, k + 2 * row, self.lanes.start + tile),
                };
                let rest = split_term(s, pairs, values, along_k, first);
                let rest = split_term(s, pairs, rest, along_k, second);
                split_term(s, pairs, rest, along_k, third);
            }
        });
    }
}

/// Stores two vectors rounded to bf16, one after the other along k and interleaved otherwise; returns the numbers minus
/// their roundings.
#[inline(always)]
fn split_term(
    s: Avx512,
    pairs: Bf16Pairs,
    [a, b]: [<Avx512 as Simd>::F32; 2],
    along_k: bool,
    to: &mut [f32; LANES],
) -> [<Avx512 as Simd>::F32; 2] {
    let joined = pairs.join(s, a, b);
    let interleaved = pairs.alternate(s, joined);
    mem::store(s, to, 0, if along_k { joined } else { interleaved });
    let [rounded_a, rounded_b] = s.split_bf16(interleaved);
    [s.sub(a, rounded_a), s.sub(b, rounded_b)]
}
