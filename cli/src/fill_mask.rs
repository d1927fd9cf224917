//! `fill-mask`: tokens for the masks of texts.

use rachis::Session;
use rachis_text::{FillMask, FillMaskOptions, MaskFill, visible};
use serde_json::{Value, json};

use crate::args::FillMaskArgs;
use crate::requests::{self, Request, only, optional, required};
use crate::texts::each_input;
use crate::{Result, print};

pub fn fill_mask(args: &FillMaskArgs) -> Result<()> {
    let (preset, model) = args.common.open(args.common.model()?)?;
    let model = FillMask::load(&preset, model)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    if let Some(source) = &args.input.requests {
        return requests::answer(source, |request| answer(&model, &mut session, request));
    }
    let targets: Vec<&str> = args.targets.iter().map(String::as_str).collect();
    let mut options = FillMaskOptions::new().with_top_k(args.top_k);
    options.targets = (!targets.is_empty()).then_some(&targets);
    let mut all = Vec::new();
    for text in args.input.read()? {
        let masks = model.fill(&mut session, &text, options)?;
        if args.common.json {
            all.push(masks.iter().map(|fills| describe(fills)).collect::<Value>());
            continue;
        }
        for fill in masks.iter().flatten() {
            print(format_args!("{:>10.4}  {}\n", fill.score, visible(&fill.sequence)))?;
        }
    }
    if args.common.json { print(format_args!("{}\n", json!({ "masks": all }))) } else { Ok(()) }
}

fn answer(model: &FillMask, session: &mut Session<'_>, request: &Request) -> Result<Value> {
    only(request, &["inputs", "top_k", "targets"])?;
    let targets: Option<Vec<String>> = match request.get("targets") {
        Some(Value::String(target)) => Some(vec![target.clone()]),
        None | Some(Value::Null) => None,
        Some(_) => Some(required(request, "targets")?),
    };
    let targets: Option<Vec<&str>> =
        targets.as_ref().map(|targets| targets.iter().map(String::as_str).collect());
    let mut options = FillMaskOptions::new();
    options.top_k = optional(request, "top_k")?.unwrap_or(options.top_k);
    options.targets = targets.as_deref();
    let mut alone = false;
    let answers = each_input(request, |texts| {
        alone = texts.len() == 1;
        let answer = |text: &&str| -> Result<Value> {
            let masks = model.fill(session, text, options)?;
            // The tokens for one mask are no list of lists.
            Ok(match masks.as_slice() {
                [only] => describe(only),
                several => several.iter().map(|fills| describe(fills)).collect(),
            })
        };
        texts.iter().map(answer).collect()
    })?;
    // Nor is the answer to one text a list of answers, even if the request has a list.
    Ok(match (request.get("inputs"), answers) {
        (Some(Value::Array(_)), Value::Array(mut answers)) if alone => answers.pop().unwrap_or_default(),
        (_, answers) => answers,
    })
}

/// The tokens for a mask by the pipeline's keys.
fn describe(fills: &[MaskFill]) -> Value {
    let fill = |fill: &MaskFill| {
        json!({
            "score": fill.score,
            "token": fill.token,
            "token_str": fill.token_text,
            "sequence": fill.sequence,
        })
    };
    fills.iter().map(fill).collect()
}
