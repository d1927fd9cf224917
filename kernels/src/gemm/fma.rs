//! The register tile of fused multiply-adds: [`Engine`] of every level, for every storage type.
//!
//! `tile[r][lane] += x[r][k] * v[k][lane]`, with `x` broadcast and `v` in lanes. X is read where it lies when it
//! is f32 that needs no rounding, and from a stage in the first-level cache otherwise.

use core::marker::PhantomData;
use core::ops::Range;

use super::K_BLOCK;
use super::ahead::Ahead;
use super::blocking::{Unit, panels, steps};
use super::pack::{Operand, pack, stage_rows};
use super::task::{Engine, Strip, Task};
use crate::isa::{Kernel, LANES, Simd};
use crate::view::AnyMatRef;

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
        pack(s, v, lanes, S::TILE_VECTORS * LANES, packed);
    }

    const TURN: usize = UNROLL;

    /// Nothing: a block of k is staged when it is multiplied, and used up there.
    #[inline(always)]
    fn stage(self, _: S, _: Operand<'_>, _: Range<usize>, _: usize, _: &mut [f32]) {}

    #[inline(always)]
    fn multiply(self, s: S, strip: Strip<'_>, mut ahead: Option<&mut Ahead>) {
        let Strip { x, rows, depth, lanes, of, packed, stage, sums, stride } = strip;
        if depth == 0 {
            sums.fill(0.0);
        }
        for (i, rows) in steps(rows, S::TILE_ROWS).enumerate() {
            for k in steps(0..depth, K_BLOCK) {
                let from = Rows::at(s, x, rows.clone(), k.clone(), stage);
                let count = of.div_ceil(S::TILE_VECTORS * LANES);
                let mut next = next_rows::<S>(x, &rows, &k, (depth, count));
                let mut start = 0;
                for panel in panels(0..lanes.len(), S::TILE_VECTORS * LANES) {
                    let width = panel.len();
                    let v = &packed[start + k.start * width..start + k.end * width];
                    let sums = &mut sums[i * S::TILE_ROWS * stride + panel.start..];
                    let ahead = match &mut ahead {
                        Some(ahead) => &mut **ahead,
                        None => &mut next,
                    };
                    let block = Block { depth: k.len(), first: k.start == 0, stride };
                    // The guards are constants: a level has no code for tiles wider than its own.
                    match width / LANES {
                        3 if S::TILE_VECTORS >= 3 => block.run::<S, 3>(s, &from, v, sums, ahead),
                        2 if S::TILE_VECTORS >= 2 => block.run::<S, 2>(s, &from, v, sums, ahead),
                        _ => block.run::<S, 1>(s, &from, v, sums, ahead),
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
    Ahead::block(x.matrix, at, (S::TILE_ROWS, k.len()), panels * k.len() / UNROLL)
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
    fn run<S: Simd, const V: usize>(
        &self,
        s: S,
        x: &Rows<'_>,
        v: &[f32],
        sums: &mut [f32],
        ahead: &mut Ahead,
    ) {
        match S::TILE_ROWS {
            8 => self.tile::<S, 8, V>(s, x, v, sums, ahead),
            6 => self.tile::<S, 6, V>(s, x, v, sums, ahead),
            _ => self.tile::<S, 3, V>(s, x, v, sums, ahead),
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &self,
        s: S,
        x: &Rows<'_>,
        v: &[f32],
        sums: &mut [f32],
        ahead: &mut Ahead,
    ) {
        const { assert!(R * V <= 24) };
        assert!(v.len() >= self.depth * V * LANES);
        assert!(sums.len() >= (R - 1) * self.stride + V * LANES);
        let mut bring = *ahead;
        let mut acc = [[s.splat(0.0); V]; R];
        let rows: [*const f32; R] = core::array::from_fn(|r| x.row(r));
        let mut v = v.as_ptr();
        // SAFETY: `Rows` has `depth` elements of each row, and the assertion above `depth` steps of V vectors.
        unsafe {
            let mut k = 0;
            for _ in 0..self.depth / UNROLL {
                bring.prefetch(s);
                for i in 0..UNROLL {
                    step(s, &mut acc, rows, k + i, v.add(i * V * LANES));
                }
                k += UNROLL;
                v = v.add(UNROLL * V * LANES);
            }
            for _ in 0..self.depth % UNROLL {
                step(s, &mut acc, rows, k, v);
                k += 1;
                v = v.add(V * LANES);
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

/// Steps of k in one turn of the inner loop: spares the counting, which costs where the front end is shared
/// with another hardware thread.
const UNROLL: usize = 4;

/// `acc[r][j] += x[r][k] * v[j]` at one k.
///
/// # Safety
/// Element `k` of each row of `x` must be readable, and V vectors at `v`.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const V: usize>(
    s: S,
    acc: &mut [[S::F32; V]; R],
    x: [*const f32; R],
    k: usize,
    v: *const f32,
) {
    // SAFETY: the caller's contract.
    let lanes: [S::F32; V] = core::array::from_fn(|j| unsafe { s.load(v.add(j * LANES)) });
    for (acc, x) in acc.iter_mut().zip(x) {
        // SAFETY: the caller's contract.
        let x = s.splat(unsafe { *x.add(k) });
        for (acc, lanes) in acc.iter_mut().zip(lanes) {
            *acc = s.mul_add(x, lanes, *acc);
        }
    }
}
