//! Few rows times `[K, N]` weights in the order of the tile unit: 32 values of k at a time, even and odd ones apart.
//!
//! Tiles take the values of k in pairs, so rows of such weights must be joined into pairs before, which costs more than
//! a few rows of products. Here lanes run along N as weights lie: they are widened (and rounded, where they are wider
//! than bf16) into memory of the first level, and multiplied by fused multiply-adds. The tile unit takes subnormal
//! numbers as zero, whatever the thread's control register says; multiply-adds do as it says, so it is set for each block,
//! inside of one piece of assembly.

use core::arch::asm;
use core::arch::x86_64::__m512;
use core::ops::Range;

use super::{Cut, STRIP, lines};
use crate::elem::{Elem, bf16, private::Storage};
use crate::gemm::Product;
use crate::gemm::ahead::Ahead;
use crate::gemm::amx::STEP;
use crate::gemm::blocking::steps;
use crate::gemm::epilogue::{Orientation, Sums, finish};
use crate::isa::{KernelAt, LANES, Simd, avx512::Avx512, avx512_bf16::Bf16Pairs};
use crate::mem;
use crate::view::{MatRef, any};

/// The most rows of activations. Eight take as long as on tiles.
pub(in crate::gemm) const MOST_ROWS: usize = 4;

/// Rows of activations and columns whose sums are in registers together, where all rows are there.
pub(in crate::gemm) const TILE: (usize, usize) = (MOST_ROWS, SUMS / MOST_ROWS * LANES);

/// Vectors of sums of even k, and of odd ones.
const SUMS: usize = 8;

/// One thread's share of a product with `[K, N]` weights.
pub(in crate::gemm) struct Blocks<'a, 'b> {
    pub(in crate::gemm) pairs: Bf16Pairs,
    pub(in crate::gemm) product: &'a Product<'b>,
    pub(in crate::gemm) cut: &'a Cut,
    pub(in crate::gemm) index: usize,
    pub(in crate::gemm) scratch: &'a mut [f32],
}

impl KernelAt<Avx512> for Blocks<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let Blocks { pairs, product, cut, index, scratch } = self;
        let (m, depth) = (product.a.rows(), product.a.cols());
        let stride = depth.next_multiple_of(STEP);
        let (x, rest) = scratch.split_at_mut(MOST_ROWS * stride);
        let (block, data) = rest.split_at_mut(STEP * SUMS * LANES);
        any!(AnyMatRef, product.a, a => stage(s, pairs, a, x, stride));
        for (group, column) in product.groups() {
            for n in steps(cut.columns(index, group[0].weights.n()), STRIP) {
                for (part, sums) in group.iter().zip(data.chunks_exact_mut(MOST_ROWS * STRIP)) {
                    sums.fill(0.0);
                    for k in steps(0..depth, STEP) {
                        any!(AnyMatRef, part.weights.matrix, w => {
                            let piece = Piece { pairs, w, k: k.clone(), n: n.clone(), x: &x[k.start..], stride };
                            match m {
                                1 => s.call(PieceOf::<_, 1, 8> { piece, block, sums }),
                                2 => s.call(PieceOf::<_, 2, 4> { piece, block, sums }),
                                _ => s.call(PieceOf::<_, 4, 2> { piece, block, sums }),
                            }
                        });
                    }
                }
                let (orientation, block) = (Orientation::Straight, MOST_ROWS * STRIP);
                let sums = Sums { orientation, m: 0..m, n, stride: STRIP, data, block };
                // SAFETY: `Cut` gives each task its own columns of every part.
                unsafe { finish(s, product, group, column, sums) };
            }
        }
    }
}

/// Both vectors rounded to bf16, as the tile unit's operands are.
#[inline(always)]
fn round(s: Avx512, pairs: Bf16Pairs, values: [__m512; 2]) -> [__m512; 2] {
    <bf16 as Storage>::split(s, pairs.interleave(s, values[0], values[1]))
}

