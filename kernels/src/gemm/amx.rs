//! The tile unit of AMX: [`Engine`] for bfloat16 products.
//!
//! `tdpbf16ps` multiplies a tile of 16 rows x 32 k by a tile of 16 pairs of k x 16 lanes. Rows of X are the first
//! kind as they lie in memory, if they are bf16: weights `[N, K]` are loaded into tiles from where they are. The
//! packed operand is of the second kind. Two by two tiles of sums need one tile load for each product.

use core::arch::asm;
use core::arch::x86_64::__m512;
use core::ops::Range;

use super::ahead::Ahead;
use super::blocking::{Unit, panels};
use super::pack::{Operand, rows_from};
use super::task::{Engine, Strip, Task};
use crate::ctx::Ctx;
use crate::elem::Elem;
use crate::isa::amx::{Amx, Tiles};
use crate::isa::avx512::Avx512;
use crate::isa::{Isa, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatRef, any};

/// The tile unit, configured on this thread.
#[derive(Clone, Copy)]
pub(super) struct TileUnit {
    _proof: Amx,
}

/// Values of k in a tile.
const STEP: usize = 32;

/// Rows of X, and lanes of V, in two tiles.
const SIDE: usize = 32;

/// Bytes of a row of a tile.
const ROW: usize = 64;

pub(super) fn unit(k: usize) -> Unit {
    let pairs = k.next_multiple_of(STEP) / 2;
    Unit { rows: SIDE, lanes: SIDE, packed: pairs, stage: SIDE * pairs, finish: SIDE, slots: 2 }
}

/// Runs a task on the tile unit, which is set up before and released after.
pub(super) fn run<'a, 'b: 'a>(ctx: &Ctx, task: impl FnOnce(TileUnit) -> Task<'a, 'b, TileUnit>) {
    if let Isa::Amx(s, amx) = ctx.isa() {
        let _tiles = Tiles::configure(amx);
        s.vectorize(Entry { s, task: task(TileUnit { _proof: amx }) });
    }
}

struct Entry<'a, 'b> {
    s: Avx512,
    task: Task<'a, 'b, TileUnit>,
}

impl pulp::NullaryFnOnce for Entry<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.task.run_with(self.s);
    }
}

impl Engine<Avx512> for TileUnit {
    const TURN: usize = STEP;

    #[inline(always)]
    fn pack(self, s: Avx512, v: Operand<'_>, lanes: Range<usize>, packed: &mut [f32]) {
        any!(AnyMatRef, v.matrix, from => if v.k_in_rows {
            pack_transposed(s, from, lanes, packed);
        } else {
            pack_direct(s, from, lanes, packed);
        });
    }

    /// Rows that are not bf16 are converted. Of those that are, the last values of k and the last strip, which a
    /// tile would read beyond, are copied with zeros behind them.
    #[inline(always)]
    fn stage(self, s: Avx512, x: Operand<'_>, rows: Range<usize>, stage: &mut [f32]) {
        let depth = any!(AnyMatRef, x.matrix, matrix => matrix.cols());
        let (stride, rest) = (depth.next_multiple_of(STEP) / 2, depth % STEP);
        if !in_place(x, &rows) {
            any!(AnyMatRef, x.matrix, matrix => stage_rows(s, matrix, rows, 0..depth, stage, stride));
        } else if rest > 0 {
            any!(AnyMatRef, x.matrix, matrix => {
                stage_rows(s, matrix, rows, depth - rest..depth, stage, ROW / 4);
            });
        }
    }

    #[inline(always)]
    fn multiply(self, _: Avx512, strip: Strip<'_>, _ahead: Option<&mut Ahead>) {
        let Strip { lanes, depth, packed, stride, .. } = strip;
        let pairs = depth.next_multiple_of(STEP) / 2;
        let rows = Rows::of(strip.x, strip.rows, depth, strip.stage);
        assert!(strip.sums.len() >= (SIDE - 1) * stride + lanes.next_multiple_of(LANES));
        for panel in panels(0..lanes, SIDE) {
            let v = &packed[panel.start * pairs..][..panel.len() * pairs];
            let sums = &mut strip.sums[panel.start..];
            // SAFETY: the unit is configured (`TileUnit`); `Rows` has 32 rows of its blocks of 32 values and `v`
            // as many blocks of pairs for the panel's lanes; `sums` has 32 rows of them by the assertion.
            unsafe {
                if panel.len() > LANES {
                    rows.multiply_wide(v.as_ptr(), sums.as_mut_ptr(), stride);
                } else {
                    rows.multiply_narrow(v.as_ptr(), sums.as_mut_ptr(), stride);
                }
            }
        }
    }
}

