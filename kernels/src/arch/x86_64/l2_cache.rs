//! The second-level cache, as the processor describes it.

use core::arch::x86_64::{__cpuid, __cpuid_count};

/// Bytes of the second-level cache of one core, by the deterministic cache parameters: leaf 4 of Intel's processors, leaf
/// 0x8000001d of AMD's.
pub(crate) fn l2_cache_bytes() -> Option<usize> {
    let has_leaf = |leaf: u32| __cpuid(leaf & 0x8000_0000).eax >= leaf;
    let l2_bytes = |leaf: u32| {
        (0..8).map(|index| __cpuid_count(leaf, index)).take_while(|cache| cache.eax & 31 != 0).find_map(
            |cache| {
                let (kind, level) = (cache.eax & 31, cache.eax >> 5 & 7);
                let ways = (cache.ebx >> 22) as usize + 1;
                let partitions = (cache.ebx >> 12 & 0x3ff) as usize + 1;
                let line = (cache.ebx & 0xfff) as usize + 1;
                let instructions_only = kind == 2;
                (!instructions_only && level == 2)
                    .then(|| ways * partitions * line * (cache.ecx as usize + 1))
            },
        )
    };
    [4, 0x8000_001d].into_iter().filter(|leaf| has_leaf(*leaf)).find_map(l2_bytes)
}
