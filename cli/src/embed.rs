//! `embed`: sentence embeddings and their cosine similarities.

use std::io::BufRead;

use rachis::Session;
use rachis_text::TextEmbedder;
use serde_json::json;

use crate::args::EmbedArgs;
use crate::{Result, print};

pub fn embed(args: &EmbedArgs) -> Result<()> {
    let texts = texts(args)?;
    let (preset, model) = args.common.open(&args.common.model_or_default()?)?;
    let mut embedder = TextEmbedder::load(&preset, model)?;
    if let Some(pooling) = args.pooling {
        embedder = embedder.with_pooling(pooling);
    }
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    let embeddings = embedder.embed(&mut session, &texts)?;
    report(args, &texts, &embeddings, embedder.dimension())
}

/// The texts of the command line, or the lines of standard input for `-`.
fn texts(args: &EmbedArgs) -> Result<Vec<String>> {
    if args.texts.as_slice() != ["-"] {
        return Ok(args.texts.clone());
    }
    let lines: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    if lines.is_empty() { Err("standard input has no text".into()) } else { Ok(lines) }
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
