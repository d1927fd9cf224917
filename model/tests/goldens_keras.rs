//! Every KerasHub preset against KerasHub's outputs in float64, at every level, and against the same weights in Hugging
//! Face's layout.

mod common;

use common::run;
use rachis::kernels::{Ctx, Level, Precision};
use rachis::loader::{Access, Preset};
use rachis::{Backbone, Dtype};
use rachis_testkit::for_each_level;
use rachis_testkit::goldens::{Goldens, Limits, fixture, kind, relative_error};

fn load(directory: &str) -> Backbone {
    let preset = Preset::open(fixture(directory), Access::Map).unwrap();
    // Newer HDF5 than Keras writes packs datasets without regard to alignment.
    assert!(preset.bytes_copied() == 0 || directory.contains("keras_h5_"), "{directory}");
    Backbone::load(&preset).unwrap()
}

/// Compares a directory with KerasHub's outputs, which where they equal transformers' are kept with those.
fn compare(family: &str, directory: &str) {
    let model = load(directory);
    let name = directory.split('/').next().unwrap();
    let theirs = Goldens::read(format!("{name}/goldens.safetensors"));
    let keras = Goldens::read(format!("{name}/keras_goldens.safetensors"));
    let limits = Limits::read();
    for_each_level(Level::supported(), |level| {
        let mut compared = 0;
        for case in theirs.cases() {
            let got = run(&model, Ctx::new(level).unwrap(), &theirs, case);
            for tensor in theirs.tensors(case) {
                let Some((_, got)) = got.iter().find(|(name, _)| name == tensor) else {
                    assert!(
                        family == "bert" && tensor.ends_with("logits"),
                        "{directory} {case}: no {tensor}"
                    );
                    continue;
                };
                let own = keras.tensors(case).contains(&tensor);
                let expected = if own { keras.expected(case, tensor) } else { theirs.expected(case, tensor) };
                let valid = &theirs.valid(case, kind(family, tensor)).data;
                let error = relative_error(got, expected, valid);
                let limit = limits.float32(family, tensor);
                assert!(error <= limit, "{level} {directory} {case} {tensor}: {error:e} of {limit:e}");
                compared += 1;
            }
        }
        let tensors = theirs.cases().into_iter().flat_map(|case| theirs.tensors(case));
        let expected = tensors.filter(|tensor| family != "bert" || !tensor.ends_with("logits")).count();
        assert_eq!(compared, expected, "{directory}: number of tensors compared");
        println!("{level} {directory}: {compared} tensors within their limits");
    });
}

#[test]
fn bert() {
    compare("bert", "bert_gelu/keras");
    compare("bert", "bert_tanh/keras");
}

#[test]
fn bert_in_older_and_newer_files() {
    compare("bert", "bert_tanh/keras_h5_legacy_names");
    compare("bert", "bert_tanh/keras_h5_v108");
    compare("bert", "bert_tanh/keras_h5_latest");
}

#[test]
fn opt() {
    compare("opt", "opt_pre/keras");
}

#[test]
fn bart() {
    compare("bart", "bart_sym/keras");
    compare("bart", "bart_sym/keras_sharded");
}

#[test]
fn t5() {
    compare("t5", "t5_relu_tied/keras");
    compare("t5", "t5_gated_untied/keras");
}

#[test]
fn falcon() {
    compare("falcon", "falcon_rw/keras");
    compare("falcon", "falcon_rw_bf16slopes/keras");
}

#[test]
fn half_precision_files() {
    let goldens = Goldens::read("bert_tanh/goldens.safetensors");
    let expected = Goldens::read("bert_tanh/lowp_goldens.safetensors");
    let (limits, case) = (Limits::read(), "rpad_s13");
    for (dtype, policy) in [("bf16", Dtype::Bfloat16), ("f16", Dtype::Float16)] {
        let model = load(&format!("bert_tanh/keras_{dtype}"));
        assert_eq!(model.dtype(), policy, "the file's own policy");
        for_each_level(Level::supported(), |level| {
            for precision in [Precision::Strict, Precision::Bf16] {
                let ctx = Ctx::new(level).unwrap().with_precision(precision);
                for (tensor, got) in run(&model, ctx, &goldens, case) {
                    if tensor.contains("hs.") {
                        continue;
                    }
                    let expected = expected.float(&format!("keras_{dtype}.weights_compute_f64.{tensor}"));
                    let valid = &goldens.valid(case, kind("bert", &tensor)).data;
                    let error = relative_error(&got, expected, valid);
                    let limit = match precision {
                        Precision::Strict | Precision::Bf16x6 => limits.float32("bert", &tensor),
                        Precision::Bf16 => limits.native_half("bert", "bf16"),
                    };
                    assert!(error <= limit, "{level} {dtype} {precision:?} {tensor}: {error:e} of {limit:e}");
                }
            }
        });
    }
}

/// The same weights give the same bits, since both layouts of a product sum in the same order.
#[test]
fn both_layouts_give_the_same_bits() {
    for name in ["bart_sym", "t5_relu_tied", "t5_gated_untied"] {
        let (keras, other) = (load(&format!("{name}/keras")), load(&format!("{name}/hf")));
        let goldens = Goldens::read(format!("{name}/goldens.safetensors"));
        for_each_level(Level::supported(), |level| {
            for precision in [Precision::Strict, Precision::Bf16] {
                let ctx = Ctx::new(level).unwrap().with_precision(precision);
                let (keras, other) =
                    (run(&keras, ctx, &goldens, "rpad_s13"), run(&other, ctx, &goldens, "rpad_s13"));
                for ((tensor, keras), (_, other)) in keras.iter().zip(&other) {
                    // KerasHub has no bias of the logits, and gated-gelu means another function there or not.
                    if tensor == "logits" && name == "bart_sym" {
                        continue;
                    }
                    let same = keras.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{level} {name} {precision:?} {tensor}");
                }
            }
        });
    }
}
