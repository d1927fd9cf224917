//! Answers to requests: transformers' `generate`, and its pipelines that generate.

use rachis::Session;
use rachis::generation::{GenerationConfig, GenerationFields};
use rachis_text::{EncodeOptions, GeneratedText, SpecialTokens, TextGenerator};
use serde_json::{Value, json};

use super::describe;
use crate::Result;
use crate::args::GenerateArgs;
use crate::requests::{Request, optional, required};

/// The answer to a request: transformers' arguments of `generate`, or a call of one of its pipelines.
pub(super) fn answer(
    generator: &TextGenerator,
    session: &mut Session<'_>,
    args: &GenerateArgs,
    request: &Request,
) -> Result<Value> {
    let mut fields = generator.fields().clone();
    // Pipelines take the text from `inputs`, and answer with a text by a name.
    let pipeline = match request.get("pipeline") {
        None | Some(Value::Null | Value::Bool(false)) => None,
        Some(Value::Bool(true)) => Some("text-generation"),
        Some(Value::String(task)) => {
            fields = fields.with_task(task)?;
            Some(task.as_str())
        }
        Some(other) => return Err(format!("pipeline is {other}, expected true or the name of a task").into()),
    };
    let mut fields = args.fields(&fields)?;
    for (name, value) in request {
        match name.as_str() {
            "prompt" | "prompt_ids" | "pipeline" | "inputs" | "prefix" | "return_full_text" | "by" => {}
            name if GenerationFields::is_known(name) => fields.set(name, value.clone()),
            name => return Err(format!("{name:?} is unknown, expected an argument of generate").into()),
        }
    }
    let Some(task) = pipeline else {
        let config = fields.config()?;
        let ids = match optional::<Vec<u32>>(request, "prompt_ids")? {
            Some(ids) => ids,
            None => {
                let prefix: String = optional(request, "prefix")?.unwrap_or_default();
                generator.encode(&(prefix + &required::<String>(request, "prompt")?))?
            }
        };
        let found = generator.generate_from_ids(session, &[ids], &config)?;
        let mut answers: Vec<Value> =
            found.iter().flatten().map(|found| describe(generator, found)).collect();
        return Ok(if answers.len() == 1 { answers.remove(0) } else { answers.into() });
    };
    let inputs: String = required(request, "inputs")?;
    let prefix: Option<String> = optional(request, "prefix")?;
    let prefix = prefix.as_deref().or(fields.prefix()).unwrap_or_default();
    let config = match task {
        "text-generation" => text_generation(generator, &fields, prefix)?,
        _ => fields.config()?,
    };
    let found = generator.generate(session, &[format!("{prefix}{inputs}")], &config)?;
    let full = optional(request, "return_full_text")?.unwrap_or(true);
    let record = |found: &GeneratedText| -> Result<Value> {
        Ok(match task {
            "summarization" => json!({ "summary_text": found.text }),
            "text-generation" => {
                let added = generator.continuation(&found.sequence)?;
                json!({ "generated_text": if full { format!("{inputs}{added}") } else { added } })
            }
            task if task.starts_with("translation") => json!({ "translation_text": found.text }),
            _ => json!({ "generated_text": found.text }),
        })
    };
    found.iter().flatten().map(record).collect()
}

/// What transformers' text-generation pipeline makes of lengths: 256 new tokens by default, and lengths that count the
/// prompt do not count its prefix.
fn text_generation(
    generator: &TextGenerator,
    fields: &GenerationFields,
    prefix: &str,
) -> Result<GenerationConfig> {
    let mut fields = fields.clone();
    if fields.value("max_length").is_none() && fields.value("max_new_tokens").is_none() {
        fields.set("max_new_tokens", 256);
    }
    if let (Some(tokenizer), false) = (generator.tokenizer(), prefix.is_empty()) {
        let options = EncodeOptions::new().with_special_tokens(SpecialTokens::Without);
        let more = tokenizer.encode_with(prefix, options)?.len() as u64;
        for (length, new) in [("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")] {
            if let (Some(count), None) = (fields.value(length).and_then(Value::as_u64), fields.value(new)) {
                fields.set(length, count.saturating_add(more));
            }
        }
    }
    Ok(fields.config()?)
}