/// Whether tiles can be loaded from where these rows of X are.
fn in_place(x: Operand<'_>, rows: &Range<usize>) -> bool {
    matches!(x.matrix, AnyMatRef::Bf16(_)) && rows.len() == SIDE
}

/// 32 rows of X in bf16: whole blocks of k, and perhaps a padded last one elsewhere.
struct Rows {
    first: *const u8,
    /// Bytes between rows.
    stride: usize,
    /// Whole blocks of 32 values of k.
    blocks: usize,
    /// One more block, rows [`ROW`] bytes apart; or null.
    tail: *const u8,
}

impl Rows {
    /// Rows of X that [`Engine::stage`] has seen.
    #[inline(always)]
    fn of(x: Operand<'_>, rows: Range<usize>, depth: usize, stage: &[f32]) -> Rows {
        let staged: *const u8 = stage.as_ptr().cast();
        let none = core::ptr::null();
        match x.matrix {
            AnyMatRef::Bf16(matrix) if in_place(x, &rows) => {
                let block = matrix.block(rows, 0..depth);
                let tail = if depth.is_multiple_of(STEP) { none } else { staged };
                let stride = block.row_stride().wrapping_mul(2);
                Rows { first: block.as_ptr().cast(), stride, blocks: depth / STEP, tail }
            }
            _ => {
                let blocks = depth.div_ceil(STEP);
                assert!(stage.len() >= SIDE * blocks * STEP / 2);
                Rows { first: staged, stride: blocks * ROW, blocks, tail: none }
            }
        }
    }

    /// The sums of the rows and 32 lanes.
    ///
    /// # Safety
    /// The tile unit is configured; `v` has the pairs of every block for 32 lanes; `sums` has 32 rows of 32
    /// elements, `stride` elements apart.
    #[inline(always)]
    unsafe fn multiply_wide(&self, v: *const f32, sums: *mut f32, stride: usize) {
        // SAFETY: the caller's contract; the blocks and the tail are readable by construction. The tile registers
        // are nobody else's: compiled code does not use them, and they are not kept across calls.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "test {blocks}, {blocks}",
                "jz 3f",
                "2:",
                "tileloadd tmm4, [{a0} + {sa}]",
                "tileloadd tmm6, [{v} + {row}]",
                "tileloadd tmm7, [{v} + {row} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a1} + {sa}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, 64",
                "add {a1}, 64",
                "add {v}, 2048",
                "dec {blocks}",
                "jnz 2b",
                "3:",
                "test {tail}, {tail}",
                "jz 4f",
                "tileloadd tmm4, [{tail} + {row}]",
                "tileloadd tmm5, [{tail} + {row} + 1024]",
                "tileloadd tmm6, [{v} + {row}]",
                "tileloadd tmm7, [{v} + {row} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "4:",
                "tilestored [{c0} + {sc}], tmm0",
                "tilestored [{c0} + {sc} + 64], tmm1",
                "tilestored [{c1} + {sc}], tmm2",
                "tilestored [{c1} + {sc} + 64], tmm3",
                a0 = inout(reg) self.first => _,
                a1 = inout(reg) self.first.wrapping_add(16 * self.stride) => _,
                sa = in(reg) self.stride,
                v = inout(reg) v => _,
                row = in(reg) ROW,
                blocks = inout(reg) self.blocks => _,
                tail = in(reg) self.tail,
                c0 = in(reg) sums,
                c1 = in(reg) sums.wrapping_add(16 * stride),
                sc = in(reg) stride * 4,
                options(nostack),
            );
        }
    }

    /// The sums of the rows and 16 lanes.
    ///
    /// # Safety
    /// As [`Rows::multiply_wide`], for 16 lanes.
    #[inline(always)]
    unsafe fn multiply_narrow(&self, v: *const f32, sums: *mut f32, stride: usize) {
        // SAFETY: as in `multiply_wide`.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm2",
                "test {blocks}, {blocks}",
                "jz 3f",
                "2:",
                "tileloadd tmm6, [{v} + {row}]",
                "tileloadd tmm4, [{a0} + {sa}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {sa}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "add {a0}, 64",
                "add {a1}, 64",
                "add {v}, 1024",
                "dec {blocks}",
                "jnz 2b",
                "3:",
                "test {tail}, {tail}",
                "jz 4f",
                "tileloadd tmm4, [{tail} + {row}]",
                "tileloadd tmm5, [{tail} + {row} + 1024]",
                "tileloadd tmm6, [{v} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "4:",
                "tilestored [{c0} + {sc}], tmm0",
                "tilestored [{c1} + {sc}], tmm2",
                a0 = inout(reg) self.first => _,
                a1 = inout(reg) self.first.wrapping_add(16 * self.stride) => _,
                sa = in(reg) self.stride,
                v = inout(reg) v => _,
                row = in(reg) ROW,
                blocks = inout(reg) self.blocks => _,
                tail = in(reg) self.tail,
                c0 = in(reg) sums,
                c1 = in(reg) sums.wrapping_add(16 * stride),
                sc = in(reg) stride * 4,
                options(nostack),
            );
        }
    }
}

