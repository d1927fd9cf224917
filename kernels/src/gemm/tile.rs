//! The register tile of multiply-adds: [`Engine`] of every level, for every storage type, in every kind of word.
//!
//! `tile[r][lane] += x[r][k] * v[k][lane]`, with `x` broadcast and `v` in lanes, and with all values of a word at a
//! time. X is read where it lies when it has the form of words already, and from a stage in the first-level cache
//! otherwise.

use core::marker::PhantomData;
use core::ops::Range;

use super::K_BLOCK;
use super::ahead::Ahead;
use super::blocking::{Unit, panels, steps};
use super::pack::{Operand, pack_rows_from, pack_turned, stage_rows};
use super::task::{Engine, Strip, Task};
use super::word::{Single, Word};
use crate::elem::Elem;
use crate::isa::{Kernel, KernelAt, LANES, Simd};
#[cfg(target_arch = "x86_64")]
use crate::isa::{avx512::Avx512, avx512_bf16::Bf16Pairs};
use crate::view::{AnyMatRef, MatRef, any};

/// Multiply-adds of words with the instructions of a level.
#[derive(Clone, Copy)]
pub(crate) struct Tile<W>(pub(crate) W);

/// Words between staged rows: a block and a cache line, so that the rows do not fall into the same sets.
const STAGE_STRIDE: usize = K_BLOCK + LANES;

/// Words that a tile's rows are staged in.
pub(crate) const fn stage_len<S: Simd>() -> usize {
    S::TILE_ROWS * STAGE_STRIDE
}

/// The unit of the level whose vocabulary runs this.
pub(super) struct TileUnit {
    /// Words of k.
    pub(super) words: usize,
}

impl Kernel for TileUnit {
    type Output = Unit;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Unit {
        let (rows, lanes) = (S::TILE_ROWS, S::TILE_VECTORS * LANES);
        let (packed, stage) = (self.words, stage_len::<S>());
        Unit { rows, lanes, packed, stage, ..Unit::WHOLE }
    }
}

impl Kernel for Task<'_, '_, Tile<Single>> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

#[cfg(target_arch = "x86_64")]
impl KernelAt<Avx512> for Task<'_, '_, Tile<Bf16Pairs>> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl<S: Simd, W: Word<S>> Engine<S> for Tile<W> {
    const TURN: usize = TURN * W::VALUES;
    const PACKS: bool = true;

    #[inline(always)]
    fn pack(self, s: S, v: Operand<'_>, lanes: Range<usize>, packed: &mut [f32]) {
        pack_turned(s, self.0, v, lanes, S::TILE_VECTORS * LANES, packed);
    }

    /// Nothing: a block of k is staged when it is multiplied, and used up there.
    #[inline(always)]
    fn stage(self, _: S, _: Operand<'_>, _: Range<usize>, _: usize, _: &mut [f32]) {}

    #[inline(always)]
    fn multiply(self, s: S, strip: Strip<'_>, ahead: Option<&mut Ahead>) {
        s.call(Multiply { word: self.0, strip, ahead });
    }
}

/// See [`Engine::multiply`].
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
        let Strip { x, rows, depth, lanes, of, packed, unpacked, stage, sums, stride } = strip;
        let words = depth.div_ceil(W::VALUES);
        if depth == 0 {
            sums.fill(0.0);
        }
        for (i, rows) in steps(rows, S::TILE_ROWS).enumerate() {
            for at in steps(0..words, K_BLOCK) {
                let k = at.start * W::VALUES..depth.min(at.end * W::VALUES);
                let from = Rows::at(s, word, x, rows.clone(), k.clone(), stage);
                let count = of.div_ceil(S::TILE_VECTORS * LANES);
                let mut next = next_rows::<S>(x, &rows, &k, (depth, count * at.len() / TURN));
                let mut start = 0;
                for panel in panels(lanes.clone(), S::TILE_VECTORS * LANES) {
                    let width = panel.len();
                    let v = &mut packed[start + at.start * width..start + at.end * width];
                    let sums = &mut sums[i * S::TILE_ROWS * stride + panel.start - lanes.start..];
                    let ahead = match &mut ahead {
                        Some(ahead) => &mut **ahead,
                        None => &mut next,
                    };
                    let block = Block { word, depth: at.len(), first: at.start == 0, stride };
                    match unpacked.filter(|_| i == 0) {
                        None => block.run(s, &from, Packed::of(v, width), sums, ahead),
                        Some(unpacked) => any!(AnyMatRef, unpacked.matrix, matrix => {
                            if panel.end <= matrix.cols() && k.len() == at.len() * W::VALUES {
                                let piece = matrix.block(k.clone(), panel);
                                if unpacked.round && W::VALUES == 1 {
                                    block.run(s, &from, Fresh::<W, _, true>::of(word, piece, v), sums, ahead);
                                } else {
                                    block.run(s, &from, Fresh::<W, _, false>::of(word, piece, v), sums, ahead);
                                }
                            } else {
                                pack_rows_from(s, word, matrix, k.clone(), panel, unpacked.round, v);
                                block.run(s, &from, Packed::of(v, width), sums, ahead);
                            }
                        }),
                    }
                    start += width * words;
                }
            }
        }
    }
}

