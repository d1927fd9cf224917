//! Every T5 fixture against the outputs of the reference library in float64, at every level.

mod common;

use common::{compare_half_with_goldens, compare_with_goldens, seq2seq_outputs};
use rachis::kernels::Ctx;
use rachis::{Dtype, T5Backbone};
use rachis_testkit::goldens::{Goldens, fixture};

fn outputs(model: &T5Backbone, ctx: Ctx<'_>, goldens: &Goldens, case: &str) -> Vec<(String, Vec<f32>)> {
    seq2seq_outputs(model, ctx, (goldens, case), |session, inputs, observe| {
        model.forward_observed(session, inputs, observe)
    })
}

fn compare(directory: &str) -> T5Backbone {
    let model = T5Backbone::from_preset(fixture(directory)).unwrap();
    compare_with_goldens("t5", directory, true, |ctx, goldens, case| outputs(&model, ctx, goldens, case));
    model
}

#[test]
fn tied_and_not_gated_with_heads_wider_than_the_layer() {
    let model = compare("t5_relu_tied/hf");
    assert!(model.config().tie_embedding_weights && model.config().scale_logits);
}

#[test]
fn gated_with_a_head_of_its_own() {
    let model = compare("t5_gated_untied/hf");
    assert!(!model.config().tie_embedding_weights && !model.config().scale_logits);
}

#[test]
fn other_buckets_and_towers_of_different_sizes() {
    compare("t5_asym_buckets/hf");
}

#[test]
fn a_small_variance_shows_the_epsilon() {
    compare("t5_lowvar/hf");
}

#[test]
fn bfloat16_files() {
    let model = T5Backbone::from_preset(fixture("t5_relu_tied/hf_bf16")).unwrap();
    assert_eq!(model.dtype(), Dtype::Bfloat16, "the file's own policy");
    compare_half_with_goldens("t5", "t5_relu_tied", "bf16", |ctx, goldens, case| {
        outputs(&model, ctx, goldens, case)
    });
}

#[test]
fn float16_files() {
    let model = T5Backbone::from_preset(fixture("t5_gated_untied/hf_f16")).unwrap();
    assert_eq!(model.dtype(), Dtype::Float16, "the file's own policy");
    compare_half_with_goldens("t5", "t5_gated_untied", "f16", |ctx, goldens, case| {
        outputs(&model, ctx, goldens, case)
    });
}
