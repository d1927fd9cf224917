//! The element types of tensors in files.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, clip};

/// The type of a tensor's elements, as a file stores them. [`Display`](fmt::Display) and [`FromStr`] use the names of
/// safetensors: `F32`, `BF16`, `I64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TensorDtype {
    /// `F32`: 32-bit float.
    F32,
    /// `BF16`: bfloat16, the upper half of a 32-bit float.
    Bf16,
    /// `F16`: IEEE 754 half precision.
    F16,
    /// `F64`: 64-bit float.
    F64,
    /// `I64`: 64-bit signed integer.
    I64,
    /// `I32`: 32-bit signed integer.
    I32,
    /// `I16`: 16-bit signed integer.
    I16,
    /// `I8`: 8-bit signed integer.
    I8,
    /// `U64`: 64-bit unsigned integer.
    U64,
    /// `U32`: 32-bit unsigned integer.
    U32,
    /// `U16`: 16-bit unsigned integer.
    U16,
    /// `U8`: 8-bit unsigned integer.
    U8,
    /// `BOOL`: one byte, 0 or 1.
    Bool,
    /// `C64`: a complex number of two 32-bit floats.
    C64,
    /// `F8_E5M2`: 8-bit float with 5 exponent bits.
    F8E5M2,
    /// `F8_E4M3`: 8-bit float with 4 exponent bits, without infinities.
    F8E4M3,
    /// `F8_E8M0`: 8-bit power of two, the scale of an MX block.
    F8E8M0,
    /// `F8_E4M3FNUZ`: 8-bit float with 4 exponent bits, without infinities and negative zero.
    F8E4M3Fnuz,
    /// `F8_E5M2FNUZ`: 8-bit float with 5 exponent bits, without infinities and negative zero.
    F8E5M2Fnuz,
    /// `F6_E2M3`: 6-bit float of the MX formats with 2 exponent bits.
    F6E2M3,
    /// `F6_E3M2`: 6-bit float of the MX formats with 3 exponent bits.
    F6E3M2,
    /// `F4`: 4-bit float of the MX formats.
    F4,
}

impl TensorDtype {
    /// Every type.
    pub const ALL: &'static [TensorDtype] = &[
        TensorDtype::F32,
        TensorDtype::Bf16,
        TensorDtype::F16,
        TensorDtype::F64,
        TensorDtype::I64,
        TensorDtype::I32,
        TensorDtype::I16,
        TensorDtype::I8,
        TensorDtype::U64,
        TensorDtype::U32,
        TensorDtype::U16,
        TensorDtype::U8,
        TensorDtype::Bool,
        TensorDtype::C64,
        TensorDtype::F8E5M2,
        TensorDtype::F8E4M3,
        TensorDtype::F8E8M0,
        TensorDtype::F8E4M3Fnuz,
        TensorDtype::F8E5M2Fnuz,
        TensorDtype::F6E2M3,
        TensorDtype::F6E3M2,
        TensorDtype::F4,
    ];

    /// The size of one element in bits.
    pub fn bits(self) -> usize {
        match self {
            TensorDtype::F64 | TensorDtype::I64 | TensorDtype::U64 | TensorDtype::C64 => 64,
            TensorDtype::F32 | TensorDtype::I32 | TensorDtype::U32 => 32,
            TensorDtype::Bf16 | TensorDtype::F16 | TensorDtype::I16 | TensorDtype::U16 => 16,
            TensorDtype::I8 | TensorDtype::U8 | TensorDtype::Bool => 8,
            TensorDtype::F8E5M2 | TensorDtype::F8E4M3 | TensorDtype::F8E8M0 => 8,
            TensorDtype::F8E4M3Fnuz | TensorDtype::F8E5M2Fnuz => 8,
            TensorDtype::F6E2M3 | TensorDtype::F6E3M2 => 6,
            TensorDtype::F4 => 4,
        }
    }

    /// The name in safetensors.
    pub fn name(self) -> &'static str {
        match self {
            TensorDtype::F32 => "F32",
            TensorDtype::Bf16 => "BF16",
            TensorDtype::F16 => "F16",
            TensorDtype::F64 => "F64",
            TensorDtype::I64 => "I64",
            TensorDtype::I32 => "I32",
            TensorDtype::I16 => "I16",
            TensorDtype::I8 => "I8",
            TensorDtype::U64 => "U64",
            TensorDtype::U32 => "U32",
            TensorDtype::U16 => "U16",
            TensorDtype::U8 => "U8",
            TensorDtype::Bool => "BOOL",
            TensorDtype::C64 => "C64",
            TensorDtype::F8E5M2 => "F8_E5M2",
            TensorDtype::F8E4M3 => "F8_E4M3",
            TensorDtype::F8E8M0 => "F8_E8M0",
            TensorDtype::F8E4M3Fnuz => "F8_E4M3FNUZ",
            TensorDtype::F8E5M2Fnuz => "F8_E5M2FNUZ",
            TensorDtype::F6E2M3 => "F6_E2M3",
            TensorDtype::F6E3M2 => "F6_E3M2",
            TensorDtype::F4 => "F4",
        }
    }
}

impl fmt::Display for TensorDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TensorDtype {
    type Err = Error;

    /// Parses a name of safetensors.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    fn from_str(name: &str) -> Result<TensorDtype, Error> {
        let unknown = || Error::UnknownName {
            what: "tensor dtype",
            expected: "a name of safetensors such as F32",
            found: clip(name),
        };
        TensorDtype::ALL.iter().copied().find(|dtype| dtype.name() == name).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_printed() {
        for dtype in TensorDtype::ALL {
            assert_eq!(dtype.to_string().parse::<TensorDtype>().unwrap(), *dtype);
            assert_eq!(TensorDtype::ALL.iter().filter(|other| other.name() == dtype.name()).count(), 1);
        }
        for name in ["", "f32", "F32 ", "float32", "Q4_0"] {
            let error = name.parse::<TensorDtype>().unwrap_err();
            assert!(matches!(error, Error::UnknownName { what: "tensor dtype", .. }), "{error}");
        }
    }
}
