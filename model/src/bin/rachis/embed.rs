//! `embed`: sentence embeddings and their cosine similarities.

use std::error::Error;
use std::io::BufRead;

use rachis::loader::{ConfigSource, Preset};
use rachis::{Backbone, BertInputs, Pooling, Session, Tokens, normalize};
use serde_json::{Value, json};

use crate::args::EmbedArgs;
use crate::{Result, print, tokenizer};

/// Number of texts in one forward pass.
const BATCH: usize = 32;

pub fn embed(args: &EmbedArgs) -> Result<()> {
    let texts = texts(args)?;
    let (preset, Backbone::Bert(model)) = args.common.open(&args.common.model_or_default()?)? else {
        return Err("embed needs an encoder-only model such as BERT".into());
    };
    let recipe = Recipe::of(&preset, args.pooling)?;
    let max_tokens = recipe.max_tokens.unwrap_or(usize::MAX).min(model.config().max_sequence_length);
    let tokenizer = tokenizer::open(&preset, max_tokens)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);

    let width = model.config().hidden_dim;
    let mut embeddings = vec![0.0; texts.len() * width];
    for (texts, to) in texts.chunks(BATCH).zip(embeddings.chunks_mut(BATCH * width)) {
        let (mut ids, mut segments, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            let encoding = tokenizer.encode(text)?;
            ids.extend_from_slice(encoding.get_ids());
            segments.extend_from_slice(encoding.get_type_ids());
            lengths.push(encoding.len());
        }
        let tokens = Tokens::ragged(&ids, &lengths);
        let output = model.forward(&mut session, BertInputs { tokens, segment_ids: Some(&segments) })?;
        recipe.pooling.pool(output.sequence_output, to)?;
    }
    if recipe.normalize {
        normalize(&mut embeddings, width);
    }
    report(args, &texts, &embeddings, width)
}

/// The texts of the command line, or the lines of standard input for `-`.
fn texts(args: &EmbedArgs) -> Result<Vec<String>> {
    if args.texts.as_slice() != ["-"] {
        return Ok(args.texts.clone());
    }
    let lines: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    if lines.is_empty() { Err("standard input has no text".into()) } else { Ok(lines) }
}

/// How a model turns token vectors into an embedding.
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
                    return Err(format!("{file}: does not exist, but modules.json names it").into());
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
            return Err(format!("modules.json: modules are {found:.200}, expected {expected}").into());
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
            Err(format!("{file}: pooling mode is {found}, expected mean, cls, max or last token").into())
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

fn wrong(file: &str, name: &str, found: &Value, expected: &str) -> Box<dyn Error + Send + Sync> {
    format!("{file}: {name} is {:.60}, expected {expected}", found.to_string()).into()
}

fn report(args: &EmbedArgs, texts: &[String], embeddings: &[f32], width: usize) -> Result<()> {
    let rows: Vec<&[f32]> = embeddings.chunks_exact(width).collect();
    if args.common.json {
        return print(format_args!("{}\n", json!({ "embeddings": rows })));
    }
    for (i, text) in texts.iter().enumerate() {
        print(format_args!("{:>3}  {text}\n", i + 1))?;
    }
    let header: String = (1..=rows.len()).map(|i| format!("{i:>8}")).collect();
    print(format_args!("\ncosine similarity\n   {header}\n"))?;
    for (i, a) in rows.iter().enumerate() {
        let line: String = rows.iter().map(|b| format!("{:>8.4}", cosine(a, b))).collect();
        print(format_args!("{:>3}{line}\n", i + 1))?;
    }
    Ok(())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
