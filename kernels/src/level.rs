//! Instruction-set levels: names, detection, and the strict override.

use core::fmt;
use core::str::FromStr;

use crate::error::{Error, Result};
use crate::isa::Isa;

/// The environment variable that overrides detection. Unset means [`Level::detect`]; an unknown or
/// unsupported name is an error, never a silent fallback.
pub const ISA_VARIABLE: &str = "RACHIS_ISA";

/// One instruction set that the kernels are compiled for.
///
/// Levels are ordered from the most portable to the most specific; [`Level::detect`] picks the last one
/// that the processor supports and is fast at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust, whatever the compiler makes of it. Multiplies and adds round separately.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, CD, DQ and VL.
    Avx512,
    /// [`Level::Avx512`] and, for bfloat16 products, AVX512-BF16. Detected on AMD's processors only: where
    /// Intel's have it, widening to f32 is faster.
    Avx512Bf16,
    /// [`Level::Avx512`] and, for bfloat16 products, the AMX tile unit (AMX-TILE and AMX-BF16), where the
    /// operating system grants the tile state.
    Amx,
    /// AArch64 Advanced SIMD.
    Neon,
}

impl Level {
    /// Every level that this crate knows, on any processor.
    pub const ALL: [Level; 6] =
        [Level::Scalar, Level::Avx2, Level::Avx512, Level::Avx512Bf16, Level::Amx, Level::Neon];

    /// The best level of this processor.
    pub fn detect() -> Level {
        Level::supported().filter(|level| level.pays()).last().unwrap_or(Level::Scalar)
    }

    /// Whether the level, where it is supported, is faster than those before it.
    fn pays(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => crate::isa::avx512_bf16::Bf16Pairs::pays(),
            _ => true,
        }
    }

    /// The levels that this processor can run, in ascending order.
    pub fn supported() -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|level| level.is_supported())
    }

    /// Whether this processor (and, for AMX, the operating system) can run the level.
    pub fn is_supported(self) -> bool {
        Isa::new(self).is_some()
    }

    /// The level named by [`ISA_VARIABLE`], or the detected one when the variable is unset.
    ///
    /// # Errors
    /// [`Error::UnknownLevel`] or [`Error::UnsupportedLevel`] when the variable names a level that does not
    /// exist or cannot run here.
    pub fn from_env() -> Result<Level> {
        match std::env::var_os(ISA_VARIABLE) {
            None => Ok(Level::detect()),
            Some(value) => value.to_string_lossy().parse::<Level>()?.require(),
        }
    }

    /// The level itself when it can run here.
    ///
    /// # Errors
    /// [`Error::UnsupportedLevel`] otherwise.
    pub fn require(self) -> Result<Level> {
        if self.is_supported() {
            return Ok(self);
        }
        let supported: Vec<&str> = Level::supported().map(Level::name).collect();
        Err(Error::UnsupportedLevel { level: self, supported: supported.join(", ") })
    }

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

    #[test]
    fn scalar_is_always_supported_and_detection_is_the_last_supported_level_that_pays() {
        assert!(Level::Scalar.is_supported());
        let best = Level::supported().filter(|level| *level != Level::Avx512Bf16 || level.pays()).last();
        assert_eq!(best, Some(Level::detect()));
    }

    #[test]
    fn a_level_of_another_architecture_is_refused() {
        let foreign = if cfg!(target_arch = "aarch64") { Level::Avx2 } else { Level::Neon };
        assert!(matches!(foreign.require(), Err(Error::UnsupportedLevel { level, .. }) if level == foreign));
    }
}