/// The rows of activations, rounded, with zeros behind them and for rows that are not there.
#[inline(always)]
fn stage<A: Elem>(s: Avx512, pairs: Bf16Pairs, a: MatRef<'_, A>, x: &mut [f32], stride: usize) {
    for (i, to) in x.chunks_exact_mut(stride.max(1)).enumerate() {
        let row = if i < a.rows() { a.row(i) } else { &[] };
        for at in (0..stride).step_by(2 * LANES) {
            let places = [at, at + LANES];
            let [first, second] = round(s, pairs, places.map(|at| mem::load(s, row, at.min(row.len()))));
            mem::store(s, to, at, first);
            mem::store(s, to, at + LANES, second);
        }
    }
}

/// Some rows of weights in a strip of columns.
struct Piece<'a, T> {
    pairs: Bf16Pairs,
    w: MatRef<'a, T>,
    k: Range<usize>,
    n: Range<usize>,
    /// The values of k of each row of activations, `stride` apart.
    x: &'a [f32],
    stride: usize,
}

/// Adds a piece times M rows of activations to the sums, 16 x V columns at a time: a function of its own for every M and
/// storage type.
struct PieceOf<'a, T, const M: usize, const V: usize> {
    piece: Piece<'a, T>,
    block: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<T: Elem, const M: usize, const V: usize> KernelAt<Avx512> for PieceOf<'_, T, M, V> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let PieceOf { piece, block, sums } = self;
        let Piece { w, k, n, x, stride, .. } = &piece;
        let next = if k.end < w.rows() { (k.end, n.start) } else { (0, n.end) };
        let mut ahead = Ahead::bursts(*w, next, n.len(), lines::<T>(V));
        for at in n.clone().step_by(V * LANES) {
            if k.len() == STEP && at + V * LANES <= w.cols() {
                piece.widen::<V, true>(s, at, &mut ahead, block);
            } else {
                piece.widen::<V, false>(s, at, &mut ahead, block);
            }
            let sums = &mut sums[at - n.start..];
            assert!(block.len() >= STEP * V * LANES && sums.len() >= (M - 1) * STRIP + V * LANES);
            assert!(x.len() >= (M - 1) * stride + STEP);
            // SAFETY: the assertions above, and the token is the proof of AVX-512 F.
            unsafe { multiply::<M, V>(x.as_ptr(), *stride, block.as_ptr(), sums.as_mut_ptr()) };
        }
    }
}

impl<T: Elem> Piece<'_, T> {
    /// 16 x V columns from `n` on, as f32, with zeros for rows and columns that are not there, and asks for as many of
    /// the next rows.
    #[inline(always)]
    fn widen<const V: usize, const WHOLE: bool>(
        &self,
        s: Avx512,
        n: usize,
        ahead: &mut Ahead,
        to: &mut [f32],
    ) {
        let Piece { pairs, w, ref k, .. } = *self;
        let to = &mut to[..STEP * V * LANES];
        assert!(!WHOLE || (k.len() == STEP && k.end <= w.rows() && n + V * LANES <= w.cols()));
        let mut bring = *ahead;
        for i in (0..STEP).step_by(2) {
            bring.bring(s, lines::<T>(V));
            bring.bring(s, lines::<T>(V));
            for j in 0..V {
                let mut values = [s.splat(0.0); 2];
                for (r, value) in values.iter_mut().enumerate() {
                    let (k, n) = (k.start + i + r, n + j * LANES);
                    if WHOLE {
                        // SAFETY: as asserted, so many rows and columns are there.
                        *value = unsafe { T::load(s, w.as_ptr().wrapping_add(k * w.row_stride() + n)) };
                    } else if k < w.rows() {
                        *value = mem::load(s, w.row(k), n.min(w.cols()));
                    }
                }
                if !T::IS_BF16 {
                    values = round(s, pairs, values);
                }
                for (r, value) in values.into_iter().enumerate() {
                    mem::store(s, to, ((i + r) * V + j) * LANES, value);
                }
            }
        }
        *ahead = bring;
    }
}

