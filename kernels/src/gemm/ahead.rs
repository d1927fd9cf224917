//! Weights that will be needed next, and lines of the output, asked for while the register tile computes.

use core::ops::Range;

use crate::isa::Simd;
use crate::view::{AnyMatMut, AnyMatRef, MatRef, any};

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// The cache lines of a block of a matrix, asked for at an even pace in the turns of a loop.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// The next line; it need not exist, as past the end of a matrix.
    at: *const u8,
    /// Turns until the next lines, and from lines to lines.
    wait: usize,
    pace: usize,
    /// Lines at a time.
    burst: usize,
    /// Bursts until the end of this row's part, and of a whole row's.
    left: usize,
    row: usize,
    /// Bytes from the end of a row's part to the start of the next one's.
    gap: usize,
}

impl Ahead {
    /// Nothing to bring.
    pub(crate) const NONE: Ahead = Ahead {
        at: core::ptr::null(),
        wait: usize::MAX,
        pace: usize::MAX,
        burst: 0,
        left: 0,
        row: 0,
        gap: 0,
    };

    /// The block of `rows` rows and `cols` columns from `(row, col)` on, to be brought within `turns` turns, `least` lines
    /// at a time or more.
    #[inline(always)]
    pub(super) fn block(
        from: AnyMatRef<'_>,
        (row, col): (usize, usize),
        (rows, cols): (usize, usize),
        turns: usize,
        least: usize,
    ) -> Ahead {
        any!(AnyMatRef, from, from => Ahead::of(from, (row, col), (rows, cols), turns, least))
    }

    /// The `cols` columns from `(row, col)` on, row after row, to be brought `burst` lines at a time by
    /// [`Ahead::bring`].
    #[inline(always)]
    pub(super) fn bursts<T>(
        from: MatRef<'_, T>,
        (row, col): (usize, usize),
        cols: usize,
        burst: usize,
    ) -> Ahead {
        let at = from.as_ptr().wrapping_add(row.wrapping_mul(from.row_stride()).wrapping_add(col));
        Ahead::lines(at, from.row_stride(), cols, burst)
    }

    /// The `cols` elements from `at` on, and of every row, a stride on.
    #[inline(always)]
    fn lines<T>(at: *const T, stride: usize, cols: usize, burst: usize) -> Ahead {
        let row = (cols * size_of::<T>()).div_ceil(LINE).max(1).div_ceil(burst);
        let gap = stride.wrapping_mul(size_of::<T>()).wrapping_sub(row * burst * LINE);
        Ahead { at: at.cast(), wait: 0, pace: 1, burst, left: row, row, gap }
    }

    /// The lines of a block of an output, to be brought one at a time by [`Ahead::bring`], and how many there are.
    #[inline(always)]
    pub(super) fn output(to: &AnyMatMut<'_>, rows: Range<usize>, cols: Range<usize>) -> (Ahead, usize) {
        any!(AnyMatMut, to, to => {
            let at = to.as_ptr().wrapping_add(rows.start.wrapping_mul(to.row_stride()) + cols.start);
            let ahead = Ahead::lines(at, to.row_stride(), cols.len(), 1);
            (ahead, rows.len() * ahead.row)
        })
    }

    #[inline(always)]
    fn of<T>(
        from: MatRef<'_, T>,
        at: (usize, usize),
        (rows, cols): (usize, usize),
        turns: usize,
        least: usize,
    ) -> Ahead {
        let lines = (cols * size_of::<T>()).div_ceil(LINE).max(1);
        let burst = (rows * lines).div_ceil(turns.max(1)).max(least).min(lines);
        let pace = (turns / (rows * lines.div_ceil(burst)).max(1)).max(1);
        Ahead { wait: pace - 1, pace, ..Ahead::bursts(from, at, cols, burst) }
    }

    /// Asks for the lines of one turn, of which there are `burst`: where that is a constant, there is no loop.
    #[inline(always)]
    pub(super) fn bring<S: Simd>(&mut self, s: S, burst: usize) {
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

    /// Asks for the lines of one turn.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&mut self, s: S) {
        self.begin(s, 1);
    }
}

/// What the loop of a register tile asks for by the way.
pub(super) trait Asks: Copy {
    /// Asks for lines, and says after how many turns, of at most `most`, this is to be called again: what is to be counted
    /// is counted here, and not in the loop over the turns.
    fn begin<S: Simd>(&mut self, s: S, most: usize) -> usize;

    /// Asks for the lines of one of these turns.
    fn turn<S: Simd>(&mut self, s: S);
}

impl Asks for Ahead {
    /// All there is to ask for: a loop over these turns has nothing else to do.
    #[inline(always)]
    fn begin<S: Simd>(&mut self, s: S, most: usize) -> usize {
        if self.wait == 0 {
            self.wait = self.pace;
            self.bring(s, self.burst);
        }
        let turns = most.min(self.wait);
        self.wait -= turns;
        turns
    }

    #[inline(always)]
    fn turn<S: Simd>(&mut self, _: S) {}
}

/// Some rows abreast: in the turns for which a line has words, that line of each row.
#[derive(Clone, Copy)]
pub(super) struct Abreast {
    /// This line of the first row, and of the row whose turn it is.
    line: *const u8,
    at: *const u8,
    /// Bytes between rows.
    stride: usize,
    rows: usize,
    /// Turns for a line.
    pace: usize,
    /// Whether a turn asks for the lines of two rows. Of more, if there are as many, the rest are asked for at once; of
    /// fewer than turns, further ones.
    two: bool,
}

impl Abreast {
    /// These rows from column `col` on, by turns of `values` columns.
    #[inline(always)]
    pub(super) fn of(from: AnyMatRef<'_>, rows: Range<usize>, col: usize, values: usize) -> Abreast {
        any!(AnyMatRef, from, from => Abreast::lines(from, rows, col, values))
    }

    #[inline(always)]
    fn lines<T>(from: MatRef<'_, T>, rows: Range<usize>, col: usize, values: usize) -> Abreast {
        let stride = from.row_stride();
        let line = from.as_ptr().wrapping_add(rows.start.wrapping_mul(stride).wrapping_add(col)).cast();
        let (stride, pace) = (stride.wrapping_mul(size_of::<T>()), LINE / (values * size_of::<T>()));
        Abreast { line, at: line, stride, rows: rows.len(), pace, two: rows.len() > pace }
    }
}

impl Asks for Abreast {
    #[inline(always)]
    fn begin<S: Simd>(&mut self, s: S, most: usize) -> usize {
        self.at = self.line;
        for row in 2 * self.pace..self.rows {
            s.prefetch_far(self.line.wrapping_add(row.wrapping_mul(self.stride)));
        }
        self.line = self.line.wrapping_add(LINE);
        most.min(self.pace)
    }

    /// At most two lines at a time: a line of each of eight rows at once waited for the core's buffers of lines that are
    /// under way, and cost a tenth of a product of 16 rows.
    #[inline(always)]
    fn turn<S: Simd>(&mut self, s: S) {
        s.prefetch_far(self.at);
        self.at = self.at.wrapping_add(self.stride);
        if self.two {
            s.prefetch_far(self.at);
            self.at = self.at.wrapping_add(self.stride);
        }
    }
}
