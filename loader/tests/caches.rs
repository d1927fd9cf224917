//! Presets in the caches of Python's tools: which are found, which are incomplete, which are refused.

mod common;
#[path = "common/caches.rs"]
mod test_caches;

use std::fs;

use common::{CONFIG, KERAS, fixture, one_tensor};
use rachis_loader::{Access, Caches, Error, Handle, Preset};
use test_caches::{COMMIT, TestCaches, one_line};

#[cfg(unix)]
#[test]
fn snapshots_are_found() {
    let caches = TestCaches::new();
    let tensor = one_tensor("a", &[1.0]);
    let files: &[(&str, &[u8])] = &[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &tensor),
        ("1_Pooling/config.json", b"{\"pooling_mode_mean_tokens\": true}"),
    ];
    caches.snapshot("org/tiny", "main", COMMIT, files);
    caches.snapshot("org/tiny", "refs/pr/1", &COMMIT.replace('0', "f"), files);
    caches.snapshot("gpt2", "main", COMMIT, files);
    let expected = caches.path(&format!("hub/models--org--tiny/snapshots/{COMMIT}"));
    for name in ["hf://org/tiny", "hf://org/tiny@main", &format!("hf://org/tiny@{COMMIT}")] {
        assert_eq!(caches.resolve(name).unwrap(), expected, "{name}");
    }
    assert!(caches.resolve("hf://org/tiny@refs/pr/1").unwrap().ends_with(COMMIT.replace('0', "f")));
    assert!(caches.resolve("hf://gpt2").is_ok());

    // The snapshot can be opened through its symlinks.
    let preset = Preset::open(&expected, Access::Map).unwrap();
    assert_eq!(preset.tensors().len(), 1);
    assert!(preset.read_json("1_Pooling/config.json").unwrap().is_some());

    // A ref may end with a line break. A revision may name a snapshot without a ref.
    caches.write("hub/models--org--tiny/refs/main", format!("{COMMIT}\n"));
    assert_eq!(caches.resolve("hf://org/tiny").unwrap(), expected);
    fs::rename(&expected, expected.with_file_name("v2")).unwrap();
    assert!(caches.resolve("hf://org/tiny@v2").is_ok());
    let text = one_line(&caches.resolve("hf://org/tiny").unwrap_err());
    assert!(text.contains("a ref to 0123456789"), "{text}");
}

