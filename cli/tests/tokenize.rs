//! `tokenize`: requests as the goldens write them, and errors.

use std::fs;
use std::process::{Command, Output};

use rachis_testkit::goldens::fixture;
use serde_json::{Value, json};

fn tokenize(directory: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rachis"));
    command.arg("tokenize").arg("--model").arg(fixture(format!("text/tokenizers/{directory}")));
    command.args(arguments).output().unwrap()
}

/// The answers to requests, and the exit status.
fn answers(directory: &str, requests: &[Value]) -> (Vec<Value>, Option<i32>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: Vec<String> = requests.iter().map(Value::to_string).collect();
    fs::write(file.path(), lines.join("\n")).unwrap();
    let output = tokenize(directory, &["--requests", file.path().to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code())
}

#[test]
fn requests_give_the_goldens() {
    let texts: Value = serde_json::from_slice(&fs::read(fixture("text/texts.json")).unwrap()).unwrap();
    for directory in ["bert_uncased_4", "byt5", "herbert", "roberta", "t5_4"] {
        let file = fixture(format!("text/tokenizers/{directory}/goldens.json"));
        let goldens: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let single = &goldens["single"][2];
        let requests = [
            json!({ "text": texts["texts"][2] }),
            json!({ "text": texts["texts"][2], "add_special_tokens": false }),
            json!({ "ids": single["ids"], "skip_special_tokens": true, "clean_up_tokenization_spaces": true }),
            json!({ "ids": single["ids"] }),
            json!({ "text": texts["texts"][0], "truncation": true, "max_length": 6, "truncation_side": "left" }),
            json!({ "text": texts["texts"][32], "truncation": true }),
        ];
        let (found, status) = answers(directory, &requests);
        assert_eq!(status, Some(0));
        assert_eq!(found[0]["ids"], single["ids"], "{directory}");
        if single["offsets"].is_array() {
            assert_eq!(found[0]["offsets"], single["offsets"], "{directory}");
        }
        let mask: String =
            found[0]["special_tokens_mask"].as_array().unwrap().iter().map(Value::to_string).collect();
        assert_eq!(single["special"], mask.as_str(), "{directory}");
        assert_eq!(found[1]["ids"], goldens["bare"][2], "{directory}");
        assert_eq!(found[2]["text"], goldens["decode"][2]["skip_clean"], "{directory}");
        assert_eq!(found[3]["text"], goldens["decode"][2]["keep"], "{directory}");
        let left = goldens["truncate"].as_array().unwrap().iter();
        let left =
            left.clone().find(|row| row["side"] == "left" && row["text"] == 0 && row["max_length"] == 6);
        assert_eq!(found[4]["ids"], left.unwrap()["ids"], "{directory}");
        assert_eq!(found[5]["ids"].as_array().unwrap().len(), 64, "{directory}: the limit of the directory");
    }
}

#[test]
fn windows_are_a_list() {
    let request = json!({
        "text": "a", "text_pair": "b c d e", "truncation": "only_second", "max_length": 6, "stride": 1,
        "return_overflowing_tokens": true,
    });
    let (found, _) = answers("bert_uncased_4", &[request]);
    let windows: Vec<_> =
        found[0].as_array().unwrap().iter().map(|window| window["offsets"].clone()).collect();
    assert_eq!(
        windows,
        [
            json!([[0, 0], [0, 1], [0, 0], [0, 1], [2, 3], [0, 0]]),
            json!([[0, 0], [0, 1], [0, 0], [2, 3], [4, 5], [0, 0]]),
            json!([[0, 0], [0, 1], [0, 0], [4, 5], [6, 7], [0, 0]]),
        ]
    );
}

#[test]
fn wrong_requests_are_answered_by_errors_and_the_others_go_on() {
    let (found, status) = answers(
        "bert_uncased_4",
        &[
            json!({ "txt": "a" }),
            json!({ "text": 1 }),
            json!({ "text": "a", "truncation": "shortest" }),
            json!({ "text": "a", "truncation": true, "max_length": 1 }),
            json!({ "text": "a b c", "truncation": true, "max_length": 4, "stride": 2, "return_overflowing_tokens": true }),
            json!({ "text": "a", "truncation": true, "truncation_side": "top" }),
            json!({ "text": "a", "text_target": "a" }),
            json!({ "ids": [-1] }),
            json!({}),
            json!({ "text": "a" }),
        ],
    );
    assert_eq!(status, Some(1));
    let parts = [
        "\"txt\" is unknown",
        "text: ",
        "truncation is \"shortest\"",
        "max_length is 1, expected at least 2",
        "stride is 2, expected less than 2",
        "truncation_side is \"top\"",
        "text and text_target",
        "ids: ",
        "text is missing",
    ];
    assert_eq!(found.len(), parts.len() + 1);
    for (found, part) in found.iter().zip(parts) {
        let error = found["error"].as_str().unwrap();
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    }
    assert!(found[parts.len()]["ids"].is_array());
}

#[test]
fn a_class_that_is_not_implemented_is_refused_by_its_name() {
    let output = tokenize("mbart", &["a"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("MBartTokenizer") && error.lines().count() == 1, "{error}");
}
