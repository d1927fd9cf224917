//! The heads of tasks.

use rachis::kernels::MatRef;
use rachis::loader::{Access, Preset};
use rachis::{Backbone, BertInputs, Ctx, Heads, Session, Tokens};
use rachis_testkit::goldens::{Goldens, fixture};
use serde_json::Value;

const IDS: [u32; 9] = [2, 9, 12, 3, 2, 7, 15, 8, 2];
const LENGTHS: [usize; 2] = [4, 5];

fn open(directory: &str) -> (Backbone, Heads) {
    let preset = Preset::open(fixture(directory), Access::Map).unwrap();
    let backbone = Backbone::load(&preset).unwrap();
    let heads = Heads::load(&preset, &backbone).unwrap();
    (backbone, heads)
}

fn inputs<'a>(ids: &'a [u32], lengths: &'a [usize]) -> BertInputs<'a> {
    BertInputs { tokens: Tokens::ragged(ids, lengths), segment_ids: None }
}

/// The names of the heads that there are.
fn names(heads: &Heads) -> Vec<&'static str> {
    let Heads { masked_lm, next_sentence, sequence, token, span, .. } = heads;
    let there = [
        ("masked_lm", masked_lm.is_some()),
        ("next_sentence", next_sentence.is_some()),
        ("sequence", sequence.is_some()),
        ("token", token.is_some()),
        ("span", span.is_some()),
    ];
    there.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[test]
fn directories_have_the_heads_of_their_class() {
    for (directory, expected) in [
        ("text/classify/single", "sequence"),
        ("text/classify/one_label", "sequence"),
        ("text/rerank/three", "sequence"),
        ("text/classify/bart", "sequence"),
        ("text/classify/tag_cased", "token"),
        ("text/classify/fill_mask", "masked_lm"),
        ("text/answer/bert", "span"),
        ("text/keras/classifier", "sequence"),
        ("text/keras/masked_lm", "masked_lm"),
    ] {
        assert_eq!(names(&open(directory).1), [expected], "{directory}");
    }
    assert!(open("text/embed/plain").1.is_empty());
    assert!(open("text/keras/embedder").1.is_empty());
}

/// The logits of a sequence do not depend on those beside it.
#[test]
fn sequences_are_classified_alone_or_in_a_batch() {
    for directory in
        ["text/classify/single", "text/classify/one_label", "text/classify/bart", "text/keras/classifier"]
    {
        let (backbone, heads) = open(directory);
        let head = heads.sequence.unwrap();
        let mut session = Session::new(Ctx::detect());
        let mut all = vec![f32::NAN; 2 * head.classes()];
        head.logits(&mut session, &backbone, inputs(&IDS, &LENGTHS), &mut all).unwrap();
        assert!(all.iter().all(|x| x.is_finite()));
        let mut last = vec![f32::NAN; head.classes()];
        head.logits(&mut session, &backbone, inputs(&IDS[4..], &LENGTHS[1..]), &mut last).unwrap();
        assert_eq!(all[head.classes()..], last, "{directory}");
        let short = head.logits(&mut session, &backbone, inputs(&IDS, &LENGTHS), &mut last).unwrap_err();
        assert!(short.to_string().contains("length of the logits is"), "{short}");
    }
}

/// KerasHub's `BertMaskedLM` on ids: the logits at some positions.
#[test]
fn the_masked_language_model_of_keras_hub() {
    let (backbone, heads) = open("text/keras/masked_lm");
    let head = heads.masked_lm.unwrap();
    let text = std::fs::read_to_string(fixture("text/keras/masked_lm/goldens.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let numbers = |name: &str| -> Vec<u32> {
        let rows = json["inputs"][name].as_array().unwrap().iter();
        rows.flat_map(|row| row.as_array().unwrap()).map(|x| x.as_u64().unwrap() as u32).collect()
    };
    let (ids, positions) = (numbers("token_ids"), numbers("mask_positions"));
    let expected = Goldens::read("text/keras/masked_lm/goldens.safetensors");
    let expected = expected.float("output");
    let [batch, masks, vocabulary] = expected.shape[..] else { panic!("{:?}", expected.shape) };
    assert_eq!((head.vocabulary_size(), positions.len()), (vocabulary, batch * masks));

    let mut session = Session::new(Ctx::detect());
    let tokens = Tokens::padded(&ids, batch, ids.len() / batch);
    let output = backbone.forward(&mut session, tokens).unwrap().sequence_output();
    let row = |(i, at): (usize, &u32)| output.sequence(i / masks).row(*at as usize).to_vec();
    let rows: Vec<f32> = positions.iter().enumerate().flat_map(row).collect();
    let width = output.hidden_dim();
    let mut logits = vec![f32::NAN; expected.data.len()];
    head.logits(&mut session, MatRef::new(&rows, batch * masks, width).unwrap(), &mut logits).unwrap();
    for (found, expected) in logits.iter().zip(&expected.data) {
        assert!((f64::from(*found) - expected).abs() <= 2e-5, "{found} {expected}");
    }
}
