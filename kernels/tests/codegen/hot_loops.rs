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
pub const X86_64: [HotLoops<&str>; 84] = [
    hot("Avx2", "Activate", "fma", 18, 6),
    hot("Avx2", "Activate", "fma", 20, 3),
    hot("Avx2", "Activate", "fma", 30, 3),
    hot("Avx2", "Activate", "fma", 36, 3),
    hot("Avx2", "Epilogue", "fma", 18, 12),
    hot("Avx2", "Epilogue", "fma", 20, 6),
    hot("Avx2", "Epilogue", "fma", 30, 6),
    hot("Avx2", "Epilogue", "fma", 36, 6),
    hot("Avx2", "Multiply", "fma", 12, 7),
    hot("Avx2", "Multiply", "fma", 36, 2),
    hot("Avx2", "Multiply", "fma", 48, 2),
    hot("Avx2", "RunHead<RegisterTile>", "fma", 2, 4),
    hot("Avx2", "RunHead<RegisterTile>", "fma", 8, 6),
    hot("Avx2", "RunHead<RegisterTile>", "fma", 18, 1),
    hot("Avx2", "RunHead<RegisterTile>", "fma", 36, 1),
    hot("Avx2", "RunHead<RegisterTile>", "fma", 48, 1),
    hot("Avx2", "SmallM", "fma", 2, 7),
    hot("Avx2", "SmallM", "fma", 4, 14),
    hot("Avx2", "SmallM", "fma", 6, 1),
    hot("Avx2", "SmallM", "fma", 8, 31),
    hot("Avx2", "SmallM", "fma", 32, 1),
    hot("Avx2", "SmallM", "fma", 64, 3),
    hot("Avx2", "SmallM", "fma", 128, 3),
    hot("Avx2", "SmallM", "fma", 256, 1),
    hot("Avx512", "Activate", "fma", 8, 6),
    hot("Avx512", "Activate", "fma", 9, 3),
    hot("Avx512", "Activate", "fma", 14, 3),
    hot("Avx512", "Activate", "fma", 18, 3),
    hot("Avx512", "AmxGemm", "tdpbf16ps", 2, 4),
    hot("Avx512", "AmxGemm", "tdpbf16ps", 4, 2),
    hot("Avx512", "Epilogue", "fma", 8, 12),
    hot("Avx512", "Epilogue", "fma", 9, 6),
    hot("Avx512", "Epilogue", "fma", 14, 6),
    hot("Avx512", "Epilogue", "fma", 18, 6),
    hot("Avx512", "Multiply", "fma", 8, 6),
    hot("Avx512", "Multiply", "fma", 16, 6),
    hot("Avx512", "Multiply", "fma", 24, 7),
    hot("Avx512", "Multiply", "fma", 32, 3),
    hot("Avx512", "Multiply", "fma", 64, 2),
    hot("Avx512", "Multiply", "fma", 96, 2),
    hot("Avx512", "Multiply", "fma", 144, 2),
    hot("Avx512", "Multiply", "vdpbf16ps", 8, 8),
    hot("Avx512", "Multiply", "vdpbf16ps", 16, 10),
    hot("Avx512", "Multiply", "vdpbf16ps", 24, 10),
    hot("Avx512", "Multiply", "vdpbf16ps", 32, 2),
    hot("Avx512", "RunHead<AmxProducts>", "fma", 8, 4),
    hot("Avx512", "RunHead<AmxProducts>", "tdpbf16ps", 2, 4),
    hot("Avx512", "RunHead<AmxProducts>", "tdpbf16ps", 4, 2),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 1, 10),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 2, 2),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 4, 7),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 8, 8),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 16, 1),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 24, 3),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 32, 1),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 64, 1),
    hot("Avx512", "RunHead<RegisterTile>", "fma", 96, 1),
    hot("Avx512", "RunHead<RegisterTile>", "vdpbf16ps", 1, 3),
    hot("Avx512", "RunHead<RegisterTile>", "vdpbf16ps", 4, 3),
    hot("Avx512", "RunHead<RegisterTile>", "vdpbf16ps", 8, 1),
    hot("Avx512", "RunHead<RegisterTile>", "vdpbf16ps", 16, 1),
    hot("Avx512", "RunHead<RegisterTile>", "vdpbf16ps", 24, 2),
    hot("Avx512", "RunHead<RegisterTile>", "vdpbf16ps", 32, 1),
    hot("Avx512", "RunHead<RegisterTile>", "vdpbf16ps", 64, 1),
    hot("Avx512", "SmallM", "fma", 1, 6),
    hot("Avx512", "SmallM", "fma", 2, 13),
    hot("Avx512", "SmallM", "fma", 4, 12),
    hot("Avx512", "SmallM", "fma", 8, 19),
    hot("Avx512", "SmallM", "fma", 16, 13),
    hot("Avx512", "SmallM", "fma", 24, 6),
    hot("Avx512", "SmallM", "fma", 32, 3),
    hot("Avx512", "SmallM", "fma", 64, 3),
    hot("Avx512", "SmallM", "fma", 128, 3),
    hot("Avx512", "SmallM", "fma", 256, 2),
    hot("Avx512", "SmallM", "vdpbf16ps", 1, 3),
    hot("Avx512", "SmallM", "vdpbf16ps", 2, 10),
    hot("Avx512", "SmallM", "vdpbf16ps", 4, 9),
    hot("Avx512", "SmallM", "vdpbf16ps", 8, 16),
    hot("Avx512", "SmallM", "vdpbf16ps", 16, 12),
    hot("Avx512", "SmallM", "vdpbf16ps", 24, 3),
    hot("Avx512", "SmallM", "vdpbf16ps", 32, 3),
    hot("Avx512", "SmallM", "vdpbf16ps", 64, 3),
    hot("Avx512", "SmallM", "vdpbf16ps", 128, 2),
    hot("Avx512", "TileOrderSmallM", "fma", 16, 9),
];

/// Evaluations of the exponential in each kernel on x86-64: level, kernel, count.
#[rustfmt::skip]
pub const X86_64_EXPONENTIALS: [(&str, &str, usize); 5] = [
    ("Avx2", "Activate", 18),
    ("Avx2", "Epilogue", 24),
    ("Avx2", "Map", 1),
    ("Avx512", "Activate", 18),
    ("Avx512", "Epilogue", 24),
];
