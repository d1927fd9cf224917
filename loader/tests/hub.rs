//! Downloads from a hub on the loopback interface, which the test starts.
#![cfg(feature = "hub")]

mod common;
#[path = "common/server.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};

use common::{CONFIG, KERAS, one_tensor};
use rachis_loader::handle::HubRepo;
use rachis_loader::hub::{Hub, Network, Progress};
use rachis_loader::{Access, Caches, Error, Handle, Preset};
use server::{CDN, COMMIT, Server};

/// A hub and an empty cache.
struct TestHub {
    dir: tempfile::TempDir,
    server: Server,
}

impl TestHub {
    fn new(files: &[(&str, &[u8])]) -> TestHub {
        TestHub { dir: tempfile::tempdir().unwrap(), server: Server::start("org/tiny", files) }
    }

    fn caches(&self) -> Caches {
        Caches::new(self.dir.path().join("hub"), self.dir.path().join("kaggle"))
    }

    fn client(&self) -> Hub {
        Hub::new(self.server.endpoint()).unwrap().with_progress(Progress::Hidden)
    }

    fn fetch(&self, name: &str) -> Result<PathBuf, Error> {
        self.client().fetch(&repo(name), &self.caches())
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

/// All files under a directory, as relative paths, sorted.
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
fn a_download_fetches_the_files_that_are_read() {
    let tensor = one_tensor("a", &[1.0, 2.0]);
    let hub = TestHub::new(&[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &tensor),
        ("model.safetensors.index.json", b"{}"),
        ("model-00001-of-00002.safetensors", b"of the index, which is not used"),
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
    let path = hub.fetch("hf://org/tiny").unwrap();
    assert_eq!(path, hub.snapshot());
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
    assert_eq!(hub.server.requested_files(), wanted);
    assert!(hub.server.requests().iter().all(|request| request.authorization.is_none()));

    // The layout is huggingface_hub's: relative links into blobs that are named by their ETags, and one ref.
    assert_eq!(fs::read_to_string(hub.repo().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(tree(&hub.repo().join("refs")), ["main"]);
    for name in wanted {
        let etag = hub.server.etag(name);
        assert!(hub.repo().join("blobs").join(&etag).is_file());
        if cfg!(unix) {
            let up = "../".repeat(2 + name.matches('/').count());
            let link = fs::read_link(path.join(name)).unwrap();
            assert_eq!(link, Path::new(&format!("{up}blobs/{etag}")));
        }
    }
    assert!(tree(&hub.repo()).iter().all(|name| !name.ends_with(".part") && !name.ends_with(".tmp")));

    // The second call finds everything in the cache and asks nothing.
    let before = hub.server.requests().len();
    assert_eq!(hub.fetch("hf://org/tiny").unwrap(), path);
    assert_eq!(hub.server.requests().len(), before);
    let resolved = Handle::parse("hf://org/tiny").unwrap().resolve(&hub.caches()).unwrap();
    let preset = Preset::open(resolved, Access::Map).unwrap();
    assert_eq!(preset.require("a").unwrap().bytes(), &tensor[tensor.len() - 8..]);
    assert!(preset.read_json("1_Pooling/config.json").unwrap().is_some());
}

#[test]
fn a_download_fetches_the_shards_of_the_index() {
    let [one, two] = ["a", "b"].map(|name| one_tensor(name, &[1.0]));
    let hub = TestHub::new(&[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors.index.json", br#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#),
        ("one.safetensors", &one),
        ("two.safetensors", &two),
        ("three.safetensors", b"not in the index"),
    ]);
    let path = hub.fetch("hf://org/tiny@v1").unwrap();
    let wanted = ["config.json", "model.safetensors.index.json", "one.safetensors", "two.safetensors"];
    assert_eq!(hub.server.requested_files(), wanted);
    assert_eq!(Preset::open(path, Access::Map).unwrap().tensors().len(), 2);
    assert_eq!(tree(&hub.repo().join("refs")), ["v1"]);
}

#[test]
fn keras_presets_are_downloaded() {
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
            ("task.weights.h5", b"weights of the head"),
            ("tokenizer.json", b"{}"),
            ("assets/tokenizer/vocabulary.txt", b"[PAD]\n"),
        ];
        let files: Vec<_> = small.iter().chain(weights).copied().collect();
        let hub = TestHub::new(&[&files[..], &[("model.safetensors", b"of the other kind")]].concat());
        hub.fetch("hf://org/tiny").unwrap();
        let mut wanted: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        wanted.sort();
        assert_eq!(hub.server.requested_files(), wanted);
    }
}

#[test]
fn a_partial_file_is_resumed() {
    let tensor = one_tensor("a", &[1.0; 5000]);
    let files: &[(&str, &[u8])] = &[("config.json", CONFIG.as_bytes()), ("model.safetensors", &tensor)];
    // A partial file of an earlier run.
    let hub = TestHub::new(files);
    let blobs = hub.repo().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(format!("{}.part", hub.server.etag("model.safetensors")));
    fs::write(&part, &tensor[..7000]).unwrap();
    let path = hub.fetch("hf://org/tiny").unwrap();
    assert_eq!(hub.server.requested_ranges("model.safetensors"), ["bytes=7000-"]);
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), tensor);

    // A partial file that is as long as the file, or longer, is discarded.
    for len in [tensor.len(), tensor.len() + 1] {
        let hub = TestHub::new(files);
        fs::create_dir_all(hub.repo().join("blobs")).unwrap();
        let part = hub.repo().join(format!("blobs/{}.part", hub.server.etag("model.safetensors")));
        fs::write(part, vec![0; len]).unwrap();
        let path = hub.fetch("hf://org/tiny").unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), tensor);
    }

    // Every connection breaks after 6000 bytes.
    let hub = TestHub::new(files);
    hub.server.cut_after(6000);
    let path = hub.fetch("hf://org/tiny").unwrap();
    let ranges = ["bytes=0-", "bytes=6000-", "bytes=12000-", "bytes=18000-"];
    assert_eq!(hub.server.requested_ranges("model.safetensors"), ranges);
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), tensor);

    // A hub that ignores ranges sends the whole file: the wrong result is discarded.
    let hub = TestHub::new(files);
    fs::create_dir_all(hub.repo().join("blobs")).unwrap();
    let part = hub.repo().join(format!("blobs/{}.part", hub.server.etag("model.safetensors")));
    fs::write(&part, &tensor[..7000]).unwrap();
    hub.server.ignore_ranges();
    let error = hub.fetch("hf://org/tiny").unwrap_err();
    assert!(matches!(&error, Error::Download { file, .. } if file == "model.safetensors"), "{error}");
    assert!(!hub.snapshot().join("model.safetensors").exists() && !part.exists());
    assert!(hub.fetch("hf://org/tiny").is_ok());
}

