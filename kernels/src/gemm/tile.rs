//! The register tile of multiply-adds: of every level, for every storage type, in every kind of word.
//!
//! `tile[r][lane] += x[r][k] * v[k][lane]`, with `x` broadcast and `v` in lanes, and with all values of a word at a
//! time. How words of `x` are found is said in `rows`, how those of `v` are in `lanes`; here is what multiplies them,
//! and the loops over the tiles of a strip.

mod lanes;
mod rows;

pub(crate) use rows::{Columns, stage_len};

use core::ops::Range;

use super::ahead::{Abreast, Ahead, Asks};
use super::blocking::{Unit, panels, steps};
use super::pack::{Operand, pack_rows_from, pack_turned};
use super::task::{Strip, Task};
use super::word::{Single, Word};
use super::{K_BLOCK, Layout};
use crate::isa::{Kernel, KernelAt, LANES, Simd};
#[cfg(target_arch = "x86_64")]
use crate::isa::{avx512::Avx512, avx512_bf16::Bf16Pairs};
use crate::view::any;

use lanes::{Fresh, Lanes, Packed};
use rows::{Factors, Rows, WordsOf};

/// Multiply-adds of words with the instructions of a level.
#[derive(Clone, Copy)]
pub(crate) struct Tile<W>(pub(crate) W);

/// The unit of the level whose vocabulary runs this.
pub(super) struct TileUnit {
    pub(super) layout: Layout,
    pub(super) k: usize,
    /// Values in a word.
    pub(super) values: usize,
}

impl Kernel for TileUnit {
    type Output = Unit;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Unit {
        let (rows, lanes) = (S::TILE_ROWS, S::TILE_VECTORS * LANES);
        // Weights are packed a block of k at a time, so that pieces of their rows are long and fit the cache.
        let depth = match self.layout {
            Layout::Nk => self.k,
            Layout::Kn => self.k.min(K_BLOCK * self.values),
        };
        let (packed, stage) = (depth.div_ceil(self.values), stage_len::<S>());
        Unit { rows, lanes, depth, packed, stage, quarters: 2, converts: false }
    }
}

impl Kernel for Task<'_, '_, Single> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

#[cfg(target_arch = "x86_64")]
impl KernelAt<Avx512> for Task<'_, '_, Bf16Pairs> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl<W> Tile<W> {
    /// Packs some lanes of V that must be turned, for all k.
    #[inline(always)]
    pub(super) fn pack<S: Simd>(self, s: S, v: Operand<'_>, lanes: Range<usize>, packed: &mut [f32])
    where
        W: Word<S>,
    {
        pack_turned(s, self.0, v, lanes, S::TILE_VECTORS * LANES, packed);
    }

    /// Computes the sums of a strip. While it does, it asks for what `ahead` says or, without one, for the same values of
    /// the rows of X that follow, shared by the panels.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd>(self, s: S, strip: Strip<'_>, ahead: Option<&mut Ahead>)
    where
        W: Word<S>,
    {
        s.call(Multiply { word: self.0, strip, ahead });
    }
}

/// See [`Tile::multiply`].
struct Multiply<'a, 'b, W> {
    word: W,
    strip: Strip<'a>,
    ahead: Option<&'b mut Ahead>,
}

impl<S: Simd, W: Word<S>> KernelAt<S> for Multiply<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let Multiply { word, strip, mut ahead } = self;
        let Strip { x, rows, k: all, lanes, packed, unpacked, stage, out: (mut out, lines), sums, stride } =
            strip;
        let words = all.len().div_ceil(W::VALUES);
        if all.is_empty() {
            sums.fill(0.0);
        }
        let count = lanes.len().div_ceil(S::TILE_VECTORS * LANES);
        let tiles = rows.len().div_ceil(S::TILE_ROWS) * words.div_ceil(K_BLOCK) * count;
        let lines = lines.div_ceil(tiles.max(1));
        let none = &mut { Ahead::NONE };
        for (i, rows) in steps(rows, S::TILE_ROWS).enumerate() {
            for at in steps(0..words, K_BLOCK) {
                let k = all.start + at.start * W::VALUES..all.end.min(all.start + at.end * W::VALUES);
                let from = Rows::at(s, word, x, rows.clone(), k.clone(), stage);
                let mut start = 0;
                for (j, panel) in panels(lanes.clone(), S::TILE_VECTORS * LANES).enumerate() {
                    for _ in 0..lines {
                        out.bring(s, 1);
                    }
                    let width = panel.len();
                    let v = &mut packed[start + at.start * width..start + at.end * width];
                    let sums = &mut sums[i * S::TILE_ROWS * stride + panel.start - lanes.start..];
                    let block = Block { word, depth: at.len(), first: k.start == 0, stride };
                    start += width * words;
                    if let Some(unpacked) = unpacked.filter(|_| i == 0) {
                        let ahead = ahead.as_deref_mut().unwrap_or(none);
                        if run_fresh(s, &block, (&from, unpacked), (k.clone(), panel), (v, &mut *sums), ahead)
                        {
                            continue;
                        }
                    }
                    let v = Packed::of(v, width);
                    match ahead.as_deref_mut() {
                        Some(ahead) => block.run(s, &from, v, sums, ahead),
                        None => {
                            let share = |j: usize| S::TILE_ROWS * j / count;
                            let next = rows.end + share(j)..rows.end + share(j + 1);
                            let mut ahead = Abreast::of(x.matrix, next, k.start, TURN * W::VALUES);
                            block.run(s, &from, v, sums, &mut ahead);
                        }
                    }
                }
            }
        }
    }
}