/// What will be read of X after the block `k` of `rows`, to be brought within `turns` turns.
#[inline(always)]
fn next_rows<S: Simd>(
    x: Operand<'_>,
    rows: &Range<usize>,
    k: &Range<usize>,
    (depth, turns): (usize, usize),
) -> Ahead {
    let at = if k.end == depth { (rows.end, 0) } else { (rows.start, k.end) };
    Ahead::block(x.matrix, at, (S::TILE_ROWS, k.len()), turns)
}

/// The broadcast operand of a register tile.
trait Factors {
    /// Its words in R rows, those that are not there repeating others.
    fn rows<const R: usize>(&self) -> impl WordsOf<R>;
}

/// The words of R rows of the broadcast operand.
trait WordsOf<const R: usize>: Copy {
    /// Word `k` of row `r`, as the bits of an f32.
    ///
    /// # Safety
    /// There must be one.
    unsafe fn word(&self, r: usize, k: usize) -> f32;
}

/// The rows of a register tile: where each starts, and how many words of it are readable.
struct Rows<'a> {
    first: *const u8,
    /// Bytes between rows.
    stride: usize,
    /// Rows that there are; the others repeat the last.
    count: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> Rows<'a> {
    /// The columns `k` of `rows`, of which there is at least one: in place, or copied into `stage`.
    #[inline(always)]
    fn at<'b: 'a, S: Simd, W: Word<S>>(
        s: S,
        word: W,
        x: Operand<'b>,
        rows: Range<usize>,
        k: Range<usize>,
        stage: &'a mut [f32],
    ) -> Rows<'a> {
        match x.matrix {
            AnyMatRef::F32(matrix) if W::VALUES == 1 && !x.round => Rows::of(matrix.block(rows, k)),
            AnyMatRef::Bf16(matrix) if W::VALUES == 2 && k.len().is_multiple_of(2) => {
                Rows::of(matrix.block(rows, k))
            }
            _ => {
                let count = rows.len();
                stage_rows(s, word, x, rows, k, (&mut *stage, STAGE_STRIDE));
                let stride = STAGE_STRIDE * size_of::<f32>();
                Rows { first: stage.as_ptr().cast(), stride, count, lifetime: PhantomData }
            }
        }
    }

    #[inline(always)]
    fn of<T>(block: MatRef<'a, T>) -> Rows<'a> {
        let stride = block.row_stride().wrapping_mul(size_of::<T>());
        Rows { first: block.as_ptr().cast(), stride, count: block.rows(), lifetime: PhantomData }
    }
}

impl Factors for Rows<'_> {
    #[inline(always)]
    fn rows<const R: usize>(&self) -> impl WordsOf<R> {
        let row = |r: usize| self.first.wrapping_add(r.min(self.count - 1).wrapping_mul(self.stride));
        let rows: [*const f32; R] = core::array::from_fn(|r| row(r).cast());
        rows
    }
}

