//! Few rows times `[K, N]` weights in the summation order of AMX tiles, without tiles: 32 values of k at a time, even and odd
//! k apart.
//!
//! Tiles take the values of k in pairs, so rows of such weights would have to be interleaved first, which costs more than
//! the products of a few rows. Here lanes run along N as the weights lie. Weights are widened (and rounded, where they are
//! wider than bf16) into a buffer in the first-level cache, and multiplied by fused multiply-adds. The tile unit flushes
//! subnormal numbers to zero whatever the thread's control register says; multiply-adds obey it, so it is set for each
//! block, inside one block of assembly.
//!
//! Measured with `kprobe` on AMX when it was written: one to four rows take half the time that they take on tiles, and
//! eight rows as long; a Keras model in bfloat16 decodes at the speed of memory instead of half of it.

use core::arch::asm;
use core::arch::x86_64::__m512;
use core::ops::Range;

use super::TILE_K;
use crate::arch::x86_64::avx512::Avx512;
use crate::arch::x86_64::avx512_bf16::Bf16Pairs;
use crate::elem::{Elem, bf16, private::Stored};
use crate::gemm::SmallMSlice;
use crate::gemm::blocking::steps;
use crate::gemm::epilogue::{Orientation, Sums, epilogue};
use crate::gemm::prefetch::BlockPrefetch;
use crate::gemm::small_m::{NC, TILE_ORDER_MAX_ROWS as MAX_ROWS, lines};
use crate::isa::{KernelAt, LANES, Simd};
use crate::mem;
use crate::view::{MatRef, any};

/// Vectors of sums of even k in registers, and as many of odd k.
const SUMS: usize = 8;

/// One thread's slice of a product with `[K, N]` weights.
pub(in crate::arch::x86_64) struct TileOrderSmallM<'a, 'b> {
    pub(in crate::arch::x86_64) pairs: Bf16Pairs,
    pub(in crate::arch::x86_64) slice: SmallMSlice<'a, 'b>,
}

impl KernelAt<Avx512> for TileOrderSmallM<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let TileOrderSmallM { pairs, slice: SmallMSlice { product, partition, index, scratch } } = self;
        let (m, depth) = (product.a.rows(), product.a.cols());
        let stride = depth.next_multiple_of(TILE_K);
        let (x, rest) = scratch.split_at_mut(MAX_ROWS * stride);
        let (widened, data) = rest.split_at_mut(TILE_K * SUMS * LANES);
        let part_len = MAX_ROWS * NC;
        any!(AnyMatRef, product.a, a => copy_activations(s, pairs, a, x, stride));
        for (parts, column) in product.fused_parts() {
            for n in steps(partition.columns(index, parts[0].weights.n()), NC) {
                for (part, sums) in parts.iter().zip(data.chunks_exact_mut(part_len)) {
                    sums.fill(0.0);
                    for k in steps(0..depth, TILE_K) {
                        any!(AnyMatRef, part.weights.matrix, w => {
                            let block = KBlock { pairs, w, k: k.clone(), n: n.clone(), x: &x[k.start..], stride };
                            match m {
                                1 => s.call(MultiplyBlock::<_, 1, 8> { block, widened, sums }),
                                2 => s.call(MultiplyBlock::<_, 2, 4> { block, widened, sums }),
                                _ => s.call(MultiplyBlock::<_, 4, 2> { block, widened, sums }),
                            }
                        });
                    }
                }
                let sums =
                    Sums { orientation: Orientation::RowMajor, m: 0..m, n, stride: NC, data, part_len };
                // SAFETY: `ThreadPartition` gives each slice its own columns of every part.
                unsafe { epilogue(s, product, parts, column, sums) };
            }
        }
    }
}

/// Rounds both vectors to bf16, as the tile unit's operands are.
#[inline(always)]
fn round(s: Avx512, pairs: Bf16Pairs, values: [__m512; 2]) -> [__m512; 2] {
    <bf16 as Stored>::split(s, pairs.interleave(s, values[0], values[1]))
}

/// Copies the rows of activations into `x`, rounded. The rest of each row, and rows past the last one, become zero.
#[inline(always)]
fn copy_activations<A: Elem>(s: Avx512, pairs: Bf16Pairs, a: MatRef<'_, A>, x: &mut [f32], stride: usize) {
    for (i, to) in x.chunks_exact_mut(stride.max(1)).enumerate() {
        let row = if i < a.rows() { a.row(i) } else { &[] };
        for at in (0..stride).step_by(2 * LANES) {
            let columns = [at, at + LANES];
            let [first, second] = round(s, pairs, columns.map(|at| mem::load(s, row, at.min(row.len()))));
            mem::store(s, to, at, first);
            mem::store(s, to, at + LANES, second);
        }
    }
}

