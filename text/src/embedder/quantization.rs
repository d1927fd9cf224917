//! Vectors in fewer bits, with the numbers of sentence-transformers' `quantize_embeddings`.

use std::fmt;
use std::str::FromStr;

use super::Embeddings;
use crate::error::{Error, Result, clip};

/// How the components of vectors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quantization {
    /// A byte a component, from -128 for the least value of its range to 127 for the largest.
    Int8,
    /// A byte a component, from 0 for the least value of its range to 255 for the largest.
    Uint8,
    /// A bit a component, 1 where it is above 0; the first one in the highest bit of a byte, from which 128 is
    /// subtracted. The last byte is filled up with zeros.
    Binary,
    /// The same bits, in unsigned bytes.
    Ubinary,
}

impl Quantization {
    /// Every quantisation.
    pub const ALL: [Quantization; 4] =
        [Quantization::Int8, Quantization::Uint8, Quantization::Binary, Quantization::Ubinary];

    /// The name: `int8`, `uint8`, `binary` or `ubinary`.
    pub fn name(self) -> &'static str {
        match self {
            Quantization::Int8 => "int8",
            Quantization::Uint8 => "uint8",
            Quantization::Binary => "binary",
            Quantization::Ubinary => "ubinary",
        }
    }

    /// Whether values are mapped from a range.
    pub fn needs_ranges(self) -> bool {
        matches!(self, Quantization::Int8 | Quantization::Uint8)
    }

    /// Number of bytes of a vector of `dimension` components.
    pub fn bytes(self, dimension: usize) -> usize {
        if self.needs_ranges() { dimension } else { dimension.div_ceil(8) }
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Quantization {
    type Err = Error;

    fn from_str(name: &str) -> Result<Quantization> {
        let expected = "int8, uint8, binary or ubinary".to_owned();
        let unknown = || Error::Request { what: "precision", found: clip(name), expected };
        Quantization::ALL.into_iter().find(|known| known.name() == name).ok_or_else(unknown)
    }
}

/// The least and the largest value of each component, which 8 bits span.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationRanges {
    least: Vec<f32>,
    largest: Vec<f32>,
}

impl QuantizationRanges {
    /// The ranges of these ends, one of each for a component.
    ///
    /// # Errors
    /// [`Error::Request`] when there are not as many largest values as least ones.
    pub fn new(least: Vec<f32>, largest: Vec<f32>) -> Result<QuantizationRanges> {
        if least.len() != largest.len() {
            let expected = format!("{}, as many as least values", least.len());
            return Err(Error::Request {
                what: "number of largest values",
                found: largest.len().to_string(),
                expected,
            });
        }
        Ok(QuantizationRanges { least, largest })
    }

    /// The ranges of the components of these vectors, which should be many and typical.
    ///
    /// # Errors
    /// [`Error::Request`] when there is no vector.
    pub fn calibrate(vectors: &Embeddings) -> Result<QuantizationRanges> {
        let mut rows = vectors.iter();
        let none = || Error::Request {
            what: "number of vectors to calibrate with",
            found: "0".to_owned(),
            expected: "1 or more".to_owned(),
        };
        let first = rows.next().ok_or_else(none)?;
        let (mut least, mut largest) = (first.to_vec(), first.to_vec());
        for row in rows {
            least.iter_mut().zip(row).for_each(|(least, x)| *least = least.min(*x));
            largest.iter_mut().zip(row).for_each(|(largest, x)| *largest = largest.max(*x));
        }
        Ok(QuantizationRanges { least, largest })
    }

    /// Number of components.
    pub fn dimension(&self) -> usize {
        self.least.len()
    }
}

/// Quantised vectors: one row a text, in the order of the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizedEmbeddings {
    codes: Codes,
    width: usize,
}

/// The bytes of quantised vectors, one vector after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codes {
    /// Those of [`Quantization::Int8`] and [`Quantization::Binary`].
    Signed(Vec<i8>),
    /// Those of [`Quantization::Uint8`] and [`Quantization::Ubinary`].
    Unsigned(Vec<u8>),
}

impl QuantizedEmbeddings {
    /// Number of bytes of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        let bytes = match &self.codes {
            Codes::Signed(codes) => codes.len(),
            Codes::Unsigned(codes) => codes.len(),
        };
        bytes.checked_div(self.width).unwrap_or(0)
    }

    /// Whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes, `[texts, width]`.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }
}

impl Embeddings {
    /// The vectors in fewer bits. `ranges` are those of 8-bit components; `None` takes those of these vectors
    /// themselves, which is good for many vectors only.
    ///
    /// # Errors
    /// [`Error::Request`] when the ranges are of another dimension, or a single vector would have to be its own range.
    pub fn quantize(
        &self,
        quantization: Quantization,
        ranges: Option<&QuantizationRanges>,
    ) -> Result<QuantizedEmbeddings> {
        let width = quantization.bytes(self.dimension());
        let bytes = if quantization.needs_ranges() { self.bytes(ranges)? } else { self.bits() };
        let codes = match quantization {
            Quantization::Uint8 | Quantization::Ubinary => Codes::Unsigned(bytes),
            // `x - 128` in the arithmetic of bytes.
            Quantization::Int8 | Quantization::Binary => {
                Codes::Signed(bytes.into_iter().map(|byte| (byte ^ 0x80) as i8).collect())
            }
        };
        Ok(QuantizedEmbeddings { codes, width })
    }

    fn bytes(&self, ranges: Option<&QuantizationRanges>) -> Result<Vec<u8>> {
        let own;
        let ranges = match ranges {
            Some(ranges) if ranges.dimension() == self.dimension() => ranges,
            Some(ranges) => {
                let (found, expected) = (ranges.dimension().to_string(), self.dimension().to_string());
                return Err(Error::Request { what: "dimension of ranges", found, expected });
            }
            None if self.is_empty() => return Ok(Vec::new()),
            None if self.len() == 1 => {
                let (found, expected) = ("nothing".to_owned(), "ranges, for a single vector".to_owned());
                return Err(Error::Request { what: "ranges", found, expected });
            }
            None => {
                own = QuantizationRanges::calibrate(self)?;
                &own
            }
        };
        let ends = ranges.least.iter().zip(&ranges.largest);
        // The step is 1 where all values are the same.
        let step = |least: f32, largest: f32| match (largest - least) / 255.0 {
            0.0 => 1.0,
            step => step,
        };
        let scales: Vec<(f32, f32)> = ends.map(|(least, largest)| (*least, step(*least, *largest))).collect();
        let byte =
            |(x, (least, step)): (&f32, &(f32, f32))| ((x - least) / step).floor().clamp(0.0, 255.0) as u8;
        Ok(self.iter().flat_map(|row| row.iter().zip(&scales).map(byte)).collect())
    }

    fn bits(&self) -> Vec<u8> {
        let byte = |components: &[f32]| {
            components.iter().enumerate().fold(0u8, |byte, (i, x)| byte | (u8::from(*x > 0.0) << (7 - i)))
        };
        self.iter().flat_map(|row| row.chunks(8).map(byte)).collect()
    }
}
