//! HDF5, as far as Keras uses it: a tree of groups whose leaves are contiguous datasets.
//!
//! The crate `hdf5-pure` reads the structure of the file, and says at which offset a dataset lies. The tensor is that
//! range of the file; its data is not read here. `guard.rs` bounds the reader's work, and observes what the reader does
//! not report.
//!
//! # Contract
//! - A tensor has the path of its dataset as its name, without the first slash. Each name occurs once, each group is
//!   linked once, and no two datasets share a byte.
//! - A dataset is contiguous and lies in this file. Chunked, compressed, compact, virtual and external data is refused,
//!   and the error names the kind; it is never copied.
//! - Elements are little-endian floats and integers. bfloat16 is two opaque bytes with an attribute `dtype` of value
//!   `bfloat16`, as h5py writes it.
//! - Soft and external links are refused in every group.
//! - The file has at least the length that its superblock declares.
//! - The file's length bounds work and memory.

use std::collections::HashSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hdf5_pure::{AttrValue, Dataset, Datatype, DatatypeByteOrder, File, FixedPointLayout};
use hdf5_pure::{FloatingPointLayout, FormatError, Group, Layout};

use crate::dtype::TensorDtype;
use crate::error::{Error, Result, clip};
use crate::map::Region;
use crate::tensor::Tensor;

mod guard;
mod types;

use guard::{Guard, Refusal};

/// The deepest nesting of groups. Keras's own layers nest six deep.
const MAX_DEPTH: usize = 32;

/// The longest path of an object, in bytes.
const MAX_PATH: usize = 1024;

/// The tensors of a whole HDF5 file, sorted by name.
///
/// # Errors
/// One variant for each violation of the module's contract: [`Error::Link`], [`Error::Storage`],
/// [`Error::ElementType`], [`Error::Overlap`], [`Error::Duplicate`], [`Error::Offsets`], [`Error::ShapeOverflow`],
/// [`Error::DataLength`]; [`Error::Hdf5`] for structures that cannot be read; [`Error::OutOfMemory`] when a misaligned
/// tensor cannot be copied.
pub fn parse(region: &Arc<Region>) -> Result<Vec<Tensor>> {
    let guard = Guard::new(region);
    let mut walk = Walk { region, guard: &guard, groups: HashSet::new(), found: Vec::new() };
    // The last line of defence. The reader indexes slices by numbers that it has checked, and no input is known that
    // makes it panic, but this crate cannot guarantee that.
    let walked = catch_unwind(AssertUnwindSafe(|| walk.file()));
    walked.unwrap_or_else(|_| Err(broken(region, "", "a structure that the HDF5 reader panics on")))?;

    let mut found = walk.found;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let mut pairs = found.iter().zip(found.iter().skip(1));
    if let Some((duplicate, _)) = pairs.find(|(a, b)| a.name == b.name) {
        let file = clip(region.name());
        return Err(Error::Duplicate { other: file.clone(), file, tensor: clip(&duplicate.name) });
    }
    // Checked before any tensor is made: two misaligned tensors that share bytes would both be copied.
    check_overlap(region, &found)?;
    let tensor =
        |found: Found| Tensor::in_file(region, found.name.into(), found.dtype, &found.shape, found.range);
    found.into_iter().map(tensor).collect()
}

/// A dataset that will become a tensor.
struct Found {
    name: String,
    dtype: TensorDtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A traversal of all objects of a file.
struct Walk<'a> {
    region: &'a Arc<Region>,
    guard: &'a Guard,
    /// The addresses of the headers of all groups found so far. A second link to a group is an error.
    groups: HashSet<u64>,
    found: Vec<Found>,
}

