//! Every BERT fixture against the outputs of the reference library in float64, at every level.

mod common;

use common::{Batch, compare_half_with_goldens, compare_with_goldens, load, outputs};
use rachis::kernels::{Ctx, Level};
use rachis::loader::Access;
use rachis::{Dtype, Heads};
use rachis_testkit::for_each_level;
use rachis_testkit::goldens::{Goldens, Limits, relative_error};

/// Compares a directory of weights with the golden files beside it.
fn compare(directory: &str, access: Access) {
    let (model, heads) = load(directory, access);
    compare_with_goldens("bert", directory, !heads.is_empty(), |ctx, goldens, case| {
        outputs(&model, &heads, ctx, &Batch::of(goldens, case))
    });
}

#[test]
fn exact_gelu() {
    compare("bert_gelu/hf", Access::Map);
}

#[test]
fn tanh_gelu() {
    compare("bert_tanh/hf", Access::Map);
}

#[test]
fn owned_bytes() {
    compare("bert_tanh/hf", Access::Read);
}

#[test]
fn sharded_files() {
    compare("bert_tanh/hf_sharded", Access::Map);
}

#[test]
fn bare_names_and_old_norm_names() {
    compare("bert_tanh/hf_bare", Access::Map);
}

#[test]
fn pooled_output_of_a_padded_first_position() {
    // The pooled output is defined there, although the position is not a real one.
    let (model, _) = load("bert_gelu/hf", Access::Map);
    let goldens = Goldens::read("bert_gelu/goldens.safetensors");
    let limit = Limits::read().float32("bert", "pooled_output");
    for_each_level(Level::supported(), |level| {
        for case in ["lpad_s13", "mid_s13"] {
            let batch = Batch::of(&goldens, case);
            assert!(
                batch.mask.chunks(batch.shape.1).any(|mask| mask[0] == 0),
                "{case} hides a first position"
            );
            let got = outputs(&model, &Heads::default(), Ctx::new(level).unwrap(), &batch);
            let (_, got) = got.iter().find(|(name, _)| name == "pooled_output").unwrap();
            let defined = &goldens.defined(case, "pooled").data;
            let error = relative_error(got, goldens.expected(case, "pooled_output"), defined);
            assert!(error <= limit, "{level} {case}: {error:e} of {limit:e}");
        }
    });
}

#[test]
fn a_small_variance_shows_the_epsilon() {
    compare("bert_lowvar/hf", Access::Map);
}

fn compare_half(model: &str, dtype: &str, policy: Dtype) {
    let directory = format!("{model}/hf_{dtype}");
    let (bert, heads) = load(&directory, Access::Map);
    assert_eq!(bert.dtype(), policy, "the file's own policy");
    compare_half_with_goldens("bert", model, dtype, |ctx, goldens, case| {
        outputs(&bert, &heads, ctx, &Batch::of(goldens, case))
    });
}

#[test]
fn bfloat16_files() {
    compare_half("bert_gelu", "bf16", Dtype::Bfloat16);
}

#[test]
fn float16_files() {
    compare_half("bert_tanh", "f16", Dtype::Float16);
}
