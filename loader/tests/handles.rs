//! Names of presets, and the caches of Python's tools, imitated in temporary directories.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{CONFIG, KERAS, fixture, one_tensor};
use rachis_loader::handle::keras_presets;
use rachis_loader::{Access, Caches, Error, Handle, Preset};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn parse(name: &str) -> Handle {
    Handle::parse(name).unwrap()
}

/// Both caches, in a directory of their own, with a neighbour that no handle may reach.
struct Place {
    dir: tempfile::TempDir,
    caches: Caches,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::new(dir.path().join("hub"), dir.path().join("kaggle"));
        let place = Place { dir, caches };
        place.write("outside/config.json", CONFIG);
        place.write("outside/model.safetensors", one_tensor("secret", &[1.0]));
        place.write("outside/ref", COMMIT);
        place
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), content).unwrap();
    }

    fn resolve(&self, name: &str) -> Result<PathBuf, Error> {
        parse(name).resolve(&self.caches)
    }

    /// A snapshot as huggingface_hub writes it: symlinks into `blobs`, and a ref without a line break.
    #[cfg(unix)]
    fn snapshot(&self, repo: &str, reference: &str, commit: &str, files: &[(&str, &[u8])]) {
        let repo = format!("hub/models--{}", repo.replace('/', "--"));
        self.write(&format!("{repo}/refs/{reference}"), commit);
        for (name, content) in files {
            let blob = format!("{commit}{}", name.replace(['/', '.'], ""));
            self.write(&format!("{repo}/blobs/{blob}"), content);
            let link = self.path(&format!("{repo}/snapshots/{commit}/{name}"));
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let up = "../".repeat(2 + name.matches('/').count());
            std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), link).unwrap();
        }
    }

    /// A version in Kaggle's cache, without any mark.
    fn version(&self, id: &str, version: u32) -> String {
        let dir = format!("kaggle/models/{id}/{version}");
        self.write(&format!("{dir}/config.json"), KERAS);
        self.write(&format!("{dir}/model.weights.h5"), b"not read here");
        dir
    }
}

fn one_line(error: &Error) -> String {
    let text = error.to_string();
    assert!(!text.contains(['\n', '\r', '\u{1b}']) && text.len() < 1200, "{text:?}");
    text
}

#[test]
fn names() {
    for (name, path) in [
        ("models/bert", "models/bert"),
        ("./bert_tiny_en_uncased", "./bert_tiny_en_uncased"),
        ("bert_tiny_en_uncased/", "bert_tiny_en_uncased/"),
        ("/abs/hf:/x", "/abs/hf:/x"),
        ("../up", "../up"),
        ("C:\\models\\bert", "C:\\models\\bert"),
        ("C://models", "C://models"),
        ("./hf://a/b", "./hf://a/b"),
        ("bert_gigantic_en", "bert_gigantic_en"),
    ] {
        assert_eq!(parse(name), Handle::Path(path.into()));
        assert_eq!(parse(name).to_string(), name);
    }
    for (name, id, revision) in [
        ("hf://google-bert/bert-base-uncased", "google-bert/bert-base-uncased", "main"),
        ("hf://gpt2", "gpt2", "main"),
        ("hf://a/b@v1.0", "a/b", "v1.0"),
        ("hf://a/b@refs/pr/1", "a/b", "refs/pr/1"),
        ("hf://a/b@0123456789abcdef0123456789abcdef01234567", "a/b", COMMIT),
    ] {
        let Handle::HuggingFace(repo) = parse(name) else { panic!("{name}") };
        assert_eq!((repo.id(), repo.revision()), (id, revision));
        assert_eq!(repo.to_string(), name);
    }
    for (name, id, version) in [
        ("kaggle://keras/bert/keras/bert_base_en/3", "keras/bert/keras/bert_base_en", Some(3)),
        ("kaggle://me/opt/tensorFlow2/opt_1.3b_en", "me/opt/tensorFlow2/opt_1.3b_en", None),
    ] {
        let Handle::Kaggle(model) = parse(name) else { panic!("{name}") };
        assert_eq!((model.id(), model.version()), (id, version));
        assert_eq!(name.parse::<Handle>().unwrap().to_string(), name);
    }
    // A path that looks like another handle keeps leading to the path.
    for name in ["bert_tiny_en_uncased", "hf://a/b", "gs://a"] {
        assert_eq!(Handle::Path(name.into()).to_string(), format!("./{name}"));
    }
}

