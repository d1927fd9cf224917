//! Architectures without vector code of their own: [`Level::Scalar`] only.

use crate::arch::Extensions;
use crate::isa::Kernel;
use crate::level::Level;

/// There are no levels beside `Scalar`: a value of this type does not exist.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Native {}

impl Native {
    pub(crate) fn new(_: Level) -> Option<Native> {
        None
    }

    pub(crate) fn level(self) -> Level {
        match self {}
    }

    pub(crate) fn is_preferred(_: Level) -> bool {
        true
    }

    pub(crate) fn dispatch<K: Kernel>(self, _: K) -> K::Output {
        match self {}
    }
}

impl Extensions for Native {}

/// The size of the second-level cache is unknown.
pub(crate) fn l2_cache_bytes() -> Option<usize> {
    None
}
