//! `Reranker` against sentence-transformers' `CrossEncoder`: every golden directory, every call.

mod common;

use rachis::Session;
use rachis::kernels::Ctx;
use rachis_testkit::goldens::fixture;
use rachis_text::{Activation, LabelScores, RerankOptions, Reranker, rachis};
use serde_json::Value;

use common::{directories, json, strings};

fn options(request: &Value) -> RerankOptions {
    let mut options = RerankOptions::new();
    if let Some(activation) = request["activation"].as_str() {
        options = options.with_activation(activation.parse::<Activation>().unwrap());
    }
    if request["apply_softmax"] == true {
        options = options.with_labels(LabelScores::Softmax);
    }
    if let Some(top_k) = request["top_k"].as_u64() {
        options = options.with_top_k(top_k as usize);
    }
    options
}

#[test]
fn scores_equal_those_of_cross_encoder() {
    let mut session = Session::new(Ctx::detect());
    let (mut scores, mut ranks) = (0, 0);
    for dir in directories("text/rerank") {
        let goldens = json(&format!("{dir}/goldens.json"));
        let tolerance = goldens["tolerance"].as_f64().unwrap();
        let reranker = Reranker::from_preset(fixture(&dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
        assert_eq!(reranker.max_tokens(), goldens["limit"].as_u64().map(|limit| limit as usize), "{dir}");
        for call in goldens["calls"].as_array().unwrap() {
            let (request, answer) = (&call["request"], call["answer"].as_array().unwrap());
            let options = options(request);
            if let Some(query) = request["rank"].as_str() {
                let texts = strings(&request["texts"]);
                let ranked = reranker.rank_with(&mut session, query, &texts, &options).unwrap();
                assert_eq!(ranked.len(), answer.len(), "{dir}");
                for (ranked, expected) in ranked.iter().zip(answer) {
                    assert_eq!(ranked.index as u64, expected["corpus_id"].as_u64().unwrap(), "{dir}");
                    let error = f64::from(ranked.score) - expected["score"].as_f64().unwrap();
                    assert!(error.abs() <= tolerance, "{dir}: off by {error}");
                    ranks += 1;
                }
                continue;
            }
            let pairs: Vec<(String, String)> =
                request["pairs"].as_array().unwrap().iter().map(pair).collect();
            let got = reranker.scores_with(&mut session, &pairs, &options).unwrap();
            assert_eq!(got.len(), answer.len(), "{dir}");
            for (i, (got, expected)) in got.iter().zip(answer).enumerate() {
                let expected = expected.as_array().cloned().unwrap_or(vec![expected.clone()]);
                assert_eq!(got.len(), expected.len(), "{dir}");
                for (got, expected) in got.iter().zip(&expected) {
                    let error = f64::from(*got) - expected.as_f64().unwrap();
                    assert!(error.abs() <= tolerance, "{dir}, pair {i}: off by {error}");
                    scores += 1;
                }
            }
        }
    }
    assert_eq!((scores, ranks), (102, 18));
}

fn pair(pair: &Value) -> (String, String) {
    let [first, second] = strings(pair).try_into().unwrap();
    (first, second)
}
