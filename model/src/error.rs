//! The error type of the crate.

mod request;

use std::path::PathBuf;

pub use request::RequestError;

/// Why loading a model or running it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the preset is missing or malformed.
    #[error(transparent)]
    Load(#[from] rachis_loader::Error),
    /// A kernel refused its operands, the level is not supported, or memory could not be allocated.
    #[error(transparent)]
    Kernel(#[from] rachis_kernels::Error),
    /// A field of the configuration has a value that no model can have.
    #[error("config: {field} is {found}, expected {expected}")]
    Config {
        /// The field, by its KerasHub name.
        field: &'static str,
        /// Its value.
        found: String,
        /// The values that are allowed.
        expected: String,
    },
    /// The preset holds another architecture than the requested one.
    #[error("{path}: holds a {found} model, not {expected}")]
    Architecture {
        /// The preset's directory.
        path: PathBuf,
        /// The architecture that the preset names.
        found: String,
        /// The requested architecture.
        expected: &'static str,
    },
    /// A weight that the architecture needs is not in the preset.
    #[error("weight {name} is missing")]
    MissingWeight {
        /// The weight's name in the preset.
        name: String,
    },
    /// A layer has a weight that the configuration has no place for: the configuration is another model's.
    #[error("weight {name} is in the files, expected none by the configuration")]
    ExtraWeight {
        /// The weight's name in the preset.
        name: String,
    },
    /// A weight has another shape than the configuration implies.
    #[error("weight {name} has shape {}, expected {expected:?}", clip(format!("{found:?}")))]
    WeightShape {
        /// The weight's name in the preset.
        name: String,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A weight is stored as something other than a float of 16 or 32 bits.
    #[error("weight {name} is stored as {found}, expected F32, BF16 or F16")]
    WeightDtype {
        /// The weight's name in the preset.
        name: String,
        /// The type in the file.
        found: String,
    },
    /// A weight has a value outside the range of float16, in which it should be saved.
    #[error("weight {name} has the value {found}, expected numbers in the range of float16")]
    WeightRange {
        /// The weight's name in the directory that was being written.
        name: String,
        /// The value.
        found: f32,
    },
    /// A name is none of those that a setting has.
    #[error("{what} is {found:?}, expected {expected}")]
    UnknownName {
        /// The setting.
        what: &'static str,
        /// The name.
        found: String,
        /// The names that are known.
        expected: &'static str,
    },
    /// The session's cancel flag was set; see [`Session::set_cancel`](crate::Session::set_cancel).
    #[error("the call was cancelled")]
    Cancelled,
    /// The session's deadline passed; see [`Session::set_deadline`](crate::Session::set_deadline).
    #[error("the call's deadline has passed")]
    DeadlineExceeded,
    /// A request does not fit the model or the session.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Text out of a file as one line of bounded length, for messages.
pub(crate) fn clip(text: impl ToString) -> String {
    const MAX_CHARS: usize = 200;
    let text = text.to_string();
    let mut line: String =
        text.chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push_str("...");
    }
    line
}

/// Checks the length of a slice of the request, or of one that the caller gives for the output.
pub(crate) fn check_len(what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(RequestError::Length { what, found, expected }.into()) }
}

/// Grows the capacity of `list` to `len` elements.
pub(crate) fn try_reserve<T>(list: &mut Vec<T>, len: usize) -> Result<()> {
    let bytes = len.saturating_mul(size_of::<T>());
    list.try_reserve(len.saturating_sub(list.len()))
        .map_err(|_| rachis_kernels::Error::OutOfMemory { bytes }.into())
}
