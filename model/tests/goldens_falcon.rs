//! Every Falcon fixture against the outputs of the reference library in float64, at every level.

mod common;

use common::{Batch, causal_outputs, compare_half_with_goldens, compare_with_goldens};
use rachis::kernels::Ctx;
use rachis::{Dtype, FalconBackbone};
use rachis_testkit::goldens::fixture;

fn outputs(model: &FalconBackbone, ctx: Ctx<'_>, batch: &Batch) -> Vec<(String, Vec<f32>)> {
    causal_outputs(model, ctx, batch, |session, tokens, observe| {
        model.forward_observed(session, tokens, observe)
    })
}

fn compare(directory: &str) -> FalconBackbone {
    let model = FalconBackbone::from_preset(fixture(directory)).unwrap();
    compare_with_goldens("falcon", directory, true, |ctx, goldens, case| {
        outputs(&model, ctx, &Batch::of(goldens, case))
    });
    model
}

#[test]
fn alibi() {
    compare("falcon_rw/hf");
}

#[test]
fn alibi_of_heads_that_are_no_power_of_two() {
    compare("falcon_rw_bf16slopes/hf");
}

#[test]
fn rotary_with_one_head_of_keys_and_parallel_blocks() {
    let model = compare("falcon_7b_style/hf");
    assert_eq!(model.config().num_kv_heads, 1);
}

#[test]
fn groups_of_heads_and_two_norms() {
    let model = compare("falcon_40b_style/hf");
    assert!(model.config().separate_norms && model.config().num_kv_heads == 2);
}

#[test]
fn groups_of_heads_and_one_norm_with_a_head_of_its_own() {
    let model = compare("falcon_11b_style/hf");
    assert!(!model.config().separate_norms && !model.config().tie_embedding_weights);
}

#[test]
fn rotary_with_biases_and_blocks_behind_one_another() {
    compare("falcon_mha_rotary_bias/hf");
}

#[test]
fn a_small_variance_shows_the_epsilon() {
    compare("falcon_lowvar/hf");
}

#[test]
fn bfloat16_files() {
    let model = FalconBackbone::from_preset(fixture("falcon_rw/hf_bf16")).unwrap();
    assert_eq!(model.dtype(), Dtype::Bfloat16, "the file's own policy");
    compare_half_with_goldens("falcon", "falcon_rw", "bf16", |ctx, goldens, case| {
        outputs(&model, ctx, &Batch::of(goldens, case))
    });
}