impl Walk<'_> {
    fn file(&mut self) -> Result<()> {
        let file = File::from_source(self.guard.clone()).map_err(|e| self.wrong("", e))?;
        let superblock = file.superblock();
        if (superblock.offset_size, superblock.length_size, superblock.base_address.get()) != (8, 8, 0) {
            return Err(self.broken("", "a file that does not start with a superblock of 64-bit offsets"));
        }
        if superblock.eof_address > self.region.bytes().len() as u64 {
            return Err(self.broken("", "a truncated file"));
        }
        let mut open = vec![(file.root(), String::new(), 0)];
        while let Some((group, path, depth)) = open.pop() {
            if depth > MAX_DEPTH {
                return Err(self.broken(&path, "groups nested deeper than 32 levels"));
            }
            let members = self.list(&group, &path)?;
            open.extend(members.into_iter().map(|(path, group)| (group, path, depth + 1)));
        }
        Ok(())
    }

    /// Returns the groups in a group, with their paths, and collects its datasets.
    fn list(&mut self, group: &Group, path: &str) -> Result<Vec<(String, Group)>> {
        self.guard.start_listing();
        let groups = group.iter_groups().map_err(|e| self.wrong(path, e))?;
        if !self.guard.header().is_some_and(|header| self.groups.insert(header)) {
            return Err(self.link(path, "two links to one group"));
        }
        let links = self.guard.links();
        let datasets = group.iter_datasets().map_err(|e| self.wrong(path, e))?;
        if links.is_some_and(|links| links != (groups.len() + datasets.len()) as u64) {
            return Err(self.link(path, "a link to an object that is not a group or a dataset"));
        }
        for (name, dataset) in datasets {
            let found = self.dataset(self.join(path, &name)?, &dataset)?;
            self.found.push(found);
        }
        groups.map(|(name, group)| Ok((self.join(path, &name)?, group))).collect()
    }

    /// Describes a dataset, or refuses it.
    fn dataset(&self, name: String, dataset: &Dataset) -> Result<Found> {
        let path = name.as_str();
        let wrong = |e| self.wrong(path, e);
        let storage = |found: &str| {
            let (file, tensor) = (clip(self.region.name()), clip(path));
            Err(Error::Storage { file, tensor, found: found.to_owned() })
        };
        let layout = dataset.layout().map_err(wrong)?;
        let (address, size) = match layout {
            Layout::Contiguous { .. } if is_external(dataset) => {
                return storage("external storage, in another file");
            }
            Layout::Contiguous { address: Some(address), size } => (address, size),
            Layout::Contiguous { address: None, size: 0 } => (0, 0),
            Layout::Contiguous { address: None, .. } => {
                return storage("no storage, because the data was never written");
            }
            Layout::Compact { .. } => return storage("compact storage, in a header"),
            Layout::Chunked { .. } if dataset.filters().is_empty() => return storage("chunked storage"),
            Layout::Chunked { .. } => return storage("chunked and compressed storage"),
            Layout::Virtual => return storage("a virtual dataset, stored in other datasets"),
            _ => return storage("an unknown kind of storage"),
        };
        let stored = dataset.shape().map_err(wrong)?;
        let shape: Result<Vec<usize>, _> = stored.iter().map(|dim| usize::try_from(*dim)).collect();
        let shape = shape.map_err(|_| Error::ShapeOverflow {
            file: clip(self.region.name()),
            tensor: clip(path),
            shape: clip(format_args!("{stored:?}")),
        })?;
        let dtype = self.dtype(path, dataset)?;
        let range = self.range(path, address, size)?;
        Ok(Found { dtype, shape, range, name })
    }

    /// The range of a dataset in the file.
    fn range(&self, path: &str, address: u64, size: u64) -> Result<Range<usize>> {
        let len = self.region.bytes().len() as u64;
        let end = address.saturating_add(size);
        let range = usize::try_from(address).ok().zip(usize::try_from(end).ok()).filter(|_| end <= len);
        let (file, tensor) = (self.region.name(), path);
        range.map(|(begin, end)| begin..end).ok_or_else(|| Error::Offsets {
            file: clip(file),
            tensor: clip(tensor),
            len,
            begin: address,
            end,
        })
    }

    /// The element type of a dataset.
    fn dtype(&self, path: &str, dataset: &Dataset) -> Result<TensorDtype> {
        use DatatypeByteOrder::LittleEndian;
        let datatype = dataset.datatype().map_err(|e| self.wrong(path, e))?;
        let dtype = match &datatype {
            Datatype::FloatingPoint { size, byte_order: LittleEndian, layout } => match (size, *layout) {
                (4, FloatingPointLayout::IEEE754_BINARY32) => Some(TensorDtype::F32),
                (8, FloatingPointLayout::IEEE754_BINARY64) => Some(TensorDtype::F64),
                (2, HALF) => Some(TensorDtype::F16),
                _ => None,
            },
            Datatype::FixedPoint { size, byte_order, layout }
                if *byte_order == LittleEndian || *size == 1 =>
            {
                integer(*size, *layout)
            }
            Datatype::Opaque { size: 2, .. } => {
                let attributes = dataset.attrs().map_err(|e| self.wrong(path, e))?;
                let says = attributes.get("dtype").and_then(text);
                (says == Some("bfloat16")).then_some(TensorDtype::Bf16)
            }
            _ => None,
        };
        dtype.ok_or_else(|| Error::ElementType {
            file: clip(self.region.name()),
            tensor: clip(path),
            found: describe(&datatype),
        })
    }

    /// The path of a member of the group at `path`.
    fn join(&self, path: &str, name: &str) -> Result<String> {
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(self.link(path, "a link name that is empty, a dot or a path"));
        }
        if path.len() + name.len() >= MAX_PATH {
            return Err(self.broken(path, "a path of more than 1024 bytes"));
        }
        Ok(if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") })
    }

    /// Turns an error of the reader about the object at `path`, or about a member of it, into one of this crate. If the
    /// guard refused a read, that is the cause.
    fn wrong(&self, path: &str, error: hdf5_pure::Error) -> Error {
        match self.guard.refusal() {
            Some(Refusal::Link(found)) => self.link(path, found),
            Some(Refusal::Structure(found)) => self.broken(path, found),
            None => self.broken(path, &reason(&error)),
        }
    }

    fn link(&self, path: &str, found: &'static str) -> Error {
        Error::Link { file: clip(self.region.name()), group: clip(format_args!("/{path}")), found }
    }

    fn broken(&self, path: &str, found: &str) -> Error {
        broken(self.region, path, found)
    }
}