impl<const R: usize> WordsOf<R> for [*const f32; R] {
    #[inline(always)]
    unsafe fn word(&self, r: usize, k: usize) -> f32 {
        // SAFETY: the caller's contract; words need not be aligned.
        unsafe { self[r].add(k).read_unaligned() }
    }
}

/// The rows of a register tile that are columns in memory: the words of one k side by side, those of the next
/// some bytes on.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    first: *const f32,
    step: usize,
    rows: usize,
    depth: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> Columns<'a> {
    /// The columns of a matrix of words, from column `at` on.
    #[inline(always)]
    pub(crate) fn of(matrix: MatRef<'a, f32>, at: usize) -> Columns<'a> {
        let (depth, rows) = (matrix.rows(), matrix.cols() - at);
        let step = matrix.row_stride();
        Columns { first: matrix.as_ptr().wrapping_add(at), step, rows, depth, lifetime: PhantomData }
    }
}

impl Factors for Columns<'_> {
    #[inline(always)]
    fn rows<const R: usize>(&self) -> impl WordsOf<R> {
        assert!(R <= self.rows);
        *self
    }
}

impl<const R: usize> WordsOf<R> for Columns<'_> {
    #[inline(always)]
    unsafe fn word(&self, r: usize, k: usize) -> f32 {
        // SAFETY: the caller's contract.
        unsafe { *self.first.wrapping_add(k * self.step).add(r) }
    }
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
    fn run<S: Simd, L: Lanes<S>>(&self, s: S, x: &impl Factors, v: L, sums: &mut [f32], ahead: &mut Ahead)
    where
        W: Word<S>,
    {
        // The guards are constants: a level has no code for tiles wider than its own.
        match (S::TILE_ROWS, v.vectors()) {
            (8, 3) if S::TILE_VECTORS >= 3 => self.tile::<S, L, 8, 3>(s, x.rows(), v, sums, ahead),
            (8, 2) if S::TILE_VECTORS >= 2 => self.tile::<S, L, 8, 2>(s, x.rows(), v, sums, ahead),
            (8, _) => self.tile::<S, L, 8, 1>(s, x.rows(), v, sums, ahead),
            (6, _) => self.tile::<S, L, 6, 1>(s, x.rows(), v, sums, ahead),
            _ => self.tile::<S, L, 3, 1>(s, x.rows(), v, sums, ahead),
        }
    }

    #[inline(always)]
    fn tile<S: Simd, L: Lanes<S>, const R: usize, const V: usize>(
        &self,
        s: S,
        x: impl WordsOf<R>,
        mut v: L,
        sums: &mut [f32],
        ahead: &mut Ahead,
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
            let mut k = 0;
            for _ in 0..self.depth / L::UNROLL {
                if k % TURN == 0 {
                    bring.prefetch(s);
                }
                for i in 0..L::UNROLL {
                    step(s, self.word, &mut acc, x, k + i, v.take(s));
                }
                k += L::UNROLL;
            }
            for _ in 0..self.depth % L::UNROLL {
                step(s, self.word, &mut acc, x, k, v.take(s));
                k += 1;
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

/// Steps of k between two prefetches.
const TURN: usize = 4;

/// `acc[r][j] += x[r][k] * v[j]` at one word k.
///
/// # Safety
/// `x` must have word `k` of each row.
#[inline(always)]
unsafe fn step<S: Simd, W: Word<S>, const R: usize, const V: usize>(
    s: S,
    word: W,
    acc: &mut [[S::F32; V]; R],
    x: impl WordsOf<R>,
    k: usize,
    v: [S::F32; V],
) {
    for (r, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the caller's contract.
        let x = s.splat(unsafe { x.word(r, k) });
        for (acc, v) in acc.iter_mut().zip(v) {
            *acc = word.mul_add(s, x, v, *acc);
        }
    }
}

/// Where a register tile finds its lanes.
trait Lanes<S: Simd> {
    /// Words of k in one turn of the inner loop.
    const UNROLL: usize;

    /// Vectors for a word of k.
    fn vectors(&self) -> usize;

    /// Steps that are left.
    fn depth(&self) -> usize;

    /// The V vectors of the next step.
    ///
    /// # Safety
    /// There must be one, and V must be `vectors()`.
    unsafe fn take<const V: usize>(&mut self, s: S) -> [S::F32; V];
}

/// Lanes that are packed.
struct Packed<'a> {
    at: *const f32,
    vectors: usize,
    depth: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> Packed<'a> {
    #[inline(always)]
    fn of(packed: &'a [f32], width: usize) -> Packed<'a> {
        let depth = packed.len() / width;
        Packed { at: packed.as_ptr(), vectors: width / LANES, depth, lifetime: PhantomData }
    }
}

impl<S: Simd> Lanes<S> for Packed<'_> {
    /// Spares the counting, which costs where the front end is shared with another hardware thread.
    const UNROLL: usize = TURN;

    #[inline(always)]
    fn vectors(&self) -> usize {
        self.vectors
    }

    #[inline(always)]
    fn depth(&self) -> usize {
        self.depth
    }

    #[inline(always)]
    unsafe fn take<const V: usize>(&mut self, s: S) -> [S::F32; V] {
        let mut v = [s.splat(0.0); V];
        for (j, v) in v.iter_mut().enumerate() {
            // SAFETY: the caller's contract; `of` counted the vectors.
            *v = unsafe { s.load(self.at.add(j * LANES)) };
        }
        self.at = self.at.wrapping_add(V * LANES);
        v
    }
}

/// How many rows of weights ahead of those in use a piece is brought into the first-level cache: the hardware
/// does not see where it lies. A third-level cache answers within about as many multiply-adds of vectors.
const fn words_ahead<S: Simd>() -> usize {
    192 / (S::TILE_ROWS * S::TILE_VECTORS)
}

/// Lanes where they lie, packed as they are used, and rounded to bf16 before if they are to be.
struct Fresh<'a, W, T, const ROUND: bool> {
    word: W,
    from: *const T,
    stride: usize,
    to: *mut f32,
    vectors: usize,
    rows: usize,
    lifetime: PhantomData<(&'a T, &'a mut f32)>,
}