#[cfg(unix)]
#[test]
fn a_path_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&path).unwrap();
    fs::write(path.join("config.json"), CONFIG).unwrap();
    fs::write(path.join("model.safetensors"), one_tensor("a", &[1.0])).unwrap();
    assert_eq!(Handle::parse(&path).unwrap(), Handle::Path(path.clone()));
    assert_eq!(Preset::named(&path, Access::Map).unwrap().dir(), path);
    let name = std::ffi::OsStr::from_bytes(b"hf://a/\xff");
    assert!(matches!(Handle::parse(name), Err(Error::Handle { .. })));
}

#[test]
fn hostile_names() {
    let long = format!("hf://a/{}", "b".repeat(97));
    let deep = format!("hf://a/b@{}", ["c"; 200].join("/"));
    let megabytes = format!("kaggle://a/b/keras/{}", "c".repeat(1 << 20));
    for name in [
        "",
        "hf://",
        "hf:///",
        "hf://a/",
        "hf:///b",
        "hf://a/b/c",
        "hf://a//b",
        "hf://..",
        "hf://../b",
        "hf://a/..",
        "hf://a/.b",
        "hf://a/b..c",
        "hf://a--b/c",
        "hf://a/b.git",
        "hf://a/-b",
        "hf://a/b-",
        "hf://a/b c",
        "hf://a/b?x=1",
        "hf://a/b%2f",
        "hf://a/b#c",
        "hf://a\\b",
        "hf://C:\\b",
        "hf://C:/b",
        "hf://a/b\0",
        "hf://a/b\n",
        "hf://a/\u{202e}b",
        "hf://a/\u{1b}[31mb",
        "hf://a/é",
        "hf://a/b@",
        "hf://a/b@..",
        "hf://a/b@../../x",
        "hf://a/b@/etc",
        "hf://a/b@x//y",
        "hf://a/b@x/",
        "hf://a/b@x@y",
        "hf://a/b@-x",
        "hf://a/b@$(x)",
        "hf://a/b@x;y",
        &long,
        &deep,
        "kaggle://",
        "kaggle://keras/bert",
        "kaggle://keras/bert/keras",
        "kaggle://keras/bert/keras/x/3/",
        "kaggle://keras/bert/keras/x/3/4",
        "kaggle://keras/bert/keras/x/",
        "kaggle://keras/bert//x",
        "kaggle://../bert/keras/x",
        "kaggle://keras/bert/keras/..",
        "kaggle://keras/bert/.complete/x",
        "kaggle://keras/bert/keras/x\\y",
        "kaggle://keras/bert/keras/C:",
        "kaggle://keras/bert/keras/x'y",
        "kaggle://keras/bert/keras/x/0",
        "kaggle://keras/bert/keras/x/03",
        "kaggle://keras/bert/keras/x/-1",
        "kaggle://keras/bert/keras/x/+1",
        "kaggle://keras/bert/keras/x/1.5",
        "kaggle://keras/bert/keras/x/latest",
        "kaggle://keras/bert/keras/x/99999999999999999999",
        &megabytes,
        "HF://a/b",
        "gs://bucket/preset",
        "modelscope://a/b",
        "https://huggingface.co/a/b",
        "file:///etc",
        "://",
    ] {
        if name == "://" {
            assert_eq!(parse(name), Handle::Path(name.into()));
            continue;
        }
        let error = Handle::parse(name).unwrap_err();
        assert!(matches!(error, Error::Handle { .. }), "{name:?}: {error}");
        one_line(&error);
    }
    // A path may hold anything; what no file system takes is an error of its own.
    let nowhere = Place::new();
    for name in ["a\0b", "a\nb", "no/such/place"] {
        one_line(&nowhere.resolve(name).unwrap_err());
    }
}

