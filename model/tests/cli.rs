//! The command line as scripts use it: what it prints, what it refuses, and the real MiniLM from text.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rachis::kernels::{Ctx, Level};
use rachis::{Backbone, Model};
use rachis_testkit::for_each_level;
use rachis_testkit::goldens::{Goldens, Limits, fixture, relative_error};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

fn rachis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rachis"))
        .args(arguments)
        .env_remove("RACHIS_ISA")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Standard output of a run that must succeed.
fn succeed(arguments: &[&str]) -> String {
    let output = rachis(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let text = succeed(arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// A run that must fail with this status and one line on standard error that holds `part`.
fn fail(arguments: &[&str], status: i32, part: &str) {
    let output = rachis(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed something");
    assert!(text.contains(part) && text.trim_end().lines().count() == 1, "{arguments:?}: {text}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The real model, which `scripts/minilm` brings.
fn minilm() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/all-MiniLM-L6-v2");
    assert!(dir.join("model.safetensors").is_file(), "run scripts/minilm first: it brings {}", dir.display());
    dir
}

/// The texts of the golden embeddings.
fn texts() -> Vec<String> {
    let text = std::fs::read_to_string(fixture("minilm/minilm.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    json["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The largest difference of any component from the golden embeddings.
fn difference(report: &Value) -> f64 {
    let goldens = Goldens::read("minilm/minilm.safetensors");
    let expected = goldens.float("embeddings");
    let rows = report["embeddings"].as_array().unwrap();
    assert_eq!(rows.len(), expected.shape[0]);
    let got = rows.iter().flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap());
    let got: Vec<f64> = got.collect();
    assert_eq!(got.len(), expected.data.len());
    got.iter().zip(&expected.data).map(|(got, expected)| (got - expected).abs()).fold(0.0, f64::max)
}

#[test]
fn minilm_embeddings_from_text_at_every_level() {
    let (model, texts) = (minilm(), texts());
    for_each_level(Level::supported(), |level| {
        let mut arguments = vec!["embed", "--json", "--model", path(&model), "--isa", level.name()];
        arguments.extend(texts.iter().map(String::as_str));
        let worst = difference(&json(&arguments));
        assert!(worst <= 2e-6, "{level}: {worst:e}");
    });
}

#[test]
fn minilm_from_vocabulary_alone_and_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"] {
        std::fs::copy(minilm().join(name), dir.path().join(name)).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_rachis"))
        .args(["embed", "--json", "--threads", "2", "--model", path(dir.path()), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(texts().join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let worst = difference(&serde_json::from_slice(&output.stdout).unwrap());
    assert!(worst <= 2e-6, "{worst:e}");
}

#[test]
fn minilm_table_of_similarities() {
    let table = succeed(&["embed", "--model", path(&minilm()), "a cat", "a cat", "the stock market"]);
    let rows: Vec<Vec<f64>> = table
        .lines()
        .skip_while(|line| !line.starts_with("cosine"))
        .skip(2)
        .map(|line| line.split_whitespace().skip(1).map(|x| x.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows.len(), 3);
    assert!(rows[0][1] == 1.0 && rows[0][2] < 0.5 && rows[2][2] == 1.0, "{table}");
    let cls = json(&["embed", "--json", "--pooling", "cls", "--model", path(&minilm()), "a cat"]);
    let mean = json(&["embed", "--json", "--model", path(&minilm()), "a cat"]);
    assert_ne!(cls, mean);
}

#[test]
fn minilm_inspection_and_memory() {
    let model = minilm();
    let report = json(&["inspect", "--json", "--model", path(&model)]);
    assert_eq!(report["bytes_copied"], 0);
    assert_eq!(report["architecture"], "BertBackbone");
    let mapped = report["bytes_mapped"].as_u64().unwrap();
    assert!(mapped > 90_000_000, "{mapped}");
    assert_eq!(json(&["verify", "--json", "--model", path(&model)])["not_finite"], serde_json::json!([]));

    let bench = json(&["bench", "--json", "--model", path(&model), "--work", "encode:1,128"]);
    for key in ["engine", "model", "work", "threads", "dtype", "isa", "cold_ms", "p50", "p99", "min", "n"] {
        assert!(!bench[key].is_null(), "bench has no {key}");
    }
    assert_eq!(bench["bytes_copied"], 0);
    if cfg!(target_os = "linux") {
        let Backbone::Bert(bert) = Backbone::from_preset(&model).unwrap() else { panic!("not a BERT") };
        let workspace = bert.plan(&Ctx::new(Level::detect()).unwrap(), 1, 128).unwrap().bytes();
        let limit = (mapped as f64 + workspace as f64) / 1048576.0 + 20.0;
        assert!(bench["rss_mib"].as_f64().unwrap() <= limit, "{} MiB of {limit}", bench["rss_mib"]);
    }
}

/// A tiny BERT of either library's format, `hf` or `keras`, with a tokenizer whose words are w5 to w96.
fn tiny_bert(format: &str) -> tempfile::TempDir {
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
fn put(dir: &tempfile::TempDir, file: &str, content: &str) {
    let file = dir.path().join(file);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

/// The embedding of a text, and its length.
fn embedding(dir: &tempfile::TempDir, text: &str, more: &[&str]) -> (Vec<f64>, f64) {
    let report = json(&[&["embed", "--json", "--model", path(dir.path()), text], more].concat());
    let values: Vec<f64> =
        report["embeddings"][0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    (values, length)
}

#[test]
fn embed_does_as_modules_json_says() {
    const MODULES: [&str; 4] = ["Transformer", "Pooling", "Normalize", "Dense"];
    let dir = tiny_bert("hf");
    let modules = |kinds: &[&str]| {
        let module = |(i, kind): (usize, &&str)| {
            let path = if i == 0 { String::new() } else { format!("{i}_Own{kind}") };
            serde_json::json!({ "idx": i, "path": path, "type": format!("sentence_transformers.models.{kind}") })
        };
        let list: Vec<Value> = kinds.iter().enumerate().map(module).collect();
        put(&dir, "modules.json", &Value::from(list).to_string());
    };
    let text = "w7 w8 w9";
    let [mean, cls] = ["mean", "cls"].map(|pooling| embedding(&dir, text, &["--pooling", pooling]));
    assert_eq!(embedding(&dir, text, &[]), mean);

    modules(&MODULES[..3]);
    fail(&["embed", "--model", path(dir.path()), text], 1, "1_OwnPooling/config.json");
    put(&dir, "1_Pooling/config.json", r#"{"pooling_mode_max_tokens": true}"#);
    put(&dir, "1_OwnPooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
    assert_eq!(embedding(&dir, text, &[]), cls);
    assert_eq!(embedding(&dir, text, &["--pooling", "mean"]), mean);
    modules(&MODULES[..2]);
    assert!((embedding(&dir, text, &[]).1 - 1.0).abs() > 0.1, "not normalised");

    for wrong in [
        &["Transformer", "Pooling", "Dense", "Normalize"][..],
        &["Transformer", "Pooling", "Dense"],
        &["Transformer", "Dense"],
        &["Transformer"],
        &[],
    ] {
        modules(wrong);
        fail(
            &["embed", "--model", path(dir.path()), "--pooling", "mean", text],
            1,
            &format!("modules are {}", wrong.join(", ")),
        );
    }
    put(
        &dir,
        "modules.json",
        r#"[{"type": "custom.Transformer"}, {"type": "custom.Pooling", "path": "1_Pooling"}]"#,
    );
    fail(&["embed", "--model", path(dir.path()), text], 1, "modules.json: modules are custom.Transformer");
    put(
        &dir,
        "modules.json",
        r#"[{"type": "sentence_transformers.models.Transformer"}, {"type":
        "sentence_transformers.models.Pooling", "path": "../up"}]"#,
    );
    fail(&["embed", "--model", path(dir.path()), text], 1, "../up");

    std::fs::remove_file(dir.path().join("modules.json")).unwrap();
    for (len, part) in [("1", "max_seq_length is 1"), ("\"4\"", "max_seq_length is \"4\"")] {
        put(&dir, "sentence_bert_config.json", &format!("{{\"max_seq_length\": {len}}}"));
        fail(&["embed", "--model", path(dir.path()), text], 1, part);
    }
}

#[test]
fn embed_does_as_a_keras_task_says() {
    let dir = tiny_bert("keras");
    let text = "w7 w8 w9 w10";
    let [mean, cls, max] =
        ["mean", "cls", "max"].map(|pooling| embedding(&dir, text, &["--pooling", pooling]));
    let short = embedding(&dir, "w7 w8", &[]);
    assert!(mean != cls && mean != max && mean != short && (mean.1 - 1.0).abs() < 1e-6);
    assert_eq!(embedding(&dir, text, &[]), mean);

    let layer = |class: &str, config: Value| serde_json::json!({ "class_name": class, "config": config });
    let preprocessor =
        |len: u32| layer("BertTextEmbedderPreprocessor", serde_json::json!({ "sequence_length": len }));
    let task = |config: Value| put(&dir, "task.json", &layer("BertTextEmbedder", config).to_string());
    task(serde_json::json!({ "pooling_mode": "cls", "normalize": true, "preprocessor": null }));
    assert_eq!(embedding(&dir, text, &[]), cls);
    assert_eq!(embedding(&dir, text, &["--pooling", "max"]), max);
    task(serde_json::json!({ "pooling_mode": "max", "normalize": false }));
    let (values, length) = embedding(&dir, text, &[]);
    assert!((length - 1.0).abs() > 0.1, "not normalised");
    assert!(values.iter().zip(&max.0).all(|(x, unit)| (x / length - unit).abs() < 1e-6));

    // Two words and the special tokens around them; the task's own preprocessor comes first.
    put(&dir, "preprocessor.json", &preprocessor(4).to_string());
    task(serde_json::json!({}));
    assert_eq!(embedding(&dir, text, &[]), short);
    task(serde_json::json!({ "preprocessor": preprocessor(32) }));
    assert_eq!(embedding(&dir, text, &[]), mean);

    for (config, part) in [
        (serde_json::json!({ "pooling_mode": "last" }), "pooling_mode is \"last\""),
        (serde_json::json!({ "normalize": 1 }), "normalize is 1"),
        (
            serde_json::json!({ "preprocessor": { "config": { "sequence_length": -1 } } }),
            "sequence_length is -1",
        ),
    ] {
        task(config);
        fail(&["embed", "--model", path(dir.path()), text], 1, part);
    }

    // Files of other classes leave the defaults, and so do another library's.
    put(
        &dir,
        "task.json",
        &layer("BertTextClassifier", serde_json::json!({ "pooling_mode": "cls" })).to_string(),
    );
    put(
        &dir,
        "preprocessor.json",
        r#"{"class_name": "BertTextClassifierPreprocessor", "config": {"sequence_length": 4}}"#,
    );
    put(&dir, "1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
    assert_eq!(embedding(&dir, text, &[]), mean);
}

#[test]
fn run_computes_what_the_goldens_say() {
    check_run(
        ("bert", "bert_gelu"),
        &[("token_ids", "input_ids"), ("segment_ids", "token_type_ids"), ("padding_mask", "attention_mask")],
        &["sequence_output", "pooled_output", "mlm_logits", "nsp_logits", "hs.0", "hs.1", "hs.2"],
    );
    let names = [("token_ids", "input_ids"), ("padding_mask", "attention_mask")];
    for model in ["opt_pre", "opt_350m_style"] {
        check_run(("opt", model), &names, &["sequence_output", "logits", "hs.0", "hs.1", "hs.2"]);
    }
    for model in ["falcon_rw", "falcon_40b_style"] {
        check_run(("falcon", model), &names, &["sequence_output", "logits", "hs.0", "hs.1", "hs.2"]);
    }
    let names = [
        ("encoder_token_ids", "encoder_input_ids"),
        ("encoder_padding_mask", "encoder_attention_mask"),
        ("decoder_token_ids", "decoder_input_ids"),
        ("decoder_padding_mask", "decoder_attention_mask"),
    ];
    let outputs = ["encoder_sequence_output", "decoder_sequence_output", "logits", "enc_hs.1", "dec_hs.2"];
    check_run(("bart", "bart_sym"), &names, &outputs);
    check_run(("t5", "t5_gated_untied"), &names, &outputs);
}

/// A masked language model as transformers saves it: one head, and no pooler.
#[test]
fn run_gives_the_logits_that_the_file_has_heads_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    std::fs::copy(fixture("bert_gelu/hf/config.json"), file("config.json")).unwrap();
    let bytes = std::fs::read(fixture("bert_gelu/hf/model.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    let kept = |name: &str| !name.contains("pooler") && !name.contains("seq_relationship");
    let weights = weights.iter().filter(|(name, _)| kept(name));
    safetensors::serialize_to_file(weights, None, &file("model.safetensors")).unwrap();
    let ids: Vec<u8> = [5i32, 6, 7].iter().flat_map(|id| id.to_le_bytes()).collect();
    let ids = TensorView::new(Dtype::I32, vec![1, 3], &ids).unwrap();
    safetensors::serialize_to_file([("token_ids", ids)], None, &file("in")).unwrap();
    let (input, output) = (file("in"), file("out"));
    let (from, to) = (path(&input), path(&output));
    succeed(&["run", "--model", path(dir.path()), "--input", from, "--output", to, "--logits"]);
    let bytes = std::fs::read(&output).unwrap();
    let outputs = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = outputs.names();
    names.sort_unstable();
    assert_eq!(names, ["mlm_logits", "sequence_output"]);
}

/// The runs of a model's golden file through `generate --prompt-ids`, with the flags that its arguments are.
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
                // The preset may force one.
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
fn generate_gives_the_ids_and_scores_of_the_goldens() {
    check_generate("opt_pre", true);
    check_generate("falcon_7b_style", true);
    check_generate("bart_asym_scaled", false);
    check_generate("t5_relu_tied", false);
}

/// A model that writes, with a tokenizer whose words are w0 to w96.
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
fn generate_refuses_what_it_cannot_do() {
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

/// Runs a fixture, with inputs by our names and the goldens', and compares what comes out.
fn check_run((family, model): (&str, &str), names: &[(&str, &str)], tensors: &[&str]) {
    let goldens = Goldens::read(format!("{model}/goldens.safetensors"));
    let limits = Limits::read();
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.safetensors"), dir.path().join("out.safetensors"));
    for wide in [false, true] {
        let inputs = names.iter().map(|(ours, theirs)| {
            let array = goldens.input("rpad_s13", theirs).unwrap();
            let bytes: Vec<u8> = if wide {
                array.data.iter().flat_map(|x| i64::from(*x).to_le_bytes()).collect()
            } else {
                array.data.iter().flat_map(|x| x.to_le_bytes()).collect()
            };
            (ours, array.shape.clone(), bytes)
        });
        let dtype = if wide { Dtype::I64 } else { Dtype::I32 };
        let inputs: Vec<_> = inputs.collect();
        let views = inputs
            .iter()
            .map(|(name, shape, bytes)| (*name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &input).unwrap();
        let model = fixture(format!("{model}/hf"));
        let (from, to) = (path(&input), path(&output));
        let mut arguments = vec!["run", "--model", path(&model), "--input", from, "--output", to];
        assert_eq!(succeed(&arguments), "");
        arguments.extend(["--logits", "--layers", "--json"]);
        let report = json(&arguments);
        assert_eq!(report["output"], to);
        let written = std::fs::read(&output).unwrap();
        let written = SafeTensors::deserialize(&written).unwrap();
        let described = report["tensors"].as_array().unwrap();
        assert_eq!(described.len(), written.len());
        for tensor in described {
            let view = written.tensor(tensor["name"].as_str().unwrap()).unwrap();
            assert!(
                tensor["shape"] == serde_json::json!(view.shape()) && tensor["dtype"] == "F32",
                "{tensor}"
            );
        }
    }
    let bytes = std::fs::read(&output).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for tensor in tensors {
        let name = tensor.replace("hs.", "hidden_states.");
        let name = name.replace("enc_", "encoder_").replace("dec_", "decoder_");
        let view = file.tensor(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = goldens.expected("rpad_s13", tensor);
        assert_eq!((view.dtype(), view.shape()), (Dtype::F32, expected.shape.as_slice()), "{name}");
        let got: Vec<f32> =
            view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let kind = common::kind(family, tensor);
        let (pooled, valid) = (kind == "pooled", &goldens.valid("rpad_s13", kind).data);
        let error = relative_error(&got, expected, valid);
        assert!(error <= limits.float32(family, tensor), "{model} {name}: {error:e}");
        if !pooled {
            let padding =
                got.chunks(*expected.shape.last().unwrap()).zip(valid).filter(|(_, valid)| **valid == 0);
            assert!(padding.flat_map(|(row, _)| row).all(|x| *x == 0.0), "{name}: rows of padding are zero");
        }
    }
}

#[test]
fn bad_usage_is_status_2_and_one_line() {
    let tiny = fixture("bert_tanh/hf");
    let tiny = path(&tiny);
    fail(&[], 2, "subcommand");
    fail(&["embed"], 2, "TEXT");
    fail(&["frobnicate"], 2, "frobnicate");
    fail(&["inspect"], 2, "--model");
    for work in ["encode:1", "encode:1,2,x", "encode:1,2,", "encode:1,2,3", "encode:x,1,2"] {
        fail(&["bench", "--model", tiny, "--work", work], 2, work);
    }
    fail(&["bench", "--model", tiny, "--work", "encode:1,2", "--isa", "sse9"], 2, "sse9");
    fail(&["bench", "--model", tiny, "--work", "encode:1,2", "--dtype", "int8"], 2, "int8");
    fail(&["bench", "--model", tiny, "--work", "encode:1,2", "--threads", "0"], 2, "0");
    let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    fail(&["bench", "--model", tiny, "--work", "encode:1,2", "--isa", foreign], 2, "not supported");
    assert!(succeed(&["--help"]).contains("embed"));
}

#[test]
fn failures_are_status_1_and_name_the_thing() {
    let tiny = fixture("bert_tanh/hf");
    let tiny = path(&tiny);
    fail(&["inspect", "--model", "no/such/place"], 1, "no/such/place");
    fail(&["embed", "--model", tiny, "hello"], 1, "tokenizer.json");
    fail(&["bench", "--model", tiny, "--work", "encode:1,41"], 1, "at most 40");
    fail(&["bench", "--model", tiny, "--work", "encode:0,4"], 1, "batch");
    fail(
        &["run", "--model", tiny, "--input", "absent.safetensors", "--output", "x"],
        1,
        "absent.safetensors",
    );
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.safetensors");
    let output = dir.path().join("out.safetensors");
    let run = |name: &str, shape: Vec<usize>, values: &[i32], part: &str| {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::I32, shape, &bytes).unwrap();
        safetensors::serialize_to_file([(name, view)], None, &input).unwrap();
        fail(&["run", "--model", tiny, "--input", path(&input), "--output", path(&output)], 1, part);
        assert!(!output.exists(), "a failure leaves no output");
    };
    run("token_ids", vec![1, 2], &[1, 97], "97");
    run("token_ids", vec![1, 2], &[1, -1], "-1");
    run("token_ids", vec![2], &[1, 1], "token_ids");
    run("token_idz", vec![1, 2], &[1, 1], "token_idz");
}

/// Runs that print, with this for their standard output: the status, and standard error.
#[cfg(unix)]
fn print_to(output: impl Fn() -> Stdio) -> Vec<(Option<i32>, String)> {
    let (tiny, opt) = (fixture("bert_tanh/hf"), fixture("opt_pre/hf"));
    let words = tiny_bert("hf");
    let generate = ["generate", "--model", path(&opt), "--max-new-tokens", "4", "--prompt-ids", "5"];
    [
        &["--help"][..],
        &["inspect", "--model", path(&tiny)],
        &["inspect", "--json", "--model", path(&tiny)],
        &["embed", "--model", path(words.path()), "w5"],
        &["embed", "--json", "--model", path(words.path()), "w5"],
        &generate,
        &[&generate[..], &["--json"]].concat(),
        &[&generate[..], &["--prompt-ids", "6"]].concat(),
    ]
    .iter()
    .map(|arguments| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rachis"));
        command.args(*arguments).env_remove("RACHIS_ISA").stdin(Stdio::null()).stdout(output());
        let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    })
    .collect()
}

#[test]
#[cfg(unix)]
fn a_reader_that_is_gone_ends_it_quietly() {
    for (status, errors) in print_to(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer.into()
    }) {
        assert_eq!((status, errors.as_str()), (Some(0), ""));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_a_failure() {
    for (status, errors) in
        print_to(|| std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into())
    {
        assert_eq!(status, Some(1), "{errors}");
        assert!(errors.starts_with("error: standard output: ") && errors.lines().count() == 1, "{errors}");
    }
}

/// A tiny BERT with more tensors than it reads.
fn bert_beside(extra: &[(&str, Dtype, &[u8])]) -> tempfile::TempDir {
    let dir = tiny_bert("hf");
    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let extra = extra.iter().map(|(name, dtype, bytes)| {
        let shape = vec![bytes.len() * 8 / dtype.bitsize()];
        (name.to_string(), TensorView::new(*dtype, shape, bytes).unwrap())
    });
    let tensors: Vec<_> = file.tensors().into_iter().chain(extra).collect();
    safetensors::serialize_to_file(tensors, None, &dir.path().join("model.safetensors")).unwrap();
    dir
}

#[test]
fn names_out_of_files_do_not_reach_the_terminal_as_they_are() {
    let name = "\u{1b}]0;title\u{7}\nsecond\tline\u{202e}\u{9b}1m größe 日本 it's";
    let dir = bert_beside(&[(name, Dtype::U8, &[0])]);
    let text = succeed(&["inspect", "--model", path(dir.path())]);
    let shown = r"\u{1b}]0;title\u{7}\nsecond\tline\u{202e}\u{9b}1m größe 日本 it's [1]";
    assert!(text.lines().any(|line| line.ends_with(shown)), "{text}");
    assert!(
        json(&["inspect", "--json", "--model", path(dir.path())])["tensors"].to_string().contains("größe")
    );

    let input = dir.path().join("in.safetensors");
    let view = TensorView::new(Dtype::U8, vec![1], &[0]).unwrap();
    safetensors::serialize_to_file([(name, view)], None, &input).unwrap();
    let (model, input) = (path(dir.path()), path(&input));
    fail(&["run", "--model", model, "--input", input, "--output", "x"], 1, r"\u{1b}]0;title\u{7} second");
}

#[test]
fn verify_finds_what_is_not_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixture("bert_tanh/hf");
    std::fs::copy(source.join("config.json"), dir.path().join("config.json")).unwrap();
    let mut bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    let output = rachis(&["verify", "--json", "--model", path(dir.path())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 values that are not finite"));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["not_finite"].as_array().unwrap().len(), 1);
}

#[test]
fn verify_looks_at_every_type_of_float() {
    let doubles = [1.0, f64::INFINITY, f64::NAN, f64::MAX].map(f64::to_le_bytes).concat();
    let complex = [1.0, f32::NEG_INFINITY].map(f32::to_le_bytes).concat();
    let dir = bert_beside(&[
        ("a.f64", Dtype::F64, &doubles),
        ("b.c64", Dtype::C64, &complex),
        ("c.e5m2", Dtype::F8_E5M2, &[0x00, 0x7b, 0x7c, 0xfd, 0x80]),
        ("d.e4m3", Dtype::F8_E4M3, &[0x00, 0x7e, 0x7f, 0xff, 0x80]),
        ("e.fnuz", Dtype::F8_E4M3FNUZ, &[0x00, 0x7f, 0xff, 0x80]),
        ("f.e8m0", Dtype::F8_E8M0, &[0x00, 0x7f, 0xff]),
        ("g.finite", Dtype::F64, &f64::MIN_POSITIVE.to_le_bytes()),
        ("h.integers", Dtype::U8, &[0x7f, 0x80, 0xff]),
    ]);
    let output = rachis(&["verify", "--json", "--model", path(dir.path())]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found: Vec<_> = report["not_finite"].as_array().unwrap().iter().collect();
    let found: Vec<_> =
        found.iter().map(|bad| (bad["name"].as_str().unwrap(), bad["count"].as_u64().unwrap())).collect();
    assert_eq!(
        found,
        [("a.f64", 2), ("b.c64", 1), ("c.e5m2", 2), ("d.e4m3", 2), ("e.fnuz", 1), ("f.e8m0", 1)]
    );
}
