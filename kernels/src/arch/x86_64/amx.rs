//! AMX: the tile unit, which multiplies 16 x 32 by 32 x 16 bfloat16 numbers with one instruction.
//!
//! - `registers`: detection, the operating system's permission, and a thread's tile registers
//! - `tiles`: the products of tiles, two by two
//! - `packing`: operands in the form of tiles
//! - `gemm`: the macro-kernel on tiles; `overlap`: what the rest of the core does meanwhile; `bf16x6`: f32 operands split
//!   into three bf16 terms
//! - `small_m`: few rows in the summation order of tiles, without tiles
//! - `attention`: the two products of attention on tiles

mod attention;
mod bf16x6;
mod gemm;
mod overlap;
mod packing;
mod registers;
mod small_m;
mod tiles;

pub(super) use attention::{AmxProducts, attention_scratch_len};
pub(super) use gemm::{micro_tile, run};
pub(crate) use registers::Amx;
pub(super) use registers::measure_gflops;
pub(super) use small_m::TileOrderSmallM;

/// Rows and columns of the output in two tiles by two.
const TILE_DIM: usize = 32;

/// Values of k in a tile.
const TILE_K: usize = 32;
