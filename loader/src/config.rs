//! Typed access to the untrusted fields of a `config.json`, as Hugging Face or Keras writes it.
//!
//! The accessors check that a field exists and has the requested type. The model checks whether the value makes sense.
//! `null` counts as absent, as it does for both libraries. In a Keras file the accessors read the nested object `config`,
//! which holds the constructor's arguments.

use serde_json::{Map, Value};

use crate::error::{Error, Result, clip};
use crate::json;

/// Which library wrote a configuration, and for which model. This decides the field names and the numerical conventions.
///
/// Deliberately exhaustive: the conventions of a further library must be considered wherever this enum is matched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConfigSource {
    /// Hugging Face transformers.
    HuggingFace {
        /// The `model_type` field, such as `bert`.
        model_type: String,
    },
    /// KerasHub.
    Keras {
        /// The part of the `registered_name` field after its `>`, such as `BertBackbone`.
        class_name: String,
    },
}

/// The fields of a `config.json`.
#[derive(Debug, Clone)]
pub struct Config {
    file: String,
    source: ConfigSource,
    fields: Map<String, Value>,
}

impl Config {
    /// Parses a configuration. `file` stands for the file in messages.
    ///
    /// # Errors
    /// [`Error::Malformed`] for text that is not a JSON object or nests deeper than 128 levels; [`Error::Field`] for an
    /// object without `model_type` (Hugging Face), or with `registered_name` but without `config` (Keras).
    pub fn parse(file: &str, text: &[u8]) -> Result<Config> {
        let fields = json::fields(file, text)?;
        let source = ConfigSource::HuggingFace { model_type: String::new() };
        let mut config = Config { file: clip(file), source, fields };
        match config.opt_str("registered_name")? {
            Some(name) => {
                let class_name = after_package(name).to_owned();
                config.source = ConfigSource::Keras { class_name };
                config.fields = match config.fields.remove("config") {
                    Some(Value::Object(fields)) => fields,
                    other => return Err(config.wrong("config", "an object", other.as_ref())),
                };
            }
            None => {
                let model_type = config.str("model_type")?.to_owned();
                config.source = ConfigSource::HuggingFace { model_type };
            }
        }
        Ok(config)
    }

    /// Parses another JSON object of a preset, such as `generation_config.json`. `source` is the preset's own.
    pub(crate) fn parse_settings(file: &str, source: ConfigSource, text: &[u8]) -> Result<Config> {
        Ok(Config { file: clip(file), source, fields: json::fields(file, text)? })
    }

    /// Other fields of the same preset, with the same accessors. `file` stands for where they come from in messages.
    pub fn with_fields(&self, file: &str, fields: Map<String, Value>) -> Config {
        Config { file: clip(file), source: self.source.clone(), fields }
    }

    /// Which library wrote the configuration, and for which model.
    pub fn source(&self) -> &ConfigSource {
        &self.source
    }

