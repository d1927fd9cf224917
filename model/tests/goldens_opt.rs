//! Every OPT fixture against the outputs of the reference library in float64, at every level.

mod common;

use common::{Batch, compare_half_with_goldens, compare_with_goldens};
use rachis::kernels::{Ctx, MatRef};
use rachis::{DtypePolicy, OptBackbone, OptInputs, SequenceOutput, Session};
use rachis_testkit::goldens::fixture;

/// Padded outputs by the names of the golden files.
fn outputs(model: &OptBackbone, ctx: Ctx<'_>, batch: &Batch) -> Vec<(String, Vec<f32>)> {
    let tokens = batch.shape.0 * batch.shape.1;
    let padded = |output: SequenceOutput<'_>| {
        let mut values = vec![f32::NAN; tokens * output.hidden_dim()];
        output.write_padded(&mut values).unwrap();
        values
    };
    let mut session = Session::new(ctx);
    let mut all = Vec::new();
    let mut observe =
        |layer: usize, states: SequenceOutput<'_>| all.push((format!("hs.{layer}"), padded(states)));
    let inputs = OptInputs { tokens: batch.tokens() };
    let output = model.forward_observed(&mut session, inputs, Some(&mut observe)).unwrap();
    let sequence = padded(output);
    let config = model.config();
    let mut logits = vec![f32::NAN; tokens * config.vocabulary_size];
    let rows = MatRef::new(&sequence, tokens, config.embedding_dim).unwrap();
    model.logits(&mut session, rows, &mut logits).unwrap();
    all.push(("logits".to_owned(), logits));
    all.push(("sequence_output".to_owned(), sequence));
    all
}

fn compare(directory: &str) {
    let model = OptBackbone::from_preset(fixture(directory)).unwrap();
    compare_with_goldens("opt", directory, true, |ctx, goldens, case| {
        outputs(&model, ctx, &Batch::of(goldens, case))
    });
}

#[test]
fn normalised_before_each_block() {
    compare("opt_pre/hf");
}

#[test]
fn normalised_after_each_block_with_projections() {
    compare("opt_350m_style/hf");
}

#[test]
fn without_biases_and_affine_norms() {
    compare("opt_nobias/hf");
}

#[test]
fn bare_names() {
    compare("opt_nobias/hf_bare");
}

#[test]
fn a_small_variance_shows_the_epsilon() {
    compare("opt_lowvar/hf");
}

#[test]
fn bfloat16_files() {
    let model = OptBackbone::from_preset(fixture("opt_pre/hf_bf16")).unwrap();
    assert_eq!(model.dtype(), DtypePolicy::Bfloat16, "the file's own policy");
    compare_half_with_goldens("opt", "opt_pre", "bf16", |ctx, goldens, case| {
        outputs(&model, ctx, &Batch::of(goldens, case))
    });
}
