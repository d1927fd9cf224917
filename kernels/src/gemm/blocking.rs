//! How a product is cut: into tasks for threads, and within a task into blocks for the caches.

use core::ops::Range;

use super::{Layout, tile_shape};
use crate::ctx::Ctx;
use crate::isa::LANES;

/// Products summed in one run before the running sum is added to those of the earlier blocks. Part of the
/// numeric contract: it must not depend on the machine.
pub const K_BLOCK: usize = 256;

/// Elements between the staged rows of the broadcast operand: a block and a cache line, so that the rows do
/// not fall into the same cache sets.
pub(super) const STAGE_STRIDE: usize = K_BLOCK + LANES;

/// Bytes of packed vector operand that a task works on at a time: a part of the second-level cache.
const PACKED_BYTES: usize = 1 << 20;

/// Multiplications below which another thread costs more than it brings.
const WORK_PER_THREAD: usize = 1 << 20;

/// The cut of one product. `x` counts rows of the broadcast operand, `v` lanes of the vector operand.
#[derive(Debug, Clone)]
pub(super) struct Blocking {
    pub(super) k: usize,
    /// Rows of X in a strip: a multiple of the register tile's rows and, where the tile must be turned, of 16.
    pub(super) strip: usize,
    /// Lanes of V that are packed at a time, a multiple of the register tile's.
    pub(super) lanes: usize,
    x: usize,
    v: usize,
    x_tasks: usize,
    v_tasks: usize,
    x_step: usize,
    v_step: usize,
    tile_rows: usize,
}

impl Blocking {
    pub(super) fn new(ctx: &Ctx, layout: Layout, m: usize, n: usize, k: usize) -> Blocking {
        let (tile_rows, tile_lanes) = tile_shape(ctx);
        let (x, v, strip) = match layout {
            Layout::Nk => (n, m, least_common_multiple(tile_rows, LANES)),
            Layout::Kn => (m, n, tile_rows),
        };
        let work = m.saturating_mul(n).saturating_mul(k);
        let tasks = ctx.threads().min(work / WORK_PER_THREAD).max(1);
        let (x_tasks, v_tasks) = grid(tasks, x.div_ceil(strip), v.div_ceil(tile_lanes));
        let x_step = x.div_ceil(strip).div_ceil(x_tasks) * strip;
        let v_step = v.div_ceil(tile_lanes).div_ceil(v_tasks) * tile_lanes;
        let fitting = PACKED_BYTES / size_of::<f32>() / k.max(1);
        let lanes = (fitting / tile_lanes * tile_lanes).clamp(2 * tile_lanes, 16 * LANES.max(tile_lanes));
        let lanes = lanes.min(v_step);
        Blocking { k, strip, lanes, x, v, x_tasks, v_tasks, x_step, v_step, tile_rows }
    }

    /// Elements of scratch of one task.
    pub(super) fn piece_len(&self) -> usize {
        self.packed_len() + self.stage_len() + self.strip * self.lanes
    }

    pub(super) fn packed_len(&self) -> usize {
        self.lanes * self.k
    }

    pub(super) fn stage_len(&self) -> usize {
        self.tile_rows * STAGE_STRIDE
    }

    /// Elements of scratch of the whole product.
    pub(super) fn scratch_len(&self) -> usize {
        self.x_tasks * self.v_tasks * self.piece_len()
    }

    /// The part of the output that task `i` computes, as ranges of X rows and V lanes.
    pub(super) fn task(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let (x, v) = (i % self.x_tasks * self.x_step, i / self.x_tasks * self.v_step);
        (x.min(self.x)..(x + self.x_step).min(self.x), v.min(self.v)..(v + self.v_step).min(self.v))
    }
}

/// Splits `tasks` into a grid over X strips and V panels: over X first, since every cut of X packs V again.
fn grid(tasks: usize, strips: usize, panels: usize) -> (usize, usize) {
    let x = tasks.min(strips.max(1));
    (x, (tasks / x).min(panels.max(1)).max(1))
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;

    #[test]
    fn tasks_cover_every_output_once() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for level in Level::supported() {
            let ctx = Ctx::new(level).unwrap();
            let ctx = ctx.with_pool(Some(&pool));
            for (m, n, k) in [(1, 1, 1), (300, 500, 700), (5, 4096, 512), (4096, 7, 512), (49, 33, 4096)] {
                for layout in [Layout::Nk, Layout::Kn] {
                    let blocking = Blocking::new(&ctx, layout, m, n, k);
                    let (x, v) = if layout == Layout::Nk { (n, m) } else { (m, n) };
                    let mut seen = vec![0u8; x * v];
                    for i in 0..blocking.scratch_len() / blocking.piece_len() {
                        let (xs, vs) = blocking.task(i);
                        for a in xs {
                            for b in vs.clone() {
                                seen[a * v + b] += 1;
                            }
                        }
                    }
                    assert!(seen.iter().all(|count| *count == 1), "{level} {layout:?} {m}x{n}x{k}");
                }
            }
        }
    }
}
