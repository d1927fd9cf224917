//! The one error type of the crate.

use std::path::PathBuf;

/// What loading a model or running it can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The preset's files are not what they must be.
    #[error(transparent)]
    Load(#[from] rachis_loader::Error),
    /// A kernel refused its operands: the level asked for, or a shape.
    #[error(transparent)]
    Kernel(#[from] rachis_kernels::Error),
    /// A field of the configuration has a value that no model can have.
    #[error("config: {field} is {found}, expected {expected}")]
    Config {
        /// The field at fault, by its KerasHub name.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        expected: String,
    },
    /// The preset holds another architecture than the one asked for.
    #[error("{path}: holds a {found} model, not {expected}")]
    Architecture {
        /// The preset's directory.
        path: PathBuf,
        /// What the preset says it is.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// A weight that the architecture needs is not in the preset.
    #[error("weight {name} is missing")]
    MissingWeight {
        /// The weight's name in the preset.
        name: String,
    },
    /// A layer's weight that the configuration has no place for: another model's configuration.
    #[error("weight {name} is in the files, expected none by the configuration")]
    ExtraWeight {
        /// The weight's name in the preset.
        name: String,
    },
    /// A weight has another shape than the configuration says.
    #[error("weight {name} has shape {}, expected {expected:?}", clip(format!("{found:?}")))]
    WeightShape {
        /// The weight's name in the preset.
        name: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A weight is stored as something other than a float of 16 or 32 bits.
    #[error("weight {name} is stored as {found}, expected F32, BF16 or F16")]
    WeightDtype {
        /// The weight's name in the preset.
        name: String,
        /// The storage type found.
        found: String,
    },
    /// A weight has a number that the type it was to be stored as does not reach.
    #[error("weight {name} has the value {found}, expected numbers in the range of float16")]
    Beyond {
        /// The weight's name in the directory that was to be written.
        name: String,
        /// The number.
        found: f32,
    },
    /// The session's deadline has passed, or its caller has cancelled the call.
    #[error("the call was cancelled")]
    Cancelled,
    /// A request does not fit the model.
    #[error("{what} is {found}, expected {expected}")]
    Request {
        /// The part of the request at fault.
        what: String,
        /// What was given.
        found: String,
        /// What would do.
        expected: String,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What a file holds, on one line of bounded length: for messages.
pub(crate) fn clip(text: impl ToString) -> String {
    const MOST: usize = 200;
    let text = text.to_string();
    let mut line: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        line.push_str("...");
    }
    line
}

/// [`Error::Request`] from anything printable.
pub(crate) fn request(what: impl ToString, found: impl ToString, expected: impl ToString) -> Error {
    Error::Request { what: what.to_string(), found: found.to_string(), expected: expected.to_string() }
}

/// Room for `len` elements in all, or an error when the memory cannot be had.
pub(crate) fn try_reserve<T>(list: &mut Vec<T>, len: usize) -> Result<()> {
    let bytes = len.saturating_mul(size_of::<T>());
    list.try_reserve(len.saturating_sub(list.len()))
        .map_err(|_| rachis_kernels::Error::Memory { bytes }.into())
}
