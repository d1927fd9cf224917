//! Detection of the levels of this processor, and the environment variable that overrides it.

use super::Level;
use crate::arch::Native;
use crate::error::{Error, Result};
use crate::isa::Isa;

/// The environment variable that overrides detection. Unset means [`Level::detect`]; an unknown or unsupported name is an
/// error, never a silent fallback.
pub const ISA_VARIABLE: &str = "RACHIS_ISA";

impl Level {
    /// The best level of this processor.
    pub fn detect() -> Level {
        Isa::detect().level()
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
    /// [`Error::UnknownLevel`] or [`Error::UnsupportedLevel`] when the variable names a level that does not exist or cannot
    /// run here.
    pub fn from_env() -> Result<Level> {
        match std::env::var_os(ISA_VARIABLE) {
            None => Ok(Level::detect()),
            Some(value) => value.to_string_lossy().parse::<Level>()?.require(),
        }
    }

    /// The level itself, if it can run here.
    ///
    /// # Errors
    /// [`Error::UnsupportedLevel`] otherwise.
    pub fn require(self) -> Result<Level> {
        self.tokens().map(Isa::level)
    }

    /// The tokens of the level.
    pub(crate) fn tokens(self) -> Result<Isa> {
        Isa::new(self).ok_or_else(|| {
            let supported: Vec<&str> = Level::supported().map(Level::name).collect();
            Error::UnsupportedLevel { level: self, supported: supported.join(", ") }
        })
    }
}

impl Isa {
    /// The tokens of the best level of this processor: the last one that is supported and preferred. `Scalar` is supported
    /// everywhere.
    pub(crate) fn detect() -> Isa {
        let preferred = Level::ALL.into_iter().rev().filter(|level| Native::is_preferred(*level));
        preferred.filter_map(Isa::new).next().unwrap_or(Isa::SCALAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_is_always_supported_and_detection_is_the_last_supported_level_that_is_preferred() {
        assert!(Level::Scalar.is_supported());
        let fast = |level: &Level| *level != Level::Avx512Bf16 || Native::is_preferred(*level);
        assert_eq!(Level::supported().filter(fast).last(), Some(Level::detect()));
    }

    #[test]
    fn a_level_of_another_architecture_is_refused() {
        let foreign = if cfg!(target_arch = "aarch64") { Level::Avx2 } else { Level::Neon };
        assert!(matches!(foreign.require(), Err(Error::UnsupportedLevel { level, .. }) if level == foreign));
    }
}
