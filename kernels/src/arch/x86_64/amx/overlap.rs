//! What the rest of the core does while the tile unit multiplies: it packs the next weights into tiles, or prefetches them.

use super::bf16x6::terms_of;
use super::gemm::NBlock;
use super::packing::block_len;
use super::{TILE_DIM, TILE_K};
use crate::arch::x86_64::avx512::Avx512;
use crate::arch::x86_64::avx512_bf16::Bf16Pairs;
use crate::gemm::Layout;
use crate::gemm::prefetch::{BlockPrefetch, Prefetch};
use crate::isa::{KernelAt, Simd};

/// Pieces of work, one every `pace` steps.
#[derive(Default)]
struct Pacer {
    done: usize,
    pieces: usize,
    /// Steps until the next piece.
    wait: usize,
    pace: usize,
}

impl Pacer {
    /// `pieces` pieces over `steps` steps. Pieces that do not fit are left for the end.
    #[inline(always)]
    fn new(pieces: usize, steps: usize) -> Pacer {
        let pace = (steps / pieces.max(1)).max(1);
        Pacer { done: 0, pieces, wait: pace, pace }
    }

    /// The piece of this step, if it has one.
    #[inline(always)]
    fn step(&mut self) -> Option<usize> {
        self.wait = self.wait.wrapping_sub(1);
        if self.wait > 0 || self.done == self.pieces {
            return None;
        }
        self.wait = self.pace;
        self.next()
    }

    /// The next piece.
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let piece = self.done;
        self.done += usize::from(piece < self.pieces);
        (piece < self.pieces).then_some(piece)
    }
}

/// The work, and its progress.
pub(super) struct Overlap<'a, 'b> {
    pairs: Bf16Pairs,
    /// Bf16 terms of each operand.
    terms: usize,
    /// The buffer for the next weights.
    pub(super) weights: &'a mut [f32],
    /// The columns whose weights are packed or prefetched now.
    pub(super) next: Option<NBlock<'b>>,
    /// The columns after those.
    after_next: Option<NBlock<'b>>,
    packing: Pacer,
    prefetch: BlockPrefetch,
}

impl<'a, 'b> Overlap<'a, 'b> {
    /// No work yet.
    pub(super) fn new(pairs: Bf16Pairs, terms: usize, weights: &'a mut [f32]) -> Overlap<'a, 'b> {
        let (packing, prefetch) = (Pacer::default(), BlockPrefetch::NONE);
        Overlap { pairs, terms, weights, next: None, after_next: None, packing, prefetch }
    }

    /// Goes on to the next columns, while `panels` panels of rows are multiplied. `after_next` are the columns that follow
    /// them.
    #[inline(always)]
    pub(super) fn advance(&mut self, after_next: Option<NBlock<'b>>, panels: usize) {
        self.next = core::mem::replace(&mut self.after_next, after_next);
        (self.packing, self.prefetch) = (Pacer::default(), BlockPrefetch::NONE);
        let Some(next) = &self.next else { return };
        let blocks = next.parts.len() * next.blocks.len();
        let steps = blocks * panels;
        if !next.in_place {
            self.packing = Pacer::new(blocks * self.pieces_per_block(), steps);
        }
        // Of parts that are fused, the first one's weights are prefetched.
        if let Some(columns) = if next.in_place { Some(next) } else { self.after_next.as_ref() } {
            let part = &columns.parts[0];
            let start = columns.blocks.start * TILE_K;
            let k = part.weights.k().min(columns.blocks.end * TILE_K) - start;
            let (at, shape) = match part.weights.layout {
                Layout::Nk => ((columns.n.start, start), (columns.n.len(), k)),
                Layout::Kn => ((start, columns.n.start), (k, columns.n.len())),
            };
            self.prefetch = BlockPrefetch::block(part.weights.matrix, at, shape, steps, 1);
        }
    }

    /// Pieces into which the packing of a block is cut, so that each has few enough instructions to run beside the
    /// products.
    #[inline(always)]
    fn pieces_per_block(&self) -> usize {
        if self.terms == 1 { 1 } else { 4 }
    }

    /// Whether there are weights to pack.
    #[inline(always)]
    pub(super) fn is_packing(&self) -> bool {
        self.packing.pieces > 0
    }

    /// One step of the prefetching alone. Where there is nothing to pack, products with this step are 1 to 7 % faster than
    /// with [`Overlap::step`].
    #[inline(always)]
    pub(super) fn prefetch_step(&mut self, s: Avx512) {
        self.prefetch.start(s, 1);
    }

    /// One step of all work.
    #[inline(always)]
    pub(super) fn step(&mut self, s: Avx512) {
        self.prefetch_step(s);
        if let Some(piece) = self.packing.step() {
            s.call(PackPiece { overlap: self, piece });
        }
    }

    /// Packs what is left to pack.
    #[inline(always)]
    pub(super) fn pack_rest(&mut self, s: Avx512) {
        while let Some(piece) = self.packing.next() {
            s.call(PackPiece { overlap: self, piece });
        }
    }
}

/// Packs a piece of a block of one matrix.
struct PackPiece<'c, 'a, 'b> {
    overlap: &'c mut Overlap<'a, 'b>,
    piece: usize,
}

impl KernelAt<Avx512> for PackPiece<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let PackPiece { overlap, piece } = self;
        let (pieces, len) = (overlap.pieces_per_block(), overlap.terms * block_len(TILE_DIM));
        let (index, piece) = (piece / pieces, piece % pieces);
        let Some(next) = &overlap.next else { return };
        let (part, block) = (index / next.blocks.len(), next.blocks.start + index % next.blocks.len());
        let to = &mut overlap.weights[index * len..][..len];
        let source = next.tile_source(part);
        if terms_of(source.operand, overlap.terms) == 1 {
            if piece == 0 {
                source.pack(s, overlap.pairs, block, &mut to[..block_len(TILE_DIM)]);
            }
        } else {
            let rows = TILE_DIM / pieces;
            source.pack_rows_in_terms(s, overlap.pairs, block, piece * rows..(piece + 1) * rows, to);
        }
    }
}