#[test]
fn files_in_the_cache_are_not_downloaded() {
    let tensor = one_tensor("a", &[1.0]);
    let hub = TestHub::new(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &tensor)]);
    hub.fetch("hf://org/tiny").unwrap();
    // Another revision with the same weights: the cache has the blob, but not the snapshot.
    fs::rename(hub.snapshot(), hub.repo().join("snapshots/older")).unwrap();
    let before = hub.server.requests().len();
    hub.fetch("hf://org/tiny").unwrap();
    let after = hub.server.requests();
    let bodies =
        after.iter().skip(before).filter(|request| request.range.as_deref() == Some("bytes=0-")).count();
    assert_eq!(bodies, if cfg!(unix) { 0 } else { 2 });
    // A deleted blob is downloaded again.
    let blob = hub.repo().join("blobs").join(hub.server.etag("model.safetensors"));
    fs::remove_file(&blob).unwrap();
    hub.fetch(&format!("hf://org/tiny@{COMMIT}")).unwrap();
    assert!(blob.is_file());
}

#[test]
fn the_token_is_sent_and_not_printed() {
    let tensor = one_tensor("a", &[1.0]);
    let hub = TestHub::new(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &tensor)]);
    hub.server.require_token("hf_secret");
    let error = hub.fetch("hf://org/tiny").unwrap_err();
    assert!(matches!(error, Error::Denied { status: 401, .. }), "{error}");
    assert!(one_line(&error).contains("hf auth login"), "{error}");

    let client = hub.client().with_token(Some(" hf_secret\n".to_owned()));
    assert!(!format!("{client:?}").contains("secret"));
    client.fetch(&repo("hf://org/tiny"), &hub.caches()).unwrap();
    // The first request is the denied one. Then: the repository, and for each of two files its metadata, its length and
    // its content.
    let tokens: Vec<_> = hub.server.requests().into_iter().map(|request| request.authorization).collect();
    let expected = [vec![None], vec![Some("Bearer hf_secret".to_owned()); tokens.len() - 1]].concat();
    assert_eq!(tokens, expected);
    assert_eq!(tokens.len(), 8);
}

