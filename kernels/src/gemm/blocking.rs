//! How a product is cut: into slices for threads ([`threads`]), and each slice into blocks for the caches ([`cache`]).
//!
//! The names are those of BLIS (Van Zee and van de Geijn, 2015), counted from the micro-kernel's side: M counts rows of
//! the broadcast operand X, N lanes of the packed operand V. Which of the two are the weights depends on the layout.
//!
//! | name | counts |
//! |---|---|
//! | MR, NR | rows of X and lanes of V in the micro-tile, whose sums are in registers |
//! | KC | values of k for which V is packed at a time |
//! | NC | lanes of V that are packed at a time; they stay in the second-level cache |
//! | MC | rows of X that meet the packed lanes before other lanes are packed |

mod cache;
mod threads;

use core::ops::Range;

use super::{Combine, Dims, Layout};
use crate::isa::LANES;

use cache::CacheBlocks;
use threads::{SliceUnits, ThreadGrid};

/// A micro-kernel's tile, and the memory that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MicroTile {
    /// Rows of X in the tile.
    pub(crate) mr: usize,
    /// Lanes of V in the tile.
    pub(crate) nr: usize,
    /// Values of k for which V is packed at a time: all of K, or a block.
    pub(crate) kc: usize,
    /// Elements of scratch that one packed lane takes for `kc` values.
    pub(crate) lane_len: usize,
    /// Elements of scratch for the staging buffer of X.
    pub(crate) staging_len: usize,
    /// Quarters of the second-level cache that packed lanes may take; the rest is for rows of X and for sums.
    pub(crate) l2_quarters: usize,
    /// Whether weights are converted or copied before they are multiplied, even where activations are the packed operand.
    pub(crate) converts: bool,
}

/// The cut of one product.
#[derive(Debug, Clone)]
pub(crate) struct Blocking {
    tile: MicroTile,
    cache: CacheBlocks,
    grid: ThreadGrid,
    /// Matrices that are multiplied before one result is stored.
    fused: usize,
    /// Matrices among them that are packed.
    packed_matrices: usize,
}

impl Blocking {
    pub(super) fn new(tile: MicroTile, threads: usize, dims: &Dims) -> Blocking {
        let fused = match dims.combine {
            Combine::Columns => 1,
            Combine::Product => dims.parts,
        };
        let packed_matrices = match dims.layout {
            Layout::Nk => 1,
            Layout::Kn => fused,
        };
        let max_nc = cache::max_nc(&tile, packed_matrices);
        let units = SliceUnits::new(&tile, dims.layout);
        let grid = ThreadGrid::new(threads, dims, units, max_nc, tile.converts);
        let cache = CacheBlocks::new(&tile, dims, max_nc, &grid);
        Blocking { tile, cache, grid, fused, packed_matrices }
    }

    /// Rows of X whose sums are stored at a time: a multiple of MR and, where sums are stored transposed, of 16.
    pub(super) fn m_block(&self) -> usize {
        self.cache.m_block
    }

    /// NC.
    pub(crate) fn nc(&self) -> usize {
        self.cache.nc
    }

    /// MC.
    pub(super) fn mc(&self) -> usize {
        self.cache.mc
    }

    /// KC.
    pub(super) fn kc(&self) -> usize {
        self.tile.kc
    }

    /// Elements of scratch of one thread's slice.
    pub(super) fn piece_len(&self) -> usize {
        self.packed_matrices * self.packed_len() + self.staging_len() + self.fused * self.sums_len()
    }

    /// Elements of scratch of one packed matrix.
    pub(crate) fn packed_len(&self) -> usize {
        self.cache.max_nc * self.tile.lane_len
    }

    /// Matrices that are packed at a time.
    pub(super) fn packed_matrices(&self) -> usize {
        self.packed_matrices
    }

    /// Elements of the staging buffers of all matrices that are multiplied before one result is stored.
    pub(super) fn staging_len(&self) -> usize {
        self.fused * self.tile.staging_len
    }

    /// Elements of a block of sums.
    pub(super) fn sums_len(&self) -> usize {
        self.cache.sums_rows * self.cache.max_nc
    }

    /// The blocks of `depth` values of k, KC each. One empty block if there are no values.
    pub(super) fn k_blocks(&self, depth: usize) -> impl Iterator<Item = Range<usize>> {
        steps_or_empty(0..depth, self.tile.kc)
    }

