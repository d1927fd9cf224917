//! `save_preset`: what is written gives the same bits, whatever was read.

mod common;

use std::path::Path;

use common::models::Sizes;
use common::run;
use rachis::falcon::{AlibiRounding, FalconPositions};
use rachis::kernels::{Activation, Ctx, MatRef, Precision};
use rachis::loader::{Access, Preset, TensorDtype};
use rachis::{
    Backbone, BartBackbone, BertBackbone, CacheOptions, Decoder, Dtype, Error, FalconBackbone, OptBackbone,
    PresetOptions, PresetWeights, Session, T5Backbone, Tokens,
};
use rachis_testkit::goldens::{Goldens, fixture};
use tempfile::TempDir;

/// Every kind of directory: both libraries', all forms of all architectures, weights of 16 bits and in shards.
const DIRECTORIES: [&str; 24] = [
    "bert_gelu/hf",
    "bert_gelu/keras",
    "bert_tanh/hf_bare",
    "bert_tanh/hf_sharded",
    "bert_tanh/keras",
    "bert_tanh/keras_h5_legacy_names",
    "opt_pre/hf",
    "opt_pre/keras",
    "opt_350m_style/hf",
    "opt_nobias/hf",
    "bart_sym/hf",
    "bart_sym/keras_sharded",
    "bart_asym_scaled/hf",
    "t5_relu_tied/hf",
    "t5_relu_tied/keras",
    "t5_gated_untied/hf",
    "t5_gated_untied/keras",
    "t5_asym_buckets/hf",
    "falcon_rw/hf",
    "falcon_rw/keras",
    "falcon_7b_style/hf",
    "falcon_11b_style/hf",
    "falcon_40b_style/hf",
    "falcon_mha_rotary_bias/hf",
];

fn saved(model: &Backbone, dtype: Option<Dtype>) -> (TempDir, Preset) {
    let dir = tempfile::tempdir().unwrap();
    model.save_preset(dir.path().join("made/on/the/way"), dtype).unwrap();
    let preset = Preset::open(dir.path().join("made/on/the/way"), Access::Map).unwrap();
    (dir, preset)
}

/// That tensors begin at whole lines of 64 bytes, those of odd sizes after all others.
fn check_alignment(preset: &Preset) {
    assert_eq!(preset.bytes_copied(), 0);
    let mut tensors: Vec<_> = preset.tensors().iter().collect();
    tensors.sort_by_key(|tensor| tensor.file_offset());
    let aligned = |tensor: &&rachis::loader::Tensor| tensor.byte_len().is_multiple_of(64);
    assert!(tensors.iter().is_sorted_by_key(|tensor| !aligned(tensor)));
    for tensor in tensors.iter().filter(|tensor| aligned(tensor)) {
        assert!(tensor.file_offset().unwrap().is_multiple_of(64), "{}", tensor.name());
    }
}

fn assert_same_bits(name: &str, a: &Backbone, b: &Backbone) {
    let goldens = Goldens::read(format!("{}/goldens.safetensors", name.split('/').next().unwrap()));
    for precision in [Precision::Strict, Precision::Bf16] {
        let ctx = Ctx::detect().with_precision(precision);
        for case in goldens.cases() {
            let (a, b) = (run(a, ctx, &goldens, case), run(b, ctx, &goldens, case));
            assert_eq!(a.len(), b.len(), "{name}");
            for ((tensor, a), (_, b)) in a.iter().zip(&b) {
                let same = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{name} {precision:?} {case} {tensor}");
            }
        }
    }
}

#[test]
fn every_directory_gives_the_same_bits_again() {
    for name in DIRECTORIES {
        let model = Backbone::from_preset(fixture(name)).unwrap();
        let (_dir, preset) = saved(&model, None);
        check_alignment(&preset);
        let again = Backbone::load(&preset).unwrap();
        assert_eq!(again.dtype(), model.dtype(), "{name}");
        assert_same_bits(name, &model, &again);
    }
}

#[test]
fn sixteen_bits_stay_and_can_be_asked_for() {
    for (name, stored) in
        [("bert_tanh/keras_bf16", TensorDtype::Bf16), ("bert_tanh/keras_f16", TensorDtype::F16)]
    {
        let model = Backbone::from_preset(fixture(name)).unwrap();
        let (_dir, preset) = saved(&model, None);
        assert!(preset.tensors().iter().all(|tensor| tensor.dtype() == stored), "{name}");
        assert_same_bits(name, &model, &Backbone::load(&preset).unwrap());
        // Widening is exact: rounding again gives back the same.
        let (_dir, wide) = saved(&model, Some(Dtype::Float32));
        let wide = Backbone::load(&wide).unwrap();
        assert_eq!(wide.dtype(), Dtype::Float32);
        let dtype = if stored == TensorDtype::Bf16 { Dtype::Bfloat16 } else { Dtype::Float16 };
        let (_dir, again) = saved(&wide, Some(dtype));
        for tensor in preset.tensors() {
            assert_eq!(again.require(tensor.name()).unwrap().bytes(), tensor.bytes(), "{}", tensor.name());
        }
    }
}

