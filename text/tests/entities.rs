//! Classification of tokens, against transformers' token-classification pipeline.

mod common;

use common::goldens::{Calls, assert_close, code_points, strings};
use rachis_text::rachis::{Ctx, Session};
use rachis_text::{Aggregation, Entity, TokenClassifier, TokenClassifyOptions};
use serde_json::{Value, json};

fn describe(text: &str, entities: &[Entity]) -> Value {
    let describe = |entity: &Entity| {
        let span = entity.span.clone().unwrap();
        let mut fields = json!({
            "score": entity.score,
            "word": entity.word,
            "start": code_points(text, span.start),
            "end": code_points(text, span.end),
        });
        match entity.index {
            Some(index) => {
                fields["index"] = index.into();
                fields["entity"] = entity.label.clone().into();
            }
            None => fields["entity_group"] = entity.label.clone().into(),
        }
        fields
    };
    entities.iter().map(describe).collect()
}

#[test]
fn token_classification() {
    for directory in ["text/classify/tag_cased", "text/classify/tag_uncased"] {
        let calls = Calls::read(directory);
        let classifier = TokenClassifier::from_preset(&calls.dir).unwrap();
        let mut session = Session::new(Ctx::detect());
        assert_eq!(calls.pairs().len(), 65);
        for (request, answer) in calls.pairs() {
            let inputs = &request["inputs"];
            let texts = if inputs.is_string() { vec![inputs.as_str().unwrap()] } else { strings(inputs) };
            let ignored = request.get("ignore_labels").map(strings);
            let mut options = TokenClassifyOptions::new();
            options.aggregation = match request.get("aggregation_strategy").and_then(Value::as_str) {
                None | Some("none") => Aggregation::None,
                Some("simple") => Aggregation::Simple,
                Some("first") => Aggregation::First,
                Some("average") => Aggregation::Average,
                Some("max") => Aggregation::Max,
                Some(other) => panic!("{other}"),
            };
            options.stride = request.get("stride").and_then(Value::as_u64).map(|stride| stride as usize);
            if let Some(ignored) = &ignored {
                options = options.with_ignore_labels(ignored);
            }
            let found = classifier.classify(&mut session, &texts, options).unwrap();
            let found: Vec<Value> =
                texts.iter().zip(&found).map(|(text, found)| describe(text, found)).collect();
            let found = if inputs.is_string() { found[0].clone() } else { found.into() };
            assert_close(&found, answer, calls.tolerance(), &format!("{directory} {request}"));
        }
    }
}