    /// The offset in a block of sums of the sums of row `i` of X, counted from the first of its MC rows.
    pub(super) fn sums_at(&self, i: usize) -> usize {
        i % self.cache.sums_rows * self.cache.nc
    }

    /// Elements from one row of sums to the next.
    pub(super) fn sums_stride(&self) -> usize {
        self.cache.nc
    }

    /// Micro-tiles in `rows` rows of X by `lanes` lanes of V.
    pub(super) fn micro_tiles(&self, rows: usize, lanes: usize) -> usize {
        rows.div_ceil(self.tile.mr) * lanes.div_ceil(self.tile.nr)
    }

    /// Elements of scratch of the whole product.
    pub(super) fn scratch_len(&self) -> usize {
        self.grid.slices() * self.piece_len()
    }

    /// Elements of scratch that suffice for this product and for any with fewer rows, which may have more slices.
    pub(super) fn max_scratch_len(&self) -> usize {
        self.grid.max_slices() * self.piece_len()
    }

    /// The rows of the output that slice `i` computes.
    pub(crate) fn rows(&self, i: usize) -> Range<usize> {
        self.grid.rows(i)
    }

    /// The columns that slice `i` computes of a part with `n` columns.
    pub(crate) fn columns(&self, i: usize, n: usize) -> Range<usize> {
        self.grid.columns(i, n)
    }
}

/// Rows of X whose sums are stored transposed at a time, about. Each row of the output is in another page, and its lines
/// are prefetched before they are stored.
const TRANSPOSED_ROWS: usize = 64;

/// Rows of X whose sums are stored at a time.
fn m_block(tile: &MicroTile, layout: Layout) -> usize {
    match layout {
        Layout::Nk => {
            let unit = threads::transposed_unit(tile);
            TRANSPOSED_ROWS / unit * unit
        }
        Layout::Kn => tile.mr,
    }
}

/// `range` in steps of at most `step`.
#[inline(always)]
pub(crate) fn steps(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(step).map(move |start| start..start.saturating_add(step).min(end))
}

/// As [`steps`]; an empty range gives one empty step.
#[inline(always)]
pub(crate) fn steps_or_empty(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    steps(range.start..end.max(range.start + 1), step.max(1)).map(move |step| step.start..step.end.min(end))
}

/// The panels of `lanes`: whole vectors, at most `width` lanes each, all of about the same width.
#[inline(always)]
pub(super) fn panels(lanes: Range<usize>, width: usize) -> impl Iterator<Item = Range<usize>> {
    let (mut start, mut left) = (lanes.start, lanes.len().div_ceil(width));
    core::iter::from_fn(move || {
        let vectors = lanes.end.checked_sub(start).filter(|_| left > 0)?.div_ceil(LANES).div_ceil(left);
        let panel = start..start + vectors * LANES;
        (start, left) = (panel.end, left - 1);
        Some(panel)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_every_output_once() {
        for (mr, nr) in [(8, 48), (6, 16), (3, 16), (32, 32)] {
            for (m, n, k) in [(1, 1, 1), (300, 500, 700), (5, 4096, 512), (4096, 7, 512), (49, 33, 4096)] {
                for (layout, threads) in Layout::ALL.into_iter().flat_map(|l| [1, 2, 3, 4, 8].map(|t| (l, t)))
                {
                    let tile = MicroTile {
                        mr,
                        nr,
                        kc: k,
                        lane_len: k,
                        staging_len: 0,
                        l2_quarters: 2,
                        converts: k == 512,
                    };
                    let dims = Dims { parts: 2, ..Dims::of_one(layout, [m, n, k]) };
                    let blocking = Blocking::new(tile, threads, &dims);
                    // A part with fewer columns than the widest is cut by the same rule.
                    for n in [n, n.div_ceil(3)] {
                        let mut seen = vec![0u8; m * n];
                        for i in 0..blocking.scratch_len() / blocking.piece_len() {
                            for row in blocking.rows(i) {
                                blocking.columns(i, n).for_each(|column| seen[row * n + column] += 1);
                            }
                        }
                        assert!(seen.iter().all(|count| *count == 1), "{layout:?} {m}x{n}x{k}");
                    }
                }
            }
        }
    }
}
