//! The slices of a product that threads compute.

use core::ops::Range;

use super::super::{Dims, Layout};
use super::MicroTile;
use crate::isa::LANES;

/// Multiplications below which another thread costs more than it saves.
const WORK_PER_THREAD: usize = 1 << 20;

/// The units in which slices are counted, in rows and columns of the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct SliceUnits {
    m: usize,
    n: usize,
}

impl SliceUnits {
    pub(super) fn new(tile: &MicroTile, layout: Layout) -> SliceUnits {
        match layout {
            Layout::Nk => SliceUnits { m: tile.nr.min(2 * LANES), n: transposed_unit(tile) },
            Layout::Kn => SliceUnits { m: tile.mr, n: tile.nr },
        }
    }
}

/// Rows of X in whole micro-tiles whose sums can be transposed 16 x 16 at a time.
pub(super) fn transposed_unit(tile: &MicroTile) -> usize {
    least_common_multiple(tile.mr, LANES)
}

/// Slices of a product: a grid over the rows and columns of the output.
#[derive(Debug, Clone)]
pub(super) struct ThreadGrid {
    m: usize,
    /// The most slices that products with fewer rows may have.
    max_slices: usize,
    m_slices: usize,
    m_step: usize,
    n_slices: usize,
    n_unit: usize,
}

impl ThreadGrid {
    pub(super) fn new(
        threads: usize,
        dims: &Dims,
        units: SliceUnits,
        max_nc: usize,
        converts: bool,
    ) -> ThreadGrid {
        let Dims { layout, m, n: widest, .. } = *dims;
        let slices = threads.min(dims.work() / WORK_PER_THREAD).max(1);
        let m_step = |cuts: usize| m.div_ceil(units.m).div_ceil(cuts) * units.m;
        // Each cut of M reads the weights again. In return no thread packs activations that another packs too, fetched
        // from the cache of the core that wrote them. A cut is free if weights are read as often anyway, and cheap beside
        // enough multiplications: on two threads the products of MiniLM gain from 48 rows for each thread on and those
        // of BERT base from 96; with 64 rows, BERT base 1 x 128 in bf16 loses a sixth. Weights that must be converted
        // gain from two to three times as many rows on.
        let min_rows = (widest.min(dims.k) / if converts { 3 } else { 8 }).max(units.m);
        let cheap = |cuts: &usize| match layout {
            Layout::Nk => {
                let step = m_step(*cuts);
                m.div_ceil(max_nc) >= *cuts || (step >= min_rows && 4 * cuts * step <= 5 * m)
            }
            Layout::Kn => false,
        };
        let m_cuts = (2..=slices).rev().find(|cuts| slices.is_multiple_of(*cuts) && cheap(cuts)).unwrap_or(1);
        let n_slices = (slices / m_cuts).min(widest.div_ceil(units.n).max(1));
        let m_slices = (slices / n_slices).clamp(1, m.div_ceil(units.m).max(1));
        ThreadGrid { m, max_slices: slices, m_slices, m_step: m_step(m_slices), n_slices, n_unit: units.n }
    }

    /// Rows of the output in a slice.
    pub(super) fn m_step(&self) -> usize {
        self.m_step
    }

    /// Columns in a slice of a part with `n` columns.
    pub(super) fn n_step(&self, n: usize) -> usize {
        n.div_ceil(self.n_unit).div_ceil(self.n_slices) * self.n_unit
    }

    pub(super) fn slices(&self) -> usize {
        self.m_slices * self.n_slices
    }

    pub(super) fn max_slices(&self) -> usize {
        self.max_slices
    }

    /// The rows of slice `i`.
    pub(super) fn rows(&self, i: usize) -> Range<usize> {
        let start = i / self.n_slices * self.m_step;
        start.min(self.m)..(start + self.m_step).min(self.m)
    }

    /// The columns of slice `i` in a part with `n` columns.
    pub(super) fn columns(&self, i: usize, n: usize) -> Range<usize> {
        let step = self.n_step(n);
        let start = i % self.n_slices * step;
        start.min(n)..(start + step).min(n)
    }
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}
