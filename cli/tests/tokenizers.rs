//! `generate` on Keras presets with tokenizers: a text prompt becomes the ids that KerasHub's preprocessor makes.
//!
//! The ids of every kind of tokenizer are tested beside the code, of the crate `rachis-text`.

use std::path::Path;
use std::process::{Command, Output};

use rachis_testkit::goldens::fixture;
use serde_json::{Value, json};
use tempfile::TempDir;

fn rachis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rachis")).args(arguments).env_remove("RACHIS_ISA").output().unwrap()
}

/// The output of `generate` on a preset, with the flags `prompt`.
fn generate(dir: &TempDir, prompt: &[&str]) -> Value {
    let model = dir.path().to_str().unwrap();
    let flags = ["generate", "--json", "--model", model, "--max-new-tokens", "5", "--num-beams", "2"];
    let output = rachis(&[&flags[..], prompt].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A preset of the fixtures with the files of a tokenizer.
fn preset(model: &str, files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = fixture(format!("{model}/keras"));
    for file in ["config.json", "model.weights.h5"] {
        std::fs::copy(source.join(file), dir.path().join(file)).unwrap();
    }
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

/// A preset with a byte-level vocabulary; the letters have the ids from 10 on.
fn bytes(model: &str, class: &str) -> TempDir {
    let letters = ('a'..='z').chain(['Ġ']).zip(10..).map(|(letter, id)| (letter.to_string(), id));
    let special = ["<s>", "<pad>", "</s>", "<|endoftext|>"].map(str::to_owned).into_iter().zip(0..);
    let words = [("he".to_owned(), 50), ("ll".to_owned(), 51), ("hell".to_owned(), 52)];
    let vocabulary: serde_json::Map<String, Value> =
        special.chain(letters).chain(words).map(|(token, id)| (token, id.into())).collect();
    let vocabulary = json!(vocabulary).to_string();
    let layer = json!({ "class_name": class, "config": { "add_prefix_space": false } }).to_string();
    let files = [
        ("tokenizer.json", layer.as_bytes()),
        ("assets/tokenizer/vocabulary.json", vocabulary.as_bytes()),
        ("assets/tokenizer/merges.txt", b"#version: 0.2\nh e\nl l\nhe ll\n"),
    ];
    preset(model, &files)
}

#[test]
fn opt_prompts_start_with_the_end_token() {
    let dir = bytes("opt_pre", "OPTTokenizer");
    let by_text = generate(&dir, &["--prompt", "hello</s>b"]);
    assert_eq!(by_text, generate(&dir, &["--prompt-ids", "2,52,24,2,11"]));
    assert_ne!(by_text, generate(&dir, &["--prompt-ids", "52,24,2,11"]));
    let ids = by_text["sequences"][0]["ids"].as_array().unwrap();
    assert!(ids.len() == 5 || ids.last() == Some(&json!(2)), "{ids:?}");
}

#[test]
fn falcon_prompts_start_with_the_end_token() {
    let dir = bytes("falcon_rw_bf16slopes", "FalconTokenizer");
    assert_eq!(generate(&dir, &["--prompt", "hi"]), generate(&dir, &["--prompt-ids", "3,17,18"]));
}

#[test]
fn bart_prompts_have_start_and_end_and_the_decoder_two_tokens() {
    let dir = bytes("bart_sym", "BartTokenizer");
    let by_text = generate(&dir, &["--prompt", "hello b"]);
    assert_eq!(by_text, generate(&dir, &["--prompt-ids", "0,52,24,36,11,2"]));
    let ids = by_text["sequences"][0]["ids"].as_array().unwrap();
    assert_eq!(ids[..2], [json!(2), json!(0)], "{ids:?}");
    let chosen = generate(&dir, &["--prompt", "hello b", "--decoder-start-id", "7"]);
    assert_eq!(chosen["sequences"][0]["ids"][0], 7);
}

#[test]
fn t5_decoders_start_with_the_padding_token() {
    let pieces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/tests/data/tokenizers/spiece.model");
    let pieces = std::fs::read(pieces).unwrap();
    let layer = json!({ "class_name": "T5Tokenizer", "config": {} }).to_string();
    let files = [("tokenizer.json", layer.as_bytes()), ("assets/tokenizer/vocabulary.spm", &pieces)];
    let dir = preset("t5_relu_tied", &files);
    let by_text = generate(&dir, &["--prompt", "the a"]);
    assert_eq!(by_text["sequences"][0]["ids"][0], 0);
    let row =
        rachis(&["generate", "--model", dir.path().to_str().unwrap(), "--prompt", "\u{4e00}", "--json"]);
    assert!(row.status.success(), "{}", String::from_utf8_lossy(&row.stderr));
}

#[test]
fn a_preset_without_its_assets_names_the_missing_file() {
    let layer = json!({ "class_name": "OPTTokenizer", "config": {} }).to_string();
    let dir = preset("opt_pre", &[("tokenizer.json", layer.as_bytes())]);
    let output = rachis(&["generate", "--model", dir.path().to_str().unwrap(), "--prompt", "hello"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("assets/tokenizer/vocabulary.json") && text.trim_end().lines().count() == 1,
        "{text}"
    );
}
