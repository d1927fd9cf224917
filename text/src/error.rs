//! The error type of the crate.

use std::path::PathBuf;

/// Why a directory cannot be used for a task, or a request not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Loading the model or running it failed.
    #[error(transparent)]
    Model(#[from] rachis::Error),
    /// A file that the task needs does not exist.
    #[error("{}: has no {expected}", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// The file, or the alternatives.
        expected: String,
    },
    /// A file is malformed, or says something that this crate does not implement.
    #[error("{file}: {message}")]
    File {
        /// The name of the file in the directory.
        file: String,
        /// What is wrong, on one line of bounded length.
        message: String,
    },
    /// The model has not the architecture or the head that the task needs.
    #[error("{task} needs {expected}, found {found}")]
    Task {
        /// The task.
        task: &'static str,
        /// What it needs.
        expected: String,
        /// What the directory has.
        found: String,
    },
    /// A request cannot be answered.
    #[error("{what} is {found}, expected {expected}")]
    Request {
        /// The argument.
        what: &'static str,
        /// Its value.
        found: String,
        /// The values that are allowed.
        expected: String,
    },
    /// The tokenizer failed on a text.
    #[error("tokenizer: {message}")]
    Tokenizer {
        /// What is wrong, on one line of bounded length.
        message: String,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl From<rachis::loader::Error> for Error {
    fn from(error: rachis::loader::Error) -> Error {
        Error::Model(error.into())
    }
}

/// An error in a file. The message is cut, and control characters are escaped, since it may quote the file.
pub(crate) fn in_file(file: &str, error: impl std::fmt::Display) -> Error {
    let (start, more) = shortened(&error.to_string(), 200);
    Error::File { file: file.to_owned(), message: format!("{}{more}", visible(&start)) }
}

/// A text from a file, quoted and shortened for a message.
pub(crate) fn clip(text: &str) -> String {
    let (start, more) = shortened(text, 60);
    format!("\"{}{more}\"", start.escape_debug())
}

/// The first `max` characters of a text, and dots if there are more.
fn shortened(text: &str, max: usize) -> (String, &'static str) {
    let more = if text.chars().nth(max).is_some() { "..." } else { "" };
    (text.chars().take(max).collect(), more)
}

/// A text from a file, safe to print on one line of a terminal: control characters and marks of text direction are
/// escaped.
pub fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                visible.extend(c.escape_unicode());
            }
            c if c.is_control() => visible.extend(c.escape_debug()),
            c => visible.push(c),
        }
    }
    visible
}
