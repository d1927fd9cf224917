//! `generate`, and `bench` of decoders.

#[path = "common/program.rs"]
mod program;

use rachis_testkit::goldens::fixture;
use serde_json::Value;

use program::{fail, json, path, succeed};

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

/// A decoder model with a tokenizer whose words are w0 to w96.
fn with_tokenizer(model: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(format!("{model}/hf/{file}")), dir.path().join(file)).unwrap();
    }
    let vocabulary: serde_json::Map<String, Value> = (0..97).map(|i| (format!("w{i}"), i.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w3" },
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    dir
}

#[test]
fn generate_streams_text() {
    let dir = with_tokenizer("opt_pre");
    let model = path(dir.path());
    let flags = ["generate", "--model", model, "--eos-ids", "none", "--max-new-tokens", "6"];
    let with = |more: &[&'static str]| [&flags[..], more].concat();
    let text = succeed(&with(&["--prompt", "w35 w96 w36"]));
    let report = json(&with(&["--json", "--prompt", "w35 w96 w36"]));
    let sequence = &report["sequences"][0];
    assert_eq!(text.trim_end(), sequence["text"].as_str().unwrap());
    let words: Vec<String> = sequence["ids"].as_array().unwrap().iter().map(|id| format!("w{id}")).collect();
    assert_eq!((words.len(), words.join(" ")), (6, text.trim_end().to_owned()));
    assert_eq!(succeed(&with(&["--prompt-ids", "35,96,36"])), text, "the same prompt");
    let two = succeed(&with(&["--prompt", "w35 w96 w36", "--prompt", "w5"]));
    assert!(two.starts_with(&format!("0.0  {text}1.0  w")), "{two}");
    let bare = fixture("opt_pre/hf");
    let ids =
        succeed(&[&["generate", "--model", path(&bare)], &with(&["--prompt-ids", "35,96,36"])[3..]].concat());
    assert_eq!(ids.trim_end(), words.join(",").replace('w', ""), "ids where there is no tokenizer");

    let sample = |seed: &'static str| {
        json(&with(&["--json", "--prompt", "w5", "--seed", seed, "--temperature", "3", "--top-k", "40"]))
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
    refuse(2, "--num-beams", &["--prompt-ids", "5", "--num-beams", "2", "--seed", "1"]);
    refuse(2, "sometimes", &["--prompt-ids", "5", "--num-beams", "2", "--early-stopping", "sometimes"]);
    refuse(2, "sometimes", &["--prompt-ids", "5", "--early-stopping", "sometimes"]);
    refuse(1, "tokenizer.json", &["--prompt", "hello"]);
    refuse(1, "97", &["--prompt-ids", "97"]);
    refuse(1, "temperature", &["--prompt-ids", "5", "--temperature", "0"]);
    refuse(1, "num_beams", &["--prompt-ids", "5", "--num-beams", "0"]);
    refuse(1, "maximum length", &["--prompt-ids", "5", "--max-new-tokens", "100000"]);
    fail(&["generate", "--model", path(&bert), "--prompt-ids", "5"], 2, "BertBackbone");
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
