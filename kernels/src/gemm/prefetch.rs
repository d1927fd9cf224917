//! Software prefetch of the weights that come next, and of lines of the output, while the register tile computes.

use core::ops::Range;

use crate::isa::Simd;
use crate::view::{AnyMatMut, AnyMatRef, MatRef, any};

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Lines of `[K, N]` weights that are prefetched at a time, at least.
pub(super) const PREFETCH_BURST: usize = 8;

/// What the loop of a register tile prefetches.
pub(crate) trait Prefetch: Copy {
    /// Starts prefetching; returns after how many iterations, at most `max`, to call again. The counting is done here, and
    /// not in the loop over the iterations.
    fn start<S: Simd>(&mut self, s: S, max: usize) -> usize;

    /// Prefetches the lines of one of these iterations.
    fn step<S: Simd>(&mut self, s: S);
}

/// The cache lines of a block of a matrix, row after row, prefetched at an even pace over the iterations of a loop.
#[derive(Clone, Copy)]
pub(crate) struct BlockPrefetch {
    /// The next line. It may lie past the end of the matrix.
    at: *const u8,
    /// Iterations until the next burst.
    wait: usize,
    /// Iterations from burst to burst.
    pace: usize,
    /// Lines in a burst.
    burst: usize,
    /// Bursts left in this row.
    left: usize,
    /// Bursts in a row.
    row: usize,
    /// Bytes from the end of a row's part to the start of the next row's.
    gap: usize,
}

impl BlockPrefetch {
    /// Prefetches nothing.
    pub(crate) const NONE: BlockPrefetch = BlockPrefetch {
        at: core::ptr::null(),
        wait: usize::MAX,
        pace: usize::MAX,
        burst: 0,
        left: 0,
        row: 0,
        gap: 0,
    };

    /// The block of `rows` rows and `cols` columns from `(row, col)` on, within `iterations` iterations, at least
    /// `min_burst` lines at a time.
    #[inline(always)]
    pub(crate) fn block(
        from: AnyMatRef<'_>,
        (row, col): (usize, usize),
        (rows, cols): (usize, usize),
        iterations: usize,
        min_burst: usize,
    ) -> BlockPrefetch {
        any!(AnyMatRef, from, from => {
            BlockPrefetch::typed_block(from, (row, col), (rows, cols), iterations, min_burst)
        })
    }

    #[inline(always)]
    fn typed_block<T>(
        from: MatRef<'_, T>,
        at: (usize, usize),
        (rows, cols): (usize, usize),
        iterations: usize,
        min_burst: usize,
    ) -> BlockPrefetch {
        let lines = (cols * size_of::<T>()).div_ceil(LINE).max(1);
        let burst = (rows * lines).div_ceil(iterations.max(1)).max(min_burst).min(lines);
        let pace = (iterations / (rows * lines.div_ceil(burst)).max(1)).max(1);
        BlockPrefetch { wait: pace - 1, pace, ..BlockPrefetch::bursts(from, at, cols, burst) }
    }

    /// The `cols` columns from `(row, col)` on of this row and all that follow, for [`BlockPrefetch::prefetch_lines`] with
    /// `burst` lines at a time.
    #[inline(always)]
    pub(crate) fn bursts<T>(
        from: MatRef<'_, T>,
        (row, col): (usize, usize),
        cols: usize,
        burst: usize,
    ) -> BlockPrefetch {
        let at = from.as_ptr().wrapping_add(row.wrapping_mul(from.row_stride()).wrapping_add(col));
        BlockPrefetch::rows(at, from.row_stride(), cols, burst)
    }

    /// `cols` elements from `at` on, and as many every `stride` elements further on.
    #[inline(always)]
    fn rows<T>(at: *const T, stride: usize, cols: usize, burst: usize) -> BlockPrefetch {
        let row = (cols * size_of::<T>()).div_ceil(LINE).max(1).div_ceil(burst);
        let gap = stride.wrapping_mul(size_of::<T>()).wrapping_sub(row * burst * LINE);
        BlockPrefetch { at: at.cast(), wait: 0, pace: 1, burst, left: row, row, gap }
    }

    /// Prefetches one burst of `burst` lines. Where that is a constant, there is no loop.
    #[inline(always)]
    pub(crate) fn prefetch_lines<S: Simd>(&mut self, s: S, burst: usize) {
        for i in 0..burst {
            s.prefetch_far(self.at.wrapping_add(i * LINE));
        }
        self.at = self.at.wrapping_add(burst * LINE);
        self.left -= 1;
        if self.left == 0 {
            self.at = self.at.wrapping_add(self.gap);
            self.left = self.row;
        }
    }
}