/// A row of a block of weights times one value of k of each row of activations: the latter into all lanes, then products
/// added to eight vectors.
macro_rules! products {
    ($($load:literal,)* ; $($sum:literal $x:literal $w:literal),*) => {
        concat!(
            $($load, "\n",)*
            $("vfmadd231ps zmm", $sum, ", zmm", $x, ", ", $w, "\n",)*
        )
    };
}

/// Sums of even and odd k together, and added to those of the blocks before.
macro_rules! add {
    ($($even:literal $odd:literal $at:literal),*) => {
        concat!($(
            "vaddps zmm", $even, ", zmm", $even, ", zmm", $odd, "\n",
            "vaddps zmm", $even, ", zmm", $even, ", zmmword ptr [{sums} + ", $at, "]\n",
            "vmovups zmmword ptr [{sums} + ", $at, "], zmm", $even, "\n",
        )*)
    };
}

/// A loop over 16 pairs of k, each of `$bytes` bytes of weights, from zero, with subnormal numbers as zero.
macro_rules! block {
    ($even:expr, $odd:expr, $bytes:literal, $add:expr, $x:expr, $stride:expr, $w:expr, $sums:expr) => {{
        const { assert!(STRIP * size_of::<f32>() == 4096 && STEP == 32) };
        // The thread's control register, to be kept, and the default with FTZ and DAZ.
        let mut control = [0u32, 0x1f80 | 1 << 15 | 1 << 6];
        asm!(
            "stmxcsr dword ptr [{control}]",
            "ldmxcsr dword ptr [{control} + 4]",
            "vpxor xmm0, xmm0, xmm0", "vpxor xmm1, xmm1, xmm1", "vpxor xmm2, xmm2, xmm2",
            "vpxor xmm3, xmm3, xmm3", "vpxor xmm4, xmm4, xmm4", "vpxor xmm5, xmm5, xmm5",
            "vpxor xmm6, xmm6, xmm6", "vpxor xmm7, xmm7, xmm7", "vpxor xmm8, xmm8, xmm8",
            "vpxor xmm9, xmm9, xmm9", "vpxor xmm10, xmm10, xmm10", "vpxor xmm11, xmm11, xmm11",
            "vpxor xmm12, xmm12, xmm12", "vpxor xmm13, xmm13, xmm13", "vpxor xmm14, xmm14, xmm14",
            "vpxor xmm15, xmm15, xmm15",
            "mov {pairs:e}, 16",
            // Not every form uses these.
            "/* {stride} {third} */",
            "2:",
            $even,
            $odd,
            "add {x}, 8",
            concat!("add {w}, ", $bytes),
            "dec {pairs:e}",
            "jnz 2b",
            $add,
            "ldmxcsr dword ptr [{control}]",
            control = in(reg) control.as_mut_ptr(),
            pairs = out(reg) _,
            x = inout(reg) $x => _,
            stride = in(reg) $stride * size_of::<f32>(),
            third = in(reg) 3 * $stride * size_of::<f32>(),
            w = inout(reg) $w => _,
            sums = in(reg) $sums,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _,
            out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
            options(nostack),
        );
    }};
}

