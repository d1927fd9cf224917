//! The size of the second-level cache, for which blocks are cut.

use std::sync::OnceLock;

use crate::arch;

/// The size that is assumed where the processor does not say.
const ASSUMED_BYTES: usize = 1 << 20;

/// Bytes of the second-level cache of one core. The processor is asked once: in a virtual machine the question can take
/// microseconds.
pub(crate) fn l2_cache_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    let plausible = |bytes: &usize| (1 << 17..=1 << 26).contains(bytes);
    *BYTES.get_or_init(|| arch::l2_cache_bytes().filter(plausible).unwrap_or(ASSUMED_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_a_plausible_one() {
        println!("second-level cache: {} KiB, asked {:?}", l2_cache_bytes() >> 10, arch::l2_cache_bytes());
        assert!(l2_cache_bytes().is_multiple_of(1 << 10));
    }
}
