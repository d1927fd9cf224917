//! `classify`, `ner`, `answer` and `fill-mask`: the goldens of the pipelines as requests, and requests that are refused.

#[path = "common/program.rs"]
mod program;

use program::{fail, json, path, rachis, succeed};
use rachis_testkit::goldens::fixture;
use serde_json::Value;

/// Whether two JSON values are the same, but for numbers with a fraction, which may differ by the tolerance.
fn close(found: &Value, expected: &Value, tolerance: f64) -> bool {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= tolerance
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b, tolerance))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| close(a, b, tolerance)))
        }
        _ => found == expected,
    }
}

/// Answers to requests, a line each.
fn answers(subcommand: &str, directory: &str, requests: &[String]) -> (Vec<Value>, Option<i32>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("requests.jsonl");
    std::fs::write(&file, requests.join("\n")).unwrap();
    let model = fixture(directory);
    let output = rachis(&[subcommand, "--model", path(&model), "--requests", path(&file)]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), requests.len(), "{}", String::from_utf8_lossy(&output.stderr));
    (answers, output.status.code())
}

#[test]
fn goldens_are_requests() {
    let mut compared = 0;
    for (subcommand, directory) in [
        ("classify", "text/classify/single"),
        ("classify", "text/classify/multi"),
        ("classify", "text/classify/regression"),
        ("classify", "text/classify/one_label"),
        ("classify", "text/classify/bart"),
        ("classify", "text/classify/zero_shot_bert"),
        ("classify", "text/classify/zero_shot_bart"),
        ("ner", "text/classify/tag_cased"),
        ("ner", "text/classify/tag_uncased"),
        ("fill-mask", "text/classify/fill_mask"),
        ("answer", "text/answer/bert"),
    ] {
        let text = std::fs::read_to_string(fixture(directory).join("goldens.json")).unwrap();
        let goldens: Value = serde_json::from_str(&text).unwrap();
        let calls = goldens["calls"].as_array().unwrap();
        let requests: Vec<String> = calls.iter().map(|call| call["request"].to_string()).collect();
        let (found, status) = answers(subcommand, directory, &requests);
        let mut errors = 0;
        for ((call, request), found) in calls.iter().zip(&requests).zip(&found) {
            let expected = &call["answer"];
            // The tokens of this text in a BART directory are contested: see the test of the crate `rachis-text`.
            if directory == "text/classify/bart" && request.contains("<s> <mask>") {
                continue;
            }
            if expected.get("error").is_some() {
                assert!(found.get("error").is_some(), "{request}: {found}");
                errors += 1;
            } else {
                let tolerance = goldens["tolerance"].as_f64().unwrap();
                assert!(close(found, expected, tolerance), "{directory} {request}:\n{found}\n{expected}");
            }
            compared += 1;
        }
        assert_eq!(status, Some(i32::from(errors > 0)), "{directory}");
    }
    assert_eq!(compared, 36 + 16 + 10 + 8 + 29 + 12 + 12 + 65 + 65 + 12 + 30);
}

