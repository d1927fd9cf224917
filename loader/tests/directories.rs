//! Preset directories: which are opened, which are refused, and that no file outside of one is read.

mod common;

use std::fs;
use std::path::Path;

use common::{CONFIG, KERAS, fixture, one_tensor, preset};
use rachis_loader::{Access, ConfigSource, Data, Error, Preset, Region, TensorDtype};

fn open(dir: impl AsRef<Path>) -> Result<Preset, Error> {
    Preset::open(dir, Access::Map)
}

/// An index that places tensors in shards.
fn index(places: &[(&str, &str)]) -> Vec<u8> {
    let places: Vec<_> = places.iter().map(|(tensor, shard)| format!("{tensor:?}:{shard:?}")).collect();
    format!(r#"{{"weight_map":{{{}}}}}"#, places.join(",")).into_bytes()
}

#[test]
fn hugging_face_presets_are_opened() {
    for (name, dtype) in [
        ("bert_tanh/hf", TensorDtype::F32),
        ("bert_tanh/hf_bare", TensorDtype::F32),
        ("bert_tanh/hf_f16", TensorDtype::F16),
        ("bert_tanh/hf_sharded", TensorDtype::F32),
        ("bert_gelu/hf_bf16", TensorDtype::Bf16),
    ] {
        let preset = open(fixture(name)).unwrap();
        assert_eq!(preset.config().source(), &ConfigSource::HuggingFace { model_type: "bert".to_owned() });
        assert_eq!(preset.dir(), fixture(name));
        assert!(preset.tensors().is_sorted_by(|a, b| a.name() < b.name()));
        assert!(preset.tensors().iter().all(|tensor| tensor.dtype() == dtype), "{name}");
        let hidden = preset.config().usize("hidden_size").unwrap();
        let prefix = if name.ends_with("bare") { "" } else { "bert." };
        let bias = preset.require(&format!("{prefix}pooler.dense.bias")).unwrap();
        assert_eq!((bias.shape(), bias.byte_len()), (&[hidden][..], hidden * dtype.bits() / 8));
        assert!(matches!(bias.data(), Data::F32(_) | Data::Bf16(_) | Data::F16(_)));
        assert_eq!(preset.bytes_mapped(), preset.files().iter().map(|file| file.len).sum::<usize>());
    }
}

#[test]
fn shards_have_the_same_tensors_as_one_file() {
    let [whole, sharded] = ["bert_tanh/hf", "bert_tanh/hf_sharded"].map(|name| open(fixture(name)).unwrap());
    assert_eq!((whole.files().len(), sharded.files().len()), (1, 2));
    assert_eq!(whole.tensors().len(), sharded.tensors().len());
    for (a, b) in whole.tensors().iter().zip(sharded.tensors()) {
        assert_eq!((a.name(), a.shape(), a.bytes()), (b.name(), b.shape(), b.bytes()));
    }
    let read = Preset::open(fixture("bert_tanh/hf_sharded"), Access::Read).unwrap();
    let same = |(a, b): (&rachis_loader::Tensor, &rachis_loader::Tensor)| a.bytes() == b.bytes();
    assert!(read.tensors().iter().zip(sharded.tensors()).all(same));
}

/// The layout of sentence-transformers 1: the model in a folder, a list of modules beside it.
#[test]
fn a_model_in_the_folder_of_the_first_module_is_opened() {
    let modules = br#"[{"path": "0_Transformer"}, {"path": "1_Pooling"}]"#;
    let model = one_tensor("a", &[1.0]);
    let dense = one_tensor("b", &[2.0, 3.0]);
    let dir = preset(&[
        ("modules.json", modules),
        ("config.json", br#"{"__version__": "1.0.0"}"#),
        ("0_Transformer/config.json", CONFIG.as_bytes()),
        ("0_Transformer/model.safetensors", &model),
        ("0_Transformer/vocab.txt", b"inside"),
        ("vocab.txt", b"outside"),
        ("2_Dense/model.safetensors", &dense),
    ]);
    for root_config in [true, false] {
        if !root_config {
            fs::remove_file(dir.path().join("config.json")).unwrap();
        }
        let preset = open(dir.path()).unwrap();
        assert_eq!((preset.folder(), preset.dir()), ("0_Transformer", &*dir.path().join("0_Transformer")));
        assert!(preset.tensor("a").is_some());
        assert_eq!(preset.read_text("vocab.txt", 99).unwrap().unwrap(), "inside");
        assert!(preset.read_json("modules.json").unwrap().is_none());
        assert!(preset.read_root_json("modules.json").unwrap().unwrap().is_array());
        let tensors = preset.open_root_tensors("2_Dense/model.safetensors").unwrap().unwrap();
        assert!(matches!(tensors[0].data(), Data::F32([2.0, 3.0])));
        assert!(preset.open_root_tensors("3_Dense/model.safetensors").unwrap().is_none());
        assert!(matches!(preset.open_root_tensors("../x"), Err(Error::OutsideDirectory { .. })));
    }
    // A model's own configuration wins.
    fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    fs::write(dir.path().join("model.safetensors"), &dense).unwrap();
    let preset = open(dir.path()).unwrap();
    assert!(preset.folder().is_empty() && preset.tensor("b").is_some());
    fs::remove_file(dir.path().join("config.json")).unwrap();

    for (modules, part) in [
        (r#"[{"path": "../up"}]"#, "plain names"),
        (r#"[{"path": "9_Nothing"}]"#, "9_Nothing"),
        (r#"[{"path": "vocab.txt"}]"#, "a preset directory"),
        (r#"[{"path": ""}]"#, "config.json"),
        (r#"[{"path": 7}]"#, "config.json"),
        (r#"{}"#, "config.json"),
        ("[", "modules.json"),
    ] {
        fs::write(dir.path().join("modules.json"), modules).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(part), "{modules}: {error}");
    }
}

#[test]
fn a_single_file_takes_precedence_over_an_index() {
    let dir = preset(&[
        ("model.safetensors", &one_tensor("a", &[1.0])),
        ("model.safetensors.index.json", b"not even JSON"),
    ]);
    assert_eq!(open(dir.path()).unwrap().tensors().len(), 1);
}

#[test]
fn a_preset_can_be_made_from_memory() {
    static FILE: &[u8] = include_bytes!("specimens/safetensors_good/scalar.safetensors");
    let preset = Preset::from_bytes(CONFIG.as_bytes(), Region::from_static("embedded", FILE)).unwrap();
    let tensor = preset.require("a").unwrap();
    assert!(matches!(tensor.data(), Data::F32([1.5])) && tensor.shape().is_empty());
    assert_eq!((tensor.file(), preset.dir(), preset.bytes_mapped()), (Some("embedded"), Path::new(""), 0));
    assert!(preset.read_text("vocab.txt", 10).unwrap().is_none());
    assert!(matches!(preset.require("b"), Err(Error::MissingTensor { tensor, .. }) if tensor == "b"));
}

#[test]
fn directories_that_are_not_presets_are_refused() {
    let empty = tempfile::tempdir().unwrap();
    let found = open(empty.path()).unwrap_err();
    assert!(matches!(&found, Error::MissingFile { expected, .. } if expected == "config.json"), "{found}");

    assert!(matches!(open(empty.path().join("none")), Err(Error::Io { .. })));
    let file = empty.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(open(&file), Err(Error::NotADirectory { found: "a file", .. })));

    let found = open(preset(&[]).path()).unwrap_err();
    assert!(
        matches!(&found, Error::MissingFile { expected, .. } if expected.contains("index.json")),
        "{found}"
    );

    let dir = preset(&[("model.safetensors", &one_tensor("a", &[1.0]))]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    let found = open(dir.path()).unwrap_err();
    assert!(matches!(&found, Error::MissingFile { expected, .. } if expected == "config.json"), "{found}");

    for name in ["model.safetensors", "model.safetensors.index.json"] {
        let dir = preset(&[]);
        fs::create_dir(dir.path().join(name)).unwrap();
        let found = open(dir.path()).unwrap_err();
        assert!(matches!(found, Error::NotAFile { found: "a directory", .. }), "{found}");
    }
}

#[test]
fn pickles_are_refused() {
    // Only the name of a pickle is inspected.
    for name in ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "weights.pkl"] {
        let found =
            open(preset(&[(name, b"\x80\x02cos\nsystem\n"), ("tf_model.h5", b"")]).path()).unwrap_err();
        assert!(matches!(&found, Error::Pickle { path } if path.ends_with(name)), "{found}");
        assert!(found.to_string().contains("save_pretrained"), "{found}");
    }
}

/// Code in a configuration is plain text, and files with code are not opened.
#[test]
fn code_is_never_executed() {
    let transformers = br#"{"model_type": "bert", "auto_map": {"AutoModel": "modeling_bert.BertModel"}}"#;
    let lambda = r#"{"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__", "config": {
        "code": "4wEAAAAAAAAAAAAAAAMAAAAD", "defaults": null, "closure": null}}}}"#;
    let keras = format!(r#"{{"registered_name": "Sequential", "config": {{"layers": [{lambda}]}}}}"#);
    let dir = preset(&[
        ("config.json", transformers),
        ("model.safetensors", &one_tensor("a", &[1.0])),
        ("modeling_bert.py", b"raise SystemExit"),
        ("pytorch_model.bin", b"\x80\x02cos\nsystem\n"),
    ]);
    assert_eq!(open(dir.path()).unwrap().tensors().len(), 1);

    let weights = include_bytes!("specimens/hdf5_good/scalar.h5");
    let dir = preset(&[("config.json", keras.as_bytes()), ("model.weights.h5", weights)]);
    let found = open(dir.path()).unwrap();
    // The class is only a name. No model has it.
    assert_eq!(found.config().source(), &ConfigSource::Keras { class_name: "Sequential".to_owned() });
}

#[test]
fn sizes_are_limited() {
    let dir = preset(&[("config.json", " ".repeat((1 << 20) + 1).as_bytes())]);
    let found = open(dir.path()).unwrap_err();
    assert!(matches!(found, Error::FileTooLarge { limit: 1_048_576, found: 1_048_577, .. }), "{found}");

    let places: Vec<_> = (0..4097).map(|i| (format!("t{i}"), format!("s{i}"))).collect();
    let places: Vec<_> = places.iter().map(|(tensor, shard)| (tensor.as_str(), shard.as_str())).collect();
    let found = open(preset(&[("model.safetensors.index.json", &index(&places))]).path()).unwrap_err();
    assert!(matches!(found, Error::TooManyShards { limit: 4096, found: 4097, .. }), "{found}");

    let dir = preset(&[]);
    let long = fs::File::create(dir.path().join("model.safetensors.index.json")).unwrap();
    long.set_len(1 << 40).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::FileTooLarge { .. })));
}