#[test]
fn redirects_of_large_files_are_followed() {
    let tensor = one_tensor("a", &[1.0; 5000]);
    let hub = TestHub::new(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &tensor)]);
    hub.server.redirect("model.safetensors");
    hub.server.cut_after(6000);
    let client = hub.client().with_token(Some("hf_secret".to_owned()));
    let path = client.fetch(&repo("hf://org/tiny"), &hub.caches()).unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), tensor);
    assert!(hub.repo().join("blobs").join(hub.server.etag("model.safetensors")).is_file());
    // hf-hub requests the content without the token, but the first byte, for the length, with the token.
    let requests = hub.server.requests();
    let away = requests.iter().filter(|request| request.path.starts_with(CDN));
    let bodies: Vec<_> = away.filter(|request| request.range.as_deref() != Some("bytes=0-0")).collect();
    assert_eq!(bodies.len(), 4);
    assert!(bodies.iter().all(|request| request.authorization.is_none()));
}

#[test]
fn incomplete_repositories_are_refused() {
    let hub = TestHub::new(&[("config.json", CONFIG.as_bytes()), ("pytorch_model.bin", b"")]);
    let error = hub.fetch("hf://org/none").unwrap_err();
    assert!(matches!(&error, Error::NotOnHub { name, .. } if name == "hf://org/none"), "{error}");
    let error = hub.fetch("hf://org/tiny").unwrap_err();
    assert!(matches!(&error, Error::Pickle { path } if path.ends_with("pytorch_model.bin")), "{error}");
    assert_eq!(hub.server.requested_files(), ["config.json"]);
    // An incomplete snapshot gets no ref.
    assert!(tree(&hub.repo().join("refs")).is_empty());

    for (files, expected) in [
        (&[("README.md", b"" as &[u8])][..], "config.json"),
        (&[("config.json", CONFIG.as_bytes())], "model.safetensors or model.safetensors.index.json"),
    ] {
        let error = TestHub::new(files).fetch("hf://org/tiny").unwrap_err();
        assert!(matches!(&error, Error::NotOnHub { file, .. } if file == expected), "{error}");
        one_line(&error);
    }

    let hub = TestHub::new(&[]);
    let offline = hub.client().with_network(Network::Offline);
    let error = offline.fetch(&repo("hf://org/tiny"), &hub.caches()).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }) && hub.server.requests().is_empty(), "{error}");

    // No server listens at the address any more.
    let endpoint = hub.server.endpoint();
    drop(hub);
    let dir = tempfile::tempdir().unwrap();
    let client = Hub::new(endpoint).unwrap().with_progress(Progress::Hidden);
    let error = client.fetch(&repo("hf://org/tiny"), &Caches::new(dir.path(), dir.path())).unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error}");
    one_line(&error);
}

