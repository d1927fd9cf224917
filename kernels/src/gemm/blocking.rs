//! How a product is cut: into tasks for threads, and within a task into blocks for the caches.

use core::ops::Range;

use super::{Combine, Dims, Layout};
use crate::cache::second_level_bytes;
use crate::isa::LANES;

/// Multiplications below which another thread costs more than it brings.
const WORK_PER_THREAD: usize = 1 << 20;

/// Lanes that are packed at a time at least: shorter pieces of rows waste cache lines.
const LEAST: usize = 64;

/// Rows of X that meet a block of packed lanes before the next one is packed, where V is packed a block of k at a
/// time: more would have the sums, which wait for the next block, leave the second-level cache.
const SWEEP: usize = 256;

/// Rows of X in a strip whose sums are columns of the output, about: so many of them are finished at a time, as each row
/// of the output is in another page, and the cache is asked for its lines ahead.
const STRIP: usize = 64;

/// What a micro-kernel works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// Rows of X and lanes of V in its register tile.
    pub(super) rows: usize,
    pub(super) lanes: usize,
    /// Values of k for which V is packed at a time: all, or a block of them.
    pub(super) depth: usize,
    /// Elements of scratch that a packed lane takes, for so many values.
    pub(super) packed: usize,
    /// Elements of scratch in which rows of X are staged.
    pub(super) stage: usize,
    /// Of the second-level cache, how much packed lanes may take; the rest is for rows of X and results.
    pub(super) quarters: usize,
    /// Whether weights are not multiplied as they lie even where activations are packed.
    pub(super) converts: bool,
}

/// The cut of one product.
#[derive(Debug, Clone)]
pub(super) struct Blocking {
    /// Rows of X in a strip: a multiple of the register tile's rows and, where the tile must be turned, of 16.
    pub(super) strip: usize,
    /// Lanes of V that are packed at a time, a multiple of the register tile's, and for how many there is room: what
    /// has room for some rows must have it for fewer, which may be cut into fewer, larger shares.
    pub(super) lanes: usize,
    room: usize,
    /// Rows of X that meet packed lanes before other lanes are packed, and of how many the sums are kept.
    pub(super) sweep: usize,
    kept: usize,
    pub(super) unit: Unit,
    /// Matrices that are multiplied before one result is stored, and how many of them are packed.
    fused: usize,
    packed_matrices: usize,
    m: usize,
    /// Tasks that there may be, and those that there are.
    tasks: usize,
    m_tasks: usize,
    m_step: usize,
    n_tasks: usize,
    /// What a share of N is counted in.
    n_unit: usize,
}

impl Blocking {
    pub(super) fn new(unit: Unit, threads: usize, dims: &Dims) -> Blocking {
        let Dims { layout, m, n: widest, .. } = *dims;
        let fused = match dims.combine {
            Combine::Columns => 1,
            Combine::Product => dims.parts,
        };
        let (strip, m_unit, n_unit) = match layout {
            Layout::Nk => {
                let whole = least_common_multiple(unit.rows, LANES);
                (STRIP / whole * whole, unit.lanes.min(2 * LANES), whole)
            }
            Layout::Kn => (unit.rows, unit.rows, unit.lanes),
        };
        let packed_matrices = match layout {
            Layout::Nk => 1,
            Layout::Kn => fused,
        };
        let fitting = second_level_bytes() / 4 * unit.quarters
            / size_of::<f32>()
            / (unit.packed * packed_matrices).max(1);
        let least = (2 * unit.lanes).max(LEAST);
        let most = (fitting / unit.lanes * unit.lanes).clamp(least, 16 * unit.lanes);
        let tasks = threads.min(dims.work() / WORK_PER_THREAD).max(1);
        // Each cut of M reads the weights again. It spares packing all activations in each task, fetched from the cache
        // of the core that made them, and costs nothing if weights are read as often anyway, or little beside what is
        // computed. On two threads MiniLM's products gain from 48 rows for each on and BERT base's from 96; with 64, BERT
        // base 1 x 128 in bf16 loses a sixth. Weights to be converted gain from two to three times as many on.
        let m_step = |cuts: usize| m.div_ceil(m_unit).div_ceil(cuts) * m_unit;
        let worth_it = (widest.min(dims.k) / if unit.converts { 3 } else { 8 }).max(m_unit);
        let cheap = |cuts: &usize| match layout {
            Layout::Nk => {
                let step = m_step(*cuts);
                m.div_ceil(most) >= *cuts || (step >= worth_it && 4 * cuts * step <= 5 * m)
            }
            Layout::Kn => false,
        };
        let free = (2..=tasks).rev().find(|cuts| tasks.is_multiple_of(*cuts) && cheap(cuts)).unwrap_or(1);
        let n_tasks = (tasks / free).min(widest.div_ceil(n_unit).max(1));
        let m_tasks = (tasks / n_tasks).clamp(1, m.div_ceil(m_unit).max(1));
        let m_step = m_step(m_tasks);
        let n_step = widest.div_ceil(n_unit).div_ceil(n_tasks) * n_unit;
        let (v, v_step) = match layout {
            Layout::Nk => (m, m_step),
            Layout::Kn => (n_step, n_step),
        };
        let room = most.min(v.next_multiple_of(unit.lanes));
        // About as many each time: each time, all rows of X are read.
        let times = v_step.div_ceil(room.max(1)).max(1);
        let lanes = v_step.div_ceil(times).next_multiple_of(unit.lanes);
        let (sweep, kept) = if unit.depth < dims.k {
            let sweep = SWEEP.next_multiple_of(strip);
            (sweep, sweep.min(m_step))
        } else {
            (usize::MAX, strip)
        };
        Blocking {
            strip,
            lanes,
            room,
            sweep,
            kept,
            unit,
            fused,
            packed_matrices,
            m,
            tasks,
            m_tasks,
            m_step,
            n_tasks,
            n_unit,
        }
    }

