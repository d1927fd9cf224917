//! The settings of the Transformer module: which output of the model it passes on, and how texts become tokens.

use rachis::Backbone;
use rachis::loader::Preset;
use serde_json::Value;

use super::Fields;
use crate::error::Result;
use crate::tokenizer::{EncodeOptions, SpecialTokens, Tokenizer, TruncateWhich, Truncation};

/// The names of the file with the settings, in the order in which the library looks for one that is not empty.
const FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

const KNOWN: [&str; 18] = [
    "max_seq_length",
    "do_lower_case",
    "transformer_task",
    "modality_config",
    "module_output_name",
    "processing_kwargs",
    "query_length",
    "document_length",
    "model_kwargs",
    "model_args",
    "processor_kwargs",
    "tokenizer_args",
    "config_kwargs",
    "config_args",
    // Without effect on results.
    "unpad_inputs",
    "backend",
    // Refused when they are set.
    "query_expansion",
    "tokenizer_name_or_path",
];

/// Arguments of transformers' `from_pretrained` without effect on results, up to the rounding of another dtype.
const WITHOUT_EFFECT: [&str; 13] = [
    "attn_implementation",
    "torch_dtype",
    "dtype",
    "device_map",
    "low_cpu_mem_usage",
    "use_safetensors",
    "add_pooling_layer",
    "trust_remote_code",
    "cache_dir",
    "use_fast",
    "use_cache",
    "local_files_only",
    "padding_side",
];

/// An output of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Output {
    /// `last_hidden_state`: a vector for each token.
    #[default]
    Tokens,
    /// `pooler_output`: BERT's pooled vector, as the vector of the text.
    Pooled,
    /// `logits` of sequence classification.
    Scores,
}

/// The settings of the Transformer module.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) output: Output,
    /// Whether texts are lowercased before all else that the tokenizer does.
    pub(crate) lower_case: bool,
    /// Maximum number of tokens of a text, special tokens included; `None` without a limit.
    pub(crate) max_tokens: Option<usize>,
    /// The limit for queries and for documents, where they have one of their own.
    query_length: Option<usize>,
    document_length: Option<usize>,
    /// The limit of `processing_kwargs`, which wins over all others.
    forced_length: Option<usize>,
    truncate: Truncate,
    special_tokens: SpecialTokens,
}

/// The kind of a text where limits differ by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextKind {
    Any,
    Query,
    Document,
}

/// Whether and how texts are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truncate {
    Never,
    To(TruncateWhich),
}

impl Default for Truncate {
    fn default() -> Truncate {
        Truncate::To(TruncateWhich::LongestFirst)
    }
}

impl Settings {
    /// The settings of a model that cuts texts at this number of tokens.
    pub(crate) fn limited(max_tokens: usize) -> Settings {
        Settings { max_tokens: Some(max_tokens), ..Settings::default() }
    }

    /// The settings of a directory without modules: `output`, and the limits of the tokenizer and the model.
    pub(crate) fn plain(
        preset: &Preset,
        model: &Backbone,
        tokenizer: &Tokenizer,
        output: Output,
    ) -> Result<Settings> {
        Ok(Settings { output, max_tokens: limit_of_files(preset, model, tokenizer)?, ..Settings::default() })
    }

    /// The settings of the Transformer of a directory with modules.
    pub(crate) fn read(preset: &Preset, model: &Backbone, tokenizer: &Tokenizer) -> Result<Settings> {
        let mut fields = None;
        for name in FILES {
            let found = Fields::read(name.to_owned(), |name| Ok(preset.read_json(name)?))?;
            fields = found.filter(|found| !found.is_empty());
            if fields.is_some() {
                break;
            }
        }
        let Some(fields) = fields else { return Settings::plain(preset, model, tokenizer, Output::Tokens) };
        fields.only(&KNOWN)?;
        for refused in ["query_expansion", "tokenizer_name_or_path"] {
            if fields.get(refused).is_some() {
                return Err(fields.wrong(refused, "null, as it is not implemented"));
            }
        }
        arguments(&fields, ["model_kwargs", "model_args"])?.only(&WITHOUT_EFFECT)?;
        arguments(&fields, ["config_kwargs", "config_args"])?.only(&WITHOUT_EFFECT)?;
        let of_tokenizer = arguments(&fields, ["processor_kwargs", "tokenizer_args"])?;
        of_tokenizer.only(&[&WITHOUT_EFFECT[..], &["model_max_length"]].concat())?;

        let max_tokens = match of_tokenizer.opt_count("model_max_length")? {
            Some(limit) => Some(limit),
            None => fields.opt_count("max_seq_length")?,
        };
        let call = call_arguments(&fields.object("processing_kwargs")?)?;
        Ok(Settings {
            output: output(&fields)?,
            lower_case: fields.opt_bool("do_lower_case")?.unwrap_or(false),
            max_tokens: match max_tokens {
                Some(limit) => Some(limit),
                None => limit_of_files(preset, model, tokenizer)?,
            },
            query_length: fields.opt_count("query_length")?,
            document_length: fields.opt_count("document_length")?,
            ..call
        })
    }

