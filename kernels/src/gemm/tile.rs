//! The loops around the register tile, and the tile itself.

use core::ops::Range;

use super::blocking::{Blocking, K_BLOCK, STAGE_STRIDE};
use super::pack::{Ahead, pack_direct, pack_transposed, stage_rows};
use super::{Layout, Product, epilogue, rounds};
use crate::ctx::Precision;
use crate::isa::{Kernel, LANES, Simd};
use crate::view::{AnyMatMut, any};

/// One thread's rectangle of the output.
pub(super) struct Task<'a, 'b> {
    pub(super) op: &'a Product<'b>,
    pub(super) precision: Precision,
    pub(super) blocking: &'a Blocking,
    pub(super) x: Range<usize>,
    pub(super) v: Range<usize>,
    pub(super) out: AnyMatMut<'a>,
    pub(super) scratch: &'a mut [f32],
}

impl Kernel for Task<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let blocking = self.blocking;
        let (packed, rest) = self.scratch.split_at_mut(blocking.packed_len());
        let (stage, tile) = rest.split_at_mut(blocking.stage_len());
        for v in steps(self.v.clone(), blocking.lanes) {
            pack(s, self.op, self.precision, v.clone(), packed);
            for x in steps(self.x.clone(), blocking.strip) {
                let tile = Tile { x: x.clone(), v: v.clone(), stride: blocking.lanes, sums: &mut *tile };
                let tile = multiply(s, self.op, self.precision, packed, stage, tile);
                let at = (x.start - self.x.start, v.start - self.v.start);
                epilogue::finish(s, self.op, tile, &mut self.out, at);
            }
        }
    }
}

/// The sums of one strip: row `x`, lane `v` at `(x - x.start) * stride + v - v.start`.
pub(super) struct Tile<'a> {
    pub(super) x: Range<usize>,
    pub(super) v: Range<usize>,
    pub(super) stride: usize,
    pub(super) sums: &'a mut [f32],
}

/// `range` in steps of at most `step`.
#[inline(always)]
fn steps(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(step).map(move |start| start..(start + step).min(end))
}

/// The panels of `lanes`: their lanes, whole vectors each, at most `width` of them.
#[inline(always)]
pub(super) fn panels(lanes: Range<usize>, width: usize) -> impl Iterator<Item = Range<usize>> {
    steps(lanes, width).map(|panel| panel.start..panel.start + panel.len().next_multiple_of(LANES))
}

/// Packs the lanes `v` of the vector operand, panel after panel.
#[inline(always)]
fn pack<S: Simd>(s: S, op: &Product<'_>, precision: Precision, v: Range<usize>, packed: &mut [f32]) {
    let width = S::TILE_VECTORS * LANES;
    match op.weights.layout {
        Layout::Nk => {
            let round = rounds(precision, op.a);
            any!(AnyMatRef, op.a, a => pack_transposed(s, a, v, width, round, packed));
        }
        Layout::Kn => {
            let round = rounds(precision, op.weights.matrix);
            any!(AnyMatRef, op.weights.matrix, w => pack_direct(s, w, v, width, round, packed));
        }
    }
}

/// Computes the sums of one strip: stages a few rows of X, a block of k at a time, and runs them against every
/// panel.
#[inline(always)]
fn multiply<'t, S: Simd>(
    s: S,
    op: &Product<'_>,
    precision: Precision,
    packed: &[f32],
    stage: &mut [f32],
    tile: Tile<'t>,
) -> Tile<'t> {
    let depth = op.a.cols();
    if depth == 0 {
        tile.sums.fill(0.0);
    }
    let x = match op.weights.layout {
        Layout::Nk => op.weights.matrix,
        Layout::Kn => op.a,
    };
    let round = rounds(precision, x);
    for (i, rows) in steps(tile.x.clone(), S::TILE_ROWS).enumerate() {
        for k in steps(0..depth, K_BLOCK) {
            any!(AnyMatRef, x, x => stage_rows(s, x, rows.clone(), k.clone(), round, stage));
            let ahead = ahead::<S>(op, rows.end, k.clone());
            let mut start = 0;
            let count = tile.v.len().div_ceil(S::TILE_VECTORS * LANES);
            for (index, panel) in panels(tile.v.clone(), S::TILE_VECTORS * LANES).enumerate() {
                let width = panel.len();
                let v = &packed[start + k.start * width..start + k.end * width];
                let at = i * S::TILE_ROWS * tile.stride + panel.start - tile.v.start;
                let ahead = if index + 1 == count { ahead } else { Ahead::NONE };
                let block = Block { depth: k.len(), first: k.start == 0, stride: tile.stride, ahead };
                // The guards are constants: a level has no code for tiles wider than its own.
                match width / LANES {
                    3 if S::TILE_VECTORS >= 3 => block.run::<S, 3>(s, stage, v, &mut tile.sums[at..]),
                    2 if S::TILE_VECTORS >= 2 => block.run::<S, 2>(s, stage, v, &mut tile.sums[at..]),
                    _ => block.run::<S, 1>(s, stage, v, &mut tile.sums[at..]),
                }
                start += width * depth;
            }
        }
    }
    tile
}

