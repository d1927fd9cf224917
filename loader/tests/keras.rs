//! Keras presets: every dataset lies where the manifests say, is used in place, and equals the Hugging Face directory of
//! the same weights.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use common::{KERAS, count, fixture, preset};
use rachis_loader::{Access, Config, ConfigSource, Data, Error, Preset, Region, Tensor, TensorDtype, hdf5};

const MODELS: [&str; 8] = [
    "bart_sym",
    "bert_gelu",
    "bert_tanh",
    "falcon_rw",
    "falcon_rw_bf16slopes",
    "opt_pre",
    "t5_gated_untied",
    "t5_relu_tied",
];

fn open(name: &str) -> Preset {
    Preset::open(fixture(name), Access::Map).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn every_dataset_is_where_the_manifest_says() {
    let plain = MODELS.map(|model| (format!("{model}/keras"), format!("{model}/keras_h5_manifest.json")));
    let halves = ["bf16", "f16"]
        .map(|kind| (format!("bert_tanh/keras_{kind}"), format!("bert_tanh/keras_{kind}_h5_manifest.json")));
    for (name, manifest) in plain.into_iter().chain(halves) {
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(fixture(&manifest)).unwrap()).unwrap();
        let manifest = manifest.as_array().unwrap();
        let file = fs::read(fixture(&name).join("model.weights.h5")).unwrap();
        for access in [Access::Map, Access::Read] {
            let preset = Preset::open(fixture(&name), access).unwrap();
            assert_eq!((preset.tensors().len(), preset.bytes_copied()), (manifest.len(), 0), "{name}");
            assert!(preset.tensors().is_sorted_by(|a, b| a.name() < b.name()));
            for entry in manifest {
                let number = |field: &str| entry[field].as_u64().unwrap() as usize;
                let tensor = preset.require(entry["path"].as_str().unwrap()).unwrap();
                let shape: Vec<_> = entry["shape"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|dim| dim.as_u64().unwrap() as usize)
                    .collect();
                let dtype = match entry["dtype"].as_str().unwrap() {
                    "float32" => TensorDtype::F32,
                    "float16" => TensorDtype::F16,
                    "bfloat16" => TensorDtype::Bf16,
                    other => panic!("{other}"),
                };
                assert_eq!((tensor.shape(), tensor.dtype()), (&shape[..], dtype));
                assert_eq!(
                    (tensor.file_offset(), tensor.byte_len()),
                    (Some(number("offset")), number("nbytes"))
                );
                assert_eq!(tensor.bytes(), &file[number("offset")..][..number("nbytes")]);
                let typed = match tensor.data() {
                    Data::F32(data) => data.len(),
                    Data::F16(data) => data.len(),
                    Data::Bf16(data) => data.len(),
                    other => panic!("{other:?}"),
                };
                assert_eq!(typed, shape.iter().product::<usize>());
            }
        }
    }
}

/// In every form of storage, the tensors lie in the map, unless they are misaligned in the file.
#[test]
fn weights_are_used_in_place() {
    let plain = MODELS.map(|model| format!("{model}/keras"));
    let others = ["bart_sym/keras_sharded"].map(str::to_owned);
    let stored = ["bf16", "f16", "h5_legacy_names", "h5_v108", "h5_latest"];
    let stored = stored.map(|kind| format!("bert_tanh/keras_{kind}"));
    for name in plain.into_iter().chain(others).chain(stored) {
        let preset = open(&name);
        let mut off = 0;
        for file in preset.files() {
            assert!(file.mapped);
            let of_file = || preset.tensors().iter().filter(|tensor| tensor.file() == Some(&file.name));
            let base = |tensor: &Tensor| tensor.bytes().as_ptr().addr() - tensor.file_offset().unwrap();
            let bases: Vec<_> = of_file().filter(|tensor| !tensor.copied()).map(base).collect();
            assert!(bases.iter().all(|base| *base == bases[0] && base.is_multiple_of(4096)), "{name}");
            for tensor in of_file() {
                let aligned = tensor.file_offset().unwrap().is_multiple_of(tensor.dtype().bits() / 8);
                assert_eq!(tensor.copied(), !aligned, "{name}: {}", tensor.name());
                off += if aligned { 0 } else { tensor.byte_len() };
            }
        }
        assert_eq!(preset.bytes_copied(), off);
        // The newer versions of HDF5 pack structures without gaps, and so misalign data. Keras does not write them.
        assert_eq!(off > 0, name.ends_with("v108") || name.ends_with("latest"), "{name}: {off}");
    }
}