    /// How a text of this kind becomes tokens.
    pub(crate) fn encode_options(&self, kind: TextKind) -> EncodeOptions {
        let of_kind = match kind {
            TextKind::Any => None,
            TextKind::Query => self.query_length,
            TextKind::Document => self.document_length,
        };
        let options = EncodeOptions::new().with_special_tokens(self.special_tokens);
        match (self.forced_length.or(of_kind).or(self.max_tokens), self.truncate) {
            (Some(limit), Truncate::To(which)) => {
                options.with_truncation(Truncation::new(limit).with_strategy(which))
            }
            _ => options,
        }
    }
}

/// The arguments under their current or their older name.
fn arguments(fields: &Fields, names: [&str; 2]) -> Result<Fields> {
    let [current, older] = names;
    // The library replaces the current one by the older one.
    fields.object(if fields.has(older) { older } else { current })
}

/// The output by `transformer_task`, `modality_config` and `module_output_name`.
fn output(fields: &Fields) -> Result<Output> {
    let task = fields.opt_str("transformer_task")?.unwrap_or("feature-extraction");
    let default = match task {
        "feature-extraction" => Output::Tokens,
        "sequence-classification" => Output::Scores,
        _ => return Err(fields.wrong("transformer_task", "feature-extraction or sequence-classification")),
    };
    if fields.get("modality_config").is_none() {
        return Ok(default);
    }
    let modalities = fields.object("modality_config")?;
    modalities.only(&["text"])?;
    let text = modalities.object("text")?;
    if text.opt_str("method")? != Some("forward") {
        return Err(text.wrong("method", "forward"));
    }
    let name = match text.get("method_output_name") {
        Some(Value::Array(path)) if path.len() == 1 => path[0].as_str(),
        other => other.and_then(Value::as_str),
    };
    match (default, name, fields.opt_str("module_output_name")?) {
        (Output::Tokens, Some("last_hidden_state"), Some("token_embeddings")) => Ok(Output::Tokens),
        (Output::Tokens, Some("pooler_output"), Some("sentence_embedding")) => Ok(Output::Pooled),
        (Output::Scores, Some("logits"), Some("scores")) => Ok(Output::Scores),
        (_, Some("last_hidden_state" | "pooler_output" | "logits"), _) => {
            Err(fields.wrong("module_output_name", "the one that belongs to the model's output"))
        }
        _ => Err(text.wrong("method_output_name", "last_hidden_state, pooler_output or logits")),
    }
}

/// The settings of `processing_kwargs`: arguments of the tokenizer's calls. Those that are common to all modalities win.
fn call_arguments(fields: &Fields) -> Result<Settings> {
    fields.only(&["text", "common"])?;
    let mut settings = Settings::default();
    for part in ["text", "common"] {
        let arguments = fields.object(part)?;
        // Padding is never computed.
        arguments.only(&[
            "truncation",
            "max_length",
            "add_special_tokens",
            "padding",
            "pad_to_multiple_of",
            "return_tensors",
        ])?;
        if let Some(limit) = arguments.opt_count("max_length")? {
            settings.forced_length = Some(limit);
        }
        match arguments.opt_bool("add_special_tokens")? {
            Some(true) => settings.special_tokens = SpecialTokens::With,
            Some(false) => settings.special_tokens = SpecialTokens::Without,
            None => {}
        }
        settings.truncate = match arguments.get("truncation") {
            None => settings.truncate,
            Some(Value::Bool(true)) => Truncate::default(),
            Some(Value::Bool(false)) => Truncate::Never,
            Some(name) => match name.as_str() {
                Some("longest_first") => Truncate::default(),
                Some("only_first") => Truncate::To(TruncateWhich::OnlyFirst),
                Some("only_second") => Truncate::To(TruncateWhich::OnlySecond),
                Some("do_not_truncate") => Truncate::Never,
                _ => return Err(arguments.wrong("truncation", "true, false or a strategy of truncation")),
            },
        };
    }
    Ok(settings)
}

/// The limit where sentence-transformers' own files have none: the tokenizer's, but no more than the model's positions.
fn limit_of_files(preset: &Preset, model: &Backbone, tokenizer: &Tokenizer) -> Result<Option<usize>> {
    let positions = match model {
        Backbone::Bart(model) => Some(model.config().max_sequence_length),
        Backbone::Bert(model) => Some(model.config().max_sequence_length),
        Backbone::Opt(model) => Some(model.config().max_sequence_length),
        // Positions that are computed have no limit; transformers' configuration has one all the same.
        Backbone::Falcon(_) => Some(preset.config().opt_usize("max_position_embeddings")?.unwrap_or(2048)),
        _ => None,
    };
    Ok([tokenizer.model_max_length(), positions].into_iter().flatten().min())
}
