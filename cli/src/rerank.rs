//! `rerank`: texts in the order of how well they answer a query, and scores of pairs.

use rachis::Session;
use rachis_text::{LabelScores, Ranked, RerankOptions, Reranker};
use serde_json::{Value, json};

use crate::args::RerankArgs;
use crate::lines::Texts;
use crate::requests::{self, Request, only, optional};
use crate::{Result, print};

pub fn rerank(args: &RerankArgs) -> Result<()> {
    let (preset, model) = args.common.open(args.common.model()?)?;
    let reranker = Reranker::load(&preset, model)?;
    let pool = args.common.pool()?;
    let session = &mut Session::new(args.common.ctx(pool.as_ref())?);
    if let Some(source) = &args.requests {
        return requests::answer(source, |request| answer(&reranker, session, args, request));
    }
    let query = args.query.as_deref().unwrap_or_default();
    let texts = Texts::new(&args.texts).all()?;
    let ranked = reranker.rank_with(session, query, &texts, &options(args))?;
    if args.common.json {
        return print(format_args!("{}\n", described(&ranked)));
    }
    for Ranked { index, score, .. } in ranked {
        print(format_args!("{score:>10.4}  {}\n", texts.get(index).map_or("", String::as_str)))?;
    }
    Ok(())
}

/// The options of the flags.
fn options(args: &RerankArgs) -> RerankOptions {
    let mut options = RerankOptions::new();
    options.activation = args.activation;
    options.prompt.clone_from(&args.prompt);
    options.prompt_name.clone_from(&args.prompt_name);
    options.top_k = args.top_k;
    options
}

/// The answer to a request, whose arguments take precedence over the flags.
fn answer(
    reranker: &Reranker,
    session: &mut Session<'_>,
    args: &RerankArgs,
    request: &Request,
) -> Result<Value> {
    let mut options = options(args);
    if let Some(name) = optional::<String>(request, "activation")? {
        options.activation = Some(name.parse()?);
    }
    let (prompt, name) = (optional(request, "prompt")?, optional(request, "prompt_name")?);
    if prompt.is_some() || name.is_some() {
        (options.prompt, options.prompt_name) = (prompt, name);
    }
    if request.contains_key("query") {
        only(request, &["query", "texts", "top_k", "activation", "prompt", "prompt_name"])?;
        let query: String = requests::required(request, "query")?;
        let texts: Vec<String> = requests::required(request, "texts")?;
        options.top_k = optional(request, "top_k")?.or(options.top_k);
        return Ok(described(&reranker.rank_with(session, &query, &texts, &options)?));
    }
    only(request, &["pairs", "activation", "apply_softmax", "prompt", "prompt_name"])?;
    let pairs: Vec<(String, String)> = requests::required(request, "pairs")?;
    if optional(request, "apply_softmax")?.unwrap_or(false) {
        options.labels = LabelScores::Softmax;
    }
    let scores = reranker.scores_with(session, &pairs, &options)?;
    Ok(match reranker.labels() {
        1 => json!({ "scores": scores.as_slice() }),
        _ => json!({ "scores": scores.iter().collect::<Vec<_>>() }),
    })
}

fn described(ranked: &[Ranked]) -> Value {
    ranked.iter().map(|ranked| json!({ "corpus_id": ranked.index, "score": ranked.score })).collect()
}