#[test]
fn shard_names_that_are_not_plain_are_refused() {
    let long = "x".repeat(300);
    for shard in
        ["../up", "/etc/passwd", "a/b", "..", "", "a\\b", "a?b", "a b", "a#b", "a%2fb", "C:", "é", &long]
    {
        let index = format!(r#"{{"weight_map":{{"a":{shard:?}}}}}"#);
        let hub = TestHub::new(&[
            ("config.json", CONFIG.as_bytes()),
            ("model.safetensors.index.json", index.as_bytes()),
        ]);
        let error = hub.fetch("hf://org/tiny").unwrap_err();
        assert!(matches!(error, Error::OutsideDirectory { .. }), "{shard:?}: {error}");
        one_line(&error);
        assert_eq!(hub.server.requested_files(), ["config.json", "model.safetensors.index.json"]);
    }
    let index = br#"{"weight_map":{"a":"pytorch_model.bin"}}"#;
    let hub = TestHub::new(&[("config.json", CONFIG.as_bytes()), ("model.safetensors.index.json", index)]);
    assert!(matches!(hub.fetch("hf://org/tiny"), Err(Error::Pickle { .. })));
}

#[test]
fn invalid_answers_are_refused() {
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
        let hub = TestHub::new(files);
        hub.server.replace_header(header, value);
        let error = hub.fetch("hf://org/tiny").unwrap_err();
        assert!(
            matches!(error, Error::Download { .. } | Error::FileTooLarge { .. }),
            "{header}: {value}: {error}"
        );
        one_line(&error);
        assert_eq!(tree(hub.dir.path()), [""; 0]);
    }
    let hub = TestHub::new(files);
    hub.server.claim_commit("../../up");
    assert!(matches!(hub.fetch("hf://org/tiny"), Err(Error::Download { .. })));
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

/// Runs the child test below in a process of its own, with these variables. The environment of this process cannot be
/// changed while other tests read it.
fn run_child(test: &str, hub: &TestHub) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("HF_ENDPOINT", hub.server.endpoint())
        .env("HF_HUB_CACHE", hub.dir.path().join("hub"))
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("TRANSFORMERS_OFFLINE")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// With the feature compiled in, and a hub that has the preset, only `fetch` and `fetch_config` open a socket.
#[test]
fn only_fetch_opens_a_socket() {
    let tensor = one_tensor("a", &[1.0]);
    let files: &[(&str, &[u8])] = &[("config.json", CONFIG.as_bytes()), ("model.safetensors", &tensor)];
    let hub = TestHub::new(files);
    run_child("child_stays_offline", &hub);
    assert!(hub.server.requests().is_empty() && tree(hub.dir.path()).is_empty());

    run_child("child_fetches", &hub);
    assert_eq!(hub.server.requested_files(), ["config.json", "model.safetensors"]);
    // The cache has everything now, so that no further request is sent.
    let requests = hub.server.requests().len();
    run_child("child_fetches", &hub);
    run_child("child_fetches_the_configuration", &hub);
    assert_eq!(hub.server.requests().len(), requests);

    let hub = TestHub::new(files);
    run_child("child_fetches_the_configuration", &hub);
    assert_eq!(hub.server.requested_files(), ["config.json", "model.safetensors"]);
}

#[test]
#[ignore = "run by only_fetch_opens_a_socket"]
fn child_stays_offline() {
    let name = "hf://org/tiny";
    assert!(matches!(Preset::named(name, Access::Map), Err(Error::NotCached { .. })));
    assert!(matches!(Preset::named_config(name), Err(Error::NotCached { .. })));
    let handle: Handle = name.parse().unwrap();
    assert!(matches!(handle.resolve(&Caches::from_env()), Err(Error::NotCached { .. })));
    let offline = Hub::from_env().unwrap().with_network(Network::Offline);
    assert!(matches!(Preset::fetch(name, Access::Map, &offline), Err(Error::NotCached { .. })));
}

#[test]
#[ignore = "run by only_fetch_opens_a_socket"]
fn child_fetches() {
    let hub = Hub::from_env().unwrap();
    assert_eq!(Preset::fetch("hf://org/tiny", Access::Map, &hub).unwrap().tensors().len(), 1);
    // A name of another kind is found as without a hub.
    assert!(matches!(Preset::fetch("no/such/path", Access::Map, &hub), Err(Error::Handle { .. })));
}

#[test]
#[ignore = "run by only_fetch_opens_a_socket"]
fn child_fetches_the_configuration() {
    let hub = Hub::from_env().unwrap();
    assert!(Preset::fetch_config("hf://org/tiny", &hub).unwrap().tensors().is_empty());
}
