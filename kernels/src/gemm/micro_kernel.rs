//! The micro-kernel: a register tile of multiply-adds, for every level, storage type and kind of [`KPack`].
//!
//! `tile[r][lane] += x[r][k] * v[k][lane]`, with X broadcast and V in lanes, all values of one pack at a time. `broadcast`
//! says where packs of X are found and `packed` where vectors of V are. This file has the tile itself and the loops over
//! the tiles of an [`MBlock`].

mod broadcast;
mod packed;

pub(crate) use super::prefetch::OutputPrefetch;
pub(crate) use broadcast::{BroadcastColumns, staging_len};

use core::ops::Range;

use super::blocking::{MicroTile, panels, steps};
use super::kpack::KPack;
use super::pack::{Operand, pack_rows_from, pack_transposed};
use super::prefetch::{BlockPrefetch, InterleavedRows, Prefetch};
use super::{K_BLOCK, Layout};
use crate::isa::{Kernel, KernelAt, LANES, Simd};
use crate::view::any;

use broadcast::{BroadcastOperand, BroadcastRows, RowPointers};
use packed::{FusedPack, PackedOperand, PackedPanel};

/// Iterations over k that are unrolled; between two such groups lines may be prefetched.
pub(super) const K_UNROLL: usize = 4;

/// Rows of X to multiply by packed lanes of V.
pub(crate) struct MBlock<'a> {
    pub(crate) x: Operand<'a>,
    pub(crate) rows: Range<usize>,
    /// A buffer for MR rows of X that are not read in place.
    pub(crate) staging: &'a mut [f32],
    /// The values of k: all, or a block, whose sums are added to those of the blocks before.
    pub(crate) k: Range<usize>,
    pub(crate) lanes: Range<usize>,
    /// The packed lanes, panel after panel.
    pub(crate) packed: &'a mut [f32],
    /// V where it lies, if its lanes are not packed yet: the first tile of rows packs them.
    pub(crate) unpacked: Option<Operand<'a>>,
    /// Lines of the output that the sums will be stored in.
    pub(crate) output: OutputPrefetch,
    /// The sum of row `i` of the block and lane `j` goes to `i * stride + j`.
    pub(crate) sums: &'a mut [f32],
    pub(crate) stride: usize,
}

/// Multiply-adds of packs with the instructions of a level.
#[derive(Clone, Copy)]
pub(crate) struct RegisterTile<P>(pub(crate) P);

/// Returns the micro-tile of the level that runs it.
pub(crate) struct MicroTileOf {
    pub(crate) layout: Layout,
    pub(crate) k: usize,
    /// Values of k in a pack.
    pub(crate) pack_len: usize,
}

impl Kernel for MicroTileOf {
    type Output = MicroTile;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> MicroTile {
        // Weights are packed a block of k at a time, so that the pieces of their rows are long and fit the cache.
        let kc = match self.layout {
            Layout::Nk => self.k,
            Layout::Kn => self.k.min(K_BLOCK * self.pack_len),
        };
        MicroTile {
            mr: S::TILE_ROWS,
            nr: S::TILE_VECTORS * LANES,
            kc,
            lane_len: kc.div_ceil(self.pack_len),
            staging_len: staging_len::<S>(),
            l2_quarters: 2,
            converts: false,
        }
    }
}

