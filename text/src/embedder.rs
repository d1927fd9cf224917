//! Sentence embeddings.

use rachis::loader::{Access, ConfigSource, Preset};
use rachis::{Backbone, BertBackbone, BertInputs, Pooling, Session, Tokens, normalize};
use serde_json::Value;

use crate::error::{Error, Result, in_file};
use crate::tokenizer::{EncodeOptions, Tokenizer, Truncation};

/// Number of texts in one forward pass.
const BATCH: usize = 32;

/// Vectors of texts, as sentence-transformers' `SentenceTransformer` and KerasHub's `BertTextEmbedder` make them.
#[derive(Debug)]
pub struct TextEmbedder {
    model: BertBackbone,
    tokenizer: Tokenizer,
    recipe: Recipe,
    max_tokens: usize,
}

impl TextEmbedder {
    /// The embedder of a preset: a directory, or a name as [`Preset::named`] takes it.
    ///
    /// # Errors
    /// When a file is missing, malformed or not implemented, or the model is not an encoder.
    pub fn from_preset(name: impl AsRef<std::ffi::OsStr>) -> Result<TextEmbedder> {
        let preset = Preset::named(name, Access::Map)?;
        let model = Backbone::load(&preset)?;
        TextEmbedder::load(&preset, model)
    }

    /// The embedder of an open preset and its model.
    ///
    /// # Errors
    /// As [`TextEmbedder::from_preset`].
    pub fn load(preset: &Preset, model: Backbone) -> Result<TextEmbedder> {
        let found = model.name().to_owned();
        let Backbone::Bert(model) = model else {
            let expected = "an encoder-only model such as BERT".to_owned();
            return Err(Error::Task { task: "embed", expected, found });
        };
        let recipe = Recipe::of(preset, None)?;
        let tokenizer = Tokenizer::load(preset)?;
        let max_tokens = recipe.max_tokens.unwrap_or(usize::MAX).min(model.config().max_sequence_length);
        Ok(TextEmbedder { model, tokenizer, recipe, max_tokens })
    }

    /// Sets the pooling, whatever the directory says.
    pub fn with_pooling(mut self, pooling: Pooling) -> TextEmbedder {
        self.recipe.pooling = pooling;
        self
    }

    /// Number of components of a vector.
    pub fn dimension(&self) -> usize {
        self.model.config().hidden_dim
    }

    /// The vectors of texts, `[texts, dimension]`, in their order.
    ///
    /// # Errors
    /// When the tokenizer fails on a text, or the session cannot run the model.
    pub fn embed(&self, session: &mut Session<'_>, texts: &[impl AsRef<str>]) -> Result<Vec<f32>> {
        let width = self.dimension();
        let options = EncodeOptions::new().with_truncation(Truncation::new(self.max_tokens));
        let mut embeddings = vec![0.0; texts.len() * width];
        for (texts, to) in texts.chunks(BATCH).zip(embeddings.chunks_mut(BATCH * width)) {
            let (mut ids, mut segments, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
            for text in texts {
                let encoding = self.tokenizer.encode_with(text.as_ref(), options)?;
                lengths.push(encoding.len());
                ids.extend(encoding.ids);
                segments.extend(encoding.type_ids);
            }
            let tokens = Tokens::ragged(&ids, &lengths);
            let inputs = BertInputs { tokens, segment_ids: Some(&segments) };
            let output = self.model.forward(session, inputs)?;
            self.recipe.pooling.pool(output.sequence_output, to)?;
        }
        if self.recipe.normalize {
            normalize(&mut embeddings, width);
        }
        Ok(embeddings)
    }
}

/// How a model turns token vectors into an embedding.
#[derive(Debug)]
struct Recipe {
    pooling: Pooling,
    /// Whether embeddings are scaled to length 1.
    normalize: bool,
    /// Maximum number of tokens of a text, [CLS] and [SEP] included.
    max_tokens: Option<usize>,
}

impl Recipe {
    /// The recipe of KerasHub for its presets, of sentence-transformers for other directories. A pooling chosen by
    /// flag takes precedence.
    fn of(preset: &Preset, chosen: Option<Pooling>) -> Result<Recipe> {
        match preset.config().source() {
            ConfigSource::Keras { .. } => Recipe::keras(preset, chosen),
            ConfigSource::HuggingFace { .. } => Recipe::sentence_transformers(preset, chosen),
        }
    }

    /// Reads `modules.json`, the pooling's `config.json` and `sentence_bert_config.json`. The default without them is
    /// the mean, normalised.
    fn sentence_transformers(preset: &Preset, chosen: Option<Pooling>) -> Result<Recipe> {
        let modules =
            preset.read_json("modules.json")?.map(|modules| pooling_module(&modules)).transpose()?;
        let named = modules.is_some();
        let (dir, normalize) = modules.unwrap_or(("1_Pooling".to_owned(), true));
        let file = format!("{dir}/config.json");
        let pooling = match chosen {
            Some(chosen) => chosen,
            None => match preset.read_json(&file)? {
                Some(config) => pooling_mode(&file, &config)?,
                None if named => {
                    return Err(in_file(&file, "does not exist, but modules.json names it"));
                }
                None => Pooling::Mean,
            },
        };
        let sentence = preset.read_json("sentence_bert_config.json")?;
        let max_tokens =
            length("sentence_bert_config.json", "max_seq_length", &sentence.unwrap_or_default())?;
        Ok(Recipe { pooling, normalize, max_tokens })
    }

