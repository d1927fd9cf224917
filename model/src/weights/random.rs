//! Random numbers: SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014). It is small, and
//! gives the same numbers for the same seed in every version of this crate.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of `seed`.
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// One of many streams of `seed`, by its number.
    pub(crate) fn stream(seed: u64, number: usize) -> Random {
        Random { state: hash(hash(seed).wrapping_add(number as u64)) }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash(self.state)
    }

    /// Uniform in (0, 1].
    pub(crate) fn uniform(&mut self) -> f32 {
        ((self.next() >> 40) + 1) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// Standard normal (Box and Muller), drawn again beyond two standard deviations.
    pub(crate) fn truncated_normal(&mut self) -> f32 {
        loop {
            let radius = (-2.0 * self.uniform().ln()).sqrt();
            let x = radius * (core::f32::consts::TAU * self.uniform()).cos();
            if x.abs() <= 2.0 {
                return x;
            }
        }
    }
}

/// SplitMix64's output function.
fn hash(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
