//! AArch64: NEON.

mod neon;

use crate::arch::Extensions;
use crate::isa::{Kernel, Simd};
use crate::level::Level;

use neon::Neon;

/// The levels of this architecture.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Native {
    Neon(Neon),
}

impl Native {
    /// The tokens of `level`, if this processor has its instructions.
    pub(crate) fn new(level: Level) -> Option<Native> {
        match level {
            Level::Neon => Neon::try_new().map(Native::Neon),
            _ => None,
        }
    }

    pub(crate) fn level(self) -> Level {
        let Native::Neon(_) = self;
        Level::Neon
    }

    /// Whether a supported level is faster than the ones before it.
    pub(crate) fn is_preferred(_: Level) -> bool {
        true
    }

    /// Runs `kernel` compiled for this level.
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        let Native::Neon(s) = self;
        s.call(kernel)
    }
}

impl Extensions for Native {}

/// Processors of this architecture do not tell programs the size of their second-level cache.
pub(crate) fn l2_cache_bytes() -> Option<usize> {
    None
}
