//! Downloads, from a hub on the loopback that the test starts.
#![cfg(feature = "hub")]

mod common;
#[path = "common/hub.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};

use common::{CONFIG, KERAS, one_tensor};
use rachis_loader::handle::HubRepo;
use rachis_loader::hub::{Hub, Network, Progress};
use rachis_loader::{Access, Caches, Error, Handle, Preset};
use server::{CDN, COMMIT, Server};

struct Place {
    dir: tempfile::TempDir,
    server: Server,
}

impl Place {
    fn new(files: &[(&str, &[u8])]) -> Place {
        Place { dir: tempfile::tempdir().unwrap(), server: Server::start("org/tiny", files) }
    }

    fn caches(&self) -> Caches {
        Caches::new(self.dir.path().join("hub"), self.dir.path().join("kaggle"))
    }

    fn hub(&self) -> Hub {
        Hub::new(self.server.endpoint()).unwrap().with_progress(Progress::Hidden)
    }

    fn fetch(&self, name: &str) -> Result<PathBuf, Error> {
        self.hub().fetch(&repo(name), &self.caches())
    }

    fn repo(&self) -> PathBuf {
        self.dir.path().join("hub/models--org--tiny")
    }

    fn snapshot(&self) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT)
    }
}

fn repo(name: &str) -> HubRepo {
    match Handle::parse(name).unwrap() {
        Handle::HuggingFace(repo) => repo,
        other => panic!("{other:?}"),
    }
}

fn one_line(error: &Error) -> String {
    let text = error.to_string();
    assert!(!text.contains(['\n', '\r', '\u{1b}']) && text.len() < 1200, "{text:?}");
    text
}

/// All entries under a directory, as relative paths.
fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for path in common::entries(&at) {
            match path.symlink_metadata().unwrap().is_dir() {
                true => open.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_fresh_download() {
    let tensor = one_tensor("a", &[1.0, 2.0]);
    let place = Place::new(&[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &tensor),
        ("model.safetensors.index.json", b"{}"),
        ("model-00001-of-00002.safetensors", b"of the index, which does not count"),
        ("vocab.txt", b"[PAD]\n"),
        ("tokenizer.json", b"{}"),
        ("1_Pooling/config.json", br#"{"pooling_mode_mean_tokens": true}"#),
        ("modules.json", b"[]"),
        ("sentence_bert_config.json", br#"{"max_seq_length": 256}"#),
        ("pytorch_model.bin", b"never"),
        ("model.weights.h5", b"of the other kind"),
        ("onnx/model.onnx", b"never"),
        ("README.md", b"never"),
        ("assets/evil.pkl", b"never"),
        ("assets/../../up", b"never"),
    ]);
    let path = place.fetch("hf://org/tiny").unwrap();
    assert_eq!(path, place.snapshot());
    let wanted = [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "vocab.txt",
    ];
    assert_eq!(tree(&path), wanted);
    assert_eq!(place.server.files_asked_for(), wanted);
    assert!(place.server.requests().iter().all(|request| request.authorization.is_none()));

    // The layout of huggingface_hub: relative links into blobs that are named by their ETags, and one ref.
    assert_eq!(fs::read_to_string(place.repo().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(tree(&place.repo().join("refs")), ["main"]);
    for name in wanted {
        let etag = place.server.etag(name);
        assert!(place.repo().join("blobs").join(&etag).is_file());
        if cfg!(unix) {
            let up = "../".repeat(2 + name.matches('/').count());
            let link = fs::read_link(path.join(name)).unwrap();
            assert_eq!(link, Path::new(&format!("{up}blobs/{etag}")));
        }
    }
    assert!(tree(&place.repo()).iter().all(|name| !name.ends_with(".part") && !name.ends_with(".tmp")));

    // From here on without a network.
    let before = place.server.requests().len();
    assert_eq!(place.fetch("hf://org/tiny").unwrap(), path);
    assert_eq!(place.server.requests().len(), before);
    let resolved = Handle::parse("hf://org/tiny").unwrap().resolve(&place.caches()).unwrap();
    let preset = Preset::open(resolved, Access::Map).unwrap();
    assert_eq!(preset.require("a").unwrap().bytes(), &tensor[tensor.len() - 8..]);
    assert!(preset.read_json("1_Pooling/config.json").unwrap().is_some());
}

#[test]
fn shards() {
    let [one, two] = ["a", "b"].map(|name| one_tensor(name, &[1.0]));
    let place = Place::new(&[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors.index.json", br#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#),
        ("one.safetensors", &one),
        ("two.safetensors", &two),
        ("three.safetensors", b"not in the index"),
    ]);
    let path = place.fetch("hf://org/tiny@v1").unwrap();
    let wanted = ["config.json", "model.safetensors.index.json", "one.safetensors", "two.safetensors"];
    assert_eq!(place.server.files_asked_for(), wanted);
    assert_eq!(Preset::open(path, Access::Map).unwrap().tensors().len(), 2);
    assert_eq!(tree(&place.repo().join("refs")), ["v1"]);
}

#[test]
fn keras_presets() {
    let index: &[u8] = br#"{"weight_map":{"/layers/a/vars":["model_00000.weights.h5"]}}"#;
    for weights in [
        &[("model.weights.h5", b"weights" as &[u8])][..],
        &[("model.weights.json", index), ("model_00000.weights.h5", b"weights")],
    ] {
        let small: &[(&str, &[u8])] = &[
            ("config.json", KERAS.as_bytes()),
            ("metadata.json", b"{}"),
            ("preprocessor.json", b"{}"),
            ("task.json", b"{}"),
            ("tokenizer.json", b"{}"),
            ("assets/tokenizer/vocabulary.txt", b"[PAD]\n"),
        ];
        let files: Vec<_> = small.iter().chain(weights).copied().collect();
        let place = Place::new(&[&files[..], &[("model.safetensors", b"of the other kind")]].concat());
        place.fetch("hf://org/tiny").unwrap();
        let mut wanted: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        wanted.sort();
        assert_eq!(place.server.files_asked_for(), wanted);
    }
}

#[test]
fn a_partial_file_goes_on() {
    let tensor = one_tensor("a", &[1.0; 5000]);
    let files: &[(&str, &[u8])] = &[("config.json", CONFIG.as_bytes()), ("model.safetensors", &tensor)];
    // What an earlier run left.
    let place = Place::new(files);
    let blobs = place.repo().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(format!("{}.part", place.server.etag("model.safetensors")));
    fs::write(&part, &tensor[..7000]).unwrap();
    let path = place.fetch("hf://org/tiny").unwrap();
    assert_eq!(place.server.ranges("model.safetensors"), ["bytes=7000-"]);
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), tensor);

    // A part that is as long as the file, or longer, is of no use.
    for len in [tensor.len(), tensor.len() + 1] {
        let place = Place::new(files);
        fs::create_dir_all(place.repo().join("blobs")).unwrap();
        let part = place.repo().join(format!("blobs/{}.part", place.server.etag("model.safetensors")));
        fs::write(part, vec![0; len]).unwrap();
        let path = place.fetch("hf://org/tiny").unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), tensor);
    }

    // Connections that break after 6000 bytes.
    let place = Place::new(files);
    place.server.cut_after(6000);
    let path = place.fetch("hf://org/tiny").unwrap();
    let ranges = ["bytes=0-", "bytes=6000-", "bytes=12000-", "bytes=18000-"];
    assert_eq!(place.server.ranges("model.safetensors"), ranges);
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), tensor);

    // A hub that does not know ranges sends all again: what comes of it is thrown away.
    let place = Place::new(files);
    fs::create_dir_all(place.repo().join("blobs")).unwrap();
    let part = place.repo().join(format!("blobs/{}.part", place.server.etag("model.safetensors")));
    fs::write(&part, &tensor[..7000]).unwrap();
    place.server.ignore_ranges();
    let error = place.fetch("hf://org/tiny").unwrap_err();
    assert!(matches!(&error, Error::Download { file, .. } if file == "model.safetensors"), "{error}");
    assert!(!place.snapshot().join("model.safetensors").exists() && !part.exists());
    assert!(place.fetch("hf://org/tiny").is_ok());
}

