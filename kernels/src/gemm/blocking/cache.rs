//! The blocks of one thread's slice, sized for the second-level cache.

use super::super::{Dims, Layout};
use super::threads::ThreadGrid;
use super::{MicroTile, m_block};
use crate::l2_cache::l2_cache_bytes;

/// The smallest NC: shorter pieces of rows waste cache lines.
const MIN_NC: usize = 64;

/// MC where V is packed a block of k at a time. With more rows the sums, which wait for the next block of k, would leave
/// the second-level cache.
const MC: usize = 256;

/// The blocks of one slice.
#[derive(Debug, Clone)]
pub(super) struct CacheBlocks {
    /// Rows of X whose sums are stored at a time.
    pub(super) m_block: usize,
    /// NC: a multiple of NR.
    pub(super) nc: usize,
    /// Lanes for which there is scratch. Scratch for some rows must suffice for fewer rows, which may be cut into fewer,
    /// larger slices.
    pub(super) max_nc: usize,
    /// MC.
    pub(super) mc: usize,
    /// Rows of X whose sums are kept.
    pub(super) sums_rows: usize,
}

/// The largest NC with which the packed lanes of all matrices fit their share of the second-level cache.
pub(super) fn max_nc(tile: &MicroTile, packed_matrices: usize) -> usize {
    let fitting =
        l2_cache_bytes() / 4 * tile.l2_quarters / size_of::<f32>() / (tile.lane_len * packed_matrices).max(1);
    let least = (2 * tile.nr).max(MIN_NC);
    (fitting / tile.nr * tile.nr).clamp(least, 16 * tile.nr)
}

impl CacheBlocks {
    pub(super) fn new(tile: &MicroTile, dims: &Dims, max_nc: usize, grid: &ThreadGrid) -> CacheBlocks {
        let (lanes, lanes_of_slice) = match dims.layout {
            Layout::Nk => (dims.m, grid.m_step()),
            Layout::Kn => (grid.n_step(dims.n), grid.n_step(dims.n)),
        };
        let max_nc = max_nc.min(lanes.next_multiple_of(tile.nr));
        // About as many lanes in each pass, as each pass reads all rows of X.
        let passes = lanes_of_slice.div_ceil(max_nc.max(1)).max(1);
        let nc = lanes_of_slice.div_ceil(passes).next_multiple_of(tile.nr);
        let m_block = m_block(tile, dims.layout);
        let (mc, sums_rows) = if tile.kc < dims.k {
            let mc = MC.next_multiple_of(m_block);
            (mc, mc.min(grid.m_step()))
        } else {
            (usize::MAX, m_block)
        };
        CacheBlocks { m_block, nc, max_nc, mc, sums_rows }
    }
}
