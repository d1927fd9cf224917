//! Every OPT fixture against the outputs of the reference library in float64, at every level.

mod common;

use common::{Batch, causal_outputs, compare_half_with_goldens, compare_with_goldens};
use rachis::kernels::Ctx;
use rachis::{Dtype, OptBackbone};
use rachis_testkit::goldens::fixture;

fn outputs(model: &OptBackbone, ctx: Ctx<'_>, batch: &Batch) -> Vec<(String, Vec<f32>)> {
    causal_outputs(model, ctx, batch, |session, tokens, observe| {
        model.forward_observed(session, tokens, observe)
    })
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
    assert_eq!(model.dtype(), Dtype::Bfloat16, "the file's own policy");
    compare_half_with_goldens("opt", "opt_pre", "bf16", |ctx, goldens, case| {
        outputs(&model, ctx, &Batch::of(goldens, case))
    });
}
