//! Tensors: a name, a type, a shape, and bytes where they lie.
//!
//! A [`Tensor`] is an owned handle that shares its file's [`Region`]: cloning counts references, and a model
//! that keeps its tensors keeps the map alive without borrowing from the preset. Everything that could go
//! wrong is checked once, when it is made, so that [`Tensor::data`] is a cast and cannot fail.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::cast;
use crate::error::{Error, Result, clip};
use crate::map::Region;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// bfloat16: the upper half of a 32-bit float.
    Bf16,
    /// IEEE 754 half precision.
    F16,
    /// 64-bit float.
    F64,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 8-bit signed integer.
    I8,
    /// 64-bit unsigned integer.
    U64,
    /// 32-bit unsigned integer.
    U32,
    /// 16-bit unsigned integer.
    U16,
    /// 8-bit unsigned integer.
    U8,
    /// One byte, 0 or 1.
    Bool,
    /// A type that this crate can only name: floats of 8 bits and fewer, complex numbers.
    Named {
        /// What its file format calls it.
        name: &'static str,
        /// The size of an element.
        bits: usize,
    },
}

/// The elements of a tensor.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Data<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// IEEE 754 half precision.
    F16(&'a [f16]),
    /// Anything else, as little-endian bytes of no particular alignment.
    Other(Dtype, &'a [u8]),
}

/// A named array, row-major and without gaps, whose bytes lie in a file's map or in memory of their own.
#[derive(Debug, Clone)]
pub struct Tensor {
    name: Arc<str>,
    dtype: Dtype,
    shape: Arc<[usize]>,
    region: Arc<Region>,
    range: Range<usize>,
    /// Where the tensor lies in its file, if it came from one.
    offset: Option<usize>,
    copied: bool,
}

impl Tensor {
    /// A tensor of its own 32-bit floats: for random initialisation, tests and converters.
    ///
    /// # Errors
    /// [`Error::DataLength`] or [`Error::ShapeOverflow`] when `data` does not fill `shape`. The same holds for
    /// the other two constructors.
    pub fn from_f32(name: impl Into<Arc<str>>, shape: &[usize], data: Vec<f32>) -> Result<Tensor> {
        Tensor::owned(name.into(), Dtype::F32, shape, data.into())
    }

    /// A tensor of its own bfloat16 numbers.
    ///
    /// # Errors
    /// As for [`Tensor::from_f32`].
    pub fn from_bf16(name: impl Into<Arc<str>>, shape: &[usize], data: Vec<bf16>) -> Result<Tensor> {
        Tensor::owned(name.into(), Dtype::Bf16, shape, data.into())
    }

    /// A tensor of its own half-precision numbers.
    ///
    /// # Errors
    /// As for [`Tensor::from_f32`].
    pub fn from_f16(name: impl Into<Arc<str>>, shape: &[usize], data: Vec<f16>) -> Result<Tensor> {
        Tensor::owned(name.into(), Dtype::F16, shape, data.into())
    }

    /// The name, as in the file; of older Keras files, in the spelling of today.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape; empty for a scalar. A dimension may be 0.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements. Takes constant time and never fails.
    pub fn data(&self) -> Data<'_> {
        let bytes = self.bytes();
        match self.dtype {
            Dtype::F32 => Data::F32(cast::typed(bytes)),
            Dtype::Bf16 => Data::Bf16(cast::typed(bytes)),
            Dtype::F16 => Data::F16(cast::typed(bytes)),
            other => Data::Other(other, bytes),
        }
    }

    /// The elements as little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        self.region.bytes().get(self.range.clone()).unwrap_or_default()
    }

    /// The length of the data in bytes.
    pub fn byte_len(&self) -> usize {
        self.range.len()
    }

    /// Whether the bytes are an aligned copy, as they are misaligned in the file.
    pub fn copied(&self) -> bool {
        self.copied
    }

    /// The file that the tensor comes from, by its name in the preset directory; `None` for one made in memory.
    pub fn file(&self) -> Option<&str> {
        self.offset.map(|_| self.region.name())
    }

    /// Where in [`Tensor::file`] the data begins, in bytes.
    pub fn file_offset(&self) -> Option<usize> {
        self.offset
    }

    /// A tensor over a range of a file, which is copied when its element type asks for an alignment that the
    /// range does not have. The range must lie in the region; its length is checked here.
    pub(crate) fn in_file(
        region: &Arc<Region>,
        name: Arc<str>,
        dtype: Dtype,
        shape: &[usize],
        range: Range<usize>,
    ) -> Result<Tensor> {
        check_length(region.name(), &name, dtype, shape, range.len())?;
        let offset = Some(range.start);
        let mut tensor = Tensor {
            name,
            dtype,
            shape: shape.into(),
            region: Arc::clone(region),
            range,
            offset,
            copied: false,
        };
        if !tensor.fits() {
            tensor.region = Arc::new(region.aligned_copy(tensor.range.clone())?);
            tensor.range = 0..tensor.range.len();
            tensor.copied = true;
        }
        Ok(tensor)
    }

    /// Gives the tensor another name.
    pub(crate) fn rename(&mut self, name: Arc<str>) {
        self.name = name;
    }

    fn owned(name: Arc<str>, dtype: Dtype, shape: &[usize], region: Region) -> Result<Tensor> {
        let range = 0..region.bytes().len();
        check_length("data in memory", &name, dtype, shape, range.len())?;
        let (shape, region) = (shape.into(), Arc::new(region));
        Ok(Tensor { name, dtype, shape, region, range, offset: None, copied: false })
    }

    /// Whether [`Tensor::data`] can cast. The length is right already: only the alignment is in question.
    fn fits(&self) -> bool {
        match self.dtype {
            Dtype::F32 => cast::fits::<f32>(self.bytes()),
            Dtype::Bf16 => cast::fits::<bf16>(self.bytes()),
            Dtype::F16 => cast::fits::<f16>(self.bytes()),
            _ => true,
        }
    }
}