impl Prefetch for BlockPrefetch {
    /// Prefetches a whole burst, so that a loop over the iterations that follow has nothing else to do.
    #[inline(always)]
    fn start<S: Simd>(&mut self, s: S, max: usize) -> usize {
        if self.wait == 0 {
            self.wait = self.pace;
            self.prefetch_lines(s, self.burst);
        }
        let iterations = max.min(self.wait);
        self.wait -= iterations;
        iterations
    }

    #[inline(always)]
    fn step<S: Simd>(&mut self, _: S) {}
}

/// The lines of a block of the output, in which sums will be stored.
#[derive(Clone, Copy)]
pub(crate) struct OutputPrefetch {
    lines: BlockPrefetch,
    count: usize,
}

impl OutputPrefetch {
    /// Prefetches nothing.
    pub(crate) const NONE: OutputPrefetch = OutputPrefetch { lines: BlockPrefetch::NONE, count: 0 };

    #[inline(always)]
    pub(super) fn of(to: &AnyMatMut<'_>, rows: Range<usize>, cols: Range<usize>) -> OutputPrefetch {
        any!(AnyMatMut, to, to => {
            let at = to.as_ptr().wrapping_add(rows.start.wrapping_mul(to.row_stride()) + cols.start);
            let lines = BlockPrefetch::rows(at, to.row_stride(), cols.len(), 1);
            OutputPrefetch { lines, count: rows.len() * lines.row }
        })
    }

    /// Lines for each of `steps` steps.
    #[inline(always)]
    pub(super) fn lines_per_step(&self, steps: usize) -> usize {
        self.count.div_ceil(steps.max(1))
    }

    /// Prefetches the next `lines` lines.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&mut self, s: S, lines: usize) {
        for _ in 0..lines {
            self.lines.prefetch_lines(s, 1);
        }
    }
}

/// The same columns of several rows, interleaved: while the loop works on the values of one cache line, that line of each
/// row.
#[derive(Clone, Copy)]
pub(super) struct InterleavedRows {
    /// The current line of the first row.
    line: *const u8,
    /// The current line of the row that is next.
    at: *const u8,
    /// Bytes from row to row.
    stride: usize,
    rows: usize,
    /// Iterations that a line has values for.
    pace: usize,
    /// Whether an iteration prefetches lines of two rows. If there are more than twice as many rows as iterations, the
    /// rest are prefetched at the start; if there are fewer rows than iterations, so are rows past the last.
    two: bool,
}

impl InterleavedRows {
    /// `rows` from column `col` on, with `values` columns for each iteration.
    #[inline(always)]
    pub(super) fn of(from: AnyMatRef<'_>, rows: Range<usize>, col: usize, values: usize) -> InterleavedRows {
        any!(AnyMatRef, from, from => InterleavedRows::typed(from, rows, col, values))
    }

    #[inline(always)]
    fn typed<T>(from: MatRef<'_, T>, rows: Range<usize>, col: usize, values: usize) -> InterleavedRows {
        let stride = from.row_stride();
        let line = from.as_ptr().wrapping_add(rows.start.wrapping_mul(stride).wrapping_add(col)).cast();
        let (stride, pace) = (stride.wrapping_mul(size_of::<T>()), LINE / (values * size_of::<T>()));
        InterleavedRows { line, at: line, stride, rows: rows.len(), pace, two: rows.len() > pace }
    }
}

impl Prefetch for InterleavedRows {
    #[inline(always)]
    fn start<S: Simd>(&mut self, s: S, max: usize) -> usize {
        self.at = self.line;
        for row in 2 * self.pace..self.rows {
            s.prefetch_far(self.line.wrapping_add(row.wrapping_mul(self.stride)));
        }
        self.line = self.line.wrapping_add(LINE);
        max.min(self.pace)
    }

    /// At most two lines at a time: prefetching a line of each of eight rows at once waited for the core's line fill
    /// buffers and cost a tenth of a product of 16 rows.
    #[inline(always)]
    fn step<S: Simd>(&mut self, s: S) {
        s.prefetch_far(self.at);
        self.at = self.at.wrapping_add(self.stride);
        if self.two {
            s.prefetch_far(self.at);
            self.at = self.at.wrapping_add(self.stride);
        }
    }
}