#[cfg(unix)]
#[test]
fn incomplete_snapshots_are_not_found() {
    let caches = TestCaches::new();
    let config = ("config.json", CONFIG.as_bytes());
    let index: (&str, &[u8]) =
        ("model.safetensors.index.json", br#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#);
    let keras_index: (&str, &[u8]) = (
        "model.weights.json",
        br#"{"weight_map":{"/a":["model_00000.weights.h5","model_00001.weights.h5"]}}"#,
    );
    let keras = ("config.json", KERAS.as_bytes());
    for (at, (files, missing)) in [
        (&[][..], "config.json"),
        (&[("model.safetensors", b"" as &[u8])], "config.json"),
        (&[config], "model.safetensors or model.safetensors.index.json"),
        (&[keras], "model.weights.h5 or model.weights.json"),
        (&[config, index, ("one.safetensors", b"")], "two.safetensors"),
        (&[keras, keras_index, ("model_00000.weights.h5", b"")], "model_00001.weights.h5"),
    ]
    .into_iter()
    .enumerate()
    {
        caches.snapshot(&format!("org/m{at}"), "main", COMMIT, &[("README.md", b"")]);
        caches.snapshot(&format!("org/m{at}"), "main", COMMIT, files);
        let error = caches.resolve(&format!("hf://org/m{at}")).unwrap_err();
        assert!(
            matches!(&error, Error::NotCached { expected, dir, .. } if expected == missing && dir.ends_with(COMMIT))
        );
        let text = one_line(&error);
        assert!(text.contains(&format!("run: hf download org/m{at} --include \"*.json\"")), "{text}");
    }
    // A deleted blob.
    caches.snapshot("org/gone", "main", COMMIT, &[config, ("model.safetensors", b"")]);
    fs::remove_file(caches.path(&format!("hub/models--org--gone/blobs/{COMMIT}modelsafetensors"))).unwrap();
    assert!(matches!(caches.resolve("hf://org/gone"), Err(Error::NotCached { .. })));
    // A snapshot that no download would mend is found, so that opening it reports what is wrong.
    caches.snapshot("org/pickle", "main", COMMIT, &[config, ("pytorch_model.bin", b"")]);
    let found = Preset::open(caches.resolve("hf://org/pickle").unwrap(), Access::Map);
    assert!(matches!(found, Err(Error::Pickle { .. })));
    caches.snapshot("org/broken", "main", COMMIT, &[("config.json", b"{")]);
    let found = Preset::open(caches.resolve("hf://org/broken").unwrap(), Access::Map);
    assert!(matches!(found, Err(Error::Malformed { .. })));
}

#[test]
fn the_error_says_what_to_download() {
    let caches = TestCaches::new();
    let text = one_line(&caches.resolve("hf://org/none@v1").unwrap_err());
    for part in [
        "hf://org/none@v1",
        "revision v1",
        "models--org--none",
        "hf download org/none --revision v1",
        "--cache-dir",
    ] {
        assert!(text.contains(part), "{text}");
    }
    caches.write(&format!("hub/models--org--none/snapshots/{COMMIT}/README.md"), "");
    let text = one_line(&caches.resolve("hf://org/none@v1").unwrap_err());
    assert!(text.contains(&format!("found the snapshots {COMMIT}")), "{text}");
    // A ref without a snapshot.
    caches.write("hub/models--org--ref/refs/main", COMMIT);
    assert!(matches!(caches.resolve("hf://org/ref"), Err(Error::NotCached { .. })));
    caches.write("hub/models--org--file", "not a directory");
    assert!(caches.resolve("hf://org/file").is_err());
}

#[test]
fn refs_that_are_not_plain_names_are_refused() {
    let caches = TestCaches::new();
    for content in [
        &b""[..],
        b"..",
        b"../../../outside",
        b"/etc",
        b"a/b",
        b"a\\b",
        b"C:",
        b"a\nb",
        b"\0",
        b"\xff\xfe",
        &[b'a'; 200],
        &[b'a'; 1 << 20],
    ] {
        caches.write("hub/models--org--m/refs/main", content);
        fs::create_dir_all(caches.path("hub/models--org--m/snapshots")).unwrap();
        let error = caches.resolve("hf://org/m").unwrap_err();
        assert!(matches!(error, Error::Malformed { .. } | Error::FileTooLarge { .. }), "{error}");
        one_line(&error);
    }
    fs::remove_file(caches.path("hub/models--org--m/refs/main")).unwrap();
    fs::create_dir(caches.path("hub/models--org--m/refs/main")).unwrap();
    assert!(matches!(caches.resolve("hf://org/m"), Err(Error::NotAFile { .. })));
}

#[cfg(unix)]
#[test]
fn symlinks_out_of_a_cache_are_refused() {
    use std::os::unix::fs::symlink;
    let caches = TestCaches::new();
    let outside = caches.path("outside");
    let refused = |name: &str| {
        let error = caches.resolve(name).unwrap_err();
        assert!(matches!(error, Error::OutsideDirectory { .. }), "{name}: {error}");
        one_line(&error);
    };
    let hub = |path: &str| caches.path(&format!("hub/{path}"));
    fs::create_dir_all(hub("models--org--a/snapshots")).unwrap();
    symlink(&outside, hub("models--org--repo")).unwrap();
    refused("hf://org/repo");
    symlink(&outside, hub(&format!("models--org--a/snapshots/{COMMIT}"))).unwrap();
    refused(&format!("hf://org/a@{COMMIT}"));

    // A file of a snapshot, and then a ref.
    for file in ["config.json", "model.safetensors"] {
        caches.snapshot(
            "org/b",
            "main",
            COMMIT,
            &[("config.json", CONFIG.as_bytes()), ("model.safetensors", b"")],
        );
        let link = hub(&format!("models--org--b/snapshots/{COMMIT}/{file}"));
        fs::remove_file(&link).unwrap();
        symlink(outside.join(file), &link).unwrap();
        refused("hf://org/b");
        fs::remove_dir_all(hub("models--org--b")).unwrap();
    }
    let index: (&str, &[u8]) =
        ("model.safetensors.index.json", br#"{"weight_map":{"a":"../../../../outside/model.safetensors"}}"#);
    caches.snapshot("org/d", "main", COMMIT, &[("config.json", CONFIG.as_bytes()), index]);
    refused("hf://org/d");
    fs::create_dir_all(hub("models--org--c/refs")).unwrap();
    symlink(outside.join("ref"), hub("models--org--c/refs/main")).unwrap();
    refused("hf://org/c");

    fs::create_dir_all(caches.path("kaggle/models/me/m/keras/v")).unwrap();
    symlink(&outside, caches.path("kaggle/models/me/m/keras/v/1")).unwrap();
    caches.write("kaggle/models/me/m/keras/v/1.complete", "");
    refused("kaggle://me/m/keras/v/1");
    refused("kaggle://me/m/keras/v");

    // The cache directory itself may be a symlink: the user chose it.
    let elsewhere = TestCaches::new();
    elsewhere.snapshot(
        "org/a",
        "main",
        COMMIT,
        &[("config.json", CONFIG.as_bytes()), ("model.safetensors", b"")],
    );
    symlink(elsewhere.path("hub"), caches.path("link")).unwrap();
    let linked = Caches::new(caches.path("link"), caches.path("kaggle"));
    assert!(Handle::parse("hf://org/a").unwrap().resolve(&linked).is_ok());
}

#[test]
fn kaggle_versions_are_found() {
    let caches = TestCaches::new();
    let id = "keras/bert/keras/bert_tiny_en_uncased";
    let base = format!("kaggle/models/{id}");
    let text = one_line(&caches.resolve(&format!("kaggle://{id}")).unwrap_err());
    assert!(
        text.contains("KAGGLEHUB_CACHE=") && text.contains(&format!("kagglehub.model_download(\"{id}\")")),
        "{text}"
    );

    // Without a mark, a version may be half a download.
    caches.version(id, 3);
    let error = caches.resolve("bert_tiny_en_uncased").unwrap_err();
    assert!(
        matches!(&error, Error::NotCached { name, expected, .. } if name == "bert_tiny_en_uncased" && expected == "config.json")
    );
    assert!(one_line(&error).contains(&format!("model_download(\"{id}/3\")")), "{error}");
    // KerasHub marks each file.
    caches.write(&format!("{base}/.complete/3/config.json.complete"), "");
    let error = caches.resolve("bert_tiny_en_uncased").unwrap_err();
    assert!(matches!(&error, Error::NotCached { expected, .. } if expected == "model.weights.h5"), "{error}");
    caches.write(&format!("{base}/.complete/3/model.weights.h5.complete"), "");
    for name in ["bert_tiny_en_uncased".to_owned(), format!("kaggle://{id}"), format!("kaggle://{id}/3")] {
        assert_eq!(caches.resolve(&name).unwrap(), caches.path(&format!("{base}/3")), "{name}");
    }
    // kagglehub marks the whole version. The newest complete version is used, compared as a number and not as text.
    caches.version(id, 10);
    caches.version(id, 11);
    caches.write(&format!("{base}/10.complete"), "");
    caches.write(&format!("{base}/latest/config.json"), KERAS);
    assert!(caches.resolve(&format!("kaggle://{id}")).unwrap().ends_with("10"));
    assert!(caches.resolve("bert_tiny_en_uncased").unwrap().ends_with("3"));
    // A mark without its file does not make a version complete.
    fs::remove_file(caches.path(&format!("{base}/10/model.weights.h5"))).unwrap();
    assert!(caches.resolve(&format!("kaggle://{id}")).unwrap().ends_with("3"));
    let text = one_line(&caches.resolve(&format!("kaggle://{id}/10")).unwrap_err());
    assert!(text.contains("model.weights.h5 or model.weights.json"), "{text}");

    let text = one_line(&caches.resolve(&format!("kaggle://{id}/4")).unwrap_err());
    assert!(text.contains("expected version 4") && text.contains("found version 11, 10, 3"), "{text}");
}

#[test]
fn a_keras_preset_is_found_by_its_name() {
    let caches = TestCaches::new();
    let id = "keras/bert/keras/bert_tiny_en_uncased/3";
    for file in fs::read_dir(fixture("bert_gelu/keras")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() {
            let name = file.file_name().unwrap().to_str().unwrap();
            caches.write(&format!("kaggle/models/{id}/{name}"), fs::read(&file).unwrap());
        }
    }
    caches.write(&format!("kaggle/models/{id}.complete"), "");
    let preset = Preset::open(caches.resolve("bert_tiny_en_uncased").unwrap(), Access::Map).unwrap();
    assert!(!preset.tensors().is_empty());
}