impl Dtype {
    /// The size of one element in bits.
    pub fn bits(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 64,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 32,
            Dtype::Bf16 | Dtype::F16 | Dtype::I16 | Dtype::U16 => 16,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 8,
            Dtype::Named { bits, .. } => bits,
        }
    }
}

impl fmt::Display for Dtype {
    /// The name in safetensors: `F32`, `BF16`, `I64`, ...
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Dtype::F32 => "F32",
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
            Dtype::F64 => "F64",
            Dtype::I64 => "I64",
            Dtype::I32 => "I32",
            Dtype::I16 => "I16",
            Dtype::I8 => "I8",
            Dtype::U64 => "U64",
            Dtype::U32 => "U32",
            Dtype::U16 => "U16",
            Dtype::U8 => "U8",
            Dtype::Bool => "BOOL",
            Dtype::Named { name, .. } => name,
        })
    }
}

/// Checks that `found` bytes are what `dtype` and `shape` ask for. Dimensions of 0 do not hide an overflow
/// among the others, as who multiplies a part of the shape would meet it.
fn check_length(file: &str, name: &str, dtype: Dtype, shape: &[usize], found: usize) -> Result<()> {
    let bits = shape.iter().try_fold(dtype.bits(), |size, dim| size.checked_mul((*dim).max(1)));
    let bits = bits.filter(|bits| bits / 8 <= isize::MAX as usize);
    let bits = bits.ok_or_else(|| Error::ShapeOverflow {
        file: clip(file),
        tensor: clip(name),
        shape: clip(format_args!("{:?}", shape.get(..MOST_DIMS_SHOWN).unwrap_or(shape))),
    })?;
    let bits = if shape.contains(&0) { 0 } else { bits };
    if bits.is_multiple_of(8) && bits / 8 == found {
        return Ok(());
    }
    Err(Error::DataLength {
        file: clip(file),
        tensor: clip(name),
        expected: match bits % 8 {
            0 => format!("{} bytes of {dtype}", bits / 8),
            _ => format!("whole bytes of {dtype}, not {bits} bits"),
        },
        found: format!("{found} bytes"),
    })
}

/// Messages show this much of a shape.
const MOST_DIMS_SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_an_owned_handle() {
        fn owned<T: Clone + Send + Sync + 'static>(_: T) {}
        fn shared<T: Send + Sync + 'static>() {}
        owned(Tensor::from_f32("a", &[0], Vec::new()).unwrap());
        shared::<crate::Preset>();
    }

    #[test]
    fn owned_data_is_not_moved() {
        let data = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let address = data.as_ptr();
        let tensor = Tensor::from_f32("a", &[2, 3], data).unwrap();
        assert!(matches!(tensor.data(), Data::F32([1.0, .., 6.0])));
        assert_eq!((tensor.bytes().as_ptr(), tensor.byte_len()), (address.cast(), 24));
        assert_eq!((tensor.name(), tensor.shape(), tensor.dtype()), ("a", &[2, 3][..], Dtype::F32));
        assert_eq!((tensor.file(), tensor.file_offset(), tensor.copied()), (None, None, false));

        let half = Tensor::from_f16("b", &[], vec![f16::ONE]).unwrap();
        assert!(matches!(half.data(), Data::F16([one]) if *one == f16::ONE));
        let brain = Tensor::from_bf16(String::from("c"), &[1, 1], vec![bf16::ONE]).unwrap();
        assert!(matches!(brain.data(), Data::Bf16([one]) if *one == bf16::ONE));
    }

    #[test]
    fn data_must_fill_the_shape() {
        let refused = |shape: &[usize], len: usize| {
            Tensor::from_f32("a", shape, vec![0.0; len])
                .map(|tensor| tensor.byte_len())
                .map_err(|e| e.to_string())
        };
        assert_eq!(refused(&[2, 0, 3], 0), Ok(0));
        assert_eq!(
            refused(&[2, 3], 5).unwrap_err(),
            "data in memory: tensor \"a\": expected 24 bytes of F32, found 20 bytes"
        );
        assert!(refused(&[], 0).is_err() && refused(&[0], 1).is_err());
        for shape in [&[usize::MAX, 2][..], &[1 << 61], &[1 << 59], &[0, 1 << 40, 1 << 40]] {
            assert!(refused(shape, 1).unwrap_err().contains("fits in memory"), "{shape:?}");
        }
    }
}