/// The message of a reader's error, without the reader's prefix.
fn reason(error: &hdf5_pure::Error) -> String {
    match error {
        hdf5_pure::Error::Format(error) => clip(error),
        other => clip(other),
    }
}

fn broken(region: &Region, path: &str, found: &str) -> Error {
    Error::Hdf5 { file: clip(region.name()), object: clip(format_args!("/{path}")), found: found.to_owned() }
}

/// Checks that no two tensors share a byte.
fn check_overlap(region: &Region, found: &[Found]) -> Result<()> {
    let mut places: Vec<_> = found.iter().filter(|found| !found.range.is_empty()).collect();
    places.sort_by_key(|found| found.range.start);
    let mut pairs = places.iter().zip(places.iter().skip(1));
    match pairs.find(|(previous, next)| previous.range.end > next.range.start) {
        Some((other, tensor)) => Err(Error::Overlap {
            file: clip(region.name()),
            tensor: clip(&tensor.name),
            other: clip(&other.name),
        }),
        None => Ok(()),
    }
}

/// Whether the data lies in other files. The reader reports this only when it reads, so this reads zero rows.
fn is_external(dataset: &Dataset) -> bool {
    use hdf5_pure::Error::Format;
    // For a dataset without rows, the reader would read the whole storage.
    let has_rows = dataset.shape().is_ok_and(|shape| shape.first() != Some(&0));
    has_rows && matches!(dataset.read_raw_rows(0, 0), Err(Format(FormatError::UnsupportedExternalStorage)))
}

fn text(value: &AttrValue) -> Option<&str> {
    match value {
        AttrValue::VarLenString(text) | AttrValue::String(text) | AttrValue::AsciiString(text) => Some(text),
        _ => None,
    }
}

/// IEEE 754 half precision.
const HALF: FloatingPointLayout = FloatingPointLayout {
    bit_offset: 0,
    bit_precision: 16,
    exponent_location: 10,
    exponent_size: 5,
    mantissa_location: 0,
    mantissa_size: 10,
    exponent_bias: 15,
};

/// The integer type of `size` bytes. `None` when the integer does not fill its bytes.
fn integer(size: u32, layout: FixedPointLayout) -> Option<TensorDtype> {
    if layout.bit_offset != 0 || u32::from(layout.bit_precision) != size.checked_mul(8)? {
        return None;
    }
    match (layout.signed, size) {
        (true, 8) => Some(TensorDtype::I64),
        (true, 4) => Some(TensorDtype::I32),
        (true, 2) => Some(TensorDtype::I16),
        (true, 1) => Some(TensorDtype::I8),
        (false, 8) => Some(TensorDtype::U64),
        (false, 4) => Some(TensorDtype::U32),
        (false, 2) => Some(TensorDtype::U16),
        (false, 1) => Some(TensorDtype::U8),
        _ => None,
    }
}

fn describe(datatype: &Datatype) -> String {
    let order = |order: &DatatypeByteOrder| match order {
        DatatypeByteOrder::LittleEndian => "little-endian",
        DatatypeByteOrder::BigEndian => "big-endian",
        DatatypeByteOrder::Vax => "VAX-endian",
    };
    match datatype {
        Datatype::FloatingPoint { size, byte_order, .. } => {
            format!("{} floats of {size} bytes", order(byte_order))
        }
        Datatype::FixedPoint { size, byte_order, .. } => {
            format!("{} integers of {size} bytes", order(byte_order))
        }
        Datatype::Opaque { size, .. } => {
            format!("{size} opaque bytes without the attribute dtype of bfloat16")
        }
        Datatype::Time { .. } => "times".to_owned(),
        Datatype::String { .. } => "strings".to_owned(),
        Datatype::BitField { .. } => "bit fields".to_owned(),
        Datatype::Compound { .. } => "compounds".to_owned(),
        Datatype::Reference { .. } => "references".to_owned(),
        Datatype::Enumeration { .. } => "enumerations".to_owned(),
        Datatype::VariableLength { .. } => "values of variable length".to_owned(),
        Datatype::Array { .. } => "arrays".to_owned(),
        _ => "a type of another kind".to_owned(),
    }
}