/// A block of k of NC columns of weights.
struct KBlock<'a, T> {
    pairs: Bf16Pairs,
    w: MatRef<'a, T>,
    k: Range<usize>,
    n: Range<usize>,
    /// The values of k of each row of activations, rows `stride` apart.
    x: &'a [f32],
    stride: usize,
}

/// Adds a block times M rows of activations to the sums, 16 x V columns at a time: a function of its own for every M and
/// storage type.
struct MultiplyBlock<'a, T, const M: usize, const V: usize> {
    block: KBlock<'a, T>,
    widened: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<T: Elem, const M: usize, const V: usize> KernelAt<Avx512> for MultiplyBlock<'_, T, M, V> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        let MultiplyBlock { block, widened, sums } = self;
        let KBlock { w, k, n, x, stride, .. } = &block;
        let next = if k.end < w.rows() { (k.end, n.start) } else { (0, n.end) };
        let mut prefetch = BlockPrefetch::bursts(*w, next, n.len(), lines::<T>(V));
        for at in n.clone().step_by(V * LANES) {
            if k.len() == TILE_K && at + V * LANES <= w.cols() {
                block.widen::<V, true>(s, at, &mut prefetch, widened);
            } else {
                block.widen::<V, false>(s, at, &mut prefetch, widened);
            }
            let sums = &mut sums[at - n.start..];
            assert!(widened.len() >= TILE_K * V * LANES && sums.len() >= (M - 1) * NC + V * LANES);
            assert!(x.len() >= (M - 1) * stride + TILE_K);
            // SAFETY: the assertions above, and the token is the proof of AVX-512 F.
            unsafe { multiply::<M, V>(x.as_ptr(), *stride, widened.as_ptr(), sums.as_mut_ptr()) };
        }
    }
}

impl<T: Elem> KBlock<'_, T> {
    /// Widens 16 x V columns from `n` on to f32, with zeros for rows and columns outside the matrix (none if `WHOLE`), and
    /// prefetches as many columns of the next rows.
    #[inline(always)]
    fn widen<const V: usize, const WHOLE: bool>(
        &self,
        s: Avx512,
        n: usize,
        prefetch: &mut BlockPrefetch,
        to: &mut [f32],
    ) {
        let KBlock { pairs, w, ref k, .. } = *self;
        let to = &mut to[..TILE_K * V * LANES];
        assert!(!WHOLE || (k.len() == TILE_K && k.end <= w.rows() && n + V * LANES <= w.cols()));
        // A local copy stays in registers.
        let mut local = *prefetch;
        for i in (0..TILE_K).step_by(2) {
            local.prefetch_lines(s, lines::<T>(V));
            local.prefetch_lines(s, lines::<T>(V));
            for j in 0..V {
                let mut values = [s.splat(0.0); 2];
                for (r, value) in values.iter_mut().enumerate() {
                    let (k, n) = (k.start + i + r, n + j * LANES);
                    if WHOLE {
                        // SAFETY: as asserted, the matrix has these rows and columns.
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
        *prefetch = local;
    }
}

/// A row of widened weights times one value of k of each row of activations: the value is broadcast, then the products are
/// added to eight vectors.
macro_rules! products {
    ($($load:literal,)* ; $($sum:literal $x:literal $w:literal),*) => {
        concat!(
            $($load, "\n",)*
            $("vfmadd231ps zmm", $sum, ", zmm", $x, ", ", $w, "\n",)*
        )
    };
}

/// Adds the sums of even and of odd k, and the result to the sums of earlier blocks.
macro_rules! add {
    ($($even:literal $odd:literal $at:literal),*) => {
        concat!($(
            "vaddps zmm", $even, ", zmm", $even, ", zmm", $odd, "\n",
            "vaddps zmm", $even, ", zmm", $even, ", zmmword ptr [{sums} + ", $at, "]\n",
            "vmovups zmmword ptr [{sums} + ", $at, "], zmm", $even, "\n",
        )*)
    };
}

/// A loop over 16 pairs of k, each with `$bytes` bytes of weights. Sums start from zero; subnormal numbers count as zero.
macro_rules! block {
    ($even:expr, $odd:expr, $bytes:literal, $add:expr, $x:expr, $stride:expr, $w:expr, $sums:expr) => {{
        const { assert!(NC * size_of::<f32>() == 4096 && TILE_K == 32) };
        // A place to save the thread's control register, and the default value with FTZ and DAZ.
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
            // Not every number of rows uses these operands.
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
/// and M = 1, 2 or 4 rows, where M x V is 8. Rows of sums are [`NC`] elements apart, rows of `x` `stride`.
///
/// # Safety
/// `x` must have 32 values of M rows, `w` 32 rows of 16 x V columns, and `sums` M rows of as many; the processor must have
/// AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn multiply<const M: usize, const V: usize>(
    x: *const f32,
    stride: usize,
    w: *const f32,
    sums: *mut f32,
) {
    const { assert!(M * V == SUMS && M <= MAX_ROWS) };
    // SAFETY: the caller's contract; the control register is restored at the end.
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