impl<P> RegisterTile<P> {
    /// Packs lanes of V that lie as rows `[lanes, K]`, for all k.
    #[inline(always)]
    pub(super) fn pack<S: Simd>(self, s: S, v: Operand<'_>, lanes: Range<usize>, packed: &mut [f32])
    where
        P: KPack<S>,
    {
        pack_transposed(s, self.0, v, lanes, S::TILE_VECTORS * LANES, packed);
    }

    /// Computes the sums of a block. Meanwhile it prefetches what `prefetch` says or, without it, the same values of k of
    /// the rows of X that follow, a share of them for each panel.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd>(self, s: S, m_block: MBlock<'_>, prefetch: Option<&mut BlockPrefetch>)
    where
        P: KPack<S>,
    {
        s.call(Multiply { kpack: self.0, m_block, prefetch });
    }
}

/// See [`RegisterTile::multiply`].
struct Multiply<'a, 'b, P> {
    kpack: P,
    m_block: MBlock<'a>,
    prefetch: Option<&'b mut BlockPrefetch>,
}

impl<S: Simd, P: KPack<S>> KernelAt<S> for Multiply<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: S) {
        let Multiply { kpack, m_block, mut prefetch } = self;
        let MBlock { x, rows, k: all, lanes, packed, unpacked, staging, mut output, sums, stride } = m_block;
        let packs = all.len().div_ceil(P::LEN);
        if all.is_empty() {
            sums.fill(0.0);
        }
        let count = lanes.len().div_ceil(S::TILE_VECTORS * LANES);
        let tiles = rows.len().div_ceil(S::TILE_ROWS) * packs.div_ceil(K_BLOCK) * count;
        let lines = output.lines_per_step(tiles);
        let none = &mut { BlockPrefetch::NONE };
        for (i, rows) in steps(rows, S::TILE_ROWS).enumerate() {
            for at in steps(0..packs, K_BLOCK) {
                let k = all.start + at.start * P::LEN..all.end.min(all.start + at.end * P::LEN);
                let from = RowPointers::at(s, kpack, x, rows.clone(), k.clone(), staging);
                let mut start = 0;
                for (j, panel) in panels(lanes.clone(), S::TILE_VECTORS * LANES).enumerate() {
                    output.prefetch(s, lines);
                    let width = panel.len();
                    let v = &mut packed[start + at.start * width..start + at.end * width];
                    let sums = &mut sums[i * S::TILE_ROWS * stride + panel.start - lanes.start..];
                    let call = TileCall { kpack, depth: at.len(), is_first: k.start == 0, stride };
                    start += width * packs;
                    if let Some(unpacked) = unpacked.filter(|_| i == 0) {
                        let prefetch = prefetch.as_deref_mut().unwrap_or(none);
                        let source = (unpacked, k.clone(), panel);
                        if run_fused_pack(s, &call, &from, source, (v, &mut *sums), prefetch) {
                            continue;
                        }
                    }
                    let v = PackedPanel::of(v, width);
                    match prefetch.as_deref_mut() {
                        Some(prefetch) => call.run(s, &from, v, sums, prefetch),
                        None => {
                            let share = |j: usize| S::TILE_ROWS * j / count;
                            let next = rows.end + share(j)..rows.end + share(j + 1);
                            let mut prefetch =
                                InterleavedRows::of(x.matrix, next, k.start, K_UNROLL * P::LEN);
                            call.run(s, &from, v, sums, &mut prefetch);
                        }
                    }
                }
            }
        }
    }
}