#[test]
fn mutated_names_stay_in_the_caches() {
    let place = Place::new();
    let seeds =
        ["hf://google-bert/bert-base@refs/pr/1", "kaggle://keras/bert/keras/bert_base_en/3", "bert_base_en"];
    let inserts = ["..", "/", "\\", "@", "://", "\0", "%", " ", ":", "-", "--", ".", "é", "a"];
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut parsed = 0;
    for _ in 0..20_000 {
        let mut name: Vec<char> = seeds[random(seeds.len())].chars().collect();
        for _ in 0..=random(3) {
            if name.is_empty() {
                break;
            }
            let at = random(name.len());
            match random(3) {
                0 => drop(name.remove(at)),
                1 => name.truncate(at + 1),
                _ => drop(name.splice(at..at, inserts[random(inserts.len())].chars())),
            }
        }
        let name: String = name.into_iter().collect();
        match Handle::parse(&name) {
            Ok(Handle::Path(_)) => {}
            Ok(handle) => {
                parsed += 1;
                assert_eq!(parse(&handle.to_string()), handle);
                // The caches do not even exist.
                let error = handle.resolve(&place.caches).unwrap_err();
                let Error::NotCached { dir, .. } = &error else { panic!("{name:?}: {error}") };
                let parts: Vec<_> = dir.strip_prefix(place.dir.path()).unwrap().components().collect();
                assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))), "{name:?}");
                one_line(&error);
            }
            Err(error) => drop(one_line(&error)),
        }
    }
    assert!(parsed > 1000, "{parsed}");
}

#[test]
fn registry() {
    assert_eq!(keras_presets().len(), 55);
    for preset in keras_presets() {
        assert_eq!(parse(preset.name()), Handle::Keras(preset));
        let kaggle = preset.kaggle();
        assert_eq!(parse(&kaggle.to_string()), Handle::Kaggle(kaggle.clone()));
        assert!(
            kaggle.id().starts_with("keras/") && kaggle.id().ends_with(&format!("/keras/{}", preset.name()))
        );
        assert_eq!(keras_presets().iter().filter(|other| other.name() == preset.name()).count(), 1);
    }
    for (name, handle) in [
        ("bert_tiny_en_uncased", "kaggle://keras/bert/keras/bert_tiny_en_uncased/3"),
        ("bert_tiny_en_uncased_sst2", "kaggle://keras/bert/keras/bert_tiny_en_uncased_sst2/5"),
        ("all_minilm_l6_v2_en", "kaggle://keras/sentence-transformers/keras/all_minilm_l6_v2_en/1"),
        ("opt_1.3b_en", "kaggle://keras/opt/keras/opt_1.3b_en/3"),
        ("bart_large_en_cnn", "kaggle://keras/bart/keras/bart_large_en_cnn/3"),
        ("falcon_refinedweb_1b_en", "kaggle://keras/falcon/keras/falcon_refinedweb_1b_en/2"),
        ("t5_1.1_xxl", "kaggle://keras/t5/keras/t5_1.1_xxl/2"),
        ("flan_base_multi", "kaggle://keras/t5/keras/flan_base_multi/3"),
    ] {
        let Handle::Keras(preset) = parse(name) else { panic!("{name}") };
        assert_eq!(preset.kaggle().to_string(), handle);
    }
}

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
    assert!(parse("hf://org/a").resolve(&caches).is_ok());
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

#[test]
fn paths() {
    let place = Place::new();
    let outside = place.path("outside");
    assert_eq!(Handle::parse(&outside).unwrap().resolve(&place.caches).unwrap(), outside);
    assert!(Preset::named(&outside, Access::Read).is_ok());
    let text = one_line(&place.resolve("google-bert/bert-base-uncased").unwrap_err());
    assert!(text.contains("\"google-bert/bert-base-uncased\"") && text.contains("hf://owner/name"), "{text}");
    assert!(!Path::new("bert_tiny_en_uncased").exists());
    let text = one_line(&place.resolve("bert_tiny_en_uncased").unwrap_err());
    assert!(!text.contains("./bert_tiny"), "{text}");
}
