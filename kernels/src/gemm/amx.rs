//! The tile unit of AMX: [`Engine`] for bfloat16 products.
//!
//! `tdpbf16ps` multiplies a tile of 16 rows x 32 k by a tile of 16 pairs of k x 16 lanes. Rows of X are the first
//! kind as they lie in memory, if they are bf16: weights `[N, K]` are loaded into tiles from where they are. The
//! packed operand is of the second kind. Two by two tiles of sums need one tile load for each product.

use core::arch::asm;
use core::ops::Range;

use super::ahead::Ahead;
use super::blocking::{Unit, panels};
use super::pack::{Operand, rows_from};
use super::task::{Engine, Strip, Task};
use super::word::Word;
use crate::ctx::Ctx;
use crate::elem::Elem;
use crate::isa::amx::{Amx, TileRegisters};
use crate::isa::avx512::Avx512;
use crate::isa::avx512_bf16::Bf16Pairs;
use crate::isa::{Isa, KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatRef, any};

/// The tile unit, configured on this thread.
#[derive(Clone, Copy)]
pub(super) struct TileUnit {
    proof: Amx,
}

/// Values of k in a tile.
const STEP: usize = 32;

/// Rows of X, and lanes of V, in two tiles.
const SIDE: usize = 32;

/// Lanes from which on it pays to copy rows that straddle cache lines rather than load them straddling again and
/// again.
const ALIGN_FROM: usize = 256;

/// Lanes that are finished at a time.
const FINISH: usize = 4 * SIDE;

/// Bytes of a row of a tile.
const ROW: usize = 64;

pub(super) fn unit(k: usize) -> Unit {
    let pairs = k.next_multiple_of(STEP) / 2;
    Unit { rows: SIDE, lanes: SIDE, depth: k, packed: pairs, stage: SIDE * pairs, finish: FINISH }
}

/// Runs a task on the tile unit, which is set up before and released after.
pub(super) fn run<'a, 'b: 'a>(ctx: &Ctx, task: impl FnOnce(TileUnit) -> Task<'a, 'b, TileUnit>) {
    if let Isa::Amx(s, amx) = ctx.isa() {
        let _registers = TileRegisters::configure(amx);
        s.run(task(TileUnit { proof: amx }));
    }
}

impl KernelAt<Avx512> for Task<'_, '_, TileUnit> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl Engine<Avx512> for TileUnit {
    const TURN: usize = STEP;
    const PACKS: bool = false;

    #[inline(always)]
    fn pack(self, s: Avx512, v: Operand<'_>, lanes: Range<usize>, packed: &mut [f32]) {
        any!(AnyMatRef, v.matrix, from => if v.k_in_rows {
            pack_transposed(s, self.proof.pairs(), from, lanes, packed);
        } else {
            pack_direct(s, self.proof.pairs(), from, lanes, packed);
        });
    }

    /// Rows that are not bf16 are converted, and rows that straddle cache lines are copied if many lanes follow.
    /// Of others the last values of k and the last strip, which a tile would read beyond, are copied with zeros
    /// behind them.
    #[inline(always)]
    fn stage(self, s: Avx512, x: Operand<'_>, rows: Range<usize>, lanes: usize, stage: &mut [f32]) {
        any!(AnyMatRef, x.matrix, matrix => {
            let start = if in_place(x, &rows, lanes) { matrix.cols() / STEP * STEP } else { 0 };
            stage_rows(s, self.proof.pairs(), matrix, rows, start..matrix.cols(), stage);
        });
    }

    #[inline(always)]
    fn multiply(self, _: Avx512, strip: Strip<'_>, _ahead: Option<&mut Ahead>) {
        let Strip { x, rows, k, lanes, of, packed, stage, sums, stride, .. } = strip;
        let depth = k.len();
        let pairs = depth.next_multiple_of(STEP) / 2;
        let width = lanes.len().next_multiple_of(LANES);
        assert!(stage.len() >= SIDE * pairs && packed.len() >= width * pairs);
        assert!(sums.len() >= (SIDE - 1) * stride + width);
        let staged: *const u8 = stage.as_ptr().cast();
        let none = core::ptr::null();
        let tiles = match x.matrix {
            AnyMatRef::Bf16(matrix) if in_place(x, &rows, of) => {
                let stride = matrix.row_stride().wrapping_mul(2);
                let first: *const u8 = matrix.block(rows, 0..depth).as_ptr().cast();
                let tail = if depth.is_multiple_of(STEP) { none } else { staged };
                Tiles { first, stride, blocks: depth / STEP, step: ROW, pairs: 0, tail, next: none, ahead: 0 }
            }
            _ => {
                let (blocks, step) = (depth.div_ceil(STEP), SIDE * ROW);
                Tiles { first: staged, stride: ROW, blocks, step, pairs: 0, tail: none, next: none, ahead: 0 }
            }
        };
        // The rows after these are asked for a few with every panel, so that all are when these are done.
        let groups = if tiles.step == ROW { (SIDE / 8).div_ceil(of.div_ceil(SIDE)) } else { 0 };
        for panel in panels(0..lanes.len(), SIDE) {
            let first = SIDE + (lanes.start + panel.start) / SIDE * groups * 8;
            let next = tiles.first.wrapping_add(first.wrapping_mul(tiles.stride));
            let ahead = if first < 2 * SIDE { groups } else { 0 };
            let tiles = Tiles { pairs: panel.len() * ROW, next, ahead, ..tiles };
            let (v, sums) = (packed[panel.start * pairs..].as_ptr(), sums[panel.start..].as_mut_ptr());
            // SAFETY: the unit is configured (`TileUnit`). `first` has the blocks of 32 rows in place
            // (`in_place`: the view has them) or, by the first assertion and as `stage_rows` lays them out, in
            // the stage; the tail is the stage's first block. `packed` has as many blocks of pairs for the
            // panel's lanes, and `sums` 32 rows of them, by the assertions.
            unsafe { tiles.multiply(v, sums, stride) };
        }
    }
}