#[test]
fn opening_allocates_far_less_than_the_weights() {
    let name = "bert_tanh/keras";
    let (preset, allocated) = count(|| open(name));
    assert!(allocated.peak < preset.bytes_mapped() / 2, "{allocated:?} of {}", preset.bytes_mapped());
}

#[test]
fn every_form_of_storage_has_the_same_tensors() {
    let same = |a: &str, b: &str| {
        let (a, b) = (open(a), open(b));
        assert_eq!(a.tensors().len(), b.tensors().len());
        for (a, b) in a.tensors().iter().zip(b.tensors()) {
            assert_eq!((a.name(), a.shape(), a.dtype()), (b.name(), b.shape(), b.dtype()));
            assert!(a.bytes() == b.bytes(), "{}", a.name());
        }
    };
    same("bart_sym/keras", "bart_sym/keras_sharded");
    for other in ["h5_legacy_names", "h5_v108", "h5_latest"] {
        same("bert_tanh/keras", &format!("bert_tanh/keras_{other}"));
    }
}

/// Compares the tensors that both libraries store in the same layout: embeddings, norms, biases.
#[test]
fn tensors_equal_those_of_hugging_face() {
    #[rustfmt::skip]
    let table = [
        ("bert_tanh", "reversible_embedding/vars/0", "bert.embeddings.word_embeddings.weight"),
        ("bert_tanh", "position_embedding/vars/0", "bert.embeddings.position_embeddings.weight"),
        ("bert_tanh", "embedding/vars/0", "bert.embeddings.token_type_embeddings.weight"),
        ("bert_tanh", "layer_normalization/vars/0", "bert.embeddings.LayerNorm.weight"),
        ("bert_tanh", "layer_normalization/vars/1", "bert.embeddings.LayerNorm.bias"),
        ("bert_tanh", "dense/vars/1", "bert.pooler.dense.bias"),
        ("bert_tanh", "transformer_encoder_1/_feedforward_layer_norm/vars/0", "bert.encoder.layer.1.output.LayerNorm.weight"),
        ("bert_tanh", "transformer_encoder/_feedforward_intermediate_dense/vars/1", "bert.encoder.layer.0.intermediate.dense.bias"),
        ("bert_gelu", "reversible_embedding/vars/0", "bert.embeddings.word_embeddings.weight"),
        ("bert_gelu", "transformer_encoder_1/_self_attention_layer_norm/vars/1", "bert.encoder.layer.1.attention.output.LayerNorm.bias"),
        ("opt_pre", "token_and_position_embedding/token_embedding/vars/0", "model.decoder.embed_tokens.weight"),
        ("opt_pre", "layer_normalization/vars/0", "model.decoder.final_layer_norm.weight"),
        ("bart_sym", "reversible_embedding/vars/0", "model.shared.weight"),
        ("bart_sym", "layer_normalization_1/vars/0", "model.decoder.layernorm_embedding.weight"),
        ("t5_relu_tied", "reversible_embedding/vars/0", "shared.weight"),
        ("t5_relu_tied", "t5_layer_norm_1/vars/0", "decoder.final_layer_norm.weight"),
        ("t5_relu_tied", "t5_transformer_layer/self_attention/vars/0", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        ("t5_gated_untied", "reversible_embedding/vars/0", "shared.weight"),
        ("falcon_rw", "reversible_embedding/vars/0", "transformer.word_embeddings.weight"),
        ("falcon_rw", "layer_normalization/vars/1", "transformer.ln_f.bias"),
        ("falcon_rw_bf16slopes", "falcon_transformer_decoder_1/input_layernorm/vars/0", "transformer.h.1.input_layernorm.weight"),
    ];
    let mut presets = BTreeMap::new();
    for (model, keras, hf) in table {
        let (keras_preset, hf_preset) = presets
            .entry(model)
            .or_insert_with(|| (open(&format!("{model}/keras")), open(&format!("{model}/hf"))));
        let keras = keras_preset.require(&format!("layers/{keras}")).unwrap();
        let hf = hf_preset.require(hf).unwrap();
        assert_eq!((keras.shape(), keras.dtype()), (hf.shape(), hf.dtype()), "{model}: {}", keras.name());
        assert!(keras.bytes() == hf.bytes(), "{model}: {}", keras.name());
    }
    let [keras, hf] = ["bert_tanh/keras_f16", "bert_tanh/hf_f16"].map(open);
    let keras = keras.require("layers/reversible_embedding/vars/0").unwrap();
    assert_eq!(keras.bytes(), hf.require("bert.embeddings.word_embeddings.weight").unwrap().bytes());
}

#[test]
fn keras_presets_are_opened() {
    let bert = open("bert_tanh/keras");
    assert_eq!(bert.config().source(), &ConfigSource::Keras { class_name: "BertBackbone".to_owned() });
    assert_eq!(bert.config().usize("hidden_dim").unwrap(), 32);
    assert!(bert.read_json("metadata.json").unwrap().unwrap()["keras_version"].is_string());

    let file = fs::read(fixture("bert_tanh/keras/model.weights.h5")).unwrap();
    let config = fs::read(fixture("bert_tanh/keras/config.json")).unwrap();
    let in_memory = Preset::from_bytes(&config, Region::from_vec("h5", file.clone())).unwrap();
    assert_eq!(in_memory.tensors().len(), bert.tensors().len());
    assert!(matches!(Config::parse("config.json", &config).unwrap().source(), ConfigSource::Keras { .. }));

    // The single file takes precedence over the index.
    let both: [(&str, &[u8]); 3] =
        [("config.json", &config), ("model.weights.h5", &file), ("model.weights.json", b"not even JSON")];
    assert_eq!(Preset::open(preset(&both).path(), Access::Map).unwrap().tensors().len(), 39);
}

#[test]
fn weights_of_the_other_library_are_refused() {
    let keras = ("config.json", KERAS.as_bytes());
    for (files, part) in [
        (&[keras][..], "expected model.weights.h5 or model.weights.json, found no such file"),
        (&[keras, ("model.safetensors", b"")], "found safetensors beside the config.json of a Keras preset"),
        (&[("model.weights.h5", b"")], "found Keras weights beside a config.json without registered_name"),
        (&[("model.weights.json", b"")], "found Keras weights beside a config.json without registered_name"),
        (&[keras, ("pytorch_model.bin", b"")], "found pickled weights"),
    ] {
        let error = Preset::open(preset(files).path(), Access::Map).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let dir = preset(&[("model.weights.h5", b"")]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    let error = Preset::open(dir.path(), Access::Map).unwrap_err();
    assert!(matches!(&error, Error::MissingFile { expected, .. } if expected == "config.json"), "{error}");
}

/// The fixtures whose HDF5 structures differ.
const STRUCTURES: [&str; 4] = ["keras", "keras_bf16", "keras_h5_v108", "keras_h5_latest"];

/// Every prefix of a file is refused, also when the superblock declares its length.
#[test]
fn files_cut_short_are_refused() {
    for name in STRUCTURES {
        let file = fs::read(fixture(&format!("bert_tanh/{name}/model.weights.h5"))).unwrap();
        for len in (0..file.len()).step_by(97).chain([file.len() - 1]) {
            let cut = Arc::new(Region::from_vec("cut", file[..len].to_vec()));
            assert!(hdf5::parse(&cut).is_err(), "{name}: {len} bytes");
            // The same prefix, with a superblock that declares its length.
            let mut honest = file[..len].to_vec();
            let end = if file[8] == 0 { 40 } else { 28 };
            if let Some(field) = honest.get_mut(end..end + 8) {
                field.copy_from_slice(&(len as u64).to_le_bytes());
            }
            assert!(!is_accepted(honest), "{name}: {len} bytes, declared");
        }
    }
}

/// A file with damaged structures gives tensors that lie in the file, or an error, but no panic.
#[test]
fn damaged_files_never_panic() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for name in STRUCTURES {
        let file = fs::read(fixture(&format!("bert_tanh/{name}/model.weights.h5"))).unwrap();
        let region = Arc::new(Region::from_vec("whole", file.clone()));
        let mut is_structure = vec![true; file.len()];
        for tensor in hdf5::parse(&region).unwrap() {
            is_structure[tensor.file_offset().unwrap()..][..tensor.byte_len()].fill(false);
        }
        let structure: Vec<_> = (0..file.len()).filter(|at| is_structure[*at]).collect();
        let mut accepted = 0;
        for _ in 0..1500 {
            let mut damaged = file.clone();
            for _ in 0..=next(4) {
                let at = structure[next(structure.len())];
                let word = (at & !7).min(file.len() - 8);
                match next(5) {
                    0 => damaged[at] ^= 1 << next(8),
                    1 => damaged[at] = next(256) as u8,
                    2 => damaged[word..word + 8].fill(0xff),
                    // The address of another structure.
                    3 => {
                        let address = (structure[next(structure.len())] as u64 & !7).to_le_bytes();
                        damaged[word..word + 8].copy_from_slice(&address);
                    }
                    _ => {
                        let from = structure[next(structure.len())] & !7;
                        damaged.copy_within(from..from + 8, word);
                    }
                }
            }
            accepted += usize::from(is_accepted(damaged));
        }
        // Damage may hit bytes that mean nothing, so that both outcomes occur.
        assert!((1..1500).contains(&accepted), "{name}: {accepted} accepted");
    }
}

/// Parses a damaged file, checks the result, and returns whether it was accepted.
fn is_accepted(file: Vec<u8>) -> bool {
    let region = Arc::new(Region::from_vec("damaged", file));
    let (result, allocated) = count(|| hdf5::parse(&region));
    assert!(allocated.peak < 16 << 20, "{allocated:?}");
    let accepted = result.is_ok();
    match result {
        Ok(tensors) => {
            for tensor in tensors {
                let (begin, len) = (tensor.file_offset().unwrap(), tensor.byte_len());
                assert!(tensor.bytes() == &region.bytes()[begin..begin + len]);
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains('\n') && message.len() < 2000, "{message:?}");
            assert!(!message.contains("panics"), "{message:?}");
        }
    }
    accepted
}

/// The weights of a task lie beside those of its backbone, and are opened when they are asked for.
#[test]
fn weights_of_tasks() {
    let files = ["config.json", "model.weights.h5", "task.weights.h5"];
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let bytes = fs::read(fixture("text/keras/classifier").join(file)).unwrap();
        fs::write(dir.path().join(file), bytes).unwrap();
    }
    for access in [Access::Map, Access::Read] {
        let preset = Preset::open(dir.path(), access).unwrap();
        assert!(preset.tensor("layers/dense/vars/0").is_some_and(|pooler| pooler.shape() == [16, 16]));
        let task = preset.task().unwrap().unwrap();
        assert_eq!(task.tensor("layers/dense/vars/0").unwrap().shape(), [16, 3]);
        assert_eq!(task.bytes_mapped() > 0, access == Access::Map);
        assert!(Preset::open_config(dir.path()).unwrap().task().unwrap().is_none());
    }
    fs::write(dir.path().join("task.weights.h5"), "no HDF5").unwrap();
    let preset = Preset::open(dir.path(), Access::Map).unwrap();
    let error = preset.task().unwrap_err().to_string();
    assert!(error.contains("task.weights.h5") && error.lines().count() == 1, "{error}");
    fs::remove_file(dir.path().join("task.weights.h5")).unwrap();
    assert!(Preset::open(dir.path(), Access::Map).unwrap().task().unwrap().is_none());

    let hugging_face = Preset::open(fixture("text/classify/single"), Access::Map).unwrap();
    assert!(hugging_face.task().unwrap().is_none());
}
