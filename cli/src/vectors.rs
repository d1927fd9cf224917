//! Files of vectors: NumPy's `.npy` and safetensors, written a chunk at a time.
//!
//! Both formats begin with a header that has the number of vectors, which is known at the end only: room is left for it.
//! The file is written under a temporary name beside its place and renamed when it is complete, so that a failure leaves
//! an older file as it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rachis_text::{Codes, Embeddings, Quantization, QuantizationRanges};
use serde_json::json;

use crate::Result;
use crate::args::{BadUsage, OutputPrecision};

/// Bytes of the header of either format: a multiple of 64, as NumPy writes it, so that numbers are aligned.
const HEADER: usize = 192;

/// Vectors that are converted at once when their ranges are known at the end only.
const CHUNK: usize = 4096;

#[derive(Debug, Clone, Copy)]
enum Format {
    Numpy,
    Safetensors,
}

/// A file of vectors that is being written.
pub struct VectorFile {
    place: PathBuf,
    format: Format,
    precision: OutputPrecision,
    /// The vectors, or their float32 components where ranges are not known yet.
    part: Part,
    /// Number of components of a vector: that of the first one.
    dimension: usize,
    vectors: usize,
    /// The least and the largest value of each component so far.
    ranges: Option<(Vec<f32>, Vec<f32>)>,
}

impl VectorFile {
    /// A file at `place`, whose ending is `.npy` or `.safetensors`.
    pub fn create(place: &Path, precision: OutputPrecision) -> Result<VectorFile> {
        let format = format(place)?;
        let part = Part::create(place, "part")?;
        let place = place.to_owned();
        Ok(VectorFile { place, format, precision, part, dimension: 0, vectors: 0, ranges: None })
    }

    /// Appends vectors, all of one dimension.
    pub fn put(&mut self, vectors: &Embeddings) -> Result<()> {
        self.dimension = vectors.dimension();
        self.vectors += vectors.len();
        match self.precision {
            OutputPrecision::Quantized(quantization) if quantization.needs_ranges() => {
                self.widen(vectors);
                self.part.put_floats(vectors)
            }
            OutputPrecision::Quantized(quantization) => {
                self.part.put_codes(vectors.quantize(quantization, None)?.codes())
            }
            OutputPrecision::Float32 => self.part.put_floats(vectors),
        }
    }

    /// Completes the file.
    pub fn finish(mut self) -> Result<()> {
        let (width, dtype) = match self.precision {
            OutputPrecision::Float32 => (self.dimension, ("<f4", "F32", 4)),
            OutputPrecision::Quantized(quantization) => {
                let dtype = match quantization {
                    Quantization::Uint8 | Quantization::Ubinary => ("|u1", "U8", 1),
                    _ => ("|i1", "I8", 1),
                };
                if quantization.needs_ranges() {
                    self.part = self.quantized(quantization)?;
                }
                (quantization.bytes(self.dimension), dtype)
            }
        };
        let header = header(self.format, [self.vectors, width], dtype);
        self.part.finish(&header, &self.place)
    }

    fn widen(&mut self, vectors: &Embeddings) {
        for row in vectors {
            let (least, largest) = self.ranges.get_or_insert_with(|| (row.to_vec(), row.to_vec()));
            least.iter_mut().zip(row).for_each(|(least, x)| *least = least.min(*x));
            largest.iter_mut().zip(row).for_each(|(largest, x)| *largest = largest.max(*x));
        }
    }

    /// A second part, with the vectors of the first one quantised by the ranges of all.
    fn quantized(&mut self, quantization: Quantization) -> Result<Part> {
        let Some((least, largest)) = self.ranges.take() else {
            return Err("there are no vectors to take ranges from".into());
        };
        if self.vectors == 1 {
            return Err("a single vector has no range: int8 and uint8 need more texts".into());
        }
        let ranges = QuantizationRanges::new(least, largest)?;
        let mut quantized = Part::create(&self.place, "part8")?;
        let mut floats = self.part.floats()?;
        let mut left = self.vectors;
        while left > 0 {
            let count = left.min(CHUNK);
            let mut bytes = vec![0; count * self.dimension * 4];
            floats.read_exact(&mut bytes).map_err(self.part.wrong())?;
            let values = bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
            let vectors = Embeddings::from_values(values, self.dimension)?;
            quantized.put_codes(vectors.quantize(quantization, Some(&ranges))?.codes())?;
            left -= count;
        }
        Ok(quantized)
    }
}

