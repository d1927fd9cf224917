//! The register tile of fused multiply-adds: [`Engine`] of every level, for every storage type.
//!
//! `tile[r][lane] += x[r][k] * v[k][lane]`, with `x` broadcast and `v` in lanes. X is read where it lies when it
//! is f32 that needs no rounding, and from a stage in the first-level cache otherwise.

use core::marker::PhantomData;
use core::ops::Range;

use super::K_BLOCK;
use super::ahead::Ahead;
use super::blocking::{Unit, panels, steps};
use super::pack::{Operand, pack_rows, pack_turned, stage_rows};
use super::task::{Engine, Strip, Task};
use crate::elem::Elem;
use crate::isa::{Kernel, LANES, Simd};
use crate::view::{AnyMatRef, MatRef, any};

/// Fused multiply-adds with the instructions of a level.
#[derive(Clone, Copy)]
pub(super) struct Fma;

/// Elements between staged rows: a block and a cache line, so that the rows do not fall into the same sets.
const STAGE_STRIDE: usize = K_BLOCK + LANES;

/// The unit of the level whose vocabulary runs this.
pub(super) struct FmaUnit {
    pub(super) k: usize,
}

impl Kernel for FmaUnit {
    type Output = Unit;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Unit {
        let (rows, lanes) = (S::TILE_ROWS, S::TILE_VECTORS * LANES);
        let (packed, stage) = (self.k, rows * STAGE_STRIDE);
        Unit { rows, lanes, packed, stage, ..Unit::WHOLE }
    }
}

impl Kernel for Task<'_, '_, Fma> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

impl<S: Simd> Engine<S> for Fma {
    #[inline(always)]
    fn pack(self, s: S, v: Operand<'_>, lanes: Range<usize>, packed: &mut [f32]) {
        pack_turned(s, v, lanes, S::TILE_VECTORS * LANES, packed);
    }

    const TURN: usize = TURN;
    const PACKS: bool = true;

    /// Nothing: a block of k is staged when it is multiplied, and used up there.
    #[inline(always)]
    fn stage(self, _: S, _: Operand<'_>, _: Range<usize>, _: usize, _: &mut [f32]) {}

    #[inline(always)]
    fn multiply(self, s: S, strip: Strip<'_>, mut ahead: Option<&mut Ahead>) {
        let Strip { x, rows, depth, lanes, of, packed, unpacked, stage, sums, stride } = strip;
        if depth == 0 {
            sums.fill(0.0);
        }
        for (i, rows) in steps(rows, S::TILE_ROWS).enumerate() {
            for k in steps(0..depth, K_BLOCK) {
                let from = Rows::at(s, x, rows.clone(), k.clone(), stage);
                let count = of.div_ceil(S::TILE_VECTORS * LANES);
                let mut next = next_rows::<S>(x, &rows, &k, (depth, count));
                let mut start = 0;
                for panel in panels(lanes.clone(), S::TILE_VECTORS * LANES) {
                    let width = panel.len();
                    let v = &mut packed[start + k.start * width..start + k.end * width];
                    let sums = &mut sums[i * S::TILE_ROWS * stride + panel.start - lanes.start..];
                    let ahead = match &mut ahead {
                        Some(ahead) => &mut **ahead,
                        None => &mut next,
                    };
                    let block = Block { depth: k.len(), first: k.start == 0, stride };
                    match unpacked.filter(|_| i == 0) {
                        None => block.run(s, &from, Packed::of(v, width), sums, ahead),
                        Some(unpacked) => any!(AnyMatRef, unpacked.matrix, matrix => {
                            if panel.end <= matrix.cols() {
                                let piece = matrix.block(k.clone(), panel);
                                if unpacked.round {
                                    block.run(s, &from, Fresh::<_, true>::of(piece, v), sums, ahead);
                                } else {
                                    block.run(s, &from, Fresh::<_, false>::of(piece, v), sums, ahead);
                                }
                            } else {
                                pack_rows(s, matrix, k.clone(), panel, unpacked.round, v);
                                block.run(s, &from, Packed::of(v, width), sums, ahead);
                            }
                        }),
                    }
                    start += width * depth;
                }
            }
        }
    }
}

/// What will be read of X after the block `k` of `rows`, to be brought while that meets `panels` panels.
#[inline(always)]
fn next_rows<S: Simd>(
    x: Operand<'_>,
    rows: &Range<usize>,
    k: &Range<usize>,
    (depth, panels): (usize, usize),
) -> Ahead {
    let at = if k.end == depth { (rows.end, 0) } else { (rows.start, k.end) };
    Ahead::block(x.matrix, at, (S::TILE_ROWS, k.len()), panels * k.len() / TURN)
}

/// The rows of a register tile: where each starts, and how many elements of it are readable.
struct Rows<'a> {
    first: *const f32,
    stride: usize,
    /// Rows that there are; the others repeat the last.
    count: usize,
    lifetime: PhantomData<&'a f32>,
}

impl<'a> Rows<'a> {
    /// The columns `k` of `rows`, of which there is at least one: in place, or copied into `stage`.
    #[inline(always)]
    fn at<'b: 'a, S: Simd>(
        s: S,
        x: Operand<'b>,
        rows: Range<usize>,
        k: Range<usize>,
        stage: &'a mut [f32],
    ) -> Rows<'a> {
        let count = rows.len();
        if let (AnyMatRef::F32(matrix), false) = (x.matrix, x.round) {
            let block = matrix.block(rows, k);
            return Rows { first: block.as_ptr(), stride: block.row_stride(), count, lifetime: PhantomData };
        }
        stage_rows(s, x, rows, k, (&mut *stage, STAGE_STRIDE));
        Rows { first: stage.as_ptr(), stride: STAGE_STRIDE, count, lifetime: PhantomData }
    }

    /// Row `r`, or the last one.
    #[inline(always)]
    fn row(&self, r: usize) -> *const f32 {
        self.first.wrapping_add(r.min(self.count - 1) * self.stride)
    }
}