/// Copies the columns `k` of `rows` into `stage` as bf16, a row every `stride` elements of f32. Columns up to the
/// next multiple of 32 become zero, and rows up to 32.
#[inline(always)]
fn stage_rows<T: Elem>(
    s: Avx512,
    from: MatRef<'_, T>,
    rows: Range<usize>,
    k: Range<usize>,
    stage: &mut [f32],
    stride: usize,
) {
    let used = k.len().next_multiple_of(STEP) / 2;
    for (i, to) in stage.chunks_exact_mut(stride.max(1)).enumerate().take(SIDE) {
        let row = if i < rows.len() { &from.row(rows.start + i)[k.clone()] } else { &[] };
        for (at, to) in to[..used].as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            mem::store(s, to, 0, load_row(s, row, at * STEP));
        }
    }
}

/// Packs lanes of a matrix `[lanes, K]`: panels of up to 32 lanes, in them blocks of 32 values of k, in them
/// groups of 16 lanes, in them a row of 16 lanes for each pair of values.
#[inline(always)]
fn pack_transposed<T: Elem>(s: Avx512, from: MatRef<'_, T>, lanes: Range<usize>, packed: &mut [f32]) {
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
                    *v = load_row(s, row, k.min(row.len()));
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
fn pack_direct<T: Elem>(s: Avx512, from: MatRef<'_, T>, lanes: Range<usize>, packed: &mut [f32]) {
    let depth = from.rows();
    let pairs = depth.next_multiple_of(STEP) / 2;
    let row = |k: usize| if k < depth { from.row(k) } else { &[] };
    for pair in 0..pairs {
        let (even, odd) = (row(2 * pair), row(2 * pair + 1));
        for panel in panels(lanes.clone(), SIDE) {
            let (start, width) = ((panel.start - lanes.start) * pairs, panel.len());
            for (group, at) in panel.step_by(LANES).enumerate() {
                let to = start + pair / LANES * LANES * width + (group * LANES + pair % LANES) * LANES;
                let (even, odd) =
                    (mem::load(s, even, at.min(even.len())), mem::load(s, odd, at.min(odd.len())));
                // SAFETY: Avx512 is the proof of AVX-512 BW, and AMX-BF16 comes with AVX512-BF16.
                let v = unsafe { interleave(even, odd) };
                mem::store(s, packed, to, v);
            }
        }
    }
}

/// 32 elements of a row as bf16, zeros past its end.
#[inline(always)]
fn load_row<T: Elem>(s: Avx512, row: &[T], at: usize) -> __m512 {
    let (first, second) = (at.min(row.len()), (at + LANES).min(row.len()));
    // SAFETY: Avx512 is the proof of AVX-512 F, and AMX-BF16 comes with AVX512-BF16.
    unsafe { join(mem::load(s, row, first), mem::load(s, row, second)) }
}

/// Both vectors rounded to bf16, one after the other. Subnormal numbers become zero, as in the tile unit.
///
/// # Safety
/// The processor has AVX-512 F and AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn join(first: __m512, second: __m512) -> __m512 {
    let joined;
    // SAFETY: one instruction on registers, which the caller's processor has.
    unsafe {
        asm!(
            "vcvtne2ps2bf16 {0}, {1}, {2}",
            lateout(zmm_reg) joined,
            in(zmm_reg) second,
            in(zmm_reg) first,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    joined
}

/// Both vectors rounded to bf16 as [`join`] does, in turns: pairs of elements with the same index.
///
/// # Safety
/// As [`join`], and AVX-512 BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn interleave(even: __m512, odd: __m512) -> __m512 {
    use core::arch::x86_64::{
        _mm512_castps_si512, _mm512_castsi512_ps, _mm512_loadu_si512, _mm512_permutexvar_epi16,
    };
    static ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 16 {
            order[2 * i] = i as u16;
            order[2 * i + 1] = 16 + i as u16;
            i += 1;
        }
        order
    };
    // SAFETY: the caller's contract; the array has 64 bytes.
    unsafe {
        let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
        _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, _mm512_castps_si512(join(even, odd))))
    }
}
