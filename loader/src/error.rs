//! The one error type of the crate.
//!
//! Every message is one line of bounded length. Names from files are quoted with their control characters escaped, and
//! shortened when they are too long ([`clip`]).

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system reported an error.
    #[error("{path:?}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path of a preset is not a directory.
    #[error("{path:?}: expected a preset directory, found {found}")]
    NotADirectory {
        /// The path.
        path: PathBuf,
        /// The kind of file at the path.
        found: &'static str,
    },
    /// The path of a file is not a regular file.
    #[error("{path:?}: expected a regular file, found {found}")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// The kind of file at the path.
        found: &'static str,
    },
    /// A file that a preset needs does not exist.
    #[error("{dir:?}: expected {expected}, found no such file")]
    MissingFile {
        /// The preset's directory.
        dir: PathBuf,
        /// The name of the file, or the names of the alternatives.
        expected: String,
    },
    /// A file is larger than its limit.
    #[error("{path:?}: expected at most {limit} bytes, found {found}")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
        /// The file's length in bytes.
        found: u64,
    },
    /// An allocation for a file's content failed.
    #[error("{file:?}: could not allocate {bytes} bytes")]
    OutOfMemory {
        /// The file.
        file: String,
        /// The size of the allocation in bytes.
        bytes: usize,
    },
    /// A file name leads out of the preset directory, or out of the cache.
    #[error("{dir:?}: file name {name:?}: expected {expected}")]
    OutsideDirectory {
        /// The directory.
        dir: PathBuf,
        /// The name, from an index or from the caller.
        name: String,
        /// The rule that the name breaks.
        expected: &'static str,
    },
    /// The directory has weights of a kind that its configuration does not allow.
    #[error("{dir:?}: expected safetensors, or the weights of a Keras preset, found {found}")]
    UnsupportedFormat {
        /// The preset's directory.
        dir: PathBuf,
        /// The kind found.
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
    /// A text or JSON file does not have the expected content.
    #[error("{file:?}: expected {expected}, found {found}")]
    Malformed {
        /// The file.
        file: String,
        /// The expected content.
        expected: &'static str,
        /// What is wrong.
        found: String,
    },
    /// A field of `config.json` is missing or does not have the requested type.
    #[error("{file:?}: field {field:?}: expected {expected}, found {found}")]
    Field {
        /// The configuration file.
        file: String,
        /// The field.
        field: String,
        /// The requested type.
        expected: &'static str,
        /// The value, shortened.
        found: String,
    },
    /// A safetensors file is shorter than the header that it declares.
    #[error("{file:?}: expected a file of at least {expected} bytes for its header, found {found}")]
    Truncated {
        /// The weight file.
        file: String,
        /// The length of the length field and the header in bytes.
        expected: u64,
        /// The file's length in bytes.
        found: u64,
    },
    /// A safetensors file declares a header longer than the format's limit.
    #[error("{file:?}: expected a header of at most {limit} bytes, found one of {found}")]
    HeaderTooLarge {
        /// The weight file.
        file: String,
        /// The format's limit in bytes.
        limit: u64,
        /// The declared length in bytes.
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
    /// The header's entry for one tensor is wrong: a field is missing or has the wrong type, or the dtype is unknown.
    #[error("{file:?}: tensor {tensor:?}: expected dtype, shape and data_offsets, found {found}")]
    Entry {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        found: String,
    },
    /// A tensor's name occurs twice.
    #[error("{file:?}: expected {tensor:?} once, found it again in {other:?}")]
    Duplicate {
        /// The file with the tensor.
        file: String,
        /// The tensor.
        tensor: String,
        /// The other file with the tensor; often the same file.
        other: String,
    },
    /// The size of a tensor in bytes overflows.
    #[error("{file:?}: tensor {tensor:?}: expected a size in bytes that fits in memory, found shape {shape}")]
    ShapeOverflow {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape, shortened.
        shape: String,
    },
    /// The data of a tensor does not have the length that its dtype and shape require.
    #[error("{file}: tensor {tensor:?}: expected {expected}, found {found}")]
    DataLength {
        /// The weight file, or `data in memory`.
        file: String,
        /// The tensor.
        tensor: String,
        /// The length that dtype and shape require.
        expected: String,
        /// The length of the data.
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
        /// The length of the data section in bytes.
        len: u64,
        /// The offset of the tensor's first byte.
        begin: u64,
        /// The offset after the tensor's last byte.
        end: u64,
    },
    /// Two tensors overlap, or bytes between them belong to no tensor.
    #[error(
        "{file:?}: tensor {tensor:?}: expected to begin where the previous tensor ends, {expected}, found {found}"
    )]
    NotContiguous {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The offset at which the previous tensor ends.
        expected: u64,
        /// The offset at which this tensor begins.
        found: u64,
    },
    /// Bytes after the last tensor belong to no tensor.
    #[error(
        "{file:?}: expected the tensors to fill the data section of {found} bytes, found them end at {end}"
    )]
    TrailingBytes {
        /// The weight file.
        file: String,
        /// The offset at which the last tensor ends.
        end: u64,
        /// The length of the data section in bytes.
        found: u64,
    },
    /// An HDF5 file, or an object in it, cannot be read.
    #[error("{file:?}: {object:?}: expected a valid HDF5 file, found {found}")]
    Hdf5 {
        /// The weight file.
        file: String,
        /// The path of the group or dataset; `/` for the file as a whole.
        object: String,
        /// What is wrong.
        found: String,
    },
    /// A group of an HDF5 file has a link that is not the only hard link to a group or a dataset: a soft link, an external
    /// link, or a link that makes a cycle.
    #[error("{file:?}: group {group:?}: expected hard links to objects of this file, found {found}")]
    Link {
        /// The weight file.
        file: String,
        /// The path of the group.
        group: String,
        /// The kind of link.
        found: &'static str,
    },
    /// The data of a tensor is stored in a form that cannot be used in place.
    #[error("{file:?}: tensor {tensor:?}: expected contiguous data in this file, found {found}")]
    Storage {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The form of storage.
        found: String,
    },
    /// The elements of a tensor have a type that is not supported.
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
        /// The tensor that begins before this one.
        other: String,
    },
    /// The index names too many shards.
    #[error("{file:?}: expected at most {limit} shards, found {found}")]
    TooManyShards {
        /// The index.
        file: String,
        /// The largest number of shards.
        limit: usize,
        /// The number of distinct shards.
        found: usize,
    },
    /// The index places a tensor in a shard that does not have it.
    #[error("{shard:?}: expected tensor {tensor:?}, which the index places there, found no such tensor")]
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
    /// The name of a preset is not well-formed, or is a path that does not exist.
    #[error("preset {name:?}: expected {expected}, found {found}")]
    Handle {
        /// The name.
        name: String,
        /// The rule for the name, or for a part of it.
        expected: &'static str,
        /// What is wrong.
        found: String,
    },
    /// A preset, or a file that it needs, is not in the cache.
    #[error("preset {name:?}: expected {expected} in {dir:?}, found {found}: {hint}")]
    NotCached {
        /// The preset's name.
        name: String,
        /// The missing revision, version or file.
        expected: String,
        /// The directory that was searched.
        dir: PathBuf,
        /// The content of that directory.
        found: String,
        /// The command that downloads the preset.
        hint: String,
    },
    /// The environment determines no cache directory: neither a variable nor a home directory is set.
    #[error("preset {name:?}: expected a cache directory, found none of {variables} set")]
    NoCache {
        /// The preset's name.
        name: String,
        /// The environment variables that determine the directory.
        variables: &'static str,
    },
    /// A hub's address is not an HTTP address (feature `hub`).
    #[error("hub endpoint {found:?}: expected http:// or https:// and a host")]
    Endpoint {
        /// The address.
        found: String,
    },
    /// The hub denies access to a repository; it does not say whether the repository exists (feature `hub`).
    #[error(
        "preset {name:?}: expected {endpoint} to allow {file}, found HTTP status {status}: check the name; if it is \
         private or gated, run hf auth login or set HF_TOKEN, and accept its terms on its page"
    )]
    Denied {
        /// The preset's name.
        name: String,
        /// The hub's address.
        endpoint: String,
        /// The requested file, or `the repository`.
        file: String,
        /// 401 or 403.
        status: u16,
    },
    /// The hub has no such repository, revision or file (feature `hub`).
    #[error("preset {name:?}: expected {file} at {endpoint}, found none")]
    NotOnHub {
        /// The preset's name.
        name: String,
        /// The hub's address.
        endpoint: String,
        /// The requested file, or `the repository`.
        file: String,
    },
    /// A download failed, or the hub's answer is invalid (feature `hub`).
    #[error("preset {name:?}: {file}: expected {expected}, found {found}")]
    Download {
        /// The preset's name.
        name: String,
        /// The requested file, or `the repository`.
        file: String,
        /// The expected answer.
        expected: String,
        /// The answer, or the failure.
        found: String,
    },
    /// A name is none of those that a [`FromStr`](std::str::FromStr) implementation knows.
    #[error("{what} {found:?}: expected {expected}")]
    UnknownName {
        /// The kind of thing that the name stands for, such as `access`.
        what: &'static str,
        /// The known names.
        expected: &'static str,
        /// The name, shortened.
        found: String,
    },
    /// The preset has no tensor with this name.
    #[error("{dir:?}: expected tensor {tensor:?}, found no such tensor")]
    MissingTensor {
        /// The preset's directory.
        dir: PathBuf,
        /// The requested tensor.
        tensor: String,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Makes an [`Error::Io`] at `path`.
pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Io { path: path.to_owned(), source }
}

/// Shortens `text` to one line of at most 200 characters and an ellipsis. Files choose how long their names are.
pub(crate) fn clip(text: impl Display) -> String {
    const MAX_CHARS: usize = 200;
    let text = text.to_string();
    let cut = text.char_indices().nth(MAX_CHARS).map(|(at, _)| at);
    let shortened = cut.and_then(|at| text.get(..at)).unwrap_or(&text);
    let mut line: String = shortened.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cut.is_some() {
        line.push_str("...");
    }
    line
}
