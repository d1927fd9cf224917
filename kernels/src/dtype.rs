//! The float types that matrices are stored in and models compute in.

use core::fmt;
use core::str::FromStr;

use crate::error::{Error, Result};

/// A float type, of stored elements or of a model's computation. Its name is the one that Keras, PyTorch and `safetensors`
/// users write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dtype {
    /// IEEE 754 binary32.
    #[default]
    Float32,
    /// The upper half of a float32: 8 bits of precision.
    Bfloat16,
    /// IEEE 754 binary16: 11 bits of precision, finite up to 65504.
    Float16,
}

impl Dtype {
    /// Every float type.
    pub const ALL: [Dtype; 3] = [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16];

    /// Its name: `float32`, `bfloat16` or `float16`.
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
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Dtype> {
        let named = Dtype::ALL.into_iter().find(|dtype| dtype.name() == name);
        named.ok_or_else(|| Error::UnknownName {
            what: "dtype",
            name: name.to_owned(),
            expected: "float32, bfloat16, float16",
        })
    }
}
