//! The three storage types as numbers: exact conversion to f64, and correctly rounded conversion from it.

use half::{bf16, f16};

/// A type that tensors are stored in.
pub trait Storage: Copy + Default + PartialEq + core::fmt::Debug + Send + Sync + 'static {
    /// The name used in messages.
    const NAME: &'static str;
    /// Bits of the significand, the implicit one included.
    const DIGITS: i32;
    /// Exponent of the smallest normal number, `2^MIN_EXPONENT`.
    const MIN_EXPONENT: i32;
    /// The largest finite value.
    const MAX: f64;

    /// The f32 rounded to nearest, ties to even. The implementation is `half`'s, not the one under test.
    fn from_f32(x: f32) -> Self;
    /// The value, exactly.
    fn to_f32(self) -> f32;
    /// The bits, zero-extended.
    fn bits(self) -> u32;
    /// The value with these bits in its low half, or in all 32 for f32.
    fn from_bits(bits: u32) -> Self;

    /// The value, exactly.
    fn to_f64(self) -> f64 {
        f64::from(self.to_f32())
    }

    /// The nearest value of the type as an f64, ties to even; infinite when that is beyond [`Storage::MAX`].
    fn nearest(x: f64) -> f64 {
        if x == 0.0 || !x.is_finite() {
            return x;
        }
        let exponent = exponent(x).max(Self::MIN_EXPONENT);
        let unit = power_of_two(exponent - (Self::DIGITS - 1));
        let rounded = (x / unit).round_ties_even() * unit;
        if rounded.abs() > Self::MAX { f64::INFINITY.copysign(x) } else { rounded }
    }
}

/// `floor(log2 |x|)` of a finite x that is not zero; -1022 for f64 subnormals, which no storage type reaches.
pub(crate) fn exponent(x: f64) -> i32 {
    let biased = (x.to_bits() >> 52) & 0x7ff;
    i32::try_from(biased).unwrap_or(0).max(1) - 1023
}

/// `2^n` for `-1022 <= n <= 1023`.
pub(crate) fn power_of_two(n: i32) -> f64 {
    assert!((-1022..=1023).contains(&n));
    f64::from_bits(u64::try_from(n + 1023).unwrap_or(0) << 52)
}

impl Storage for f32 {
    const NAME: &'static str = "f32";
    const DIGITS: i32 = 24;
    const MIN_EXPONENT: i32 = -126;
    const MAX: f64 = f32::MAX as f64;

    fn from_f32(x: f32) -> f32 {
        x
    }
    fn to_f32(self) -> f32 {
        self
    }
    fn bits(self) -> u32 {
        self.to_bits()
    }
    fn from_bits(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
}

macro_rules! half_storage {
    ($t:ty, $name:literal, $digits:literal, $min:literal, $max:expr) => {
        impl Storage for $t {
            const NAME: &'static str = $name;
            const DIGITS: i32 = $digits;
            const MIN_EXPONENT: i32 = $min;
            const MAX: f64 = $max;

            fn from_f32(x: f32) -> $t {
                <$t>::from_f32(x)
            }
            fn to_f32(self) -> f32 {
                <$t>::to_f32(self)
            }
            fn bits(self) -> u32 {
                u32::from(self.to_bits())
            }
            fn from_bits(bits: u32) -> $t {
                <$t>::from_bits(bits as u16)
            }
        }
    };
}
half_storage!(bf16, "bf16", 8, -126, 255.0 / 128.0 * (1u128 << 127) as f64);
half_storage!(f16, "f16", 11, -14, 65504.0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    #[test]
    fn rounding_agrees_with_the_hardware_and_with_half() {
        let mut rng = Rng::new(1);
        for _ in 0..200_000 {
            let x = f32::from_bits(rng.next_u64() as u32);
            if x.is_finite() {
                assert_eq!(bf16::nearest(f64::from(x)), <bf16 as Storage>::from_f32(x).to_f64(), "{x:e}");
                assert_eq!(f16::nearest(f64::from(x)), <f16 as Storage>::from_f32(x).to_f64(), "{x:e}");
                let x = f64::from(x) * (1.0 + rng.signed() * 1e-7);
                assert_eq!(f32::nearest(x), f64::from(x as f32), "{x:e}");
            }
        }
    }

    #[test]
    fn edges_round_as_ieee_says() {
        assert_eq!(f16::nearest(65519.999), 65504.0);
        assert_eq!(f16::nearest(65520.0), f64::INFINITY);
        assert_eq!(f16::nearest(power_of_two(-25)), 0.0);
        assert_eq!(f16::nearest(power_of_two(-25) * 1.001), power_of_two(-24));
        assert_eq!(bf16::nearest(-<bf16 as Storage>::MAX), -<bf16 as Storage>::MAX);
        assert_eq!(<bf16 as Storage>::MAX, bf16::MAX.to_f64());
        assert_eq!(f32::nearest(1e39), f64::INFINITY);
        assert!(f32::nearest(f64::NAN).is_nan());
    }
}
