//! The float types of stored elements and of a model's computation, by name.

use core::fmt;
use core::str::FromStr;

use crate::ctx::Precision;
use crate::error::Error;
use crate::view::AnyMatRef;

/// The float type of stored elements, or of a model's computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dtype {
    /// IEEE binary32: 4 bytes.
    #[default]
    Float32,
    /// bfloat16: 2 bytes, with the exponent of float32 and 8 bits of precision.
    Bfloat16,
    /// IEEE binary16: 2 bytes, 11 bits of precision.
    Float16,
}

impl Dtype {
    /// Every type.
    pub const ALL: [Dtype; 3] = [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16];

    /// The name: `float32`, `bfloat16` or `float16`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Float32 => "float32",
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Float16 => "float16",
        }
    }

    /// Bytes of an element.
    pub fn size_of(self) -> usize {
        match self {
            Dtype::Float32 => 4,
            Dtype::Bfloat16 | Dtype::Float16 => 2,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Dtype, Error> {
        let found = Dtype::ALL.into_iter().find(|dtype| dtype.name() == name);
        found.ok_or_else(|| Error::UnknownDtype(name.to_owned()))
    }
}

impl From<Dtype> for Precision {
    /// The precision in which a model of this dtype multiplies: bfloat16 rounds operands, the others round nothing.
    fn from(dtype: Dtype) -> Precision {
        match dtype {
            Dtype::Bfloat16 => Precision::Bf16,
            Dtype::Float32 | Dtype::Float16 => Precision::Strict,
        }
    }
}

impl AnyMatRef<'_> {
    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        match self {
            AnyMatRef::F32(_) => Dtype::Float32,
            AnyMatRef::Bf16(_) => Dtype::Bfloat16,
            AnyMatRef::F16(_) => Dtype::Float16,
        }
    }
}
