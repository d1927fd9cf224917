//! `rerank`: requests, rankings, and what is refused.

#[path = "common/program.rs"]
mod program;

use rachis_testkit::goldens::fixture;
use serde_json::Value;

use program::{answers, fail, json, path, succeed};

#[test]
fn rerank_answers_with_the_scores_of_cross_encoder() {
    let read = |file: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(fixture(file)).unwrap()).unwrap()
    };
    let close =
        |got: &Value, expected: &Value| (got.as_f64().unwrap() - expected.as_f64().unwrap()).abs() <= 2e-5;
    let mut compared = 0;
    for name in ["one_default", "one_identity_6", "three"] {
        let model = fixture(format!("text/rerank/{name}"));
        let goldens = read(&format!("text/rerank/{name}/goldens.json"));
        let calls = goldens["calls"].as_array().unwrap();
        let request = |call: &Value| {
            let mut request = call["request"].clone();
            if let Some(query) = request.as_object_mut().unwrap().remove("rank") {
                request["query"] = query;
            }
            request
        };
        let requests: Vec<Value> = calls.iter().map(request).collect();
        let (answers, status) = answers("rerank", path(&model), &requests);
        assert_eq!((answers.len(), status), (calls.len(), 0), "{name}");
        for (answer, call) in answers.iter().zip(calls) {
            let expected = call["answer"].as_array().unwrap();
            let scores = answer.get("scores").unwrap_or(answer).as_array().unwrap();
            assert_eq!(scores.len(), expected.len(), "{name}: {answer}");
            for (got, expected) in scores.iter().zip(expected) {
                compared += 1;
                assert!(match got {
                    Value::Object(_) => {
                        got["corpus_id"] == expected["corpus_id"] && close(&got["score"], &expected["score"])
                    }
                    Value::Array(labels) => {
                        labels.iter().zip(expected.as_array().unwrap()).all(|(a, b)| close(a, b))
                    }
                    _ => close(got, expected),
                });
            }
        }
    }
    assert_eq!(compared, 46);

    let model = fixture("text/rerank/one_default");
    let base = ["rerank", "--model", path(&model), "--query", "where do the gulls sit?", "--top-k", "1"];
    let texts = ["The gulls sit on the pier.", "Fog comes in from the north."];
    let ranked = json(&[&base[..], &["--json"], &texts].concat());
    assert_eq!(ranked.as_array().unwrap().len(), 1);
    assert_eq!(ranked[0]["corpus_id"], 0);
    let table = succeed(&[&base[..], &texts].concat());
    assert!(table.trim().ends_with(texts[0]) && table.lines().count() == 1, "{table}");
    let (answers, _) = answers(
        "rerank",
        path(&model),
        &[
            serde_json::json!({ "pairs": [["a"]] }),
            serde_json::json!({ "query": "a" }),
            serde_json::json!({ "pairs": [["a", "b"]], "activation": "gelu2" }),
            serde_json::json!({ "pairs": [["a", "b"]], "top_k": 1 }),
        ],
    );
    let parts = ["pairs: ", "texts is missing", "activation is", "\"top_k\" is unknown"];
    for (answer, part) in answers.iter().zip(parts) {
        assert!(answer["error"].as_str().unwrap().contains(part), "{answer}");
    }
    fail(
        &["rerank", "--model", path(&fixture("text/embed/plain")), "--query", "a", "b"],
        1,
        "classification head",
    );
    fail(&["rerank", "--model", path(&model), "a"], 2, "--query");
}