    /// Elements of scratch of one task.
    pub(super) fn piece_len(&self) -> usize {
        self.packed_matrices * self.packed_len() + self.stage_len() + self.fused * self.sums_len()
    }

    /// Elements of scratch of one packed matrix.
    pub(super) fn packed_len(&self) -> usize {
        self.room * self.unit.packed
    }

    /// Matrices that are packed at a time.
    pub(super) fn packed_matrices(&self) -> usize {
        self.packed_matrices
    }

    /// Elements of scratch in which rows are staged.
    pub(super) fn stage_len(&self) -> usize {
        self.fused * self.unit.stage
    }

    /// The blocks of k, of `depth` values in all, that meet all rows of a sweep before the next one does; one, if
    /// there are no values.
    pub(super) fn depths(&self, depth: usize) -> impl Iterator<Item = Range<usize>> {
        steps_or_empty(0..depth, self.unit.depth)
    }

    /// Elements of a block of sums.
    pub(super) fn sums_len(&self) -> usize {
        self.kept * self.room
    }

    /// Where in a block of sums those of row `i` of a sweep start.
    pub(super) fn sums_at(&self, i: usize) -> usize {
        i % self.kept * self.lanes
    }

    /// Elements between rows of sums.
    pub(super) fn sums_stride(&self) -> usize {
        self.lanes
    }

    /// Register tiles in that many rows of X and lanes of V.
    pub(super) fn tiles(&self, rows: usize, lanes: usize) -> usize {
        rows.div_ceil(self.unit.rows) * lanes.div_ceil(self.unit.lanes)
    }

    /// Elements of scratch of the whole product.
    pub(super) fn scratch_len(&self) -> usize {
        self.m_tasks * self.n_tasks * self.piece_len()
    }

    /// The same for as many tasks as there may be: it suffices for fewer rows, too, of which there may be more tasks.
    pub(super) fn most_scratch_len(&self) -> usize {
        self.tasks * self.piece_len()
    }

    /// The rows of the output that task `i` computes.
    pub(super) fn rows(&self, i: usize) -> Range<usize> {
        let start = i / self.n_tasks * self.m_step;
        start.min(self.m)..(start + self.m_step).min(self.m)
    }

    /// The columns that task `i` computes of a part with `n` of them.
    pub(super) fn columns(&self, i: usize, n: usize) -> Range<usize> {
        let step = n.div_ceil(self.n_unit).div_ceil(self.n_tasks) * self.n_unit;
        let start = i % self.n_tasks * step;
        start.min(n)..(start + step).min(n)
    }
}

/// `range` in steps of at most `step`.
#[inline(always)]
pub(crate) fn steps(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(step).map(move |start| start..start.saturating_add(step).min(end))
}

/// As [`steps`], but one that is empty where the range is.
#[inline(always)]
pub(super) fn steps_or_empty(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    steps(range.start..end.max(range.start + 1), step.max(1)).map(move |step| step.start..step.end.min(end))
}

/// The panels of `lanes`: their lanes, whole vectors each, at most `width` of them, and about as many in each.
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

    #[test]
    fn tasks_cover_every_output_once() {
        for (rows, lanes) in [(8, 48), (6, 16), (3, 16), (32, 32)] {
            for (m, n, k) in [(1, 1, 1), (300, 500, 700), (5, 4096, 512), (4096, 7, 512), (49, 33, 4096)] {
                for (layout, threads) in Layout::ALL.into_iter().flat_map(|l| [1, 2, 3, 4, 8].map(|t| (l, t)))
                {
                    let unit =
                        Unit { rows, lanes, depth: k, packed: k, stage: 0, quarters: 2, converts: k == 512 };
                    let dims = Dims { parts: 2, ..Dims::of_one(layout, [m, n, k]) };
                    let blocking = Blocking::new(unit, threads, &dims);
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
