//! Presets in the caches of Python's tools: what is found, what is missing, what is refused.

mod common;
#[path = "common/place.rs"]
mod place;

use std::fs;

use common::{CONFIG, KERAS, fixture, one_tensor};
use place::{COMMIT, Place, one_line};
use rachis_loader::{Access, Caches, Error, Handle, Preset};

#[cfg(unix)]
#[test]
fn snapshots() {
    let place = Place::new();
    let tensor = one_tensor("a", &[1.0]);
    let files: &[(&str, &[u8])] = &[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &tensor),
        ("1_Pooling/config.json", b"{\"pooling_mode_mean_tokens\": true}"),
    ];
    place.snapshot("org/tiny", "main", COMMIT, files);
    place.snapshot("org/tiny", "refs/pr/1", &COMMIT.replace('0', "f"), files);
    place.snapshot("gpt2", "main", COMMIT, files);
    let expected = place.path(&format!("hub/models--org--tiny/snapshots/{COMMIT}"));
    for name in ["hf://org/tiny", "hf://org/tiny@main", &format!("hf://org/tiny@{COMMIT}")] {
        assert_eq!(place.resolve(name).unwrap(), expected, "{name}");
    }
    assert!(place.resolve("hf://org/tiny@refs/pr/1").unwrap().ends_with(COMMIT.replace('0', "f")));
    assert!(place.resolve("hf://gpt2").is_ok());

    // What is found is opened through its symlinks.
    let preset = Preset::open(&expected, Access::Map).unwrap();
    assert_eq!(preset.tensors().len(), 1);
    assert!(preset.read_json("1_Pooling/config.json").unwrap().is_some());

    // A line break after the hash, and a revision that is a snapshot without a ref.
    place.write("hub/models--org--tiny/refs/main", format!("{COMMIT}\n"));
    assert_eq!(place.resolve("hf://org/tiny").unwrap(), expected);
    fs::rename(&expected, expected.with_file_name("v2")).unwrap();
    assert!(place.resolve("hf://org/tiny@v2").is_ok());
    let text = one_line(&place.resolve("hf://org/tiny").unwrap_err());
    assert!(text.contains("a ref to 0123456789"), "{text}");
}

#[cfg(unix)]
#[test]
fn incomplete_snapshots() {
    let place = Place::new();
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
        place.snapshot(&format!("org/m{at}"), "main", COMMIT, &[("README.md", b"")]);
        place.snapshot(&format!("org/m{at}"), "main", COMMIT, files);
        let error = place.resolve(&format!("hf://org/m{at}")).unwrap_err();
        assert!(
            matches!(&error, Error::NotCached { expected, dir, .. } if expected == missing && dir.ends_with(COMMIT))
        );
        let text = one_line(&error);
        assert!(text.contains(&format!("run: hf download org/m{at} --include \"*.json\"")), "{text}");
    }
    // A blob that is gone.
    place.snapshot("org/gone", "main", COMMIT, &[config, ("model.safetensors", b"")]);
    fs::remove_file(place.path(&format!("hub/models--org--gone/blobs/{COMMIT}modelsafetensors"))).unwrap();
    assert!(matches!(place.resolve("hf://org/gone"), Err(Error::NotCached { .. })));
    // What waiting would not mend is found, so that opening it tells what is wrong.
    place.snapshot("org/pickle", "main", COMMIT, &[config, ("pytorch_model.bin", b"")]);
    let found = Preset::open(place.resolve("hf://org/pickle").unwrap(), Access::Map);
    assert!(matches!(found, Err(Error::Pickle { .. })));
    place.snapshot("org/broken", "main", COMMIT, &[("config.json", b"{")]);
    let found = Preset::open(place.resolve("hf://org/broken").unwrap(), Access::Map);
    assert!(matches!(found, Err(Error::Malformed { .. })));
}

#[test]
fn what_is_not_in_the_hub_cache() {
    let place = Place::new();
    let text = one_line(&place.resolve("hf://org/none@v1").unwrap_err());
    for part in [
        "hf://org/none@v1",
        "revision v1",
        "models--org--none",
        "hf download org/none --revision v1",
        "--cache-dir",
    ] {
        assert!(text.contains(part), "{text}");
    }
    place.write(&format!("hub/models--org--none/snapshots/{COMMIT}/README.md"), "");
    let text = one_line(&place.resolve("hf://org/none@v1").unwrap_err());
    assert!(text.contains(&format!("found the snapshots {COMMIT}")), "{text}");
    // Nothing but a ref.
    place.write("hub/models--org--ref/refs/main", COMMIT);
    assert!(matches!(place.resolve("hf://org/ref"), Err(Error::NotCached { .. })));
    place.write("hub/models--org--file", "not a directory");
    assert!(place.resolve("hf://org/file").is_err());
}

#[test]
fn hostile_refs() {
    let place = Place::new();
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
        place.write("hub/models--org--m/refs/main", content);
        fs::create_dir_all(place.path("hub/models--org--m/snapshots")).unwrap();
        let error = place.resolve("hf://org/m").unwrap_err();
        assert!(matches!(error, Error::Malformed { .. } | Error::FileTooLarge { .. }), "{error}");
        one_line(&error);
    }
    fs::remove_file(place.path("hub/models--org--m/refs/main")).unwrap();
    fs::create_dir(place.path("hub/models--org--m/refs/main")).unwrap();
    assert!(matches!(place.resolve("hf://org/m"), Err(Error::NotAFile { .. })));
}