/// Multiplies the rows `from` by lanes that are packed by the way and, if they are whole, used as they are loaded; false if
/// they are packed only.
#[inline(always)]
fn run_fresh<S: Simd, W: Word<S>>(
    s: S,
    block: &Block<W>,
    (from, unpacked): (&Rows<'_>, Operand<'_>),
    (k, panel): (Range<usize>, Range<usize>),
    (v, sums): (&mut [f32], &mut [f32]),
    ahead: &mut Ahead,
) -> bool {
    any!(AnyMatRef, unpacked.matrix, matrix => {
        let fresh = panel.end <= matrix.cols() && k.len() == block.depth * W::VALUES;
        if !fresh {
            pack_rows_from(s, block.word, matrix, k, panel, unpacked.round, v);
        } else if unpacked.round && W::VALUES == 1 {
            let v = Fresh::<W, _, true>::of(block.word, matrix.block(k, panel), v);
            block.run(s, from, v, sums, ahead);
        } else {
            let v = Fresh::<W, _, false>::of(block.word, matrix.block(k, panel), v);
            block.run(s, from, v, sums, ahead);
        }
        fresh
    })
}

impl<W: Copy> Tile<W> {
    /// `sums[r][j] (+)= sum over k of x[k][r] * v[k][j]` for as many rows as the register tile has, and for all of
    /// k, which is a block at most. `v` has `width` lanes, a multiple of 16 and at most the tile's.
    #[inline(always)]
    pub(crate) fn multiply_columns<S: Simd>(
        self,
        s: S,
        x: Columns<'_>,
        (v, width): (&[f32], usize),
        sums: &mut [f32],
        first: bool,
    ) where
        W: Word<S>,
    {
        assert!(x.depth <= K_BLOCK);
        let block = Block { word: self.0, depth: x.depth, first, stride: width };
        block.run(s, &x, Packed::of(v, width), sums, &mut { Ahead::NONE });
    }
}

/// One call of the register tile.
struct Block<W> {
    word: W,
    /// Words of k.
    depth: usize,
    /// Whether the sums start here, or are added to those of earlier blocks.
    first: bool,
    /// Elements between rows of sums.
    stride: usize,
}

impl<W: Copy> Block<W> {
    /// `sums[r][j] (+)= sum over k of x[r][k] * v[k][j]`
    #[inline(always)]
    fn run<S: Simd, L: Lanes<S>>(&self, s: S, x: &impl Factors, v: L, sums: &mut [f32], ahead: &mut impl Asks)
    where
        W: Word<S>,
    {
        // The guards are constants: a level has no code for tiles wider than its own.
        match (S::TILE_ROWS, v.vectors()) {
            (8, 3) if S::TILE_VECTORS >= 3 => self.tile::<S, L, _, 8, 3>(s, x.rows(), v, sums, ahead),
            (8, 2) if S::TILE_VECTORS >= 2 => self.tile::<S, L, _, 8, 2>(s, x.rows(), v, sums, ahead),
            (8, _) => self.tile::<S, L, _, 8, 1>(s, x.rows(), v, sums, ahead),
            (6, _) => self.tile::<S, L, _, 6, 1>(s, x.rows(), v, sums, ahead),
            _ => self.tile::<S, L, _, 3, 1>(s, x.rows(), v, sums, ahead),
        }
    }

    #[inline(always)]
    fn tile<S: Simd, L: Lanes<S>, A: Asks, const R: usize, const V: usize>(
        &self,
        s: S,
        mut x: impl WordsOf<R>,
        mut v: L,
        sums: &mut [f32],
        ahead: &mut A,
    ) where
        W: Word<S>,
    {
        const { assert!(R * V <= 24) };
        assert!(v.vectors() == V && v.depth() >= self.depth);
        assert!(sums.len() >= (R - 1) * self.stride + V * LANES);
        let mut bring = *ahead;
        let mut acc = [[s.splat(0.0); V]; R];
        // SAFETY: the operand has `depth` words of each row, and the assertion above `depth` steps of V vectors.
        unsafe {
            let mut left = self.depth / TURN;
            while left > 0 {
                let turns = bring.begin(s, left);
                for _ in 0..turns * (TURN / L::UNROLL) {
                    bring.turn(s);
                    for i in 0..L::UNROLL {
                        step(s, self.word, &mut acc, x, i, v.take(s));
                    }
                    x.advance(L::UNROLL);
                }
                left -= turns;
            }
            for i in 0..self.depth % TURN {
                step(s, self.word, &mut acc, x, i, v.take(s));
            }
        }
        *ahead = bring;
        for (r, acc) in acc.iter().enumerate() {
            for (j, acc) in acc.iter().enumerate() {
                // SAFETY: the assertion above on the length of `sums`.
                unsafe {
                    let to = sums.as_mut_ptr().add(r * self.stride + j * LANES);
                    let sum = if self.first { *acc } else { s.add(s.load(to), *acc) };
                    s.store(to, sum);
                }
            }
        }
    }
}

/// Steps of k in a turn, between which weights may be asked for.
pub(super) const TURN: usize = 4;

/// Lines that are asked for at a time.
pub(super) const BURST: usize = 8;

/// `acc[r][j] += x[r][i] * v[j]` of one word.
///
/// # Safety
/// `x` must have word `i` of each row.
#[inline(always)]
unsafe fn step<S: Simd, W: Word<S>, const R: usize, const V: usize>(
    s: S,
    word: W,
    acc: &mut [[S::F32; V]; R],
    x: impl WordsOf<R>,
    i: usize,
    v: [S::F32; V],
) {
    for (r, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the caller's contract.
        unsafe { word.mul_add_by(s, x.at(r, i), v, acc) };
    }
}