/// What will be staged after the block `k` of the rows before `end`: weights only, since activations are few
/// and near.
#[inline(always)]
fn ahead<S: Simd>(op: &Product<'_>, end: usize, k: Range<usize>) -> Ahead {
    match op.weights.layout {
        Layout::Nk => {
            let (last, depth) = (k.end == op.a.cols(), k.len());
            let (row, k) = if last { (end, 0) } else { (end.saturating_sub(S::TILE_ROWS), k.end) };
            any!(AnyMatRef, op.weights.matrix, w => Ahead::rows::<S, _>(w, (row, k), depth, UNROLL))
        }
        Layout::Kn => Ahead::NONE,
    }
}

/// One call of the register tile.
struct Block {
    depth: usize,
    /// Whether the sums start here, or are added to those of earlier blocks.
    first: bool,
    stride: usize,
    ahead: Ahead,
}

impl Block {
    /// `sums[r][j] (+)= sum over k of stage[r][k] * v[k][j]`
    #[inline(always)]
    fn run<S: Simd, const V: usize>(&self, s: S, stage: &[f32], v: &[f32], sums: &mut [f32]) {
        match S::TILE_ROWS {
            8 => self.tile::<S, 8, V>(s, stage, v, sums),
            6 => self.tile::<S, 6, V>(s, stage, v, sums),
            _ => self.tile::<S, 3, V>(s, stage, v, sums),
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &self,
        s: S,
        stage: &[f32],
        v: &[f32],
        sums: &mut [f32],
    ) {
        const { assert!(R * V <= 24) };
        assert!(stage.len() >= R * STAGE_STRIDE && self.depth <= K_BLOCK);
        assert!(v.len() >= self.depth * V * LANES);
        assert!(sums.len() >= (R - 1) * self.stride + V * LANES);
        let mut ahead = self.ahead;
        let mut acc = [[s.splat(0.0); V]; R];
        let (mut x, mut v) = (stage.as_ptr(), v.as_ptr());
        // SAFETY: the assertions above: `depth` steps of V vectors stay inside `v`, and `depth` elements of R
        // rows inside `stage`.
        unsafe {
            for _ in 0..self.depth / UNROLL {
                ahead.prefetch(s);
                for _ in 0..UNROLL {
                    step(s, &mut acc, x, v);
                    (x, v) = (x.add(1), v.add(V * LANES));
                }
            }
            for _ in 0..self.depth % UNROLL {
                step(s, &mut acc, x, v);
                (x, v) = (x.add(1), v.add(V * LANES));
            }
        }
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

/// `acc[r][j] += x[r] * v[j]` at one k.
///
/// # Safety
/// `x` must be readable at R rows [`STAGE_STRIDE`] apart, and `v` for V vectors.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const V: usize>(
    s: S,
    acc: &mut [[S::F32; V]; R],
    x: *const f32,
    v: *const f32,
) {
    // SAFETY: the caller's contract.
    let lanes: [S::F32; V] = core::array::from_fn(|j| unsafe { s.load(v.add(j * LANES)) });
    for (r, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the caller's contract.
        let x = s.splat(unsafe { *x.add(r * STAGE_STRIDE) });
        for (acc, lanes) in acc.iter_mut().zip(lanes) {
            *acc = s.mul_add(x, lanes, *acc);
        }
    }
}