impl<'a, W, T, const ROUND: bool> Fresh<'a, W, T, ROUND> {
    /// The rows of `from`, whole words and whole vectors each, which go to `to`.
    #[inline(always)]
    fn of<S: Simd>(word: W, from: MatRef<'a, T>, to: &'a mut [f32]) -> Self
    where
        W: Word<S>,
    {
        let (rows, width) = (from.rows(), from.cols());
        assert!(rows.is_multiple_of(W::VALUES) && width.is_multiple_of(LANES));
        assert!(to.len() >= rows / W::VALUES * width);
        let stride = from.row_stride();
        let (from, to, vectors) = (from.as_ptr(), to.as_mut_ptr(), width / LANES);
        Fresh { word, from, stride, to, vectors, rows, lifetime: PhantomData }
    }
}

impl<S: Simd, W: Word<S>, T: Elem, const ROUND: bool> Lanes<S> for Fresh<'_, W, T, ROUND> {
    /// More would not leave the registers for the addresses.
    const UNROLL: usize = 1;

    #[inline(always)]
    fn vectors(&self) -> usize {
        self.vectors
    }

    #[inline(always)]
    fn depth(&self) -> usize {
        self.rows / W::VALUES
    }

    #[inline(always)]
    unsafe fn take<const V: usize>(&mut self, s: S) -> [S::F32; V] {
        let mut v = [s.splat(0.0); V];
        for row in 0..W::VALUES {
            let ahead = self.stride.wrapping_mul(words_ahead::<S>() * W::VALUES + row);
            for j in 0..V {
                s.prefetch(self.from.wrapping_add(ahead).wrapping_add(j * LANES).cast());
            }
        }
        for (j, v) in v.iter_mut().enumerate() {
            // SAFETY: the caller's contract; `of` saw whole vectors in each row, and as much room.
            unsafe {
                *v = self.word.across(s, self.from.add(j * LANES), self.stride, ROUND);
                s.store(self.to.add(j * LANES), *v);
            }
        }
        self.from = self.from.wrapping_add(self.stride.wrapping_mul(W::VALUES));
        self.to = self.to.wrapping_add(V * LANES);
        v
    }
}
