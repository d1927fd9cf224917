//! `generate`, and `bench` of decoders.

#[path = "common/program.rs"]
mod program;

use std::path::Path;

use rachis_testkit::goldens::fixture;
use serde_json::{Value, json};

use program::{fail, json, path, rachis, succeed};

/// Repeats the runs of a model's golden file by `generate --prompt-ids`, with the arguments as flags.
fn check_generate(model: &str, causal: bool) {
    let text = std::fs::read_to_string(fixture(format!("{model}/generation.json"))).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let list = |ids: &[Value]| ids.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    let (rows, masks) = (&golden["inputs"]["input_ids"], &golden["inputs"]["attention_mask"]);
    let prompts: Vec<Vec<Value>> = (rows.as_array().unwrap().iter().zip(masks.as_array().unwrap()))
        .map(|(row, mask)| {
            let row = row.as_array().unwrap().iter().zip(mask.as_array().unwrap());
            row.filter(|(_, mask)| **mask == 1).map(|(id, _)| id.clone()).collect()
        })
        .collect();
    let dir = fixture(format!("{model}/hf"));
    for (name, expected) in golden["runs"].as_object().unwrap() {
        let args = &expected["args"];
        let mut flags = vec!["generate".to_owned(), "--json".to_owned()];
        let mut flag = |name: &str, value: String| flags.extend([name.to_owned(), value]);
        flag("--model", path(&dir).to_owned());
        flag("--max-new-tokens", golden["max_new_tokens"].to_string());
        prompts.iter().for_each(|prompt| flag("--prompt-ids", list(prompt)));
        let eos = &args["eos_token_id"];
        flag("--eos-ids", if eos.is_null() { "none".to_owned() } else { eos.to_string() });
        for (name, key) in [
            ("--num-beams", "num_beams"),
            ("--num-return-sequences", "num_return_sequences"),
            ("--length-penalty", "length_penalty"),
            ("--early-stopping", "early_stopping"),
            ("--no-repeat-ngram-size", "no_repeat_ngram_size"),
            ("--min-new-tokens", "min_new_tokens"),
            ("--forced-bos-id", "forced_bos_token_id"),
            ("--forced-eos-id", "forced_eos_token_id"),
            ("--decoder-start-id", "decoder_start_token_id"),
        ] {
            match &args[key] {
                // The preset's configuration may force a token.
                Value::Null if name.starts_with("--forced") => flag(name, "none".to_owned()),
                Value::Null => {}
                value => flag(name, value.to_string()),
            }
        }
        let report = json(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        let found = report["sequences"].as_array().unwrap();
        let sequences = expected["sequences"].as_array().unwrap();
        assert_eq!(found.len(), sequences.len(), "{model} {name}");
        for (i, (found, sequence)) in found.iter().zip(sequences).enumerate() {
            let sequence = &sequence.as_array().unwrap()[if causal { prompts[0].len() } else { 0 }..];
            let ids = found["ids"].as_array().unwrap();
            assert_eq!(ids[..], sequence[..ids.len()], "{model} {name} {i}");
            assert!(ids.len() == sequence.len() || ids.last() == Some(eos), "{model} {name} {i}");
            assert!(found["text"].is_null(), "there is no tokenizer");
            match expected["sequences_scores_f64"].get(i).and_then(Value::as_f64) {
                Some(score) => assert!((found["score"].as_f64().unwrap() - score).abs() < 1e-5),
                None => assert!(found["score"].is_null()),
            }
        }
    }
}

#[test]
fn generate_reproduces_ids_and_scores_of_the_goldens() {
    check_generate("opt_pre", true);
    check_generate("falcon_7b_style", true);
    check_generate("bart_asym_scaled", false);
    check_generate("t5_relu_tied", false);
}

#[test]
fn generate_streams_text() {
    let dir = fixture("text/generate/opt");
    let flags = ["--eos-ids", "none", "--max-new-tokens", "6"];
    let with = |more: &[&'static str]| [&["generate", "--model", path(&dir)], &flags[..], more].concat();
    let text = succeed(&with(&["--prompt", "ring the bell"]));
    let report = json(&with(&["--json", "--prompt", "ring the bell"]));
    let sequence = &report["sequences"][0];
    assert_eq!(text, format!("{}\n", sequence["text"].as_str().unwrap()));
    assert_eq!(sequence["ids"].as_array().unwrap().len(), 6);
    assert_eq!(succeed(&with(&["--prompt-ids", "2,85,274,74,266,328,292"])), text, "the same prompt");
    let two = succeed(&with(&["--prompt", "ring the bell", "--prompt", "The keeper"]));
    assert!(two.starts_with(&format!("0.0  {text}1.0  ")), "{two}");

    let bare = fixture("opt_pre/hf");
    let bare = [&["generate", "--model", path(&bare), "--prompt-ids", "35,96,36"], &flags[..]].concat();
    let ids = json(&[&bare[..], &["--json"]].concat())["sequences"][0]["ids"].to_string();
    assert_eq!(format!("[{}]", succeed(&bare).trim_end()), ids, "ids where there is no tokenizer");

    let sample = |seed: &'static str| {
        json(&with(&["--json", "--prompt", "ring", "--seed", seed, "--temperature", "3", "--top-k", "40"]))
    };
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
}

#[test]
fn invalid_requests_of_generate_are_errors() {
    let (opt, bert) = (fixture("opt_pre/hf"), fixture("bert_tanh/hf"));
    let refuse = |status, part: &str, more: &[&str]| {
        fail(&[&["generate", "--model", path(&opt)], more].concat(), status, part);
    };
    refuse(2, "--prompt", &[]);
    refuse(2, "5,x", &["--prompt-ids", "5,x"]);
    refuse(2, "sometimes", &["--prompt-ids", "5", "--num-beams", "2", "--early-stopping", "sometimes"]);
    refuse(2, "sometimes", &["--prompt-ids", "5", "--early-stopping", "sometimes"]);
    refuse(1, "tokenizer.json", &["--prompt", "hello"]);
    refuse(1, "97", &["--prompt-ids", "97"]);
    refuse(1, "temperature", &["--prompt-ids", "5", "--temperature", "0"]);
    refuse(2, "--temperature", &["--prompt-ids", "5", "--temperature", "nan"]);
    refuse(1, "sumarization", &["--prompt-ids", "5", "--task", "sumarization"]);
    refuse(1, "stop_strings", &["--prompt-ids", "5", "--stop", "x"]);
    refuse(2, "--requests", &["--prompt-ids", "5", "--requests", "-"]);
    refuse(1, "num_beams", &["--prompt-ids", "5", "--num-beams", "0"]);
    refuse(1, "maximum length", &["--prompt-ids", "5", "--max-new-tokens", "100000"]);
    fail(&["generate", "--model", path(&bert), "--prompt-ids", "5"], 2, "BertBackbone");
}

/// The answers to requests, and the exit status.
fn answers(dir: &Path, requests: &[Value], more: &[&str]) -> (Vec<Value>, i32) {
    let lines: Vec<String> = requests.iter().map(Value::to_string).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    let flags = ["generate", "--model", path(dir), "--requests", path(file.path())];
    let output = rachis(&[&flags[..], more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let answers = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (answers, output.status.code().unwrap())
}

/// The goldens of whole directories are requests as they stand.
#[test]
fn goldens_are_requests() {
    for (name, count) in [("bart", 18), ("t5", 21), ("opt", 21), ("falcon", 21)] {
        let dir = fixture(format!("text/generate/{name}"));
        let golden: Value =
            serde_json::from_slice(&std::fs::read(dir.join("goldens.json")).unwrap()).unwrap();
        let rows: Vec<&[Value]> =
            golden["calls"].as_array().unwrap().chunk_by(|a, b| a["request"] == b["request"]).collect();
        // Once as they stand, once from the text alone.
        for from_text in [false, true] {
            let requests: Vec<Value> = rows
                .iter()
                .map(|rows| {
                    let mut request = rows[0]["request"].clone();
                    if from_text {
                        request.as_object_mut().unwrap().remove("prompt_ids");
                    }
                    request
                })
                .collect();
            let (found, status) = answers(&dir, &requests, &[]);
            assert_eq!((found.len(), status), (count, 0), "{name}");
            for ((rows, request), found) in rows.iter().zip(&requests).zip(&found) {
                if request.get("pipeline").is_some() {
                    assert_eq!(*found, rows[0]["answer"], "{name} {request}");
                    continue;
                }
                let found = found.as_array().map_or(std::slice::from_ref(found), Vec::as_slice);
                assert_eq!(found.len(), rows.len(), "{name} {request}");
                for (found, row) in found.iter().zip(*rows) {
                    assert_eq!(found["ids"], row["answer"]["ids"], "{name} {request}");
                    assert_eq!(found["text"], row["answer"]["text"], "{name} {request}");
                    assert_eq!(found["score"].is_null(), request.get("num_beams").is_none(), "{name}");
                }
            }
        }
    }
}

#[test]
fn flags_are_the_defaults_of_requests() {
    let dir = fixture("text/generate/t5");
    let request = json!({ "prompt": "ring the bell" });
    let more = ["--max-new-tokens", "4", "--num-beams", "2", "--num-return-sequences", "2"];
    let (found, status) = answers(&dir, std::slice::from_ref(&request), &more);
    assert_eq!((found[0].as_array().unwrap().len(), status), (2, 0));
    let scored = json!({ "prompt": "ring the bell", "num_beams": 1, "num_return_sequences": 1,
        "output_scores": true, "decoder_start_token_id": 0 });
    let (found, _) = answers(&dir, &[scored], &more);
    assert_eq!(found[0]["log_probabilities"].as_array().unwrap().len(), 4);
    // A task by flag is the pipeline's, but for the name of the answer.
    let pipeline = json!({ "pipeline": "summarization", "inputs": "ring the bell" });
    let (by_request, _) = answers(&dir, &[pipeline], &[]);
    let (by_flag, _) = answers(&dir, &[request], &["--task", "summarization"]);
    assert_eq!(by_request[0][0]["summary_text"], by_flag[0]["text"]);
    let prefixed = succeed(&[
        "generate",
        "--model",
        path(&dir),
        "--prefix",
        "summarize: ",
        "--prompt",
        "ring the bell",
        "--num-beams",
        "3",
        "--max-new-tokens",
        "6",
    ]);
    let plain = json!({ "prompt": "summarize: ring the bell", "num_beams": 3, "max_new_tokens": 6 });
    assert_eq!(prefixed.trim_end(), answers(&dir, &[plain], &[]).0[0]["text"].as_str().unwrap());
}

#[test]
fn a_failing_request_is_answered_and_the_others_go_on() {
    let dir = fixture("text/generate/opt");
    let (found, status) = answers(
        &dir,
        &[
            json!({ "prompt": "ring", "max_new_tokens": 3 }),
            json!({ "prompt": "ring", "max_new_token": 3 }),
            json!({ "prompt": 3 }),
            json!({ "max_new_tokens": 3 }),
            json!({ "prompt_ids": [2, 9999] }),
            json!({ "prompt_ids": [-1] }),
            json!({ "prompt": "ring", "num_beams": "two" }),
            json!({ "prompt": "ring", "watermarking_config": {} }),
            json!({ "prompt": "ring", "stop_strings": [""] }),
            json!({ "pipeline": "painting", "inputs": "ring" }),
            json!({ "pipeline": 3, "inputs": "ring" }),
            json!({ "pipeline": true }),
            json!({ "prompt": "ring", "max_new_tokens": 3, "watermarking_config": null }),
        ],
        &[],
    );
    let parts = [
        "",
        "max_new_token",
        "prompt",
        "prompt",
        "9999",
        "prompt_ids",
        "num_beams",
        "watermarking_config",
        "stop_strings",
        "painting",
        "pipeline",
        "inputs",
        "",
    ];
    assert_eq!((found.len(), status), (parts.len(), 1));
    assert_eq!(found[0], found[12]);
    for (found, part) in found.iter().zip(parts).filter(|(_, part)| !part.is_empty()) {
        let error = found["error"].as_str().unwrap();
        assert!(error.contains(part) && error.lines().count() == 1, "{part}: {error}");
    }
}

/// Sampling flags with several beams draw the beams; with one candidate a beam nothing is left to chance.
#[test]
fn flags_decide_before_the_file_is_judged() {
    let dir = fixture("cases/35_sampled_beams_overridden");
    let model = path(&dir);
    let base = ["generate", "--json", "--model", model, "--prompt-ids", "5,9,7,12,20,9,5,2"];
    let with = |more: &[&'static str]| json(&[&base[..], more].concat());
    assert_eq!(with(&["--num-beams", "1", "--seed", "7"]), with(&["--num-beams", "1"]));
    let two = |seed| with(&["--num-beams", "2", "--top-k", "1", "--seed", seed]);
    assert_eq!(two("1"), two("2"));
    let drawn = |seed| with(&["--num-beams", "4", "--temperature", "9", "--top-k", "40", "--seed", seed]);
    assert_ne!(drawn("1"), drawn("2"));
    assert_eq!(drawn("1"), drawn("1"));
}

#[test]
fn bench_times_decoders() {
    for (model, work) in [
        ("opt_pre", "generate:5,4"),
        ("falcon_40b_style", "encode:2,6"),
        ("t5_gated_untied", "seq2seq:7,5,3"),
        ("bart_sym", "seq2seq:7,5,1"),
        ("bart_sym", "encode:2,6"),
    ] {
        let dir = fixture(format!("{model}/hf"));
        let bench = json(&["bench", "--json", "--model", path(&dir), "--work", work]);
        assert!(bench["p50"].as_f64().unwrap() > 0.0 && bench["work"] == work, "{bench}");
    }
    let (opt, bart) = (fixture("opt_pre/hf"), fixture("bart_sym/hf"));
    fail(&["bench", "--model", path(&opt), "--work", "seq2seq:4,4,1"], 2, "OptBackbone");
    fail(&["bench", "--model", path(&bart), "--work", "generate:4,4"], 2, "BartBackbone");
}
