//! Which of transformers' fields of generation are refused, because they would change the result and are not
//! implemented.
//!
//! All others are implemented, or cannot change which tokens are generated: they choose a cache, what is returned besides
//! the tokens, or a way to the same tokens (compilation, assisted generation). Unknown fields are ignored, as by
//! transformers.

use serde_json::Value;

use super::parse::Fields;
use crate::config::field;
use crate::error::Result;

/// A field, whether a value of it changes nothing, and the values that do not.
type Refused = (&'static str, fn(&Value) -> bool, &'static str);

const REFUSED: [Refused; 8] = [
    ("watermarking_config", |_| false, "null: watermarks are not implemented"),
    ("guidance_scale", |value| value.as_f64() == Some(1.0), "1: classifier-free guidance is not implemented"),
    ("constraints", is_empty, "null: constrained beam search is not implemented"),
    ("force_words_ids", is_empty, "null: constrained beam search is not implemented"),
    ("dola_layers", |_| false, "null: DoLa is not implemented"),
    ("token_healing", |value| *value == Value::Bool(false), "false: token healing is not implemented"),
    ("max_time", |_| false, "null: a session has a deadline instead"),
    (
        "cache_implementation",
        |value| *value != "quantized",
        "another: a cache of that kind is not implemented",
    ),
];

/// Returns an error for a field that would change the result and is not implemented.
pub(super) fn judge(fields: &Fields<'_>) -> Result<()> {
    for (name, neutral, expected) in REFUSED {
        if let Some(value) = fields.value(name).filter(|value| !neutral(value)) {
            return Err(field(name, value, expected));
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}