/// Whether tiles can be loaded from where these rows of X are, which will meet `lanes` lanes.
#[inline(always)]
fn in_place(x: Operand<'_>, rows: &Range<usize>, lanes: usize) -> bool {
    let AnyMatRef::Bf16(matrix) = x.matrix else { return false };
    let aligned = matrix.as_ptr().align_offset(ROW) == 0 && matrix.row_stride().is_multiple_of(STEP);
    rows.len() == SIDE && (aligned || lanes < ALIGN_FROM)
}

/// 32 rows of X in bf16, as tiles are loaded from them.
#[derive(Clone, Copy)]
#[repr(C)]
struct Tiles {
    first: *const u8,
    /// Bytes between rows.
    stride: usize,
    /// Whole blocks of 32 values of k, and bytes between them.
    blocks: usize,
    step: usize,
    /// Bytes of a block of pairs of V: one tile or two.
    pairs: usize,
    /// One more block elsewhere, rows [`ROW`] bytes apart; or null.
    tail: *const u8,
    /// Rows to ask for, and how many groups of eight.
    next: *const u8,
    ahead: usize,
}

/// The products of one block: the tiles of X at `$upper` and `$lower`, those of V at `v`, of which there are two
/// unless a block of pairs is as long as one.
macro_rules! multiply_block {
    ($upper:literal, $lower:literal) => {
        concat!(
            "tileloadd tmm4, ",
            $upper,
            "
             tileloadd tmm6, [{v} + {line}]
             tileloadd tmm5, ",
            $lower,
            "
             tdpbf16ps tmm0, tmm4, tmm6
             tdpbf16ps tmm2, tmm5, tmm6
             cmp qword ptr [{this} + {pairs}], 1024
             je 8f
             tileloadd tmm7, [{v} + {line} + 1024]
             tdpbf16ps tmm1, tmm4, tmm7
             tdpbf16ps tmm3, tmm5, tmm7
             8:"
        )
    };
}

/// What a loop over blocks does besides multiplying: asks for a line of each of some rows, eight at a time.
macro_rules! ask_ahead {
    () => {
        "mov {groups}, [{this} + {ahead}]
         test {groups}, {groups}
         jz 7f
         mov {row_at}, {next}
         6:
         prefetcht1 [{row_at}]
         prefetcht1 [{row_at} + {sa}]
         prefetcht1 [{row_at} + {sa} * 2]
         prefetcht1 [{row_at} + {sa} * 4]
         add {row_at}, {thrice}
         prefetcht1 [{row_at}]
         prefetcht1 [{row_at} + {sa} * 2]
         prefetcht1 [{row_at} + {sa} * 4]
         prefetcht1 [{row_at} + {thrice}]
         add {row_at}, {thrice}
         lea {row_at}, [{row_at} + {sa} * 2]
         dec {groups}
         jnz 6b
         add {next}, 64
         7:"
    };
}

