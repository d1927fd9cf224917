//! The rule for the parts of a handle, and the errors for text that breaks it.

use crate::error::{Error, clip};

/// The longest name that the hub allows.
const MAX_NAME: usize = 96;

/// Whether a part of a handle, or of a cache entry, is a plain name: no separator, no `..`, nothing that a shell or a
/// URL gives another meaning.
pub(crate) fn is_name(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=MAX_NAME).contains(&part.len())
        && part.chars().all(allowed)
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("..")
}

/// Describes a part that is not a plain name, for messages.
pub(crate) fn describe(part: &str) -> String {
    match part {
        "" => "an empty part".to_owned(),
        _ if part.len() > MAX_NAME => format!("a part of {} bytes", part.len()),
        _ => quote(part),
    }
}

/// Untrusted text for messages: quoted, escaped, of bounded length.
pub(super) fn quote(text: &str) -> String {
    clip(format_args!("{text:?}"))
}

/// The error for a name that is not a handle.
pub(crate) fn refuse(name: &str, expected: &'static str, found: impl Into<String>) -> Error {
    Error::Handle { name: clip(name), expected, found: found.into() }
}