/// The format of a file with this ending.
fn format(place: &Path) -> Result<Format> {
    match place.extension().and_then(|ending| ending.to_str()) {
        Some("npy") => Ok(Format::Numpy),
        Some("safetensors") => Ok(Format::Safetensors),
        _ => {
            let message = format!("--output {}: expected a name with .npy or .safetensors", place.display());
            Err(BadUsage(message).into())
        }
    }
}

/// The header of `[rows, cols]` elements of a type: NumPy's name, the name of safetensors, and the bytes of one.
fn header(format: Format, [rows, cols]: [usize; 2], dtype: (&str, &str, usize)) -> Vec<u8> {
    let (numpy, safetensors, bytes) = dtype;
    let mut header = Vec::with_capacity(HEADER);
    match format {
        Format::Numpy => {
            header.extend_from_slice(b"\x93NUMPY\x01\x00");
            header.extend_from_slice(&((HEADER - 10) as u16).to_le_bytes());
            let shape = format!("'shape': ({rows}, {cols}), }}");
            header.extend_from_slice(
                format!("{{'descr': '{numpy}', 'fortran_order': False, {shape}").as_bytes(),
            );
            header.resize(HEADER - 1, b' ');
            header.push(b'\n');
        }
        Format::Safetensors => {
            let end = rows * cols * bytes;
            let tensor = json!({ "dtype": safetensors, "shape": [rows, cols], "data_offsets": [0, end] });
            header.extend_from_slice(&((HEADER - 8) as u64).to_le_bytes());
            header.extend_from_slice(json!({ "embeddings": tensor }).to_string().as_bytes());
            header.resize(HEADER, b' ');
        }
    }
    header
}

/// A file under a temporary name, removed unless it is finished.
struct Part {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Part {
    fn create(place: &Path, ending: &str) -> Result<Part> {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.{ending}", std::process::id()));
        let path = place.with_file_name(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let mut file = BufWriter::new(file.map_err(|error| format!("{}: {error}", path.display()))?);
        file.write_all(&[0; HEADER]).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Part { path, file })
    }

    fn put_floats(&mut self, vectors: &Embeddings) -> Result<()> {
        let mut values = vectors.as_slice().iter();
        Ok(values.try_for_each(|x| self.file.write_all(&x.to_le_bytes())).map_err(self.wrong())?)
    }

    fn put_codes(&mut self, codes: &Codes) -> Result<()> {
        let written = match codes {
            Codes::Unsigned(codes) => self.file.write_all(codes),
            Codes::Signed(codes) => {
                codes.iter().try_for_each(|code| self.file.write_all(&code.to_le_bytes()))
            }
        };
        Ok(written.map_err(self.wrong())?)
    }

    /// What was written after the header.
    fn floats(&mut self) -> Result<BufReader<File>> {
        self.file.flush().map_err(self.wrong())?;
        let mut file = File::open(&self.path).map_err(self.wrong())?;
        file.seek(SeekFrom::Start(HEADER as u64)).map_err(self.wrong())?;
        Ok(BufReader::new(file))
    }

    fn finish(mut self, header: &[u8], place: &Path) -> Result<()> {
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(header));
        let written = written.and_then(|()| self.file.flush()).and_then(|()| self.file.get_ref().sync_all());
        written.map_err(self.wrong())?;
        Ok(fs::rename(&self.path, place).map_err(|error| format!("{}: {error}", place.display()))?)
    }

    fn wrong(&self) -> impl Fn(io::Error) -> String + use<> {
        let path = self.path.display().to_string();
        move |error| format!("{path}: {error}")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // A finished part has another name by now.
        let _ = fs::remove_file(&self.path);
    }
}