impl Tiles {
    /// The sums of the rows and 16 or 32 lanes.
    ///
    /// # Safety
    /// The tile unit is configured; the blocks are readable; `v` has the pairs of every block, `pairs` bytes a block;
    /// `sums` has 32 rows of as many elements as there are lanes, `stride` elements apart.
    #[inline(always)]
    unsafe fn multiply(&self, v: *const f32, sums: *mut f32, stride: usize) {
        // SAFETY: the caller's contract. A prefetch may name any address. The tile registers are nobody else's:
        // compiled code does not use them, and by the calling convention they are not kept across calls.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "test {blocks}, {blocks}",
                "jz 3f",
                "2:",
                multiply_block!("[{a0} + {sa}]", "[{a1} + {sa}]"),
                ask_ahead!(),
                "add {a0}, [{this} + {step}]",
                "add {a1}, [{this} + {step}]",
                "add {v}, [{this} + {pairs}]",
                "dec {blocks}",
                "jnz 2b",
                "3:",
                "mov {a0}, [{this} + {tail}]",
                "test {a0}, {a0}",
                "jz 4f",
                multiply_block!("[{a0} + {line}]", "[{a0} + {line} + 1024]"),
                "4:",
                "lea {a1}, [{c} + {sc} * 8]",
                "lea {a1}, [{a1} + {sc} * 8]",
                "tilestored [{c} + {sc}], tmm0",
                "tilestored [{a1} + {sc}], tmm2",
                "cmp qword ptr [{this} + {pairs}], 1024",
                "je 5f",
                "tilestored [{c} + {sc} + 64], tmm1",
                "tilestored [{a1} + {sc} + 64], tmm3",
                "5:",
                a0 = inout(reg) self.first => _,
                a1 = inout(reg) self.first.wrapping_add(self.stride.wrapping_mul(16)) => _,
                sa = in(reg) self.stride,
                v = inout(reg) v => _,
                line = in(reg) ROW,
                blocks = inout(reg) self.blocks => _,
                next = inout(reg) self.next => _,
                row_at = out(reg) _,
                groups = out(reg) _,
                thrice = in(reg) self.stride.wrapping_mul(3),
                this = in(reg) self,
                step = const core::mem::offset_of!(Tiles, step),
                pairs = const core::mem::offset_of!(Tiles, pairs),
                tail = const core::mem::offset_of!(Tiles, tail),
                ahead = const core::mem::offset_of!(Tiles, ahead),
                c = in(reg) sums,
                sc = in(reg) stride * 4,
                options(nostack),
            );
        }
    }
}

/// Copies the columns `k` of `rows` into `stage` as bf16: blocks of 32 columns, in them 32 rows of 64 bytes.
/// What is not there becomes zero.
#[inline(always)]
fn stage_rows<T: Elem>(
    s: Avx512,
    word: Bf16Pairs,
    from: MatRef<'_, T>,
    rows: Range<usize>,
    k: Range<usize>,
    stage: &mut [f32],
) {
    if k.is_empty() {
        return;
    }
    // The strip after this one is asked for as this one is copied.
    let ahead = from.row_stride().wrapping_mul(SIDE);
    for i in 0..SIDE {
        let row = if i < rows.len() { &from.row(rows.start + i)[k.clone()] } else { &[] };
        for at in (0..k.len()).step_by(STEP) {
            s.prefetch_far(row.as_ptr().wrapping_add(at.wrapping_add(ahead)).cast());
            mem::store(s, stage, (at + i) * LANES, word.along_ragged(s, row, at, true));
        }
    }
}

/// Packs lanes of a matrix `[lanes, K]`: panels of up to 32 lanes, in them blocks of 32 values of k, in them
/// groups of 16 lanes, in them a row of 16 lanes for each pair of values.
#[inline(always)]
fn pack_transposed<T: Elem>(
    s: Avx512,
    word: Bf16Pairs,
    from: MatRef<'_, T>,
    lanes: Range<usize>,
    packed: &mut [f32],
) {
    let depth = from.cols();
    let pairs = depth.next_multiple_of(STEP) / 2;
    for panel in panels(lanes.clone(), SIDE) {
        let (start, width) = ((panel.start - lanes.start) * pairs, panel.len());
        for (group, first) in panel.step_by(LANES).enumerate() {
            let rows = rows_from(from, first);
            for k in (0..depth).step_by(STEP) {
                let at = start + k / 2 * width + group * LANES * LANES;
                let mut block = [s.splat(0.0); LANES];
                for (v, row) in block.iter_mut().zip(rows) {
                    *v = word.along_ragged(s, row, k, true);
                }
                for (to, v) in packed[at..].as_chunks_mut::<LANES>().0.iter_mut().zip(s.transpose(block)) {
                    mem::store(s, to, 0, v);
                }
            }
        }
    }
}

/// [`pack_transposed`] of a matrix `[K, lanes]`.
#[inline(always)]
fn pack_direct<T: Elem>(
    s: Avx512,
    word: Bf16Pairs,
    from: MatRef<'_, T>,
    lanes: Range<usize>,
    packed: &mut [f32],
) {
    let depth = from.rows();
    let pairs = depth.next_multiple_of(STEP) / 2;
    for pair in 0..pairs {
        for panel in panels(lanes.clone(), SIDE) {
            let (start, width) = ((panel.start - lanes.start) * pairs, panel.len());
            for (group, at) in panel.step_by(LANES).enumerate() {
                let to = start + pair / LANES * LANES * width + (group * LANES + pair % LANES) * LANES;
                mem::store(s, packed, to, word.across_ragged(s, from, (2 * pair, at), true));
            }
        }
    }
}