#[test]
fn what_is_there_is_not_asked_for() {
    let tensor = one_tensor("a", &[1.0]);
    let place = Place::new(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &tensor)]);
    place.fetch("hf://org/tiny").unwrap();
    // Another revision with the same weights: the blob is there, the snapshot is not.
    fs::rename(place.snapshot(), place.repo().join("snapshots/older")).unwrap();
    let before = place.server.requests().len();
    place.fetch("hf://org/tiny").unwrap();
    let after = place.server.requests();
    let bodies =
        after.iter().skip(before).filter(|request| request.range.as_deref() == Some("bytes=0-")).count();
    assert_eq!(bodies, if cfg!(unix) { 0 } else { 2 });
    // A blob that is gone.
    let blob = place.repo().join("blobs").join(place.server.etag("model.safetensors"));
    fs::remove_file(&blob).unwrap();
    place.fetch(&format!("hf://org/tiny@{COMMIT}")).unwrap();
    assert!(blob.is_file());
}

#[test]
fn the_token_is_sent() {
    let tensor = one_tensor("a", &[1.0]);
    let place = Place::new(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &tensor)]);
    place.server.demand_token("hf_secret");
    let error = place.fetch("hf://org/tiny").unwrap_err();
    assert!(matches!(error, Error::Denied { status: 401, .. }), "{error}");
    assert!(one_line(&error).contains("hf auth login"), "{error}");

    let hub = place.hub().with_token(Some(" hf_secret\n".to_owned()));
    assert!(!format!("{hub:?}").contains("secret"));
    hub.fetch(&repo("hf://org/tiny"), &place.caches()).unwrap();
    let requests = place.server.requests();
    assert!(
        requests.iter().skip(1).all(|request| request.authorization.as_deref() == Some("Bearer hf_secret"))
    );
}

