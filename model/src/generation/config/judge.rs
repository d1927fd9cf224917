//! Which of transformers' fields of generation are refused, because they would change the result and are not
//! implemented.
//!
//! All others are implemented, or cannot change which tokens are generated: they choose a cache, what is returned besides
//! the tokens, or a way to the same tokens (compilation, assisted generation). Unknown fields of files are ignored, as by
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

/// The fields that are implemented. `seed` is ours, and the last two are KerasHub's.
const IMPLEMENTED: [&str; 42] = [
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "eos_token_id",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "pad_token_id",
    "penalty_alpha",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "temperature",
    "top_h",
    "top_k",
    "top_p",
    "typical_p",
    "seed",
    "sampler",
    "stop_token_ids",
];

/// The fields that cannot change the result.
const WITHOUT_EFFECT: [&str; 25] = [
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "cache_config",
    "compile_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "return_dict_in_generate",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_model_defaults",
    "use_mtp",
];

/// Whether a field is one of transformers' (or of KerasHub's or ours), whatever becomes of it.
pub(super) fn is_known(name: &str) -> bool {
    let refused = REFUSED.iter().any(|(refused, ..)| *refused == name);
    refused || IMPLEMENTED.contains(&name) || WITHOUT_EFFECT.contains(&name)
}

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
