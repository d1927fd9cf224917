//! Small directories after public bug reports, whose heads and tables have unusual names and ties: what transformers
//! 5.24 makes of them.

use rachis::kernels::MatRef;
use rachis::loader::{Access, Preset};
use rachis::{Backbone, BackboneOutput, Ctx, Decoder, Heads, Seq2SeqInputs, SequenceOutput, Session, Tokens};
use rachis_testkit::goldens::fixture;
use serde_json::Value;

/// The vectors of a batch of one.
fn rows(output: SequenceOutput<'_>) -> Vec<f32> {
    let rows = output.sequence(0);
    (0..rows.rows()).flat_map(|r| rows.row(r).to_vec()).collect()
}

fn logits(model: &dyn Decoder, session: &mut Session<'_>, states: &[f32], count: usize) -> Vec<f32> {
    let mut logits = vec![f32::NAN; count * model.vocabulary_size()];
    let rows = MatRef::new(states, count, states.len() / count).unwrap();
    model.logits(session, rows, &mut logits).unwrap();
    logits
}

/// The output that a check names.
fn run(directory: &std::path::Path, check: &Value) -> Vec<f32> {
    let ids = |name: &str| -> Vec<u32> {
        let row = check["inputs"][name][0].as_array();
        row.into_iter().flatten().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let preset = Preset::open(directory, Access::Map).unwrap();
    let model = Backbone::load(&preset).unwrap();
    let mut session = Session::new(Ctx::detect());
    let [tokens, source, target] = ["token_ids", "encoder_token_ids", "decoder_token_ids"].map(ids);
    let batch = |ids: &'_ [u32]| ids.len();
    let [tokens, source, target] = [&tokens, &source, &target].map(|ids| Tokens::padded(ids, 1, batch(ids)));
    let of_decoder = model.decoder().is_some_and(Decoder::has_encoder);
    let output = if of_decoder {
        model.forward(&mut session, Seq2SeqInputs { encoder: source, decoder: target })
    } else if tokens.ids().is_empty() {
        model.forward(&mut session, source)
    } else {
        model.forward(&mut session, tokens)
    };
    let output = output.unwrap();
    let (states, count) = (rows(output.sequence_output()), output.sequence_output().sequence(0).rows());
    match (check["output"].as_str().unwrap(), output) {
        ("encoder_sequence_output", BackboneOutput::Sequence(_)) => states,
        ("logits", _) => logits(model.decoder().unwrap(), &mut session, &states, count),
        ("mlm_logits", _) => {
            let head = Heads::load(&preset, &model).unwrap().masked_lm.unwrap();
            let mut logits = vec![f32::NAN; count * head.vocabulary_size()];
            let rows = MatRef::new(&states, count, states.len() / count).unwrap();
            head.logits(&mut session, rows, &mut logits).unwrap();
            logits
        }
        (other, _) => panic!("{other}"),
    }
}

#[test]
fn names_and_ties_of_heads() {
    let mut compared = 0;
    for entry in std::fs::read_dir(fixture("cases")).unwrap() {
        let directory = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(directory.join("expect.json")) else { continue };
        let expect: Value = serde_json::from_str(&text).unwrap();
        let checks = expect["checks"].as_array().unwrap();
        for check in checks.iter().filter(|check| check["task"] == "run") {
            let found = run(&directory, check);
            let expected = check["values"].as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{}", directory.display());
            for (found, expected) in found.iter().zip(expected) {
                let error = (f64::from(*found) - expected.as_f64().unwrap()).abs();
                assert!(error <= check["tolerance"].as_f64().unwrap(), "{}: {error:e}", directory.display());
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 12);
}