#[cfg(unix)]
#[test]
fn symlinks_out_of_a_cache() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    let outside = place.path("outside");
    let refused = |name: &str| {
        let error = place.resolve(name).unwrap_err();
        assert!(matches!(error, Error::OutsideDirectory { .. }), "{name}: {error}");
        one_line(&error);
    };
    let hub = |path: &str| place.path(&format!("hub/{path}"));
    fs::create_dir_all(hub("models--org--a/snapshots")).unwrap();
    symlink(&outside, hub("models--org--repo")).unwrap();
    refused("hf://org/repo");
    symlink(&outside, hub(&format!("models--org--a/snapshots/{COMMIT}"))).unwrap();
    refused(&format!("hf://org/a@{COMMIT}"));

    // A file of a snapshot, and a ref.
    for file in ["config.json", "model.safetensors"] {
        place.snapshot(
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
    place.snapshot("org/d", "main", COMMIT, &[("config.json", CONFIG.as_bytes()), index]);
    refused("hf://org/d");
    fs::create_dir_all(hub("models--org--c/refs")).unwrap();
    symlink(outside.join("ref"), hub("models--org--c/refs/main")).unwrap();
    refused("hf://org/c");

    fs::create_dir_all(place.path("kaggle/models/me/m/keras/v")).unwrap();
    symlink(&outside, place.path("kaggle/models/me/m/keras/v/1")).unwrap();
    place.write("kaggle/models/me/m/keras/v/1.complete", "");
    refused("kaggle://me/m/keras/v/1");
    refused("kaggle://me/m/keras/v");

    // The cache itself is the user's choice.
    let elsewhere = Place::new();
    elsewhere.snapshot(
        "org/a",
        "main",
        COMMIT,
        &[("config.json", CONFIG.as_bytes()), ("model.safetensors", b"")],
    );
    symlink(elsewhere.path("hub"), place.path("link")).unwrap();
    let caches = Caches::new(place.path("link"), place.path("kaggle"));
    assert!(Handle::parse("hf://org/a").unwrap().resolve(&caches).is_ok());
}

#[test]
fn kaggle_versions() {
    let place = Place::new();
    let id = "keras/bert/keras/bert_tiny_en_uncased";
    let base = format!("kaggle/models/{id}");
    let text = one_line(&place.resolve(&format!("kaggle://{id}")).unwrap_err());
    assert!(
        text.contains("KAGGLEHUB_CACHE=") && text.contains(&format!("kagglehub.model_download(\"{id}\")")),
        "{text}"
    );

    // Without a mark it may be half a download.
    place.version(id, 3);
    let error = place.resolve("bert_tiny_en_uncased").unwrap_err();
    assert!(
        matches!(&error, Error::NotCached { name, expected, .. } if name == "bert_tiny_en_uncased" && expected == "config.json")
    );
    assert!(one_line(&error).contains(&format!("model_download(\"{id}/3\")")), "{error}");
    // KerasHub's way: a mark for each file.
    place.write(&format!("{base}/.complete/3/config.json.complete"), "");
    let error = place.resolve("bert_tiny_en_uncased").unwrap_err();
    assert!(matches!(&error, Error::NotCached { expected, .. } if expected == "model.weights.h5"), "{error}");
    place.write(&format!("{base}/.complete/3/model.weights.h5.complete"), "");
    for name in ["bert_tiny_en_uncased".to_owned(), format!("kaggle://{id}"), format!("kaggle://{id}/3")] {
        assert_eq!(place.resolve(&name).unwrap(), place.path(&format!("{base}/3")), "{name}");
    }
    // kagglehub's: one for all. The newest complete version counts, by number and not by letter.
    place.version(id, 10);
    place.version(id, 11);
    place.write(&format!("{base}/10.complete"), "");
    place.write(&format!("{base}/latest/config.json"), KERAS);
    assert!(place.resolve(&format!("kaggle://{id}")).unwrap().ends_with("10"));
    assert!(place.resolve("bert_tiny_en_uncased").unwrap().ends_with("3"));
    // A mark does not bring a file back.
    fs::remove_file(place.path(&format!("{base}/10/model.weights.h5"))).unwrap();
    assert!(place.resolve(&format!("kaggle://{id}")).unwrap().ends_with("3"));
    let text = one_line(&place.resolve(&format!("kaggle://{id}/10")).unwrap_err());
    assert!(text.contains("model.weights.h5 or model.weights.json"), "{text}");

    let text = one_line(&place.resolve(&format!("kaggle://{id}/4")).unwrap_err());
    assert!(text.contains("expected version 4") && text.contains("found version 11, 10, 3"), "{text}");
}

#[test]
fn a_keras_preset_from_its_name() {
    let place = Place::new();
    let id = "keras/bert/keras/bert_tiny_en_uncased/3";
    for file in fs::read_dir(fixture("bert_gelu/keras")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() {
            let name = file.file_name().unwrap().to_str().unwrap();
            place.write(&format!("kaggle/models/{id}/{name}"), fs::read(&file).unwrap());
        }
    }
    place.write(&format!("kaggle/models/{id}.complete"), "");
    let preset = Preset::open(place.resolve("bert_tiny_en_uncased").unwrap(), Access::Map).unwrap();
    assert!(!preset.tensors().is_empty());
}