#[test]
fn large_files_come_from_elsewhere() {
    let tensor = one_tensor("a", &[1.0; 5000]);
    let place = Place::new(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &tensor)]);
    place.server.keep_elsewhere("model.safetensors");
    place.server.cut_after(6000);
    let hub = place.hub().with_token(Some("hf_secret".to_owned()));
    let path = hub.fetch(&repo("hf://org/tiny"), &place.caches()).unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), tensor);
    assert!(place.repo().join("blobs").join(place.server.etag("model.safetensors")).is_file());
    // The weights themselves are asked for without the token; the first byte, for the length, with it: hf-hub.
    let requests = place.server.requests();
    let away = requests.iter().filter(|request| request.path.starts_with(CDN));
    let bodies: Vec<_> = away.filter(|request| request.range.as_deref() != Some("bytes=0-0")).collect();
    assert_eq!(bodies.len(), 4);
    assert!(bodies.iter().all(|request| request.authorization.is_none()));
}

#[test]
fn refusals() {
    let place = Place::new(&[("config.json", CONFIG.as_bytes()), ("pytorch_model.bin", b"")]);
    let error = place.fetch("hf://org/none").unwrap_err();
    assert!(matches!(&error, Error::NotOnHub { name, .. } if name == "hf://org/none"), "{error}");
    let error = place.fetch("hf://org/tiny").unwrap_err();
    assert!(matches!(&error, Error::Pickle { path } if path.ends_with("pytorch_model.bin")), "{error}");
    assert_eq!(place.server.files_asked_for(), ["config.json"]);
    // Nothing that is not whole gets a ref.
    assert!(tree(&place.repo().join("refs")).is_empty());

    for (files, expected) in [
        (&[("README.md", b"" as &[u8])][..], "config.json"),
        (&[("config.json", CONFIG.as_bytes())], "model.safetensors or model.safetensors.index.json"),
    ] {
        let error = Place::new(files).fetch("hf://org/tiny").unwrap_err();
        assert!(matches!(&error, Error::NotOnHub { file, .. } if file == expected), "{error}");
        one_line(&error);
    }

    let place = Place::new(&[]);
    let offline = place.hub().with_network(Network::Offline);
    let error = offline.fetch(&repo("hf://org/tiny"), &place.caches()).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }) && place.server.requests().is_empty(), "{error}");

    // Nobody listens.
    let endpoint = place.server.endpoint();
    drop(place);
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::new(endpoint).unwrap().with_progress(Progress::Hidden);
    let error = hub.fetch(&repo("hf://org/tiny"), &Caches::new(dir.path(), dir.path())).unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error}");
    one_line(&error);
}

#[test]
fn hostile_indices() {
    let long = "x".repeat(300);
    for shard in
        ["../up", "/etc/passwd", "a/b", "..", "", "a\\b", "a?b", "a b", "a#b", "a%2fb", "C:", "é", &long]
    {
        let index = format!(r#"{{"weight_map":{{"a":{shard:?}}}}}"#);
        let place = Place::new(&[
            ("config.json", CONFIG.as_bytes()),
            ("model.safetensors.index.json", index.as_bytes()),
        ]);
        let error = place.fetch("hf://org/tiny").unwrap_err();
        assert!(matches!(error, Error::OutsideDirectory { .. }), "{shard:?}: {error}");
        one_line(&error);
        assert_eq!(place.server.files_asked_for(), ["config.json", "model.safetensors.index.json"]);
    }
    let index = br#"{"weight_map":{"a":"pytorch_model.bin"}}"#;
    let place = Place::new(&[("config.json", CONFIG.as_bytes()), ("model.safetensors.index.json", index)]);
    assert!(matches!(place.fetch("hf://org/tiny"), Err(Error::Pickle { .. })));
}

#[test]
fn hostile_answers() {
    let files: &[(&str, &[u8])] = &[("config.json", CONFIG.as_bytes()), ("model.safetensors", b"x")];
    for (header, value) in [
        ("ETag", "\"../../../../up\""),
        ("ETag", "\"..\""),
        ("ETag", "\"\""),
        ("ETag", "\"a.b\""),
        ("X-Repo-Commit", "../../up"),
        ("X-Repo-Commit", "ffffffffffffffffffffffffffffffffffffffff"),
        ("Content-Range", "bytes 0-0/many"),
        ("Content-Range", "bytes 0-0/1000000000000"),
    ] {
        let place = Place::new(files);
        place.server.answer_with(header, value);
        let error = place.fetch("hf://org/tiny").unwrap_err();
        assert!(
            matches!(error, Error::Download { .. } | Error::FileTooLarge { .. }),
            "{header}: {value}: {error}"
        );
        one_line(&error);
        assert_eq!(tree(place.dir.path()), [""; 0]);
    }
    let place = Place::new(files);
    place.server.name_commit("../../up");
    assert!(matches!(place.fetch("hf://org/tiny"), Err(Error::Download { .. })));
    for endpoint in [
        "",
        "huggingface.co",
        "ftp://a",
        "https://",
        "http:///x",
        "https://a b",
        "https://a\n",
        "https://a?b",
    ] {
        assert!(matches!(Hub::new(endpoint), Err(Error::Endpoint { .. })), "{endpoint:?}");
    }
}