/// One line each, and the requests behind it are answered.
#[test]
fn wrong_requests_are_answered_by_an_error() {
    for (subcommand, directory, request, part) in [
        ("classify", "single", r#"{"inputs": "a", "top": 1}"#, "\"top\" is unknown"),
        ("classify", "single", r#"{"top_k": 1}"#, "inputs is missing"),
        ("classify", "single", r#"{"inputs": 7}"#, "inputs is not a text"),
        ("classify", "single", r#"{"inputs": {"text": "a", "pair": "b"}}"#, "inputs is not a text"),
        (
            "classify",
            "single",
            r#"{"inputs": "a", "function_to_apply": "tanh"}"#,
            "function_to_apply is \"tanh\"",
        ),
        ("classify", "single", r#"{"inputs": "a", "truncation": "short"}"#, "truncation is \"short\""),
        ("classify", "single", r#"{"inputs": "a", "truncation": true, "max_length": 1}"#, "max_length is 1"),
        ("classify", "single", r#"{"inputs": "a", "top_k": -1}"#, "top_k"),
        (
            "classify",
            "zero_shot_bert",
            r#"{"inputs": "a", "candidate_labels": []}"#,
            "candidate_labels is empty",
        ),
        (
            "classify",
            "zero_shot_bert",
            r#"{"inputs": "", "candidate_labels": "a"}"#,
            "inputs is an empty text",
        ),
        (
            "classify",
            "zero_shot_bert",
            r#"{"inputs": "a", "candidate_labels": "a", "hypothesis_template": "nothing"}"#,
            "hypothesis_template is \"nothing\"",
        ),
        (
            "classify",
            "zero_shot_bert",
            r#"{"inputs": "a", "candidate_labels": "a", "hypothesis_template": "{} {x}"}"#,
            "hypothesis_template is",
        ),
        ("ner", "tag_cased", r#"{"inputs": []}"#, "inputs is not a text"),
        ("ner", "tag_cased", r#"{"inputs": "a", "aggregation_strategy": "mean"}"#, "strategy is \"mean\""),
        (
            "ner",
            "tag_cased",
            r#"{"inputs": "a", "aggregation_strategy": "first", "stride": 64}"#,
            "stride is 64",
        ),
        (
            "ner",
            "tag_cased",
            r#"{"inputs": "a", "aggregation_strategy": "none", "stride": 4}"#,
            "stride is given",
        ),
        ("fill-mask", "fill_mask", r#"{"inputs": "no mask"}"#, "number of masks is 0"),
        ("fill-mask", "fill_mask", r#"{"inputs": "[MASK]", "top_k": 641}"#, "top_k is 641"),
        ("fill-mask", "fill_mask", r#"{"inputs": "[MASK]", "targets": []}"#, "targets is none"),
        ("fill-mask", "fill_mask", r#"["[MASK]"]"#, "invalid type"),
    ] {
        let directory = format!("text/classify/{directory}");
        let control = match subcommand {
            "fill-mask" => r#"{"inputs": "[MASK]"}"#,
            _ if directory.contains("zero") => r#"{"inputs": "a", "candidate_labels": "b"}"#,
            _ => r#"{"inputs": "a"}"#,
        };
        let (found, status) = answers(subcommand, &directory, &[request.to_owned(), control.to_owned()]);
        let error = found[0]["error"].as_str().unwrap_or_else(|| panic!("{request}: {}", found[0]));
        assert!(error.contains(part) && error.lines().count() == 1, "{request}: {error}");
        assert!(found[1].get("error").is_none() && status == Some(1), "{control}: {}", found[1]);
    }
}

#[test]
fn models_of_other_tasks_are_refused() {
    let model = |directory: &str| fixture(format!("text/{directory}"));
    let (single, tags, masks) =
        (model("classify/single"), model("classify/tag_cased"), model("classify/fill_mask"));
    fail(&["classify", "--model", path(&tags), "a"], 1, "classify needs a BERT or a BART with a classifier");
    fail(&["ner", "--model", path(&single), "a"], 1, "ner needs a BERT with a classifier of tokens");
    fail(&["fill-mask", "--model", path(&single), "a"], 1, "fill-mask needs a BERT");
    fail(&["answer", "--model", path(&masks), "--question", "a", "b"], 1, "answer needs a BERT");
    fail(&["answer", "--model", path(&masks), "b"], 2, "--question");
    fail(&["classify", "--model", path(&single)], 2, "TEXT");
    fail(&["classify", "--model", path(&single), "--function", "tanh", "a"], 2, "--function");
}

#[test]
fn texts_on_the_command_line() {
    let model = |directory: &str| fixture(format!("text/{directory}"));
    let single = model("classify/single");
    let found = json(&["classify", "--json", "--top-k", "2", "--model", path(&single), "a bell", "a ship"]);
    assert_eq!(found["labels"].as_array().unwrap().len(), 2);
    assert_eq!(found["labels"][1].as_array().unwrap().len(), 2);
    let table = succeed(&["classify", "--model", path(&single), "a bell\u{1b}[2J"]);
    assert!(table.lines().count() == 4 && !table.contains('\u{1b}'), "{table}");

    let zero_shot = model("classify/zero_shot_bert");
    let labels = [
        "classify",
        "--json",
        "--model",
        path(&zero_shot),
        "--labels",
        "sea,land",
        "--multi-label",
        "a bell",
    ];
    let found = json(&labels);
    assert_eq!(found["labels"][0].as_array().unwrap().len(), 2);

    let tags = model("classify/tag_cased");
    let text = "The keeper of the lighthouse counts forty ships before dawn.";
    let found = json(&["ner", "--json", "--model", path(&tags), text]);
    assert!(found["entities"][0][0]["entity_group"].is_string());
    assert!(succeed(&["ner", "--model", path(&tags), text]).lines().count() > 2);

    let answer = model("answer/bert");
    let question = ["answer", "--model", path(&answer), "--question", "Where?"];
    let context = "The island lies north of the bay.";
    let found = json(&[&question[..], &["--json", "--top-k", "2", context]].concat());
    assert_eq!(found["answers"][0].as_array().unwrap().len(), 2);
    assert_eq!(succeed(&[&question[..], &[context, context]].concat()).lines().count(), 2);

    let masks = model("classify/fill_mask");
    let found = json(&["fill-mask", "--json", "--top-k", "3", "--model", path(&masks), "[MASK] bell [MASK]"]);
    assert_eq!(found["masks"][0][1].as_array().unwrap().len(), 3);
    assert_eq!(succeed(&["fill-mask", "--model", path(&masks), "[MASK]"]).lines().count(), 5);
}
