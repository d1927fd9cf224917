//! Question answering, against the pipeline of transformers 4.44.

mod common;

use common::goldens::{Calls, assert_close, code_points};
use rachis_text::rachis::{Ctx, Session};
use rachis_text::{AnswerOptions, Error, Impossible, QuestionAnswerer};
use serde_json::{Value, json};

#[test]
fn question_answering() {
    let calls = Calls::read("text/answer/bert");
    let answerer = QuestionAnswerer::from_preset(&calls.dir).unwrap();
    let mut session = Session::new(Ctx::detect());
    assert_eq!(calls.pairs().len(), 30);
    for (request, expected) in calls.pairs() {
        let count = |name: &str| request.get(name).and_then(Value::as_u64).map(|count| count as usize);
        let mut options = AnswerOptions::new();
        options.top_k = count("top_k").unwrap_or(1);
        options.max_answer_len = count("max_answer_len").unwrap_or(15);
        (options.max_seq_len, options.doc_stride) = (count("max_seq_len"), count("doc_stride"));
        if request.get("handle_impossible_answer") == Some(&true.into()) {
            options = options.with_impossible(Impossible::Accepted);
        }
        let (question, context) =
            (request["question"].as_str().unwrap(), request["context"].as_str().unwrap());
        let found = answerer.answer(&mut session, question, context, options).unwrap();
        let found: Vec<Value> = found
            .iter()
            .map(|found| {
                json!({
                    "answer": found.answer,
                    "score": found.score,
                    "start": code_points(context, found.span.start),
                    "end": code_points(context, found.span.end),
                })
            })
            .collect();
        let found = if found.len() == 1 { found[0].clone() } else { found.into() };
        assert_close(&found, expected, calls.tolerance(), &request.to_string());
    }
}

#[test]
fn wrong_requests_are_refused() {
    let calls = Calls::read("text/answer/bert");
    let answerer = QuestionAnswerer::from_preset(&calls.dir).unwrap();
    let mut session = Session::new(Ctx::detect());
    let mut refused = |question: &str, context: &str, options: AnswerOptions, name: &str| {
        let error = answerer.answer(&mut session, question, context, options).unwrap_err();
        assert!(matches!(&error, Error::Request { what, .. } if *what == name), "{name}: {error}");
    };
    let options = AnswerOptions::new();
    refused("", "a context", options, "question");
    refused("a question", "", options, "context");
    refused("a question", "a context", options.with_top_k(0), "top_k");
    refused("a question", "a context", options.with_max_answer_len(0), "max_answer_len");
    refused("a question", "a context", options.with_max_seq_len(8).with_doc_stride(9), "doc_stride");
    let long = "a question ".repeat(40);
    refused(&long, "a context", options, "max_length");
}