    /// Reads the `BertTextEmbedder` of `task.json` and its preprocessor, which is in the same file or in
    /// `preprocessor.json`. The default without them, or when they describe other classes, is KerasHub's.
    fn keras(preset: &Preset, chosen: Option<Pooling>) -> Result<Recipe> {
        let task = arguments(preset, "task.json", "BertTextEmbedder")?;
        let (file, preprocessor) = match task["preprocessor"].get("config") {
            Some(own) => ("task.json", own.clone()),
            None => {
                let file = "preprocessor.json";
                (file, arguments(preset, file, "BertTextEmbedderPreprocessor")?)
            }
        };
        let pooling = match (chosen, &task["pooling_mode"]) {
            (Some(chosen), _) => chosen,
            (None, Value::Null) => Pooling::Mean,
            (None, mode) => match mode.as_str() {
                Some("mean") => Pooling::Mean,
                Some("cls") => Pooling::Cls,
                Some("max") => Pooling::Max,
                _ => return Err(wrong("task.json", "pooling_mode", mode, "mean, cls or max")),
            },
        };
        let normalize = match &task["normalize"] {
            Value::Null => true,
            Value::Bool(normalize) => *normalize,
            other => return Err(wrong("task.json", "normalize", other, "true or false")),
        };
        let max_tokens = length(file, "sequence_length", &preprocessor)?.unwrap_or(256);
        Ok(Recipe { pooling, normalize, max_tokens: Some(max_tokens) })
    }
}

/// The directory of the pooling module of a `modules.json`, and whether a normalisation follows it.
fn pooling_module(modules: &Value) -> Result<(String, bool)> {
    let modules = modules.as_array().map(Vec::as_slice).unwrap_or_default();
    let kinds: Vec<&str> = modules
        .iter()
        .map(|module| {
            let kind = module["type"].as_str().unwrap_or("nothing");
            kind.strip_prefix("sentence_transformers.").and_then(|own| own.rsplit('.').next()).unwrap_or(kind)
        })
        .collect();
    let normalize = match kinds[..] {
        ["Transformer", "Pooling"] => false,
        ["Transformer", "Pooling", "Normalize"] => true,
        _ => {
            let found = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
            let expected = "Transformer, Pooling and perhaps Normalize";
            return Err(in_file("modules.json", format!("modules are {found:.150}, expected {expected}")));
        }
    };
    Ok((modules[1]["path"].as_str().unwrap_or_default().to_owned(), normalize))
}

/// The pooling of a sentence-transformers `Pooling` module.
fn pooling_mode(file: &str, config: &Value) -> Result<Pooling> {
    let enabled: Vec<&str> = config
        .as_object()
        .map(|modes| {
            modes.iter().filter(|(_, on)| **on == Value::Bool(true)).map(|(name, _)| name.as_str()).collect()
        })
        .unwrap_or_default();
    let modes: Vec<&str> = enabled.into_iter().filter(|name| name.starts_with("pooling_mode_")).collect();
    match modes.as_slice() {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        ["pooling_mode_max_tokens"] => Ok(Pooling::Max),
        ["pooling_mode_lasttoken"] => Ok(Pooling::Last),
        other => {
            let found = if other.is_empty() { "none".to_owned() } else { other.join(" and ") };
            Err(in_file(file, format!("pooling mode is {found}, expected mean, cls, max or last token")))
        }
    }
}

/// The constructor arguments of the Keras layer that a file describes; null, which has no fields, when there is no such
/// file or it describes another class.
fn arguments(preset: &Preset, file: &str, class: &str) -> Result<Value> {
    let layer = preset.read_json(file)?.filter(|layer| layer["class_name"] == class);
    Ok(layer.and_then(|layer| layer.get("config").cloned()).unwrap_or_default())
}

/// A maximum number of tokens of a text, [CLS] and [SEP] included.
fn length(file: &str, name: &str, config: &Value) -> Result<Option<usize>> {
    match &config[name] {
        Value::Null => Ok(None),
        len => match len.as_u64().and_then(|len| usize::try_from(len).ok()) {
            Some(len) if len >= 2 => Ok(Some(len)),
            _ => Err(wrong(file, name, len, "a number of tokens, 2 or more")),
        },
    }
}

fn wrong(file: &str, name: &str, found: &Value, expected: &str) -> Error {
    in_file(file, format!("{name} is {:.60}, expected {expected}", found.to_string()))
}
