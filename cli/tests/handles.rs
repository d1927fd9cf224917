//! Names of models: directories of either library, and handles, which are looked up in the caches of Python's tools.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use rachis_testkit::goldens::fixture;
use serde_json::Value;

/// Caches in the layout of huggingface_hub and kagglehub, with one preset each.
fn caches() -> tempfile::TempDir {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("hub/models--someone--some-bert");
    for dir in ["blobs", "refs"] {
        fs::create_dir_all(repo.join(dir)).unwrap();
    }
    let snapshot = repo.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    for (file, blob) in [("config.json", "aa"), ("model.safetensors", "bb")] {
        fs::copy(fixture("bert_gelu/hf").join(file), repo.join("blobs").join(blob)).unwrap();
        symlink(Path::new("../../blobs").join(blob), snapshot.join(file)).unwrap();
    }
    let variation = home.path().join("kaggle/models/keras/bert/keras/bert_tiny_en_uncased");
    fs::create_dir_all(variation.join("3")).unwrap();
    fs::write(variation.join("3.complete"), "").unwrap();
    for entry in fs::read_dir(fixture("bert_tanh/keras")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), variation.join("3").join(entry.file_name())).unwrap();
        }
    }
    home
}

fn rachis(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rachis"))
        .args(arguments)
        .env_remove("RACHIS_ISA")
        .env("HF_HUB_CACHE", home.join("hub"))
        .env("KAGGLEHUB_CACHE", home.join("kaggle"))
        .env("HF_HUB_OFFLINE", "1")
        .current_dir(home)
        .output()
        .unwrap()
}

#[test]
fn inspect_and_verify_accept_every_kind_of_name() {
    let home = caches();
    let directory = fixture("bert_gelu/hf");
    for (model, parameters_of) in [
        (directory.to_str().unwrap(), "bert_gelu/hf"),
        ("hf://someone/some-bert", "bert_gelu/hf"),
        ("hf://someone/some-bert@0123456789abcdef0123456789abcdef01234567", "bert_gelu/hf"),
        ("bert_tiny_en_uncased", "bert_tanh/keras"),
        ("kaggle://keras/bert/keras/bert_tiny_en_uncased", "bert_tanh/keras"),
        ("kaggle://keras/bert/keras/bert_tiny_en_uncased/3", "bert_tanh/keras"),
    ] {
        let reports: Vec<Value> = ["inspect", "verify"]
            .iter()
            .map(|command| {
                let output = rachis(home.path(), &[command, "--json", "--model", model]);
                assert!(output.status.success(), "{model}: {}", String::from_utf8_lossy(&output.stderr));
                serde_json::from_slice(&output.stdout).unwrap()
            })
            .collect();
        let expected = rachis::loader::Preset::named(fixture(parameters_of), rachis::loader::Access::Map);
        let expected: usize =
            expected.unwrap().tensors().iter().map(|t| t.shape().iter().product::<usize>()).sum();
        for report in &reports {
            assert_eq!(report["architecture"], "BertBackbone", "{model}");
            assert_eq!(report["parameters"], expected, "{model}");
            assert_eq!(report["bytes_copied"], 0, "{model}");
        }
        assert_eq!(reports[1]["not_finite"].as_array().map(Vec::len), Some(0), "{model}");
    }
}

#[test]
fn a_missing_model_names_the_command_that_downloads_it() {
    let home = caches();
    for (model, parts) in [
        ("hf://someone/else", ["hf download someone/else", "models--someone--else"]),
        ("bert_base_en", ["kagglehub.model_download(\"keras/bert/keras/bert_base_en/", "bert_base_en"]),
        ("kaggle://keras/bert/keras/bert_tiny_en_uncased/2", ["bert_tiny_en_uncased/2", "version 3"]),
        ("hf://a/b/c", ["hf://owner/name", "3 parts"]),
        ("nowhere", ["nowhere", "no such directory"]),
    ] {
        let output = rachis(home.path(), &["inspect", "--model", model]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{model}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{model}: {text}");
        for part in parts {
            assert!(text.contains(part), "{model}: {text}");
        }
    }
}
