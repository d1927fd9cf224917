//! Every BART fixture against the outputs of the reference library in float64, at every level.

mod common;

use common::{Batch, compare_with_goldens};
use rachis::kernels::{Ctx, MatRef};
use rachis::{BartBackbone, BartInputs, SequenceOutput, Session, Tower};
use rachis_testkit::goldens::{Goldens, fixture};

/// Padded outputs by the names of the golden files.
fn outputs(model: &BartBackbone, ctx: Ctx<'_>, goldens: &Goldens, case: &str) -> Vec<(String, Vec<f32>)> {
    let encoder = Batch::of_tower(goldens, case, "encoder_");
    let decoder = Batch::of_tower(goldens, case, "decoder_");
    let padded = |batch: &Batch, output: SequenceOutput<'_>| {
        let mut values = vec![f32::NAN; batch.shape.0 * batch.shape.1 * output.hidden_dim()];
        output.write_padded(&mut values).unwrap();
        values
    };
    let mut session = Session::new(ctx);
    let mut all = Vec::new();
    let mut observe = |tower: Tower, layer: usize, states: SequenceOutput<'_>| {
        all.push(match tower {
            Tower::Encoder => (format!("enc_hs.{layer}"), padded(&encoder, states)),
            Tower::Decoder => (format!("dec_hs.{layer}"), padded(&decoder, states)),
        });
    };
    let inputs = BartInputs { encoder: encoder.tokens(), decoder: decoder.tokens() };
    let output = model.forward_observed(&mut session, inputs, Some(&mut observe)).unwrap();
    let encoded = padded(&encoder, output.encoder_sequence_output);
    let decoded = padded(&decoder, output.decoder_sequence_output);
    let (config, tokens) = (model.config(), decoder.shape.0 * decoder.shape.1);
    let mut logits = vec![f32::NAN; tokens * config.vocabulary_size];
    let rows = MatRef::new(&decoded, tokens, config.hidden_dim).unwrap();
    model.logits(&mut session, rows, &mut logits).unwrap();
    all.push(("logits".to_owned(), logits));
    all.push(("encoder_sequence_output".to_owned(), encoded));
    all.push(("decoder_sequence_output".to_owned(), decoded));
    all
}

fn compare(directory: &str) {
    let model = BartBackbone::from_preset(fixture(directory)).unwrap();
    compare_with_goldens("bart", directory, !directory.ends_with("hf_bare"), |ctx, goldens, case| {
        let mut all = outputs(&model, ctx, goldens, case);
        if directory.ends_with("hf_bare") {
            // Saved without its head, whose bias is not zero.
            all.retain(|(name, _)| name != "logits");
        }
        all
    });
}

#[test]
fn as_many_layers_in_both_towers() {
    compare("bart_sym/hf");
}

#[test]
fn towers_of_different_sizes_and_scaled_embeddings() {
    compare("bart_asym_scaled/hf");
}

#[test]
fn bare_names() {
    compare("bart_sym/hf_bare");
}

#[test]
fn a_small_variance_shows_the_epsilon() {
    compare("bart_lowvar/hf");
}
