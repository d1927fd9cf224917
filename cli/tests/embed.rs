//! `embed`: the real MiniLM, and the settings of pooling in a directory.

#[path = "common/program.rs"]
mod program;

use std::io::Write;
use std::process::{Command, Stdio};

use rachis::kernels::{Ctx, Level};
use rachis::{Backbone, Model};
use rachis_testkit::for_each_level;
use rachis_testkit::goldens::{Goldens, fixture};
use serde_json::Value;

use program::{fail, json, minilm, path, put, succeed, tiny_bert};

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
fn minilm_embeddings_equal_the_goldens_at_every_level() {
    let (model, texts) = (minilm(), texts());
    for_each_level(Level::supported(), |level| {
        let mut arguments = vec!["embed", "--json", "--model", path(&model), "--isa", level.name()];
        arguments.extend(texts.iter().map(String::as_str));
        let worst = difference(&json(&arguments));
        assert!(worst <= 2e-6, "{level}: {worst:e}");
    });
}

#[test]
fn minilm_from_vocab_txt_and_standard_input() {
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
fn minilm_prints_a_table_of_similarities() {
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
        let workspace = bert.plan(&Ctx::detect(), 1, 128).unwrap().bytes();
        let limit = (mapped as f64 + workspace as f64) / 1048576.0 + 20.0;
        assert!(bench["rss_mib"].as_f64().unwrap() <= limit, "{} MiB of {limit}", bench["rss_mib"]);
    }
}

/// The embedding of a text, and its Euclidean norm.
fn embedding(dir: &tempfile::TempDir, text: &str, more: &[&str]) -> (Vec<f64>, f64) {
    let report = json(&[&["embed", "--json", "--model", path(dir.path()), text], more].concat());
    let values: Vec<f64> =
        report["embeddings"][0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    (values, length)
}

#[test]
fn embed_follows_modules_json() {
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

    for unsupported in [
        &["Transformer", "Pooling", "Dense", "Normalize"][..],
        &["Transformer", "Pooling", "Dense"],
        &["Transformer", "Dense"],
        &["Transformer"],
        &[],
    ] {
        modules(unsupported);
        fail(
            &["embed", "--model", path(dir.path()), "--pooling", "mean", text],
            1,
            &format!("modules are {}", unsupported.join(", ")),
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
fn embed_follows_a_keras_task() {
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

    // 4 tokens are two words and two special tokens. A preprocessor in the task takes precedence over the file.
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

    // Files of other classes or of the other library do not change the defaults.
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