    /// The JSON value of a field; `None` when absent or `null`.
    pub fn value(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// All fields, sorted by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// A non-negative integer.
    ///
    /// # Errors
    /// [`Error::Field`] when the field is absent or has another type. A number written with a fraction or an exponent is
    /// not an integer, even if its value is.
    pub fn usize(&self, field: &str) -> Result<usize> {
        self.require(field, UNSIGNED, self.opt_usize(field)?)
    }

    /// A finite number, rounded to `f32`.
    ///
    /// # Errors
    /// [`Error::Field`] when the field is absent, is not a number, or is too large for an `f32`.
    pub fn f32(&self, field: &str) -> Result<f32> {
        self.require(field, FLOAT, self.opt_f32(field)?)
    }

    /// A finite number.
    ///
    /// # Errors
    /// [`Error::Field`] when the field is absent or has another type.
    pub fn f64(&self, field: &str) -> Result<f64> {
        self.require(field, NUMBER, self.opt_f64(field)?)
    }

    /// A boolean.
    ///
    /// # Errors
    /// [`Error::Field`] when the field is absent or has another type.
    pub fn bool(&self, field: &str) -> Result<bool> {
        self.require(field, BOOL, self.opt_bool(field)?)
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::Field`] when the field is absent or has another type.
    pub fn str(&self, field: &str) -> Result<&str> {
        self.require(field, STRING, self.opt_str(field)?)
    }

    /// [`Config::usize`], or `None` when absent or `null`.
    ///
    /// # Errors
    /// [`Error::Field`] when the field has another type.
    pub fn opt_usize(&self, field: &str) -> Result<Option<usize>> {
        self.optional(field, UNSIGNED, |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// [`Config::f32`], or `None` when absent or `null`.
    ///
    /// # Errors
    /// [`Error::Field`] when the field has another type.
    pub fn opt_f32(&self, field: &str) -> Result<Option<f32>> {
        self.optional(field, FLOAT, |value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite()))
    }

    /// [`Config::f64`], or `None` when absent or `null`.
    ///
    /// # Errors
    /// [`Error::Field`] when the field has another type.
    pub fn opt_f64(&self, field: &str) -> Result<Option<f64>> {
        self.optional(field, NUMBER, Value::as_f64)
    }

    /// [`Config::bool`], or `None` when absent or `null`.
    ///
    /// # Errors
    /// [`Error::Field`] when the field has another type.
    pub fn opt_bool(&self, field: &str) -> Result<Option<bool>> {
        self.optional(field, BOOL, Value::as_bool)
    }

    /// [`Config::str`], or `None` when absent or `null`.
    ///
    /// # Errors
    /// [`Error::Field`] when the field has another type.
    pub fn opt_str(&self, field: &str) -> Result<Option<&str>> {
        self.optional(field, STRING, Value::as_str)
    }

    /// A list of non-negative integers: an array of integers, or a single integer.
    ///
    /// # Errors
    /// [`Error::Field`] when the field has another type.
    pub fn opt_usizes(&self, field: &str) -> Result<Option<Vec<usize>>> {
        let unsigned = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        self.optional(field, "an integer, 0 or more, or an array of such integers", |value| match value {
            Value::Array(items) => items.iter().map(unsigned).collect(),
            single => unsigned(single).map(|n| vec![n]),
        })
    }

    /// The error of a field that has not the form that the caller expects: [`Error::Field`].
    pub fn unexpected(&self, field: &str, expected: &'static str) -> Error {
        self.wrong(field, expected, self.fields.get(field))
    }

    /// The name of a function: a string, or the part after `>` of a function that Keras serialised as
    /// `{"config": "keras_hub>gelu_approximate", ...}`.
    ///
    /// # Errors
    /// [`Error::Field`] when the field has another type.
    pub fn opt_function(&self, field: &str) -> Result<Option<&str>> {
        self.optional(field, "the name of a function", function_name)
    }

    /// The name of the dtype policy, or `None`. For Hugging Face it is the field `dtype`, or `torch_dtype` in older
    /// files; for Keras it is the field `dtype`, a name or a `DTypePolicy`.
    ///
    /// # Errors
    /// [`Error::Field`] for any other value, such as the `DTypePolicyMap` of a quantised model.
    pub fn dtype(&self) -> Result<Option<&str>> {
        let name = match self.source {
            ConfigSource::HuggingFace { .. } if self.value("dtype").is_none() => {
                self.opt_str("torch_dtype")?
            }
            ConfigSource::HuggingFace { .. } => self.opt_str("dtype")?,
            ConfigSource::Keras { .. } => {
                self.optional("dtype", "a dtype or a DTypePolicy with a name", keras_dtype)?
            }
        };
        Ok(name.map(|name| name.strip_prefix("torch.").unwrap_or(name)))
    }

    fn optional<'a, T>(
        &'a self,
        field: &str,
        expected: &'static str,
        get: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(field) else { return Ok(None) };
        get(value).map(Some).ok_or_else(|| self.wrong(field, expected, Some(value)))
    }

    fn require<T>(&self, field: &str, expected: &'static str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.wrong(field, expected, self.fields.get(field)))
    }

    fn wrong(&self, field: &str, expected: &'static str, found: Option<&Value>) -> Error {
        let found = found.map_or_else(|| "nothing".to_owned(), json::describe);
        Error::Field { file: self.file.clone(), field: clip(field), expected, found }
    }
}

const UNSIGNED: &str = "an integer, 0 or more";
const FLOAT: &str = "a number in the range of float32";
const NUMBER: &str = "a number";
const BOOL: &str = "true or false";
const STRING: &str = "a string";

/// Strips the package: `BertBackbone` from `keras_hub>BertBackbone`.
fn after_package(name: &str) -> &str {
    name.rsplit_once('>').map_or(name, |(_, name)| name)
}

fn function_name(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("config")?.as_str()).map(after_package)
}

fn keras_dtype(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("config")?.get("name")?.as_str())
}

#[cfg(test)]
mod tests;
