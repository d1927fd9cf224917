//! The arguments of generation as a preset's files and a caller state them.

use rachis_loader::{Config, ConfigSource, Preset};
use serde_json::{Map, Value};

use super::GenerationConfig;
use super::judge::{is_known, judge};
use super::parse::{Fields, parse};
use crate::config::field;
use crate::error::Result;

/// The arguments of generation by transformers' names, as a preset's files and a caller state them.
///
/// A value of the caller's takes precedence over one of the files before anything is judged: what the files say about it
/// does not matter then.
///
/// ```no_run
/// use rachis::generation::GenerationFields;
/// use rachis::loader::Preset;
///
/// let preset = Preset::named_config("models/t5-base")?;
/// let fields = GenerationFields::from_preset(&preset)?.with_task("summarization")?.with("num_beams", 2);
/// let config = fields.config()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct GenerationFields {
    /// What the preset states.
    file: Config,
    /// What the caller states.
    given: Map<String, Value>,
    /// `task_specific_params`: the fields of a task by its name.
    tasks: Map<String, Value>,
    /// The text that goes before a prompt.
    prefix: Option<String>,
}

impl GenerationFields {
    /// The fields of a preset.
    ///
    /// A Hugging Face preset's are in `generation_config.json`, or without this file in `config.json`; those of tasks are
    /// in `config.json`. A Keras preset's are KerasHub's defaults, with the length of its preprocessor: top-k sampling up
    /// to 1024 tokens. It has no special tokens, since only KerasHub's tokenizer knows them.
    ///
    /// # Errors
    /// [`Error::Load`](crate::Error::Load) when a file cannot be read.
    pub fn from_preset(preset: &Preset) -> Result<GenerationFields> {
        let config = preset.config();
        if let ConfigSource::Keras { .. } = config.source() {
            let length = keras_length(preset)?.unwrap_or_else(|| 1024.into());
            let fields = [("max_length".to_owned(), length)].into_iter().collect();
            let file = config.with_fields("preprocessor.json", fields);
            return Ok(GenerationFields { file, given: Map::new(), tasks: Map::new(), prefix: None });
        }
        let file = match preset.read_config("generation_config.json")? {
            Some(file) => file,
            None => legacy(config),
        };
        let tasks = config.value("task_specific_params").and_then(Value::as_object).cloned();
        let prefix = config.opt_str("prefix")?.map(str::to_owned);
        Ok(GenerationFields { file, given: Map::new(), tasks: tasks.unwrap_or_default(), prefix })
    }

    /// Which library's directory it is: the arguments of transformers, or the samplers of KerasHub.
    pub fn source(&self) -> &ConfigSource {
        self.file.source()
    }

    /// Whether there is a field of this name in transformers or KerasHub, or here. Other names change nothing.
    pub fn is_known(name: &str) -> bool {
        is_known(name)
    }

    /// Sets a field. `null` stands for no value, whatever the files say.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        let (name, value) = match (name, value.into()) {
            // KerasHub's name, and its value for the end token of the tokenizer.
            ("stop_token_ids", Value::String(auto)) if auto == "auto" => return,
            ("stop_token_ids", value) => ("eos_token_id", value),
            other => other,
        };
        self.given.insert(name.to_owned(), value);
    }

    /// [`GenerationFields::set`], for chains.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> GenerationFields {
        self.set(name, value);
        self
    }

    /// Sets a field that neither the files nor the caller state.
    #[must_use]
    pub fn with_default(mut self, name: &str, value: impl Into<Value>) -> GenerationFields {
        if self.file.value(name).is_none() {
            self.set_in_file([(name.to_owned(), value.into())]);
        }
        self
    }

    /// Takes the fields and the prefix of a task, such as `summarization` or `translation_en_to_de`: those of
    /// `task_specific_params`, as the pipelines of transformers 4 do. They take precedence over the preset's others. A
    /// task of these pipelines without such fields changes nothing but that the preset's own prefix is used.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a task that neither the preset nor transformers knows.
    pub fn with_task(mut self, task: &str) -> Result<GenerationFields> {
        match self.tasks.get(task).cloned() {
            Some(Value::Object(fields)) => {
                if let Some(prefix) = fields.get("prefix") {
                    let wrong = || field("task_specific_params", prefix, "a text as prefix");
                    self.prefix = Some(prefix.as_str().ok_or_else(wrong)?.to_owned());
                }
                self.set_in_file(fields);
            }
            Some(other) => return Err(field("task_specific_params", other, "an object for each task")),
            None if is_pipeline(task) => {}
            None => {
                let mut known: Vec<&str> = self.tasks.keys().map(String::as_str).take(8).collect();
                known.extend(PIPELINES);
                return Err(field("task", task, format!("one of {}", known.join(", "))));
            }
        }
        Ok(self)
    }

    /// The text that goes before a prompt: the task's `prefix`, else that of `config.json`.
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The value of a field: the caller's, else the files'. `None` when absent or `null`.
    pub fn value(&self, name: &str) -> Option<&Value> {
        match self.given.get(name) {
            Some(value) => Some(value).filter(|value| !value.is_null()),
            None => self.file.value(name),
        }
    }

    /// The configuration that the fields make.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when a field is out of range, or would change the result in a way that is
    /// not implemented; [`Error::Load`](crate::Error::Load) when it is malformed.
    pub fn config(&self) -> Result<GenerationConfig> {
        let fields = Fields::new(self.file.with_fields("request", self.given.clone()), &self.file);
        judge(&fields)?;
        let config = parse(&fields)?;
        config.validate(usize::MAX)?;
        Ok(config)
    }

    fn set_in_file(&mut self, more: impl IntoIterator<Item = (String, Value)>) {
        let mut fields: Map<String, Value> =
            self.file.fields().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        fields.extend(more);
        self.file = self.file.with_fields("generation_config.json", fields);
    }
}

/// The tasks of transformers' generating pipelines.
const PIPELINES: [&str; 4] = ["summarization", "translation", "text2text-generation", "text-generation"];

fn is_pipeline(task: &str) -> bool {
    let translation = task.strip_prefix("translation_").and_then(|pair| pair.split_once("_to_"));
    translation.is_some() || PIPELINES.contains(&task)
}

/// A `config.json` that states the arguments of generation, with the names of today.
fn legacy(config: &Config) -> Config {
    let mut fields: Map<String, Value> =
        config.fields().map(|(name, value)| (name.to_owned(), value.clone())).collect();
    if fields.get("force_bos_token_to_be_generated") == Some(&Value::Bool(true)) {
        let bos = fields.get("bos_token_id").cloned().unwrap_or_default();
        fields.insert("forced_bos_token_id".to_owned(), bos);
    }
    config.with_fields("config.json", fields)
}

/// The length of the sequences of a KerasHub preprocessor, in its own file or in the task's.
fn keras_length(preset: &Preset) -> Result<Option<Value>> {
    let layer = match preset.read_json("preprocessor.json")? {
        Some(layer) => layer,
        None => {
            let task = preset.read_json("task.json")?.unwrap_or_default();
            task["config"]["preprocessor"].clone()
        }
    };
    let name = match layer["class_name"].as_str().unwrap_or_default() {
        class if class.ends_with("CausalLMPreprocessor") => "sequence_length",
        class if class.ends_with("Seq2SeqLMPreprocessor") => "decoder_sequence_length",
        _ => return Ok(None),
    };
    Ok(layer["config"].get(name).filter(|length| !length.is_null()).cloned())
}
