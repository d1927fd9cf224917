//! `Backbone::forward`: the results of the typed classes, and an error for the inputs of another kind of model.

mod common;

use common::models::Sizes;
use rachis::kernels::Ctx;
use rachis::{
    Backbone, BackboneInputs, BertBackbone, BertInputs, Error, Model, OptBackbone, Pooling, RequestError,
    Seq2SeqInputs, SequenceOutput, Session, T5Backbone, Tokens, Tower,
};

const SIZES: Sizes = Sizes { vocabulary: 31, layers: 2, heads: 2, hidden: 24, inner: 40, positions: 20 };
const IDS: [u32; 6] = [3, 1, 4, 1, 5, 9];

fn bits(output: SequenceOutput<'_>) -> Vec<u32> {
    let rows = output.sequence(0);
    (0..rows.rows()).flat_map(|i| rows.row(i).iter().map(|x| x.to_bits())).collect()
}

fn input_kind(model: &Backbone, inputs: impl Into<BackboneInputs<'static>>) -> bool {
    let error = model.forward(&mut Session::new(Ctx::detect()), inputs).unwrap_err();
    matches!(error, Error::Request(RequestError::InputKind { .. }))
}

#[test]
fn any_backbone_gives_the_results_of_its_class() {
    let tokens = Tokens::padded(&IDS, 1, 6);
    let bert_inputs = BertInputs { tokens, segment_ids: None };
    let pair = Seq2SeqInputs { encoder: tokens, decoder: tokens };
    let mut session = Session::new(Ctx::detect());

    let bert = BertBackbone::random(SIZES.bert(), 1).unwrap();
    let expected = bits(bert.forward(&mut session, bert_inputs).unwrap().sequence_output);
    let bert = Backbone::Bert(bert);
    assert_eq!(bits(bert.forward(&mut session, bert_inputs).unwrap().sequence_output()), expected);
    assert_eq!(bits(bert.forward(&mut session, tokens).unwrap().sequence_output()), expected);

    let opt = OptBackbone::random(SIZES.opt(), 1).unwrap();
    let expected = bits(opt.forward(&mut session, tokens).unwrap());
    let opt = Backbone::Opt(opt);
    assert_eq!(bits(opt.forward(&mut session, tokens).unwrap().sequence_output()), expected);

    let t5 = T5Backbone::random(SIZES.t5(), 1).unwrap();
    let expected = bits(t5.forward(&mut session, pair).unwrap().decoder_sequence_output);
    let t5 = Backbone::T5(t5);
    assert_eq!(bits(t5.forward(&mut session, pair).unwrap().sequence_output()), expected);

    assert!(input_kind(&opt, bert_inputs) && input_kind(&opt, pair));
    assert!(input_kind(&t5, tokens) && input_kind(&t5, bert_inputs));
    assert!(input_kind(&bert, pair));
}

#[test]
fn observers_see_the_layers_of_every_tower() {
    let tokens = Tokens::padded(&IDS, 1, 6);
    let observed = |model: &Backbone, inputs: BackboneInputs<'_>| {
        let mut seen = Vec::new();
        let mut observe =
            |tower: Tower, layer: usize, _: SequenceOutput<'_>| seen.push((tower == Tower::Decoder, layer));
        model.forward_observed(&mut Session::new(Ctx::detect()), inputs, &mut observe).map(drop).unwrap();
        seen
    };
    let bert = Backbone::Bert(BertBackbone::random(SIZES.bert(), 1).unwrap());
    assert_eq!(observed(&bert, tokens.into()), [(false, 0), (false, 1), (false, 2)]);
    let opt = Backbone::Opt(OptBackbone::random(SIZES.opt(), 1).unwrap());
    assert_eq!(observed(&opt, tokens.into()), [(true, 0), (true, 1), (true, 2)]);
    let t5 = Backbone::T5(T5Backbone::random(SIZES.t5(), 1).unwrap());
    let both = observed(&t5, Seq2SeqInputs { encoder: tokens, decoder: tokens }.into());
    assert_eq!(both, [(false, 0), (false, 1), (false, 2), (true, 0), (true, 1), (true, 2)]);
}

#[test]
fn any_backbone_is_a_model() {
    let opt = OptBackbone::random(SIZES.opt(), 1).unwrap();
    let expected = opt.plan(&Ctx::detect(), 2, 6).unwrap();
    assert_eq!(Backbone::Opt(opt).plan(&Ctx::detect(), 2, 6).unwrap(), expected);
}

#[test]
fn names_of_pooling_are_read_as_they_are_written() {
    for pooling in Pooling::ALL {
        assert_eq!(pooling.to_string().parse::<Pooling>().unwrap(), pooling);
    }
    let error = "sum".parse::<Pooling>().unwrap_err().to_string();
    assert_eq!(error, "pooling is \"sum\", expected mean, mean_sqrt_len, weightedmean, max, cls or last");
}