/// Packs a panel of V. A panel of whole vectors and packs is multiplied by the rows `x` while it is loaded; returns whether
/// it was.
#[inline(always)]
fn run_fused_pack<S: Simd, P: KPack<S>>(
    s: S,
    call: &TileCall<P>,
    x: &RowPointers<'_>,
    (unpacked, k, panel): (Operand<'_>, Range<usize>, Range<usize>),
    (v, sums): (&mut [f32], &mut [f32]),
    prefetch: &mut BlockPrefetch,
) -> bool {
    any!(AnyMatRef, unpacked.matrix, matrix => {
        let fused = panel.end <= matrix.cols() && k.len() == call.depth * P::LEN;
        if !fused {
            pack_rows_from(s, call.kpack, matrix, k, panel, unpacked.round, v);
        } else if unpacked.round && P::LEN == 1 {
            let v = FusedPack::<P, _, true>::of(call.kpack, matrix.block(k, panel), v);
            call.run(s, x, v, sums, prefetch);
        } else {
            let v = FusedPack::<P, _, false>::of(call.kpack, matrix.block(k, panel), v);
            call.run(s, x, v, sums, prefetch);
        }
        fused
    })
}

impl<P: Copy> RegisterTile<P> {
    /// `sums[r][j] (+)= sum over k of x[k][r] * v[k][j]` for MR columns of `x` and for all of its k, at most a block.
    /// `v` has `width` lanes, a multiple of 16 and at most NR. With `is_first` the sums are overwritten.
    #[inline(always)]
    pub(crate) fn multiply_columns<S: Simd>(
        self,
        s: S,
        x: BroadcastColumns<'_>,
        (v, width): (&[f32], usize),
        sums: &mut [f32],
        is_first: bool,
    ) where
        P: KPack<S>,
    {
        assert!(x.depth <= K_BLOCK);
        let call = TileCall { kpack: self.0, depth: x.depth, is_first, stride: width };
        call.run(s, &x, PackedPanel::of(v, width), sums, &mut { BlockPrefetch::NONE });
    }
}

/// One call of the register tile.
struct TileCall<P> {
    kpack: P,
    /// Packs of k.
    depth: usize,
    /// Whether the sums start from zero here, or are added to those of earlier blocks of k.
    is_first: bool,
    /// Elements from row to row of the sums.
    stride: usize,
}

impl<P: Copy> TileCall<P> {
    /// `sums[r][j] (+)= sum over k of x[r][k] * v[k][j]`
    #[inline(always)]
    fn run<S: Simd, V: PackedOperand<S>>(
        &self,
        s: S,
        x: &impl BroadcastOperand,
        v: V,
        sums: &mut [f32],
        prefetch: &mut impl Prefetch,
    ) where
        P: KPack<S>,
    {
        // The guards are constants: a level has no code for tiles wider than its own.
        match (S::TILE_ROWS, v.vectors()) {
            (8, 3) if S::TILE_VECTORS >= 3 => self.tile::<S, V, _, 8, 3>(s, x.rows(), v, sums, prefetch),
            (8, 2) if S::TILE_VECTORS >= 2 => self.tile::<S, V, _, 8, 2>(s, x.rows(), v, sums, prefetch),
            (8, _) => self.tile::<S, V, _, 8, 1>(s, x.rows(), v, sums, prefetch),
            (6, _) => self.tile::<S, V, _, 6, 1>(s, x.rows(), v, sums, prefetch),
            _ => self.tile::<S, V, _, 3, 1>(s, x.rows(), v, sums, prefetch),
        }
    }

    /// The tile of `MR` rows by `NV` vectors.
    #[inline(always)]
    fn tile<S: Simd, V: PackedOperand<S>, F: Prefetch, const MR: usize, const NV: usize>(
        &self,
        s: S,
        mut x: impl BroadcastRows<MR>,
        mut v: V,
        sums: &mut [f32],
        prefetch: &mut F,
    ) where
        P: KPack<S>,
    {
        const { assert!(MR * NV <= 24) };
        assert!(v.vectors() == NV && v.depth() >= self.depth);
        assert!(sums.len() >= (MR - 1) * self.stride + NV * LANES);
        // A local copy stays in registers.
        let mut local = *prefetch;
        let mut acc = [[s.splat(0.0); NV]; MR];
        // SAFETY: X has `depth` packs of each row, and V as asserted above `depth` steps of NV vectors.
        unsafe {
            let mut left = self.depth / K_UNROLL;
            while left > 0 {
                let iterations = local.start(s, left);
                for _ in 0..iterations * (K_UNROLL / V::UNROLL) {
                    local.step(s);
                    for i in 0..V::UNROLL {
                        multiply_pack(s, self.kpack, &mut acc, x, i, v.take(s));
                    }
                    x.advance(V::UNROLL);
                }
                left -= iterations;
            }
            for i in 0..self.depth % K_UNROLL {
                multiply_pack(s, self.kpack, &mut acc, x, i, v.take(s));
            }
        }
        *prefetch = local;
        for (r, acc) in acc.iter().enumerate() {
            for (j, acc) in acc.iter().enumerate() {
                // SAFETY: the assertion above on the length of `sums`.
                unsafe {
                    let to = sums.as_mut_ptr().add(r * self.stride + j * LANES);
                    let sum = if self.is_first { *acc } else { s.add(s.load(to), *acc) };
                    s.store(to, sum);
                }
            }
        }
    }
}

/// `acc[r][j] += x[r][i] * v[j]` of one pack.
///
/// # Safety
/// `x` must have pack `i` of each row.
#[inline(always)]
unsafe fn multiply_pack<S: Simd, P: KPack<S>, const MR: usize, const NV: usize>(
    s: S,
    kpack: P,
    acc: &mut [[S::F32; NV]; MR],
    x: impl BroadcastRows<MR>,
    i: usize,
    v: [S::F32; NV],
) {
    for (r, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the caller's contract.
        unsafe { kpack.mul_add_broadcast(s, x.at(r, i), v, acc) };
    }
}
