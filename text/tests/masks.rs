//! Tokens for masks, against transformers' fill-mask pipeline and KerasHub's `BertMaskedLM`.

mod common;

use common::goldens::{Calls, assert_close, strings};
use rachis_testkit::goldens::Goldens;
use rachis_text::rachis::{Ctx, Session};
use rachis_text::{FillMask, FillMaskOptions, MaskFill};
use serde_json::{Value, json};

fn describe(fills: &[Vec<MaskFill>]) -> Value {
    let fill = |fill: &MaskFill| {
        json!({
            "score": fill.score,
            "token": fill.token,
            "token_str": fill.token_text,
            "sequence": fill.sequence,
        })
    };
    let of_mask = |fills: &Vec<MaskFill>| fills.iter().map(fill).collect::<Value>();
    if let [only] = fills { of_mask(only) } else { fills.iter().map(of_mask).collect() }
}

#[test]
fn fill_mask() {
    let calls = Calls::read("text/classify/fill_mask");
    let model = FillMask::from_preset(&calls.dir).unwrap();
    let mut session = Session::new(Ctx::detect());
    assert_eq!(calls.pairs().len(), 12);
    let mut refused = 0;
    for (request, answer) in calls.pairs() {
        let inputs = &request["inputs"];
        let texts = if inputs.is_string() { vec![inputs.as_str().unwrap()] } else { strings(inputs) };
        let targets = request.get("targets").map(|targets| match targets.as_str() {
            Some(target) => vec![target],
            None => strings(targets),
        });
        let mut options = FillMaskOptions::new();
        options.top_k = request.get("top_k").and_then(Value::as_u64).map_or(5, |top_k| top_k as usize);
        options.targets = targets.as_deref();
        let mut found = Vec::new();
        for text in texts {
            match model.fill(&mut session, text, options) {
                Ok(fills) => found.push(describe(&fills)),
                Err(error) => {
                    assert!(answer.get("error").is_some(), "{request}: {error}");
                    refused += 1;
                }
            }
        }
        if answer.get("error").is_none() {
            let found = if inputs.is_string() { found[0].clone() } else { found.into() };
            assert_close(&found, answer, calls.tolerance(), &request.to_string());
        }
    }
    assert_eq!(refused, 1);
}

/// KerasHub's task gives logits.
#[test]
fn keras_masked_language_models() {
    let calls = Calls::read("text/keras/masked_lm");
    let model = FillMask::from_preset(&calls.dir).unwrap();
    let goldens = Goldens::read("text/keras/masked_lm/goldens.safetensors");
    let expected = goldens.float("output");
    let inputs = &calls.json["inputs"];
    let numbers = |list: &Value| -> Vec<usize> {
        list.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
    };
    let mut session = Session::new(Ctx::detect());
    let rows = expected.width() * expected.shape[1];
    let sequences = inputs["token_ids"].as_array().unwrap();
    assert_eq!(expected.shape[0], sequences.len());
    for (i, ids) in sequences.iter().enumerate() {
        assert!(numbers(&inputs["padding_mask"][i]).iter().all(|real| *real == 1));
        let ids: Vec<u32> = numbers(ids).into_iter().map(|id| id as u32).collect();
        let positions = numbers(&inputs["mask_positions"][i]);
        let found = model.probabilities(&mut session, &ids, &positions).unwrap();
        assert_eq!(found.len(), rows);
        let expected = expected.data[i * rows..(i + 1) * rows].chunks_exact(expected.width());
        for (found, logits) in found.chunks_exact(640).zip(expected) {
            let sum: f64 = logits.iter().map(|x| x.exp()).sum();
            for (found, logit) in found.iter().zip(logits) {
                let expected = logit.exp() / sum;
                assert!((f64::from(*found) - expected).abs() <= calls.tolerance(), "{found} {expected}");
            }
        }
    }
}