/// `sums[r][j] += even + odd`, the sums over the even and the odd k of a block of `x[r][k] * w[k][j]`, for 16 x V columns
/// and M of 1, 2 and 4 rows, of which M x V is eight. Rows of sums are [`STRIP`] apart, those of `x` a stride.
///
/// # Safety
/// All must be there; the processor has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn multiply<const M: usize, const V: usize>(
    x: *const f32,
    stride: usize,
    w: *const f32,
    sums: *mut f32,
) {
    const { assert!(M * V == SUMS && M <= MOST_ROWS) };
    // SAFETY: the caller's contract; the control register is as before in the end.
    unsafe {
        match M {
            1 => block!(
                products!("vbroadcastss zmm16, dword ptr [{x}]", ;
                    0 16 "[{w}]", 1 16 "[{w} + 64]", 2 16 "[{w} + 128]", 3 16 "[{w} + 192]",
                    4 16 "[{w} + 256]", 5 16 "[{w} + 320]", 6 16 "[{w} + 384]", 7 16 "[{w} + 448]"),
                products!("vbroadcastss zmm17, dword ptr [{x} + 4]", ;
                    8 17 "[{w} + 512]", 9 17 "[{w} + 576]", 10 17 "[{w} + 640]", 11 17 "[{w} + 704]",
                    12 17 "[{w} + 768]", 13 17 "[{w} + 832]", 14 17 "[{w} + 896]", 15 17 "[{w} + 960]"),
                1024,
                add!(0 8 0, 1 9 64, 2 10 128, 3 11 192, 4 12 256, 5 13 320, 6 14 384, 7 15 448),
                x,
                stride,
                w,
                sums
            ),
            2 => block!(
                products!(
                    "vmovups zmm20, zmmword ptr [{w}]", "vmovups zmm21, zmmword ptr [{w} + 64]",
                    "vmovups zmm22, zmmword ptr [{w} + 128]", "vmovups zmm23, zmmword ptr [{w} + 192]",
                    "vbroadcastss zmm16, dword ptr [{x}]", "vbroadcastss zmm17, dword ptr [{x} + {stride}]", ;
                    0 16 "zmm20", 1 16 "zmm21", 2 16 "zmm22", 3 16 "zmm23",
                    4 17 "zmm20", 5 17 "zmm21", 6 17 "zmm22", 7 17 "zmm23"),
                products!(
                    "vmovups zmm20, zmmword ptr [{w} + 256]", "vmovups zmm21, zmmword ptr [{w} + 320]",
                    "vmovups zmm22, zmmword ptr [{w} + 384]", "vmovups zmm23, zmmword ptr [{w} + 448]",
                    "vbroadcastss zmm16, dword ptr [{x} + 4]", "vbroadcastss zmm17, dword ptr [{x} + {stride} + 4]", ;
                    8 16 "zmm20", 9 16 "zmm21", 10 16 "zmm22", 11 16 "zmm23",
                    12 17 "zmm20", 13 17 "zmm21", 14 17 "zmm22", 15 17 "zmm23"),
                512,
                add!(0 8 0, 1 9 64, 2 10 128, 3 11 192, 4 12 4096, 5 13 4160, 6 14 4224, 7 15 4288),
                x,
                stride,
                w,
                sums
            ),
            _ => block!(
                products!(
                    "vmovups zmm20, zmmword ptr [{w}]", "vmovups zmm21, zmmword ptr [{w} + 64]",
                    "vbroadcastss zmm16, dword ptr [{x}]", "vbroadcastss zmm17, dword ptr [{x} + {stride}]",
                    "vbroadcastss zmm18, dword ptr [{x} + 2*{stride}]", "vbroadcastss zmm19, dword ptr [{x} + {third}]", ;
                    0 16 "zmm20", 1 16 "zmm21", 2 17 "zmm20", 3 17 "zmm21",
                    4 18 "zmm20", 5 18 "zmm21", 6 19 "zmm20", 7 19 "zmm21"),
                products!(
                    "vmovups zmm20, zmmword ptr [{w} + 128]", "vmovups zmm21, zmmword ptr [{w} + 192]",
                    "vbroadcastss zmm16, dword ptr [{x} + 4]", "vbroadcastss zmm17, dword ptr [{x} + {stride} + 4]",
                    "vbroadcastss zmm18, dword ptr [{x} + 2*{stride} + 4]",
                    "vbroadcastss zmm19, dword ptr [{x} + {third} + 4]", ;
                    8 16 "zmm20", 9 16 "zmm21", 10 17 "zmm20", 11 17 "zmm21",
                    12 18 "zmm20", 13 18 "zmm21", 14 19 "zmm20", 15 19 "zmm21"),
                256,
                add!(0 8 0, 1 9 64, 2 10 4096, 3 11 4160, 4 12 8192, 5 13 8256, 6 14 12288, 7 15 12352),
                x,
                stride,
                w,
                sums
            ),
        }
    }
}