/// Rounded as the reference rounds: transformers' own directory of bf16.
#[test]
fn rounding_is_that_of_the_reference() {
    let theirs = Preset::open(fixture("bert_gelu/hf_bf16"), Access::Map).unwrap();
    let model = Backbone::from_preset(fixture("bert_gelu/hf")).unwrap();
    let (_dir, ours) = saved(&model, Some(Dtype::Bfloat16));
    assert_eq!(Backbone::load(&ours).unwrap().dtype(), Dtype::Bfloat16);
    for tensor in ours.tensors() {
        assert_eq!(tensor.bytes(), theirs.require(tensor.name()).unwrap().bytes(), "{}", tensor.name());
    }
}

#[test]
fn numbers_beyond_float16_are_refused_and_nothing_is_replaced() {
    let sizes = Sizes { vocabulary: 11, layers: 1, heads: 2, hidden: 8, inner: 12, positions: 9 };
    let model = OptBackbone::random(sizes.opt(), 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save_preset(dir.path(), Some(Dtype::Float32)).unwrap();
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&70_000f32.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();

    let options = PresetOptions::new().with_weights(PresetWeights::Read);
    let large = OptBackbone::from_preset_with(dir.path(), options).unwrap();
    let error = large.save_preset(dir.path(), Some(Dtype::Float16)).unwrap_err();
    assert!(matches!(error, Error::WeightRange { found: 70_000.0, .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(names(dir.path()), ["config.json", "model.safetensors"]);
    // Into the directory whose files it maps.
    let mapped = OptBackbone::from_preset(dir.path()).unwrap();
    mapped.save_preset(dir.path(), Some(Dtype::Bfloat16)).unwrap();
    let preset = Preset::open(dir.path(), Access::Map).unwrap();
    assert!(preset.tensors().iter().all(|tensor| tensor.dtype() == TensorDtype::Bf16));
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A configuration is the same again when it is read.
macro_rules! assert_config_returns {
    ($class:ident, $config:expr) => {{
        let config = $config;
        let model = $class::random(config.clone(), 2).unwrap();
        let dir = tempfile::tempdir().unwrap();
        model.save_preset(dir.path(), None).unwrap();
        let again = $class::from_preset(dir.path()).unwrap();
        let (found, expected) = (again.config(), &config);
        assert_eq!(found, expected);
    }};
}

#[test]
fn configurations_return() {
    let sizes = Sizes { vocabulary: 11, layers: 1, heads: 4, hidden: 16, inner: 12, positions: 9 };
    for activation in [
        Activation::GeluErf,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Silu,
        Activation::QuickGelu,
        Activation::Tanh,
    ] {
        assert_config_returns!(BertBackbone, {
            let mut config = sizes.bert();
            config.activation = activation;
            config.dropout = 0.3;
            config.layer_norm_epsilon = 1e-7;
            config
        });
        for use_gated_activation in [true, false] {
            assert_config_returns!(T5Backbone, {
                let mut config = sizes.t5();
                config.activation = activation;
                config.use_gated_activation = use_gated_activation;
                config
            });
        }
    }
    assert_config_returns!(OptBackbone, sizes.opt());
    assert_config_returns!(OptBackbone, {
        let mut config = sizes.opt();
        config.norm_first = false;
        config.embedding_dim = 12;
        config
    });
    assert_config_returns!(OptBackbone, {
        let mut config = sizes.opt();
        config.positions = rachis::opt::OptPositions::RealTokens;
        config.norm_affine = false;
        config.use_bias = false;
        config
    });
    assert_config_returns!(OptBackbone, {
        let mut config = sizes.opt();
        config.final_norm = false;
        config
    });
    assert_config_returns!(OptBackbone, {
        let mut config = sizes.opt();
        config.tie_embedding_weights = false;
        config
    });
    assert_config_returns!(BartBackbone, sizes.bart());
    assert_config_returns!(BartBackbone, {
        let mut config = sizes.bart();
        config.tie_embedding_weights = false;
        config
    });
    assert_config_returns!(T5Backbone, {
        let mut config = sizes.t5();
        config.tie_embedding_weights = false;
        config.scale_logits = false;
        config
    });
    assert_config_returns!(T5Backbone, {
        let mut config = sizes.t5();
        config.decoder_num_layers = 2;
        config.num_buckets = 8;
        config.max_distance = 9;
        config
    });
    for rounding in [AlibiRounding::Bf16, AlibiRounding::None] {
        let positions = FalconPositions::Alibi { rounding };
        assert_config_returns!(FalconBackbone, {
            let mut config = sizes.falcon();
            config.positions = positions;
            config.block_norm_epsilon = 1e-3;
            config
        });
    }
    for (kv_heads, separate_norms) in [(1, true), (1, false), (2, true), (2, false), (4, true), (4, false)] {
        let config = sizes.rotary_falcon(kv_heads);
        assert_config_returns!(FalconBackbone, {
            let mut config = config;
            config.separate_norms = separate_norms;
            config
        });
    }
    assert_config_returns!(FalconBackbone, {
        let mut config = sizes.falcon();
        config.num_kv_heads = 1;
        config.tie_embedding_weights = false;
        config
    });
    let grouped = {
        let mut config = sizes.falcon();
        config.num_kv_heads = 2;
        config
    };
    let model = FalconBackbone::random(grouped, 2).unwrap();
    let error = model.save_preset(tempfile::tempdir().unwrap().path(), None).unwrap_err();
    assert!(matches!(error, Error::Config { field: "num_kv_heads", .. }), "{error}");
}

#[test]
fn options_choose_the_precision_and_the_weights() {
    let bf16 = PresetOptions::new().with_dtype(Dtype::Bfloat16);
    let model = Backbone::from_preset_with(fixture("bert_gelu/hf"), bf16).unwrap();
    assert_eq!(model.dtype(), Dtype::Bfloat16);
    assert!(
        matches!(model.token_embedding().table(), rachis::kernels::AnyMatRef::F32(_)),
        "stored as before"
    );

    // A configuration is enough for random weights, and says what is tied.
    let dir = tempfile::tempdir().unwrap();
    let config = fixture("t5_gated_untied/hf").join("config.json");
    std::fs::copy(config, dir.path().join("config.json")).unwrap();
    assert!(T5Backbone::from_preset(dir.path()).is_err());
    let random = |seed| bf16.with_weights(PresetWeights::Random { seed });
    let made = |seed| T5Backbone::from_preset_with(dir.path(), random(seed)).unwrap();
    let [a, b, c] = [made(1), made(1), made(2)].map(|model| {
        assert_eq!(model.dtype(), Dtype::Bfloat16);
        assert_eq!(
            model.config().num_heads,
            T5Backbone::from_preset(fixture("t5_gated_untied/hf")).unwrap().config().num_heads
        );
        let rachis::kernels::AnyMatRef::F32(table) = model.token_embedding().table() else { panic!() };
        table.row(0).to_vec()
    });
    assert!(a == b && a != c);
}

/// The policy decides what products round to, unless the context was given a precision.
#[test]
fn the_policy_is_what_a_model_computes_in() {
    let ids = [3, 7, 11, 2, 9];
    let run = |policy, precision: Option<Precision>| {
        let options = PresetOptions::new().with_dtype(policy);
        let model = OptBackbone::from_preset_with(fixture("opt_pre/hf"), options).unwrap();
        let ctx = Ctx::detect();
        let mut session = Session::new(precision.map_or(ctx, |precision| ctx.with_precision(precision)));
        session.reserve(&model, 1, ids.len()).unwrap();
        let tokens = Tokens::padded(&ids, 1, ids.len());
        let whole = model.forward(&mut session, tokens).unwrap().sequence(0).row(4).to_vec();
        session.start(&model, CacheOptions::new(1, ids.len())).unwrap();
        let decoded = model.decode(&mut session, &[0], tokens).unwrap().sequence(0).row(4).to_vec();
        assert!(whole == decoded, "{policy:?} {precision:?}");
        let mut logits = vec![0.0; model.vocabulary_size()];
        model.logits(&mut session, MatRef::new(&decoded, 1, decoded.len()).unwrap(), &mut logits).unwrap();
        [decoded, logits]
    };
    let [strict, rounded] =
        [Precision::Strict, Precision::Bf16].map(|precision| run(Dtype::Float32, Some(precision)));
    assert!(strict[0] != rounded[0] && strict[1] != rounded[1]);
    assert!(run(Dtype::Float32, None) == strict);
    assert!(run(Dtype::Bfloat16, None) == rounded);
    assert!(run(Dtype::Bfloat16, Some(Precision::Strict)) == strict, "the context's own goes first");
}
