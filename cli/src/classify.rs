//! `classify`: labels of texts, those of the model or any.

use rachis::Session;
use rachis_text::{
    ClassifyOptions, LabelScore, ScoreFunction, TextClassifier, TextInput, TruncateWhich, Truncation,
    ZeroShotLabels, ZeroShotOptions, ZeroShotScores, visible,
};
use serde_json::{Value, json};

use crate::args::{BadUsage, ClassifyArgs};
use crate::requests::{self, Request, only, optional};
use crate::texts::each_input;
use crate::{Result, print};

pub fn classify(args: &ClassifyArgs) -> Result<()> {
    let function = args.function.as_deref().map(function).transpose();
    let function = function.map_err(|error| BadUsage(format!("--function: {error}")))?;
    let (preset, model) = args.common.open(args.common.model()?)?;
    let classifier = TextClassifier::load(&preset, model)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    if let Some(source) = &args.input.requests {
        return requests::answer(source, |request| answer(&classifier, &mut session, request));
    }
    let texts = args.input.read()?;
    if !args.labels.is_empty() {
        let mut options = ZeroShotOptions::new();
        if args.multi_label {
            options = options.with_labels(ZeroShotLabels::Independent);
        }
        if let Some(template) = &args.hypothesis_template {
            options = options.with_hypothesis_template(template);
        }
        let found = classifier.classify_zero_shot(&mut session, &texts, &args.labels, &options)?;
        let labels = |found: &ZeroShotScores| {
            let scores = found.labels.iter().cloned().zip(found.scores.iter().copied());
            scores.take(args.top_k.unwrap_or(usize::MAX)).collect()
        };
        return report(args, &texts, &found.iter().map(labels).collect::<Vec<_>>());
    }
    let mut options = ClassifyOptions::new();
    (options.top_k, options.function) = (args.top_k, function);
    let inputs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let found = classifier.classify(&mut session, &inputs, options)?;
    let labels =
        |found: &Vec<LabelScore>| found.iter().map(|found| (found.label.clone(), found.score)).collect();
    report(args, &texts, &found.iter().map(labels).collect::<Vec<_>>())
}

/// Prints the labels of each text with their scores.
fn report(args: &ClassifyArgs, texts: &[String], found: &[Vec<(String, f32)>]) -> Result<()> {
    if args.common.json {
        let describe = |(label, score): &(String, f32)| json!({ "label": label, "score": score });
        let labels: Vec<Value> = found.iter().map(|found| found.iter().map(describe).collect()).collect();
        return print(format_args!("{}\n", json!({ "labels": labels })));
    }
    for (text, labels) in texts.iter().zip(found) {
        print(format_args!("{}\n", visible(text)))?;
        for (label, score) in labels {
            print(format_args!("{score:>10.4}  {}\n", visible(label)))?;
        }
    }
    Ok(())
}

fn answer(classifier: &TextClassifier, session: &mut Session<'_>, request: &Request) -> Result<Value> {
    if request.contains_key("candidate_labels") {
        return zero_shot(classifier, session, request);
    }
    only(request, &["inputs", "top_k", "function_to_apply", "truncation", "max_length"])?;
    let mut options = ClassifyOptions::new();
    options.function =
        optional::<String>(request, "function_to_apply")?.as_deref().map(function).transpose()?;
    options.truncation = truncation(classifier, request)?;
    // Without top_k the pipeline gives the best label alone, and no list of labels for each text.
    let ranked = request.contains_key("top_k");
    options.top_k = if ranked { optional(request, "top_k")? } else { Some(1) };
    let inputs = request.get("inputs").ok_or("inputs is missing")?;
    let list = std::slice::from_ref(inputs);
    let list = inputs.as_array().map_or(list, Vec::as_slice);
    let texts: Vec<TextInput<'_>> = list.iter().map(input).collect::<Result<_>>()?;
    let found = classifier.classify(session, &texts, options)?;
    let describe = |found: &LabelScore| json!({ "label": found.label, "score": found.score });
    let mut answers = found.iter().map(|labels| match (ranked, labels.first()) {
        (false, Some(best)) => describe(best),
        _ => labels.iter().map(describe).collect(),
    });
    Ok(match inputs {
        Value::Array(_) => answers.collect(),
        Value::String(_) if !ranked => answers.collect(),
        _ => answers.next().unwrap_or_default(),
    })
}

/// A text, or an object of two.
fn input(value: &Value) -> Result<TextInput<'_>> {
    let wrong = "inputs is not a text, an object with text and text_pair, or a list of these";
    match value {
        Value::String(text) => Ok(TextInput::from(text)),
        Value::Object(fields) if fields.keys().all(|key| key == "text" || key == "text_pair") => {
            let text = fields.get("text").and_then(Value::as_str).ok_or(wrong)?;
            match fields.get("text_pair") {
                None | Some(Value::Null) => Ok(TextInput::from(text)),
                Some(pair) => Ok(TextInput::Pair(text, pair.as_str().ok_or(wrong)?)),
            }
        }
        _ => Err(wrong.into()),
    }
}

fn zero_shot(classifier: &TextClassifier, session: &mut Session<'_>, request: &Request) -> Result<Value> {
    only(request, &["inputs", "candidate_labels", "multi_label", "hypothesis_template"])?;
    let labels: Vec<String> = match request.get("candidate_labels") {
        Some(Value::String(list)) => {
            list.split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect()
        }
        _ => requests::required(request, "candidate_labels")?,
    };
    let template: Option<String> = optional(request, "hypothesis_template")?;
    let mut options = ZeroShotOptions::new();
    if optional(request, "multi_label")?.unwrap_or(false) {
        options = options.with_labels(ZeroShotLabels::Independent);
    }
    if let Some(template) = &template {
        options = options.with_hypothesis_template(template);
    }
    each_input(request, |texts| {
        let found = classifier.classify_zero_shot(session, texts, &labels, &options)?;
        let describe = |(text, found): (&&str, ZeroShotScores)| json!({ "sequence": text, "labels": found.labels, "scores": found.scores });
        Ok(texts.iter().zip(found).map(describe).collect())
    })
}

/// The function of this name in transformers.
fn function(name: &str) -> Result<ScoreFunction> {
    match name.to_lowercase().as_str() {
        "softmax" => Ok(ScoreFunction::Softmax),
        "sigmoid" => Ok(ScoreFunction::Sigmoid),
        "none" => Ok(ScoreFunction::Identity),
        _ => Err(format!("function_to_apply is {name:?}, expected softmax, sigmoid or none").into()),
    }
}

/// How texts are cut; `None` when they are not, also because nothing limits their length.
fn truncation(classifier: &TextClassifier, request: &Request) -> Result<Option<Truncation>> {
    let strategy = match request.get("truncation") {
        None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
        Some(Value::Bool(true)) => TruncateWhich::LongestFirst,
        Some(value) => match value.as_str() {
            Some("do_not_truncate") => return Ok(None),
            Some("longest_first") => TruncateWhich::LongestFirst,
            Some("only_first") => TruncateWhich::OnlyFirst,
            Some("only_second") => TruncateWhich::OnlySecond,
            _ => {
                let expected = "true, longest_first, only_first or only_second";
                return Err(format!("truncation is {value}, expected {expected}").into());
            }
        },
    };
    let limit = optional(request, "max_length")?.or(classifier.tokenizer().model_max_length());
    Ok(limit.map(|limit| Truncation::new(limit).with_strategy(strategy)))
}
