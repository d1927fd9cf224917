//! `tokenizer.json` of the `tokenizers` crate, whose own format it is.
//!
//! It may describe a unigram model of any pieces; the library takes it at its word. So the file is parsed here first,
//! what it asks for is bounded, and the library gets those very values: no key that occurs twice and nothing behind the
//! end is read by one and not by the other.

use serde_json::Value;
use tokenizers::Tokenizer;

use super::piece_file::check_lengths;
use super::{contained, named};
use crate::Result;

const FILE: &str = "tokenizer.json";

/// The tokenizer of a parsed file.
pub fn open(file: Value) -> Result<Tokenizer> {
    let pieces = file["model"]["vocab"].as_array().into_iter().flatten();
    check_lengths(pieces.filter_map(|piece| piece[0].as_str())).map_err(|error| named(FILE, error))?;
    contained(FILE, || Ok(serde_json::from_value(file)?))
}
