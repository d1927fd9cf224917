//! The command line as a process, for the tests of what it prints and refuses.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rachis_testkit::goldens::fixture;
use serde_json::Value;

pub fn rachis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rachis"))
        .args(arguments)
        .env_remove("RACHIS_ISA")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Standard output of a run that must succeed.
pub fn succeed(arguments: &[&str]) -> String {
    let output = rachis(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn json(arguments: &[&str]) -> Value {
    let text = succeed(arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// A run that must fail with this status and one line on standard error that holds `part`.
pub fn fail(arguments: &[&str], status: i32, part: &str) {
    let output = rachis(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed something");
    assert!(text.contains(part) && text.trim_end().lines().count() == 1, "{arguments:?}: {text}");
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Answers of `--requests`, one a line.
pub fn answers(subcommand: &str, model: &str, requests: &[Value]) -> (Vec<Value>, i32) {
    let dir = tempfile::tempdir().unwrap();
    let lines: Vec<String> = requests.iter().map(Value::to_string).collect();
    put(&dir, "requests.jsonl", &lines.join("\n"));
    let file = dir.path().join("requests.jsonl");
    let output = rachis(&[subcommand, "--model", model, "--requests", path(&file)]);
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code().unwrap())
}

/// The real model, which `scripts/minilm` brings.
pub fn minilm() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/all-MiniLM-L6-v2");
    assert!(dir.join("model.safetensors").is_file(), "run scripts/minilm first: it brings {}", dir.display());
    dir
}

/// A tiny BERT of either library's format, `hf` or `keras`, with a tokenizer whose words are w5 to w96.
pub fn tiny_bert(format: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut vocabulary: Vec<String> = (0..97).map(|i| format!("w{i}")).collect();
    vocabulary[..5].clone_from_slice(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned));
    let (weights, words) = match format {
        "keras" => ("model.weights.h5", "assets/tokenizer/vocabulary.txt"),
        _ => ("model.safetensors", "vocab.txt"),
    };
    for file in ["config.json", weights] {
        std::fs::copy(fixture(format!("bert_tanh/{format}/{file}")), dir.path().join(file)).unwrap();
    }
    put(&dir, words, &vocabulary.join("\n"));
    if format == "keras" {
        put(&dir, "tokenizer.json", r#"{"class_name": "BertTokenizer", "config": {"lowercase": true}}"#);
    }
    dir
}

/// Writes a file of a preset.
pub fn put(dir: &tempfile::TempDir, file: &str, content: &str) {
    let file = dir.path().join(file);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}
