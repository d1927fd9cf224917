//! `ner`: named entities, and other labels of tokens.

use rachis::Session;
use rachis_text::{Aggregation, Entity, TokenClassifier, TokenClassifyOptions, visible};
use serde_json::{Value, json};

use crate::args::{BadUsage, NerArgs};
use crate::requests::{self, Request, only, optional};
use crate::texts::{CodePoints, each_input};
use crate::{Result, print};

pub fn ner(args: &NerArgs) -> Result<()> {
    let aggregation = aggregation(&args.aggregation);
    let aggregation = aggregation.map_err(|error| BadUsage(format!("--aggregation: {error}")))?;
    let (preset, model) = args.common.open(args.common.model()?)?;
    let classifier = TokenClassifier::load(&preset, model)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    if let Some(source) = &args.input.requests {
        return requests::answer(source, |request| answer(&classifier, &mut session, request));
    }
    let texts = args.input.read()?;
    let mut options = TokenClassifyOptions::new().with_aggregation(aggregation);
    options.stride = args.stride;
    let found = classifier.classify(&mut session, &texts, options)?;
    if args.common.json {
        let entities: Vec<Value> =
            texts.iter().zip(&found).map(|(text, found)| describe(text, found)).collect();
        return print(format_args!("{}\n", json!({ "entities": entities })));
    }
    for (text, entities) in texts.iter().zip(&found) {
        print(format_args!("{}\n", visible(text)))?;
        for entity in entities {
            let (label, word) = (visible(&entity.label), visible(&entity.word));
            print(format_args!("{:>10.4}  {label:<8} {word}\n", entity.score))?;
        }
    }
    Ok(())
}

fn answer(classifier: &TokenClassifier, session: &mut Session<'_>, request: &Request) -> Result<Value> {
    only(request, &["inputs", "aggregation_strategy", "ignore_labels", "stride"])?;
    let strategy: Option<String> = optional(request, "aggregation_strategy")?;
    let ignored: Option<Vec<String>> = optional(request, "ignore_labels")?;
    let ignored: Option<Vec<&str>> =
        ignored.as_ref().map(|labels| labels.iter().map(String::as_str).collect());
    let mut options = TokenClassifyOptions::new();
    options.stride = optional(request, "stride")?;
    if let Some(strategy) = &strategy {
        options = options.with_aggregation(aggregation(strategy)?);
        if options.aggregation == Aggregation::None && options.stride.is_some() {
            return Err("stride is given, expected none with aggregation_strategy none".into());
        }
    }
    if let Some(ignored) = &ignored {
        options = options.with_ignore_labels(ignored);
    }
    each_input(request, |texts| {
        let found = classifier.classify(session, texts, options)?;
        Ok(texts.iter().zip(&found).map(|(text, found)| describe(text, found)).collect())
    })
}

/// The strategy of this name in transformers.
fn aggregation(name: &str) -> Result<Aggregation> {
    match name.to_lowercase().as_str() {
        "none" => Ok(Aggregation::None),
        "simple" => Ok(Aggregation::Simple),
        "first" => Ok(Aggregation::First),
        "average" => Ok(Aggregation::Average),
        "max" => Ok(Aggregation::Max),
        _ => Err(format!("strategy is {name:?}, expected none, simple, first, average or max").into()),
    }
}

/// The entities of a text by the pipeline's keys, with places in code points.
fn describe(text: &str, entities: &[Entity]) -> Value {
    let mut places = CodePoints::of(text);
    let describe = |entity: &Entity| {
        let mut place = |at: Option<usize>| at.map(|at| places.before(at));
        let span = entity.span.as_ref();
        let mut fields = json!({
            "score": entity.score,
            "word": entity.word,
            "start": place(span.map(|span| span.start)),
            "end": place(span.map(|span| span.end)),
        });
        match entity.index {
            Some(index) => {
                fields["index"] = index.into();
                fields["entity"] = entity.label.as_str().into();
            }
            None => fields["entity_group"] = entity.label.as_str().into(),
        }
        fields
    };
    entities.iter().map(describe).collect()
}
