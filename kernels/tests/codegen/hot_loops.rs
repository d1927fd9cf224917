//! The hot loops that the compiler makes of the kernels, as [`Program::assert_hot_loops`] prints them.
//!
//! `Avx512` has the code of the levels above it, too: loops with `vdpbf16ps` run at AVX512-BF16, those with `tdpbf16ps` and
//! the kernels of AMX at AMX. Products are those of one iteration: 96 fused multiply-adds are the 8 x 3 micro-tile unrolled 4
//! times, 24 the same tile while it packs its weights; on AVX2 a vector is two registers, so that the 6 x 1 micro-tile has 12.
//!
//! [`Program::assert_hot_loops`]: crate::program::Program::assert_hot_loops

use crate::program::HotLoops;

/// A row of the table; see [`HotLoops`].
const fn hot(
    level: &'static str,
    kernel: &'static str,
    instruction: &'static str,
    products: usize,
    count: usize,
) -> HotLoops<&'static str> {
    HotLoops { level, kernel, instruction, products, count }
}

/// The hot loops on x86-64.
#[rustfmt::skip]
pub const X86_64: [HotLoops<&str>; 49] = [
    hot("Avx2", "Multiply", "fma", 12, 8),
    hot("Avx2", "Multiply", "fma", 48, 2),
    hot("Avx2", "RotaryRows", "mul", 8, 3),
    hot("Avx2", "RowMajorRows", "fma", 2, 6),
    hot("Avx2", "RowMajorRows", "fma", 4, 6),
    hot("Avx2", "RowMajorRows", "fma", 8, 18),
    hot("Avx2", "RunHead<RegisterTile>", "fma", 48, 1),
    hot("Avx2", "SingleQueryScores", "fma", 32, 3),
    hot("Avx2", "SingleQueryWeightedSum", "fma", 2, 3),
    hot("Avx2", "SingleQueryWeightedSum", "fma", 8, 3),
    hot("Avx2", "TransposedRows", "fma", 32, 1),
    hot("Avx2", "TransposedRows", "fma", 64, 3),
    hot("Avx2", "TransposedRows", "fma", 128, 3),
    hot("Avx2", "TransposedRows", "fma", 256, 2),
    hot("Avx512", "AmxGemm", "tdpbf16ps", 2, 4),
    hot("Avx512", "AmxGemm", "tdpbf16ps", 4, 2),
    hot("Avx512", "MultiplyBlock", "fma", 16, 9),
    hot("Avx512", "Multiply", "fma", 8, 6),
    hot("Avx512", "Multiply", "fma", 16, 6),
    hot("Avx512", "Multiply", "fma", 24, 6),
    hot("Avx512", "Multiply", "fma", 32, 2),
    hot("Avx512", "Multiply", "fma", 64, 2),
    hot("Avx512", "Multiply", "fma", 96, 2),
    hot("Avx512", "Multiply", "vdpbf16ps", 8, 9),
    hot("Avx512", "Multiply", "vdpbf16ps", 16, 9),
    hot("Avx512", "Multiply", "vdpbf16ps", 24, 9),
    hot("Avx512", "Multiply", "vdpbf16ps", 32, 2),
    hot("Avx512", "Multiply", "vdpbf16ps", 64, 2),
    hot("Avx512", "Multiply", "vdpbf16ps", 96, 2),
    hot("Avx512", "RotaryRows", "mul", 4, 3),
    hot("Avx512", "RowMajorRows", "fma", 8, 6),
    hot("Avx512", "RowMajorRows", "fma", 16, 6),
    hot("Avx512", "RowMajorRows", "fma", 24, 3),
    hot("Avx512", "RowMajorRows", "vdpbf16ps", 8, 6),
    hot("Avx512", "RowMajorRows", "vdpbf16ps", 16, 6),
    hot("Avx512", "RowMajorRows", "vdpbf16ps", 24, 3),
    hot("Avx512", "RunHead<AmxProducts>", "tdpbf16ps", 4, 2),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 96, 1),
    hot("Avx512", "RunHead<RegisterTile>", "vdpbf16ps", 96, 1),
    hot("Avx512", "SingleQueryScores", "fma", 16, 3),
    hot("Avx512", "SingleQueryScores", "vdpbf16ps", 16, 3),
    hot("Avx512", "SingleQueryWeightedSum", "fma", 4, 3),
    hot("Avx512", "SingleQueryWeightedSum", "vdpbf16ps", 4, 3),
    hot("Avx512", "TransposedRows", "fma", 16, 1),
    hot("Avx512", "TransposedRows", "fma", 32, 3),
    hot("Avx512", "TransposedRows", "fma", 64, 3),
    hot("Avx512", "TransposedRows", "fma", 128, 3),
    hot("Avx512", "TransposedRows", "fma", 256, 2),
    hot("Avx512", "TransposedRows", "vdpbf16ps", 128, 3),
];

/// Evaluations of the exponential in each kernel on x86-64: level, kernel, count.
#[rustfmt::skip]
pub const X86_64_EXPONENTIALS: [(&str, &str, usize); 2] = [
    ("Avx2", "Activate", 18),
    ("Avx512", "Activate", 18),
];
