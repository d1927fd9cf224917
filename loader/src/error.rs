//! The one error type of the crate.
//!
//! Every message is one line of bounded length: names out of files are quoted with their control characters
//! escaped, and cut off when they are absurdly long ([`clip`]).

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// What opening a preset or asking it for something can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{path:?}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path of a preset is not a directory.
    #[error("{path:?}: expected a preset directory, found {found}")]
    NotADirectory {
        /// The path given.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
    },
    /// Something that is not a regular file lies where a file must be.
    #[error("{path:?}: expected a regular file, found {found}")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
    },
    /// A file that a preset needs is not there.
    #[error("{dir:?}: expected {expected}, found no such file")]
    MissingFile {
        /// The preset's directory.
        dir: PathBuf,
        /// The name of the file, or of the files of which one would do.
        expected: String,
    },
    /// A file is larger than this crate reads.
    #[error("{path:?}: expected at most {limit} bytes, found {found}")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
        /// The file's length.
        found: u64,
    },
    /// There is not enough memory for what a file holds.
    #[error("{file:?}: cannot allocate the {bytes} bytes that it needs")]
    OutOfMemory {
        /// The file.
        file: String,
        /// What was asked for.
        bytes: usize,
    },
    /// A name that must stay inside the preset directory does not.
    #[error("{dir:?}: file name {name:?}: expected {expected}")]
    OutsideDirectory {
        /// The preset's directory.
        dir: PathBuf,
        /// The name, from an index or a caller.
        name: String,
        /// The rule that it breaks.
        expected: &'static str,
    },
    /// The directory holds weights of a kind that is not read.
    #[error("{dir:?}: expected safetensors, or the weights of a Keras preset, found {found}")]
    UnsupportedFormat {
        /// The preset's directory.
        dir: PathBuf,
        /// The kind.
        found: &'static str,
    },
    /// The only weights are pickled Python objects.
    #[error(
        "{path:?}: expected model.safetensors, found pickled weights, which can run code and are never read: \
         convert them with transformers, from_pretrained(...).save_pretrained(..., safe_serialization=True)"
    )]
    Pickle {
        /// The pickle.
        path: PathBuf,
    },
    /// A text file is not the text, or the JSON, that it must be.
    #[error("{file:?}: expected {expected}, found {found}")]
    Malformed {
        /// The file.
        file: String,
        /// What it must be.
        expected: &'static str,
        /// What is wrong.
        found: String,
    },
    /// A field of `config.json` is missing or has another type than asked for.
    #[error("{file:?}: field {field:?}: expected {expected}, found {found}")]
    Field {
        /// The configuration file.
        file: String,
        /// The field.
        field: String,
        /// What was asked for.
        expected: &'static str,
        /// The value, shortened.
        found: String,
    },
    /// A safetensors file is shorter than the header that it declares.
    #[error("{file:?}: expected a file of at least {expected} bytes for its header, found {found}")]
    Truncated {
        /// The weight file.
        file: String,
        /// The bytes needed for the length field and the header.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// A safetensors file declares a header beyond the format's limit.
    #[error("{file:?}: expected a header of at most {limit} bytes, found one of {found}")]
    HeaderTooLarge {
        /// The weight file.
        file: String,
        /// The format's limit.
        limit: u64,
        /// The length declared.
        found: u64,
    },
    /// The header of a safetensors file is not a JSON object.
    #[error("{file:?}: expected a header that is one JSON object, found {found}")]
    Header {
        /// The weight file.
        file: String,
        /// What is wrong.
        found: String,
    },
    /// What the header says about one tensor cannot be read: a field missing or mistyped, an unknown dtype.
    #[error("{file:?}: tensor {tensor:?}: expected dtype, shape and data_offsets, found {found}")]
    Entry {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        found: String,
    },
    /// A name occurs twice.
    #[error("{file:?}: expected {tensor:?} once, found it again in {other:?}")]
    Duplicate {
        /// The file in which it occurs.
        file: String,
        /// The tensor, or the key of the header.
        tensor: String,
        /// The file in which it occurs too; often the same.
        other: String,
    },
    /// The size of a tensor cannot be represented.
    #[error("{file:?}: tensor {tensor:?}: expected a size in bytes that fits in memory, found shape {shape}")]
    ShapeOverflow {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape, shortened.
        shape: String,
    },
    /// The data of a tensor has another length than its dtype and shape ask for.
    #[error("{file}: tensor {tensor:?}: expected {expected}, found {found}")]
    DataLength {
        /// The weight file, or what stands for one.
        file: String,
        /// The tensor.
        tensor: String,
        /// The length that dtype and shape ask for.
        expected: String,
        /// The length given.
        found: String,
    },
    /// The data of a tensor does not lie within the file.
    #[error(
        "{file:?}: tensor {tensor:?}: expected offsets within {len} bytes of data, found {begin} to {end}"
    )]
    Offsets {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The length of the data section.
        len: u64,
        /// Where the tensor begins.
        begin: u64,
        /// Where it ends.
        end: u64,
    },
    /// Two tensors overlap, or there are bytes between them that belong to none.
    #[error(
        "{file:?}: tensor {tensor:?}: expected to begin where the one before it ends, {expected}, found {found}"
    )]
    NotContiguous {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The end of the tensor before it in the file.
        expected: u64,
        /// Its own begin.
        found: u64,
    },
    /// There are bytes after the last tensor.
    #[error(
        "{file:?}: expected the tensors to fill the data section of {found} bytes, found them end at {end}"
    )]
    TrailingBytes {
        /// The weight file.
        file: String,
        /// The end of the last tensor.
        end: u64,
        /// The length of the data section.
        found: u64,
    },
    /// An HDF5 file, or something in it, cannot be read.
    #[error("{file:?}: {object:?}: expected a sound HDF5 file, found {found}")]
    Hdf5 {
        /// The weight file.
        file: String,
        /// The path of the group or dataset; `/` for the file as a whole.
        object: String,
        /// What is wrong.
        found: String,
    },
    /// A group of an HDF5 file has a link that is not the only hard link to a group or a dataset: a soft or an
    /// external link, or one that makes a cycle.
    #[error("{file:?}: group {group:?}: expected plain links to objects of this file, found {found}")]
    Link {
        /// The weight file.
        file: String,
        /// The path of the group.
        group: String,
        /// The kind of link.
        found: &'static str,
    },
    /// The data of a tensor is stored in a way that cannot be used in place.
    #[error("{file:?}: tensor {tensor:?}: expected contiguous data in this file, found {found}")]
    Storage {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// How the data is stored.
        found: String,
    },
    /// The elements of a tensor are of a type that is not read.
    #[error(
        "{file:?}: tensor {tensor:?}: expected little-endian IEEE floats, integers or bfloat16, found {found}"
    )]
    ElementType {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The type found.
        found: String,
    },
    /// Two tensors share bytes.
    #[error("{file:?}: tensor {tensor:?}: expected bytes of its own, found them shared with {other:?}")]
    Overlap {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The tensor that begins before it.
        other: String,
    },
    /// The index names more shards than this crate opens.
    #[error("{file:?}: expected at most {limit} shards, found {found}")]
    TooManyShards {
        /// The index.
        file: String,
        /// The limit.
        limit: usize,
        /// The number of distinct shards.
        found: usize,
    },
    /// The index places a tensor in a shard that does not have it.
    #[error("{shard:?}: expected tensor {tensor:?} as the index says, found none")]
    NotInShard {
        /// The shard.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// A shard has a tensor that the index does not place there.
    #[error("{shard:?}: expected only the tensors that the index places there, found {tensor:?}")]
    NotInIndex {
        /// The shard.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// The name of a preset is not well-formed, or leads nowhere.
    #[error("preset {name:?}: expected {expected}, found {found}")]
    Handle {
        /// The name given.
        name: String,
        /// What it must be, or the part of it that is wrong.
        expected: &'static str,
        /// What is wrong.
        found: String,
    },
    /// A preset, or a file that it needs, is not in the cache.
    #[error("preset {name:?}: expected {expected} in {dir:?}, found {found}: {hint}")]
    NotCached {
        /// The name given.
        name: String,
        /// What was looked for.
        expected: String,
        /// Where.
        dir: PathBuf,
        /// What is there.
        found: String,
        /// What to do about it.
        hint: String,
    },
    /// Nothing says where the cache is: no home directory is known, and no variable names another.
    #[error("preset {name:?}: expected a cache directory, found none of {variables} set")]
    NoCache {
        /// The name given.
        name: String,
        /// The environment variables that would say.
        variables: &'static str,
    },
    /// The address of a hub is not one (feature `hub`).
    #[error("hub endpoint {found:?}: expected http:// or https:// and a host")]
    Endpoint {
        /// The address given.
        found: String,
    },
    /// The hub does not let us have a repository, or does not say whether it exists (feature `hub`).
    #[error(
        "preset {name:?}: expected {endpoint} to allow {file}, found HTTP status {status}: check the name; if it is \
         private or gated, run hf auth login or set HF_TOKEN, and accept its terms on its page"
    )]
    Denied {
        /// The name given.
        name: String,
        /// The hub.
        endpoint: String,
        /// What was asked for.
        file: String,
        /// 401 or 403.
        status: u16,
    },
    /// The hub has no such repository, revision or file (feature `hub`).
    #[error("preset {name:?}: expected {file} at {endpoint}, found none")]
    NotOnHub {
        /// The name given.
        name: String,
        /// The hub.
        endpoint: String,
        /// What was asked for.
        file: String,
    },
    /// A download failed, or the hub answered what it must not (feature `hub`).
    #[error("preset {name:?}: {file}: expected {expected}, found {found}")]
    Download {
        /// The name given.
        name: String,
        /// What was asked for.
        file: String,
        /// What should have come.
        expected: String,
        /// What came.
        found: String,
    },
    /// The preset has no tensor of this name.
    #[error("{dir:?}: expected tensor {tensor:?}, found none of this name")]
    MissingTensor {
        /// The preset's directory.
        dir: PathBuf,
        /// The tensor asked for.
        tensor: String,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// An [`Error::Io`] at `path`.
pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Io { path: path.to_owned(), source }
}

/// `text` in at most about two hundred characters and on one line: files choose how long their names are.
pub(crate) fn clip(text: impl Display) -> String {
    const MOST: usize = 200;
    let text = text.to_string();
    let cut = text.char_indices().nth(MOST).map(|(at, _)| at);
    let kept = cut.and_then(|at| text.get(..at)).unwrap_or(&text);
    let mut line: String = kept.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cut.is_some() {
        line.push_str("...");
    }
    line
}
