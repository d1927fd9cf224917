//! Every BERT fixture against the outputs of the reference library in float64, at every level.

mod common;

use common::{Batch, kind, load, outputs};
use rachis::DtypePolicy;
use rachis::kernels::{Ctx, Level, Precision};
use rachis::loader::Access;
use rachis_testkit::for_each_level;
use rachis_testkit::goldens::{Goldens, Limits, relative_error};

/// Compares every tensor that a golden file has for a directory of weights, over the positions that are real.
fn compare(directory: &str, access: Access) {
    let (model, heads) = load(directory, access);
    let goldens = Goldens::read(format!("{}/goldens.safetensors", directory.split('/').next().unwrap()));
    let limits = Limits::read();
    for_each_level(Level::supported(), |level| {
        let mut compared = 0;
        for case in goldens.cases() {
            let batch = Batch::of(&goldens, case);
            let got = outputs(&model, heads.as_ref(), Ctx::new(level).unwrap(), &batch);
            for tensor in goldens.tensors(case) {
                let Some((_, got)) = got.iter().find(|(name, _)| name == tensor) else {
                    assert!(heads.is_none() && tensor.ends_with("logits"), "{directory} {case}: no {tensor}");
                    continue;
                };
                let valid = &goldens.valid(case, kind(tensor)).data;
                let error = relative_error(got, goldens.expected(case, tensor), valid);
                let limit = limits.float32("bert", tensor);
                assert!(error <= limit, "{level} {directory} {case} {tensor}: {error:e} of {limit:e}");
                compared += 1;
            }
        }
        assert!(compared >= 12, "{directory}: only {compared} tensors were compared");
        println!("{level} {directory}: {compared} tensors within their limits");
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
            let got = outputs(&model, None, Ctx::new(level).unwrap(), &batch);
            let (_, got) = got.iter().find(|(name, _)| name == "pooled_output").unwrap();
            let defined = &goldens.defined(case, "pooled").data;
            let error = relative_error(got, goldens.expected(case, "pooled_output"), defined);
            assert!(error <= limit, "{level} {case}: {error:e} of {limit:e}");
        }
    });
}

#[test]
fn a_small_variance_shows_the_epsilon() {
    let (model, heads) = load("bert_lowvar/hf", Access::Map);
    let goldens = Goldens::read("bert_lowvar/goldens.safetensors");
    let limits = Limits::read();
    for_each_level(Level::supported(), |level| {
        for case in goldens.cases() {
            let got = outputs(&model, heads.as_ref(), Ctx::new(level).unwrap(), &Batch::of(&goldens, case));
            for tensor in goldens.tensors(case) {
                let (_, got) = got.iter().find(|(name, _)| name == tensor).unwrap();
                let valid = &goldens.valid(case, kind(tensor)).data;
                let error = relative_error(got, goldens.expected(case, tensor), valid);
                let limit = limits.float32("bert", tensor);
                assert!(error <= limit, "{level} {case} {tensor}: {error:e} of {limit:e}");
            }
        }
    });
}

/// Half-precision files: exactly widened they must meet the float32 limits against exact arithmetic on the
/// rounded weights; with activations rounded too, what the library's own half-precision run was off by.
fn compare_half(model: &str, dtype: &str, policy: DtypePolicy) {
    let directory = format!("{model}/hf_{dtype}");
    let (bert, heads) = load(&directory, Access::Map);
    assert_eq!(bert.dtype(), policy, "the file's own policy");
    let goldens = Goldens::read(format!("{model}/goldens.safetensors"));
    let expected = Goldens::read(format!("{model}/lowp_goldens.safetensors"));
    let limits = Limits::read();
    let case = "rpad_s13";
    let batch = Batch::of(&goldens, case);
    for_each_level(Level::supported(), |level| {
        for precision in [Precision::Strict, Precision::Bf16] {
            let ctx = Ctx::new(level).unwrap().with_precision(precision);
            for (tensor, got) in outputs(&bert, heads.as_ref(), ctx, &batch) {
                if tensor.starts_with("hs.") {
                    continue;
                }
                let expected = expected.float(&format!("{dtype}.weights_{dtype}_compute_f64.{tensor}"));
                let error = relative_error(&got, expected, &goldens.valid(case, kind(&tensor)).data);
                let limit = match precision {
                    Precision::Strict => limits.float32("bert", &tensor),
                    Precision::Bf16 => limits.native_half("bert", "bf16"),
                };
                assert!(error <= limit, "{level} {directory} {precision:?} {tensor}: {error:e} of {limit:e}");
            }
        }
    });
}

#[test]
fn bfloat16_files() {
    compare_half("bert_gelu", "bf16", DtypePolicy::Bfloat16);
}

#[test]
fn float16_files() {
    compare_half("bert_tanh", "f16", DtypePolicy::Float16);
}
