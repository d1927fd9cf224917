//! Test data from a seed: the same on every machine, with kinds of numbers that are hard for f32 arithmetic.

use crate::storage::{Storage, power_of_two};

/// SplitMix64 (Steele, Lea and Flood 2014): a counter and a hash of it, which is random enough for test data.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * power_of_two(-53)
    }

    /// A number in `[-1, 1)`.
    pub fn signed(&mut self) -> f64 {
        2.0 * self.unit() - 1.0
    }

    /// A random element of `choices`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The kind of numbers to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Uniform in `[-1, 1)`.
    Uniform,
    /// Pairs `x, -x (1 + tiny)`, whose sums cancel.
    Cancelling,
    /// Within 1 % of 1: the other operand of a product with [`Kind::Cancelling`].
    NearOne,
    /// Either sign, with magnitudes from 2^-50 to 2^50 (f16: 2^-12 to 2^12), so that the product of two is finite.
    WideRange,
    /// Below the type's smallest normal number; may be zero.
    Subnormal,
    /// Zero, of either sign.
    Zero,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] =
        [Kind::Uniform, Kind::Cancelling, Kind::NearOne, Kind::WideRange, Kind::Subnormal, Kind::Zero];
}

/// `len` values of a kind.
pub fn values<T: Storage>(rng: &mut Rng, kind: Kind, len: usize) -> Vec<T> {
    let mut previous = None::<f64>;
    (0..len)
        .map(|_| {
            let x = match kind {
                Kind::Uniform => rng.signed(),
                Kind::Cancelling => match previous.take() {
                    Some(x) => -x * (1.0 + rng.signed() * 1e-5),
                    None => {
                        let x = 1.0 + 7.0 * rng.unit();
                        previous = Some(x);
                        x
                    }
                },
                Kind::NearOne => 1.0 + 0.01 * rng.signed(),
                Kind::WideRange => {
                    let reach = if T::MIN_EXPONENT < -100 { 50 } else { 12 };
                    let exponent = rng.below(2 * reach + 1) as i32 - reach as i32;
                    rng.signed() * power_of_two(exponent)
                }
                Kind::Subnormal => rng.signed() * power_of_two(T::MIN_EXPONENT),
                Kind::Zero => rng.pick(&[0.0, -0.0]),
            };
            T::from_f32(x as f32)
        })
        .collect()
}

/// Overwrites about one value in `every` (and at least one, if there is any) with NaN or an infinity.
pub fn inject_specials<T: Storage>(rng: &mut Rng, values: &mut [T], every: usize) {
    const SPECIALS: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for _ in 0..values.len().div_ceil(every.max(1)) {
        let at = rng.below(values.len());
        values[at] = T::from_f32(rng.pick(&SPECIALS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn a_seed_determines_the_data() {
        // The first outputs of SplitMix64 from seed 1234567, as published with the algorithm.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn values_have_the_kind_that_was_chosen() {
        let mut rng = Rng::new(3);
        let subnormal: Vec<f16> = values(&mut rng, Kind::Subnormal, 100);
        assert!(
            subnormal.iter().all(|x| x.to_f64().abs() < 6.2e-5)
                && subnormal.iter().any(|x| x.to_f64() != 0.0)
        );
        let cancelling: Vec<f32> = values(&mut rng, Kind::Cancelling, 1000);
        let sum: f64 = cancelling.iter().map(|x| x.to_f64()).sum();
        assert!(sum.abs() < 1e-4 * cancelling.iter().map(|x| x.abs() as f64).sum::<f64>());
        let mut special = vec![1.0f32; 50];
        inject_specials(&mut rng, &mut special, 10);
        assert!((1..=5).contains(&special.iter().filter(|x| !x.is_finite()).count()));
        inject_specials::<f32>(&mut rng, &mut [], 10);
    }
}
