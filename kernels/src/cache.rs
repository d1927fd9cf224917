//! The processor's second-level cache, which blocks are cut for.

use std::sync::OnceLock;

/// What is assumed where the processor does not say.
const ASSUMED: usize = 1 << 20;

/// Bytes of the second-level cache of one core. Asked of the processor once: the question can take microseconds in a
/// virtual machine.
pub(crate) fn second_level_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| ask().filter(|bytes| (1 << 17..=1 << 26).contains(bytes)).unwrap_or(ASSUMED))
}

/// By the deterministic cache parameters: leaf 4 of Intel, 0x8000001d of AMD.
#[cfg(target_arch = "x86_64")]
fn ask() -> Option<usize> {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    let describes = |leaf: u32| __cpuid(leaf & 0x8000_0000).eax >= leaf;
    let second = |leaf: u32| {
        (0..8).map(|index| __cpuid_count(leaf, index)).take_while(|cache| cache.eax & 31 != 0).find_map(
            |cache| {
                let (kind, level) = (cache.eax & 31, cache.eax >> 5 & 7);
                let ways = (cache.ebx >> 22) as usize + 1;
                let partitions = (cache.ebx >> 12 & 0x3ff) as usize + 1;
                let line = (cache.ebx & 0xfff) as usize + 1;
                (kind != 2 && level == 2).then(|| ways * partitions * line * (cache.ecx as usize + 1))
            },
        )
    };
    [4, 0x8000_001d].into_iter().filter(|leaf| describes(*leaf)).find_map(second)
}

/// Other processors do not say it to programs.
#[cfg(not(target_arch = "x86_64"))]
fn ask() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_a_plausible_one() {
        println!("second-level cache: {} KiB, asked {:?}", second_level_bytes() >> 10, ask());
        assert!(second_level_bytes().is_multiple_of(1 << 10));
    }
}
