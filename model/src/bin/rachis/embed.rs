//! `embed`: sentence embeddings and how alike they are.

use std::io::BufRead;

use rachis::loader::Preset;
use rachis::{Backbone, BertInputs, Pooling, Session, Tokens, normalize};
use serde_json::{Value, json};

use crate::Result;
use crate::args::{EmbedArgs, PoolingName};
use crate::tokenizer;

/// Texts that run in one forward pass.
const BATCH: usize = 32;

pub fn embed(args: &EmbedArgs) -> Result<()> {
    let texts = texts(args)?;
    let (preset, Backbone::Bert(model)) = args.common.open(&args.common.model_or_default()?)? else {
        return Err("embed needs an encoder with a vector for each token, such as BERT".into());
    };
    let recipe = Recipe::of(&preset, args.pooling)?;
    let longest = recipe.longest.unwrap_or(usize::MAX).min(model.config().max_sequence_length);
    let tokenizer = tokenizer::open(&preset, longest)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref(), model.dtype())?);

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
    print(args, &texts, &embeddings, width);
    Ok(())
}

/// The texts given, or the lines of standard input.
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
    normalize: bool,
    longest: Option<usize>,
}

impl Recipe {
    /// As `modules.json`, `1_Pooling/config.json` and `sentence_bert_config.json` say, where they are; else the
    /// mean, normalised.
    fn of(preset: &Preset, chosen: Option<PoolingName>) -> Result<Recipe> {
        let normalize = preset.read_json("modules.json")?.is_none_or(|modules| {
            let is_normalize = |module: &Value| {
                module.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with(".Normalize"))
            };
            modules.as_array().is_none_or(|modules| modules.iter().any(is_normalize))
        });
        let own = preset.read_json("1_Pooling/config.json")?;
        let pooling = match (chosen, own) {
            (Some(PoolingName::Cls), _) => Pooling::Cls,
            (Some(PoolingName::Mean), _) => Pooling::Mean,
            (Some(PoolingName::Last), _) => Pooling::Last,
            (Some(PoolingName::Max), _) => Pooling::Max,
            (None, None) => Pooling::Mean,
            (None, Some(config)) => own_pooling(&config)?,
        };
        let sentence = preset.read_json("sentence_bert_config.json")?;
        let longest = sentence.and_then(|config| config.get("max_seq_length")?.as_u64());
        Ok(Recipe { pooling, normalize, longest: longest.and_then(|longest| usize::try_from(longest).ok()) })
    }
}

fn own_pooling(config: &Value) -> Result<Pooling> {
    let on: Vec<&str> = config
        .as_object()
        .map(|modes| {
            modes.iter().filter(|(_, on)| **on == Value::Bool(true)).map(|(name, _)| name.as_str()).collect()
        })
        .unwrap_or_default();
    let modes: Vec<&str> = on.into_iter().filter(|name| name.starts_with("pooling_mode_")).collect();
    match modes.as_slice() {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        ["pooling_mode_max_tokens"] => Ok(Pooling::Max),
        ["pooling_mode_lasttoken"] => Ok(Pooling::Last),
        other => {
            let found = if other.is_empty() { "none".to_owned() } else { other.join(" and ") };
            Err(format!(
                "1_Pooling/config.json: pooling mode is {found}, expected mean, cls, max or last token"
            )
            .into())
        }
    }
}

fn print(args: &EmbedArgs, texts: &[String], embeddings: &[f32], width: usize) {
    let rows: Vec<&[f32]> = embeddings.chunks_exact(width).collect();
    if args.common.json {
        println!("{}", json!({ "embeddings": rows }));
        return;
    }
    for (i, text) in texts.iter().enumerate() {
        println!("{:>3}  {text}", i + 1);
    }
    let header: String = (1..=rows.len()).map(|i| format!("{i:>8}")).collect();
    println!("\ncosine similarity\n   {header}");
    for (i, a) in rows.iter().enumerate() {
        let line: String = rows.iter().map(|b| format!("{:>8.4}", cosine(a, b))).collect();
        println!("{:>3}{line}", i + 1);
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