#[test]
fn files_beside_the_weights_are_read() {
    let dir = preset(&[
        ("model.safetensors", &one_tensor("a", &[1.0])),
        ("modules.json", b"[1]"),
        ("broken.json", b"[1"),
        ("vocab.txt", "[PAD]\n\u{e9}\n".as_bytes()),
        ("latin1.txt", b"\xe9"),
    ]);
    fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    fs::write(dir.path().join("1_Pooling/config.json"), r#"{"dim": 8}"#).unwrap();
    let preset = open(dir.path()).unwrap();

    assert_eq!(preset.read_json("modules.json").unwrap().unwrap().to_string(), "[1]");
    assert_eq!(preset.read_json("1_Pooling/config.json").unwrap().unwrap()["dim"], 8);
    assert_eq!(preset.read_text("vocab.txt", 9).unwrap().as_deref(), Some("[PAD]\n\u{e9}\n"));
    let pooling = preset.read_config("1_Pooling/config.json").unwrap().unwrap();
    assert_eq!((pooling.usize("dim").unwrap(), pooling.source()), (8, preset.config().source()));
    assert!(preset.read_config("none.json").unwrap().is_none());
    assert!(matches!(preset.read_config("modules.json"), Err(Error::Malformed { .. })), "not an object");
    for absent in ["none.json", "2_Dense/config.json", "vocab.txt/config.json"] {
        assert!(preset.read_json(absent).unwrap().is_none(), "{absent}");
    }
    assert!(matches!(preset.read_json("broken.json"), Err(Error::Malformed { .. })));
    assert!(matches!(preset.read_text("latin1.txt", 9), Err(Error::Malformed { .. })));
    assert!(matches!(preset.read_text("vocab.txt", 8), Err(Error::FileTooLarge { limit: 8, found: 9, .. })));
    assert!(matches!(preset.read_text("1_Pooling", 8), Err(Error::NotAFile { .. })));
    let long = "x/".repeat(1000);
    for name in ["../config.json", "/etc/passwd", "a//b", "./a", "a/..", "", "a\\b", "C:a", "a\0", &long] {
        assert!(matches!(preset.read_text(name, 9), Err(Error::OutsideDirectory { .. })), "{name:?}");
    }
}

#[cfg(unix)]
mod links {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    /// Files whose names this crate spells itself may be symlinks to any place, because the user chose the directory.
    #[test]
    fn files_of_fixed_names_may_be_links() {
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files: [(&str, &[u8]); 2] =
            [("config.json", CONFIG.as_bytes()), ("model.safetensors", &one_tensor("a", &[1.0]))];
        for (name, content) in files {
            fs::write(outside.path().join("x").with_extension(name), content).unwrap();
            symlink(outside.path().join("x").with_extension(name), dir.path().join(name)).unwrap();
        }
        assert_eq!(open(dir.path()).unwrap().tensors().len(), 1);
        let by_link = outside.path().join("dir");
        symlink(dir.path(), &by_link).unwrap();
        assert_eq!(open(&by_link).unwrap().dir(), by_link);
    }

    #[test]
    fn dangling_and_circular_links_are_refused() {
        for target in ["nowhere", "model.safetensors"] {
            let dir = preset(&[]);
            symlink(target, dir.path().join("model.safetensors")).unwrap();
            assert!(matches!(open(dir.path()), Err(Error::Io { .. })), "{target}");
        }
    }

    /// A pipe would make the call wait for a writer, and a device could be read without end.
    #[test]
    fn pipes_and_devices_are_refused() {
        for name in ["config.json", "model.safetensors", "model.safetensors.index.json", "shard"] {
            let dir = preset(&[]);
            if name == "shard" {
                fs::write(dir.path().join("model.safetensors.index.json"), index(&[("a", "shard")])).unwrap();
            }
            let path = dir.path().join(name);
            let _ = fs::remove_file(&path);
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            for access in [Access::Map, Access::Read] {
                let found = Preset::open(dir.path(), access).unwrap_err();
                assert!(matches!(found, Error::NotAFile { .. }), "{name}: {found}");
            }
        }
        let dir = preset(&[]);
        symlink("/dev/zero", dir.path().join("model.safetensors")).unwrap();
        assert!(matches!(open(dir.path()), Err(Error::NotAFile { .. })));
    }

    /// A shard, or a file beside the weights, must lie inside of the directory.
    #[test]
    fn links_out_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, one_tensor("a", &[1.0])).unwrap();

        let dir = preset(&[("model.safetensors.index.json", &index(&[("a", "shard")]))]);
        symlink(&secret, dir.path().join("shard")).unwrap();
        let found = open(dir.path()).unwrap_err();
        assert!(matches!(&found, Error::OutsideDirectory { name, .. } if name == "shard"), "{found}");

        // A link within the directory is allowed.
        fs::remove_file(dir.path().join("shard")).unwrap();
        fs::write(dir.path().join("real"), one_tensor("a", &[1.0])).unwrap();
        symlink("real", dir.path().join("shard")).unwrap();
        let preset = open(dir.path()).unwrap();
        assert_eq!(preset.tensors().len(), 1);

        symlink(&secret, dir.path().join("vocab.txt")).unwrap();
        symlink(outside.path(), dir.path().join("1_Pooling")).unwrap();
        for name in ["vocab.txt", "1_Pooling/secret"] {
            let found = preset.read_text(name, 1 << 20).unwrap_err();
            assert!(matches!(found, Error::OutsideDirectory { .. }), "{name}: {found}");
        }
    }

    /// The shards of a Keras preset must lie inside of the directory, too.
    #[test]
    fn links_out_of_keras_presets_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, include_bytes!("specimens/hdf5_good/scalar.h5")).unwrap();
        for index in [r#"{"weight_map": {"": "m.weights.h5"}}"#, r#"{"weight_map": {"": ["m.weights.h5"]}}"#]
        {
            let dir = preset(&[("config.json", KERAS.as_bytes()), ("model.weights.json", index.as_bytes())]);
            symlink(&secret, dir.path().join("m.weights.h5")).unwrap();
            for access in [Access::Map, Access::Read] {
                let found = Preset::open(dir.path(), access).unwrap_err();
                assert!(
                    matches!(&found, Error::OutsideDirectory { name, .. } if name == "m.weights.h5"),
                    "{found}"
                );
            }
            fs::rename(dir.path().join("m.weights.h5"), dir.path().join("link")).unwrap();
            fs::copy(&secret, dir.path().join("m.weights.h5")).unwrap();
            assert_eq!(open(dir.path()).unwrap().tensors().len(), 1);
        }
    }

    /// `<cache>/models--a--b/snapshots/<revision>/*` are links into `<cache>/models--a--b/blobs`.
    #[test]
    fn snapshots_may_link_to_their_blobs() {
        let cache = tempfile::tempdir().unwrap();
        let [blobs, other] = ["m/blobs", "other/blobs"].map(|name| cache.path().join(name));
        let snapshot = cache.path().join("m/snapshots/0123");
        for dir in [&blobs, &other, &snapshot.join("1_Pooling")] {
            fs::create_dir_all(dir).unwrap();
        }
        let put = |name: &str, blob: &str, content: &[u8]| {
            fs::write(blobs.join(blob), content).unwrap();
            let up = if name.contains('/') { "../../../blobs" } else { "../../blobs" };
            symlink(format!("{up}/{blob}"), snapshot.join(name)).unwrap();
        };
        put("config.json", "c0", CONFIG.as_bytes());
        put("model.safetensors.index.json", "c1", &index(&[("a", "one.safetensors")]));
        put("one.safetensors", "c2", &one_tensor("a", &[1.0]));
        put("1_Pooling/config.json", "c3", b"{}");
        let preset = open(&snapshot).unwrap();
        assert_eq!(preset.files().first().unwrap().name, "one.safetensors");
        assert!(preset.read_json("1_Pooling/config.json").unwrap().is_some());

        // Links into the blobs of another model, or to another place in the cache, are refused.
        for target in ["../../../other/blobs/c2", "../../c2"] {
            let shard = snapshot.join("one.safetensors");
            fs::write(snapshot.join(target), one_tensor("a", &[1.0])).unwrap();
            fs::remove_file(&shard).unwrap();
            symlink(target, &shard).unwrap();
            assert!(matches!(open(&snapshot), Err(Error::OutsideDirectory { .. })), "{target}");
        }

        // A directory that is not a snapshot may not link to blobs.
        let elsewhere = cache.path().join("m/x/0123");
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("config.json"), CONFIG).unwrap();
        fs::write(elsewhere.join("model.safetensors.index.json"), index(&[("a", "one")])).unwrap();
        symlink("../../blobs/c2", elsewhere.join("one")).unwrap();
        assert!(matches!(open(&elsewhere), Err(Error::OutsideDirectory { .. })));
    }

    /// A map keeps its content when another file is renamed over the mapped file, and when the mapped file is deleted.
    #[test]
    fn renaming_over_a_map_is_safe() {
        let dir =
            preset(&[("model.safetensors", &one_tensor("a", &[1.0])), ("new", &one_tensor("a", &[2.0]))]);
        let preset = open(dir.path()).unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("model.safetensors")).unwrap();
        assert!(matches!(preset.require("a").unwrap().data(), Data::F32([1.0])));
        dir.close().unwrap();
        assert!(matches!(preset.require("a").unwrap().data(), Data::F32([1.0])));
    }
}
