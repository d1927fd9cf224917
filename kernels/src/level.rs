//! Instruction-set levels and their names; `detect` has detection and the strict override.

mod detect;

pub use detect::ISA_VARIABLE;

use core::fmt;
use core::str::FromStr;

use crate::error::{Error, Result};

/// An instruction set that the kernels are compiled for.
///
/// Levels are ordered from the most portable to the most specific. [`Level::detect`] picks the last one that the processor
/// supports and is fast at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust, vectorised or not by the compiler. Multiplications and additions round separately.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, CD, DQ and VL.
    Avx512,
    /// [`Level::Avx512`] and, for bfloat16 products, AVX512-BF16. Detected on AMD's processors only: on Intel's, widening
    /// to f32 is faster.
    Avx512Bf16,
    /// [`Level::Avx512`] and, for bfloat16 products, AMX tiles (AMX-TILE and AMX-BF16), where the operating system grants
    /// the tile state.
    Amx,
    /// AArch64 Advanced SIMD.
    Neon,
}

impl Level {
    /// Every level of this crate, on any processor.
    pub const ALL: [Level; 6] =
        [Level::Scalar, Level::Avx2, Level::Avx512, Level::Avx512Bf16, Level::Amx, Level::Neon];

    /// The lower-case name used on command lines and in [`ISA_VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Bf16 => "avx512bf16",
            Level::Amx => "amx",
            Level::Neon => "neon",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(name: &str) -> Result<Level> {
        Level::ALL
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| Error::UnknownLevel(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_names_are_errors() {
        for level in Level::ALL {
            assert_eq!(level.name().parse::<Level>(), Ok(level));
        }
        for bad in ["", "AVX2", "sse", "auto", "avx512 "] {
            assert_eq!(bad.parse::<Level>(), Err(Error::UnknownLevel(bad.to_owned())));
        }
    }
}
