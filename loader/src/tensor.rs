//! Tensors: a name, an element type, a shape, and a range of bytes in a file.
//!
//! A [`Tensor`] is an owned handle that shares its file's [`Region`]. A clone shares the data, and a model that holds
//! tensors keeps their file mapped without borrowing from the preset. The constructor checks everything that can be
//! wrong, so that [`Tensor::data`] is a cast and cannot fail.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::cast;
use crate::dtype::TensorDtype;
use crate::error::{Error, Result, clip};
use crate::map::Region;

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
    /// Elements of any other type, as little-endian bytes without alignment.
    Other(TensorDtype, &'a [u8]),
}

/// A named array, row-major and contiguous, whose bytes lie in a mapped file or in memory.
#[derive(Debug, Clone)]
pub struct Tensor {
    name: Arc<str>,
    dtype: TensorDtype,
    shape: Arc<[usize]>,
    region: Arc<Region>,
    range: Range<usize>,
    /// The offset in the file that the tensor comes from; `None` for a tensor made in memory.
    offset: Option<usize>,
    copied: bool,
}

impl Tensor {
    /// A tensor that owns 32-bit floats: for random initialisation, tests and converters.
    ///
    /// # Errors
    /// [`Error::DataLength`] when the number of elements in `data` is not the product of `shape`;
    /// [`Error::ShapeOverflow`] when that product is too large.
    pub fn from_f32(name: impl Into<Arc<str>>, shape: &[usize], data: Vec<f32>) -> Result<Tensor> {
        Tensor::owned(name.into(), TensorDtype::F32, shape, data.into())
    }

    /// A tensor that owns bfloat16 numbers.
    ///
    /// # Errors
    /// The errors of [`Tensor::from_f32`].
    pub fn from_bf16(name: impl Into<Arc<str>>, shape: &[usize], data: Vec<bf16>) -> Result<Tensor> {
        Tensor::owned(name.into(), TensorDtype::Bf16, shape, data.into())
    }

    /// A tensor that owns half-precision numbers.
    ///
    /// # Errors
    /// The errors of [`Tensor::from_f32`].
    pub fn from_f16(name: impl Into<Arc<str>>, shape: &[usize], data: Vec<f16>) -> Result<Tensor> {
        Tensor::owned(name.into(), TensorDtype::F16, shape, data.into())
    }

    /// The name in the file. Names of older Keras files are translated to the current spelling.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of the elements.
    pub fn dtype(&self) -> TensorDtype {
        self.dtype
    }

    /// The shape; empty for a scalar. A dimension may be 0.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements. Takes constant time and cannot fail.
    pub fn data(&self) -> Data<'_> {
        let bytes = self.bytes();
        match self.dtype {
            TensorDtype::F32 => Data::F32(cast::typed(bytes)),
            TensorDtype::Bf16 => Data::Bf16(cast::typed(bytes)),
            TensorDtype::F16 => Data::F16(cast::typed(bytes)),
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

    /// Whether the bytes are an aligned copy, made because they are misaligned in the file.
    pub fn copied(&self) -> bool {
        self.copied
    }

    /// The name, in the preset directory, of the file that the tensor comes from; `None` for a tensor made in memory.
    pub fn file(&self) -> Option<&str> {
        self.offset.map(|_| self.region.name())
    }

    /// The offset of the data in [`Tensor::file`], in bytes; `None` for a tensor made in memory.
    pub fn file_offset(&self) -> Option<usize> {
        self.offset
    }

    /// A tensor over a range of a file. The range is copied when it is not aligned for the element type. It must lie in
    /// the region; its length is checked here.
    pub(crate) fn in_file(
        region: &Arc<Region>,
        name: Arc<str>,
        dtype: TensorDtype,
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

    /// Changes the tensor's name.
    pub(crate) fn rename(&mut self, name: Arc<str>) {
        self.name = name;
    }

    fn owned(name: Arc<str>, dtype: TensorDtype, shape: &[usize], region: Region) -> Result<Tensor> {
        let range = 0..region.bytes().len();
        check_length("data in memory", &name, dtype, shape, range.len())?;
        let (shape, region) = (shape.into(), Arc::new(region));
        Ok(Tensor { name, dtype, shape, region, range, offset: None, copied: false })
    }

    /// Whether [`Tensor::data`] can cast the bytes. Their length is already checked, so this depends on their alignment.
    fn fits(&self) -> bool {
        match self.dtype {
            TensorDtype::F32 => cast::fits::<f32>(self.bytes()),
            TensorDtype::Bf16 => cast::fits::<bf16>(self.bytes()),
            TensorDtype::F16 => cast::fits::<f16>(self.bytes()),
            _ => true,
        }
    }
}

/// Checks that `dtype` and `shape` describe `found` bytes. A dimension of 0 does not hide an overflow of the other
/// dimensions: code that multiplies a part of the shape would overflow.
fn check_length(file: &str, name: &str, dtype: TensorDtype, shape: &[usize], found: usize) -> Result<()> {
    let bits = shape.iter().try_fold(dtype.bits(), |size, dim| size.checked_mul((*dim).max(1)));
    let bits = bits.filter(|bits| bits / 8 <= isize::MAX as usize);
    let bits = bits.ok_or_else(|| Error::ShapeOverflow {
        file: clip(file),
        tensor: clip(name),
        shape: clip(format_args!("{:?}", shape.get(..MAX_DIMS_SHOWN).unwrap_or(shape))),
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
            _ => format!("a whole number of bytes of {dtype}, not {bits} bits"),
        },
        found: format!("{found} bytes"),
    })
}

/// The most dimensions of a shape that a message shows.
const MAX_DIMS_SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_owned_and_can_be_shared() {
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
        assert_eq!((tensor.name(), tensor.shape(), tensor.dtype()), ("a", &[2, 3][..], TensorDtype::F32));
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
