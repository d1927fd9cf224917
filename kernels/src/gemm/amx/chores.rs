//! What the rest of the core does while the tile unit multiplies: brings the next weights into tiles, or asks for them.

use super::forms::{STEP, block_len, parts_of};
use super::{Columns, SIDE};
use crate::gemm::Layout;
use crate::gemm::ahead::Ahead;
use crate::isa::avx512::Avx512;
use crate::isa::avx512_bf16::Bf16Pairs;
use crate::isa::{KernelAt, Simd};

/// Pieces of work, one every so many turns.
#[derive(Default)]
struct Pieces {
    done: usize,
    of: usize,
    wait: usize,
    pace: usize,
}

impl Pieces {
    /// `of` pieces in so many turns; those that have none are left at the end.
    #[inline(always)]
    fn of(of: usize, turns: usize) -> Pieces {
        let pace = (turns / of.max(1)).max(1);
        Pieces { done: 0, of, wait: pace, pace }
    }

    /// The piece of this turn.
    #[inline(always)]
    fn turn(&mut self) -> Option<usize> {
        self.wait = self.wait.wrapping_sub(1);
        if self.wait > 0 || self.done == self.of {
            return None;
        }
        self.wait = self.pace;
        self.next()
    }

    /// The next piece.
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let piece = self.done;
        self.done += usize::from(piece < self.of);
        (piece < self.of).then_some(piece)
    }
}

/// The work, and how far it is.
pub(super) struct Chores<'a, 'b> {
    word: Bf16Pairs,
    /// Of both operands.
    parts: usize,
    /// Where the next weights go.
    pub(super) weights: &'a mut [f32],
    /// The columns whose weights are brought, and those that follow.
    pub(super) next: Option<Columns<'b>>,
    after: Option<Columns<'b>>,
    bring: Pieces,
    /// Weights that are asked for meanwhile.
    ahead: Ahead,
}

impl<'a, 'b> Chores<'a, 'b> {
    /// Nothing to do.
    pub(super) fn new(word: Bf16Pairs, parts: usize, weights: &'a mut [f32]) -> Chores<'a, 'b> {
        let (bring, ahead) = (Pieces::default(), Ahead::NONE);
        Chores { word, parts, weights, next: None, after: None, bring, ahead }
    }

    /// Goes on to the next weights, while some panels of rows are multiplied; those of `after` follow them.
    #[inline(always)]
    pub(super) fn expect(&mut self, after: Option<Columns<'b>>, panels: usize) {
        self.next = core::mem::replace(&mut self.after, after);
        (self.bring, self.ahead) = (Pieces::default(), Ahead::NONE);
        let Some(next) = &self.next else { return };
        let blocks = next.group.len() * next.blocks.len();
        let turns = blocks * panels;
        if !next.in_place {
            self.bring = Pieces::of(blocks * self.pieces(), turns);
        }
        // Of weights that are multiplied together, the first are asked for.
        if let Some(columns) = if next.in_place { Some(next) } else { self.after.as_ref() } {
            let part = &columns.group[0];
            let start = columns.blocks.start * STEP;
            let k = part.weights.k().min(columns.blocks.end * STEP) - start;
            let (at, size) = match part.weights.layout {
                Layout::Nk => ((columns.n.start, start), (columns.n.len(), k)),
                Layout::Kn => ((start, columns.n.start), (k, columns.n.len())),
            };
            self.ahead = Ahead::block(part.weights.matrix, at, size, turns, 1);
        }
    }

    /// Pieces of a block: few enough instructions in each that they are done beside the products.
    #[inline(always)]
    fn pieces(&self) -> usize {
        if self.parts == 1 { 1 } else { 4 }
    }

    /// Whether there is something to bring.
    #[inline(always)]
    pub(super) fn bringing(&self) -> bool {
        self.bring.of > 0
    }

    /// A turn's share of what is asked for. Where there is nothing to bring, products that only ask are 1 to 7 % faster.
    #[inline(always)]
    pub(super) fn ask(&mut self, s: Avx512) {
        self.ahead.prefetch(s);
    }

    /// A turn's share of all work.
    #[inline(always)]
    pub(super) fn turn(&mut self, s: Avx512) {
        self.ask(s);
        if let Some(piece) = self.bring.turn() {
            s.call(Bring { chores: self, piece });
        }
    }

    /// What is left to bring.
    #[inline(always)]
    pub(super) fn bring_rest(&mut self, s: Avx512) {
        while let Some(piece) = self.bring.next() {
            s.call(Bring { chores: self, piece });
        }
    }
}

/// Brings a piece of a block of one matrix.
struct Bring<'c, 'a, 'b> {
    chores: &'c mut Chores<'a, 'b>,
    piece: usize,
}

impl KernelAt<Avx512> for Bring<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let Bring { chores, piece } = self;
        let (pieces, len) = (chores.pieces(), chores.parts * block_len(SIDE));
        let (all, piece) = (piece / pieces, piece % pieces);
        let Some(next) = &chores.next else { return };
        let (part, block) = (all / next.blocks.len(), next.blocks.start + all % next.blocks.len());
        let to = &mut chores.weights[all * len..][..len];
        let lanes = next.lanes(part);
        if parts_of(lanes.operand, chores.parts) == 1 {
            if piece == 0 {
                lanes.bring(s, chores.word, block, &mut to[..block_len(SIDE)]);
            }
        } else {
            let rows = SIDE / pieces;
            lanes.bring_rows(s, chores.word, block, piece * rows..(piece + 1) * rows, to);
        }
    }
}
