//! Random numbers: SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014). Small, and the
//! same numbers for the same seed in every version of this crate.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The numbers of `seed`.
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The numbers of one of many streams under `seed`.
    pub(crate) fn stream(seed: u64, number: usize) -> Random {
        Random { state: mix(mix(seed).wrapping_add(number as u64)) }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
