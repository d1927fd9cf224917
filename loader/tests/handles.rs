//! Names of presets: what they stand for, and which are refused.

mod common;
#[path = "common/caches.rs"]
mod test_caches;

use std::fs;
use std::path::Path;

use common::{CONFIG, one_tensor};
use rachis_loader::handle::{HubRepo, KaggleModel, keras_presets};
use rachis_loader::{Access, Error, Handle, Preset};
use test_caches::{COMMIT, TestCaches, one_line};

fn parse(name: &str) -> Handle {
    Handle::parse(name).unwrap()
}

#[test]
fn names_are_parsed_and_printed() {
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
        assert_eq!(name.parse::<HubRepo>().unwrap(), repo);
        assert!(matches!(name.parse::<KaggleModel>(), Err(Error::Handle { .. })));
    }
    for (name, id, version) in [
        ("kaggle://keras/bert/keras/bert_base_en/3", "keras/bert/keras/bert_base_en", Some(3)),
        ("kaggle://me/opt/tensorFlow2/opt_1.3b_en", "me/opt/tensorFlow2/opt_1.3b_en", None),
    ] {
        let Handle::Kaggle(model) = parse(name) else { panic!("{name}") };
        assert_eq!((model.id(), model.version()), (id, version));
        assert_eq!(name.parse::<KaggleModel>().unwrap(), model);
        assert!(matches!(name.parse::<HubRepo>(), Err(Error::Handle { .. })));
        assert_eq!(name.parse::<Handle>().unwrap().to_string(), name);
    }
    // A path that looks like another kind of handle is printed as a path.
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
fn malformed_names_are_refused() {
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
    // Any other name is a path. What no file system accepts is an error when it is resolved.
    let nowhere = TestCaches::new();
    for name in ["a\0b", "a\nb", "no/such/caches"] {
        one_line(&nowhere.resolve(name).unwrap_err());
    }
}

#[test]
fn mutated_names_stay_in_the_caches() {
    let caches = TestCaches::new();
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
                // The caches do not exist, so the handle is not found; the searched directory lies in a cache.
                let error = handle.resolve(&caches.caches).unwrap_err();
                let Error::NotCached { dir, .. } = &error else { panic!("{name:?}: {error}") };
                let parts: Vec<_> = dir.strip_prefix(caches.dir.path()).unwrap().components().collect();
                assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))), "{name:?}");
                one_line(&error);
            }
            Err(error) => drop(one_line(&error)),
        }
    }
    // The sequence of names is fixed.
    assert_eq!(parsed, 3927, "names that are handles of a repository, a model or a preset");
}

#[test]
fn keras_presets_stand_for_kaggle_models() {
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

#[test]
fn paths_are_resolved_to_themselves() {
    let caches = TestCaches::new();
    let outside = caches.path("outside");
    assert_eq!(Handle::parse(&outside).unwrap().resolve(&caches.caches).unwrap(), outside);
    assert!(Preset::named(&outside, Access::Read).is_ok());
    let text = one_line(&caches.resolve("google-bert/bert-base-uncased").unwrap_err());
    assert!(text.contains("\"google-bert/bert-base-uncased\"") && text.contains("hf://owner/name"), "{text}");
    assert!(!Path::new("bert_tiny_en_uncased").exists());
    let text = one_line(&caches.resolve("bert_tiny_en_uncased").unwrap_err());
    assert!(!text.contains("./bert_tiny"), "{text}");
}