/// One call of the register tile.
struct Block {
    depth: usize,
    /// Whether the sums start here, or are added to those of earlier blocks.
    first: bool,
    /// Elements between rows of sums.
    stride: usize,
}

impl Block {
    /// `sums[r][j] (+)= sum over k of x[r][k] * v[k][j]`
    #[inline(always)]
    fn run<S: Simd, L: Lanes<S>>(&self, s: S, x: &Rows<'_>, v: L, sums: &mut [f32], ahead: &mut Ahead) {
        // The guards are constants: a level has no code for tiles wider than its own.
        match (S::TILE_ROWS, v.vectors()) {
            (8, 3) if S::TILE_VECTORS >= 3 => self.tile::<S, L, 8, 3>(s, x, v, sums, ahead),
            (8, 2) if S::TILE_VECTORS >= 2 => self.tile::<S, L, 8, 2>(s, x, v, sums, ahead),
            (8, _) => self.tile::<S, L, 8, 1>(s, x, v, sums, ahead),
            (6, _) => self.tile::<S, L, 6, 1>(s, x, v, sums, ahead),
            _ => self.tile::<S, L, 3, 1>(s, x, v, sums, ahead),
        }
    }

    #[inline(always)]
    fn tile<S: Simd, L: Lanes<S>, const R: usize, const V: usize>(
        &self,
        s: S,
        x: &Rows<'_>,
        mut v: L,
        sums: &mut [f32],
        ahead: &mut Ahead,
    ) {
        const { assert!(R * V <= 24) };
        assert!(v.vectors() == V && v.depth() >= self.depth);
        assert!(sums.len() >= (R - 1) * self.stride + V * LANES);
        let mut bring = *ahead;
        let mut acc = [[s.splat(0.0); V]; R];
        let rows: [*const f32; R] = core::array::from_fn(|r| x.row(r));
        // SAFETY: `Rows` has `depth` elements of each row, and the assertion above `depth` steps of V vectors.
        unsafe {
            let mut k = 0;
            for _ in 0..self.depth / L::UNROLL {
                if k % TURN == 0 {
                    bring.prefetch(s);
                }
                for i in 0..L::UNROLL {
                    step(s, &mut acc, rows, k + i, v.take(s));
                }
                k += L::UNROLL;
            }
            for _ in 0..self.depth % L::UNROLL {
                step(s, &mut acc, rows, k, v.take(s));
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

/// `acc[r][j] += x[r][k] * v[j]` at one k.
///
/// # Safety
/// Element `k` of each row of `x` must be readable.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const V: usize>(
    s: S,
    acc: &mut [[S::F32; V]; R],
    x: [*const f32; R],
    k: usize,
    v: [S::F32; V],
) {
    for (acc, x) in acc.iter_mut().zip(x) {
        // SAFETY: the caller's contract.
        let x = s.splat(unsafe { *x.add(k) });
        for (acc, v) in acc.iter_mut().zip(v) {
            *acc = s.mul_add(x, v, *acc);
        }
    }
}

/// Where a register tile finds its lanes.
trait Lanes<S: Simd> {
    /// Steps of k in one turn of the inner loop.
    const UNROLL: usize;

    /// Vectors for a step of k.
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

/// How many rows of weights ahead of the one in use a piece is brought into the first-level cache: the hardware
/// does not see where it lies. A third-level cache answers within about as many multiply-adds of vectors.
const fn rows_ahead<S: Simd>() -> usize {
    192 / (S::TILE_ROWS * S::TILE_VECTORS)
}

/// Lanes where they lie, packed as they are used, and rounded to bf16 before if they are to be.
struct Fresh<'a, T, const ROUND: bool> {
    from: *const T,
    stride: usize,
    to: *mut f32,
    vectors: usize,
    depth: usize,
    lifetime: PhantomData<(&'a T, &'a mut f32)>,
}

impl<'a, T, const ROUND: bool> Fresh<'a, T, ROUND> {
    /// The rows of `from`, whole vectors each, which go to `to`.
    #[inline(always)]
    fn of(from: MatRef<'a, T>, to: &'a mut [f32]) -> Self {
        let (depth, width) = (from.rows(), from.cols());
        assert!(width.is_multiple_of(LANES) && to.len() >= depth * width);
        let stride = from.row_stride();
        let (from, to, vectors) = (from.as_ptr(), to.as_mut_ptr(), width / LANES);
        Fresh { from, stride, to, vectors, depth, lifetime: PhantomData }
    }
}

impl<S: Simd, T: Elem, const ROUND: bool> Lanes<S> for Fresh<'_, T, ROUND> {
    /// More would not leave the registers for the addresses.
    const UNROLL: usize = 1;

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
        let ahead = self.from.wrapping_add(self.stride.wrapping_mul(rows_ahead::<S>()));
        for j in 0..V {
            s.prefetch(ahead.wrapping_add(j * LANES).cast());
        }
        for (j, v) in v.iter_mut().enumerate() {
            // SAFETY: the caller's contract; `of` saw whole vectors in each row, and as much room.
            unsafe {
                let loaded = T::load(s, self.from.add(j * LANES));
                *v = if ROUND { s.round_to_bf16(loaded) } else { loaded };
                s.store(self.to.add(j * LANES), *v);
            }
        }
        self.from = self.from.wrapping_add(self.stride);
        self.to = self.to.wrapping_add(V * LANES);
        v
    }
}
