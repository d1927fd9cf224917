//! `embed`: the real MiniLM, the settings of a directory, requests, and files of vectors.

#[path = "common/program.rs"]
mod program;

use std::io::Write;
use std::process::{Command, Stdio};

use rachis::kernels::{Ctx, Level};
use rachis::{Backbone, Model};
use rachis_testkit::for_each_level;
use rachis_testkit::goldens::{Goldens, fixture};
use serde_json::Value;

use program::{answers, fail, json, minilm, path, put, succeed, tiny_bert};

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
        .args(["embed", "--json", "--normalize", "--threads", "2", "--model", path(dir.path()), "-"])
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
    const MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];
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
    let [mean, cls] =
        ["mean", "cls"].map(|pooling| embedding(&dir, text, &["--normalize", "--pooling", pooling]));
    assert_eq!(embedding(&dir, text, &["--normalize"]), mean);
    assert!((embedding(&dir, text, &[]).1 - 1.0).abs() > 0.1, "not normalised without modules");

    modules(&MODULES);
    fail(&["embed", "--model", path(dir.path()), text], 1, "1_OwnPooling/config.json");
    put(&dir, "1_Pooling/config.json", r#"{"pooling_mode_max_tokens": true}"#);
    put(&dir, "1_OwnPooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
    assert_eq!(embedding(&dir, text, &[]), cls);
    assert_eq!(embedding(&dir, text, &["--pooling", "mean"]), mean);
    modules(&MODULES[..2]);
    assert!((embedding(&dir, text, &[]).1 - 1.0).abs() > 0.1, "not normalised");
    put(&dir, "modules.json", r#"[{"type": "custom.Transformer", "path": ""}]"#);
    fail(&["embed", "--model", path(dir.path()), text], 1, "module \"custom.Transformer\"");
}

/// Every call of the golden directories is a request as it stands, once its numbers of texts are texts.
#[test]
fn requests_are_answered_with_the_vectors_of_sentence_transformers() {
    let read = |file: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(fixture(file)).unwrap()).unwrap()
    };
    let all = read("text/texts.json");
    let mut compared = 0;
    for name in ["prompts_default", "prompts_excluded", "matryoshka", "chain", "pool_mean_max"] {
        let goldens = read(&format!("text/embed/{name}/goldens.json"));
        let tensors = Goldens::read(format!("text/embed/{name}/goldens.safetensors"));
        let calls = goldens["calls"].as_array().unwrap();
        let request = |call: &Value| {
            let mut request = call["request"].clone();
            let texts = request["texts"].as_array().unwrap().iter();
            let texts: Vec<Value> =
                texts.map(|at| all["texts"][at.as_u64().unwrap() as usize].clone()).collect();
            request["texts"] = texts.into();
            let fields = request.as_object_mut().unwrap();
            fields.remove("by");
            if let Some(ranges) = call["tensors"]["ranges"].as_str() {
                let rows: Vec<Vec<f64>> = tensors.float(ranges).rows().map(<[f64]>::to_vec).collect();
                fields.insert("ranges".to_owned(), serde_json::json!(rows));
            }
            request
        };
        // Calibration by other vectors is not a request.
        let calls: Vec<&Value> = calls.iter().filter(|call| call["request"]["by"] != "calibration").collect();
        let requests: Vec<Value> = calls.iter().map(|call| request(call)).collect();
        let (answers, status) = answers("embed", path(&fixture(format!("text/embed/{name}"))), &requests);
        assert_eq!((answers.len(), status), (calls.len(), 0));
        for (call, answer) in calls.iter().zip(&answers) {
            let rows = answer["embeddings"].as_array().unwrap_or_else(|| panic!("{name}: {answer}"));
            let got = rows.iter().flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap());
            let got: Vec<f64> = got.collect();
            if let Some(quantized) = call["tensors"]["quantized"].as_str() {
                let expected = &tensors.integer(quantized).data;
                let equal = got.iter().zip(expected).filter(|(got, x)| **got == f64::from(**x)).count();
                assert!(got.len() == expected.len() && equal * 100 > got.len() * 95, "{name}: {equal}");
                continue;
            }
            let expected = tensors.float(call["tensors"]["vectors"].as_str().unwrap());
            assert_eq!(got.len(), expected.data.len(), "{name}");
            let worst = got.iter().zip(&expected.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst <= 5e-5, "{name}: {worst:e}");
            compared += 1;
        }
    }
    assert_eq!(compared, 20);
}

#[test]
fn wrong_requests_are_errors_in_their_line() {
    let model = fixture("text/embed/prompts");
    let wrong = [
        (r#"{"text": "a", "texts": ["b"]}"#, "text and texts"),
        ("{}", "texts is missing"),
        (r#"{"texts": "a"}"#, "texts: "),
        (r#"{"texts": [1]}"#, "texts: "),
        (r#"{"text": "a", "prompt_name": "nothing"}"#, "prompt_name is \"nothing\""),
        (r#"{"text": "a", "method": "encode_all"}"#, "method is \"encode_all\""),
        (r#"{"text": "a", "truncate_dim": 0}"#, "truncate_dim is 0"),
        (r#"{"text": "a", "truncate_dim": -1}"#, "truncate_dim: "),
        (r#"{"text": "a", "precision": "int4"}"#, "precision is \"int4\""),
        (r#"{"text": "a", "precision": "int8"}"#, "ranges"),
        (r#"{"text": "a", "precision": "int8", "ranges": [[1], [2]]}"#, "dimension of ranges is 1"),
        (r#"{"text": "a", "precision": "int8", "ranges": [[1], [2, 3]]}"#, "number of largest values is 2"),
        (r#"{"text": "a", "normalize": true}"#, "\"normalize\" is unknown"),
        ("[]", "invalid type"),
    ];
    let mut requests: Vec<Value> =
        wrong.iter().map(|(request, _)| serde_json::from_str(request).unwrap()).collect();
    requests.push(serde_json::json!({ "text": "the others go on" }));
    let (answers, status) = answers("embed", path(&model), &requests);
    assert_eq!((answers.len(), status), (wrong.len() + 1, 1));
    for ((request, part), answer) in wrong.iter().zip(&answers) {
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{request}: {answer}"));
        assert!(
            error.contains(part) && error.lines().count() == 1 && error.len() < 400,
            "{request}: {error}"
        );
    }
    assert!(answers[wrong.len()]["embeddings"].is_array());
}

/// The header and the bytes of a file of vectors.
fn vectors(file: &std::path::Path) -> (String, Vec<u8>) {
    let bytes = std::fs::read(file).unwrap();
    let (start, len) = match bytes.starts_with(b"\x93NUMPY\x01\x00") {
        true => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        false => (8, u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize),
    };
    assert_eq!((start + len) % 64, 0, "numbers are aligned");
    (String::from_utf8(bytes[start..start + len].to_vec()).unwrap(), bytes[start + len..].to_vec())
}

#[test]
fn vectors_are_written_to_files() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("text/embed/pool_mean");
    let lines: Vec<String> = (0..5000).map(|i| format!("the gulls sit on pier {i}")).collect();
    let run = |file: &str, more: &[&str]| {
        let place = dir.path().join(file);
        std::fs::write(&place, "an older file").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_rachis"))
            .args([&["embed", "--model", path(&model), "--output", path(&place), "-"], more].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty());
        vectors(&place)
    };
    let texts: Vec<&str> = [0, 4999].map(|i| lines[i].as_str()).to_vec();
    let expected = json(&[&["embed", "--json", "--model", path(&model)][..], &texts].concat());

    let (header, bytes) = run("vectors.npy", &[]);
    assert!(header.contains("'descr': '<f4', 'fortran_order': False, 'shape': (5000, 16), }"), "{header}");
    let floats: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    assert_eq!(floats.len(), 5000 * 16);
    for (row, i) in [0, 4999].iter().enumerate() {
        for (got, expected) in
            floats[i * 16..][..16].iter().zip(expected["embeddings"][row].as_array().unwrap())
        {
            assert_eq!(*got, expected.as_f64().unwrap() as f32);
        }
    }
    let (header, same) = run("vectors.safetensors", &[]);
    let header: Value = serde_json::from_str(&header).unwrap();
    let tensor = &header["embeddings"];
    assert_eq!((&tensor["dtype"], &tensor["shape"]), (&"F32".into(), &serde_json::json!([5000, 16])));
    assert_eq!(tensor["data_offsets"], serde_json::json!([0, 5000 * 16 * 4]));
    assert!(same == bytes);

    let (header, codes) = run("codes.npy", &["--output-precision", "uint8", "--truncate-dim", "12"]);
    assert!(header.contains("'|u1'") && header.contains("(5000, 12)"), "{header}");
    assert!(codes.len() == 5000 * 12 && codes.contains(&0) && codes.contains(&255));
    let (_, signed) = run("codes.npy", &["--output-precision", "int8", "--truncate-dim", "12"]);
    assert!(codes.iter().zip(&signed).all(|(unsigned, signed)| unsigned ^ 0x80 == *signed));
    let (header, bits) = run("bits.safetensors", &["--output-precision", "ubinary"]);
    assert!(header.contains("U8") && header.contains("[5000,2]") && bits.len() == 10_000, "{header}");

    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["bits.safetensors", "codes.npy", "vectors.npy", "vectors.safetensors"]);

    let place = dir.path().join("vectors.txt");
    fail(&["embed", "--model", path(&model), "--output", path(&place), "a"], 2, ".npy or .safetensors");
    let place = dir.path().join("none/vectors.npy");
    fail(&["embed", "--model", path(&model), "--output", path(&place), "a"], 1, "vectors.npy");
    let place = dir.path().join("vectors.npy");
    let one = ["embed", "--model", path(&model), "--output", path(&place), "--output-precision", "int8", "a"];
    fail(&one, 1, "a single vector");
    assert!(vectors(&place).0.contains("(5000, 16)"), "the older file is still there");
}

#[test]
fn tables_are_for_few_texts() {
    let model = fixture("text/embed/pool_mean");
    let texts = vec!["a"; 33];
    let arguments = [&["embed", "--model", path(&model)][..], &texts].concat();
    fail(&arguments, 2, "more than 32 texts: expected --json or --output");
    succeed(&arguments[..arguments.len() - 1]);
    fail(
        &["embed", "--model", path(&model), "--output-precision", "int8", "a"],
        2,
        "--output-precision needs",
    );
    fail(&["embed", "--model", path(&model), "--output-precision", "int4", "a"], 2, "expected float32, int8");
    fail(&["embed", "--model", path(&model), "--prompt-name", "x", "a"], 1, "prompt_name is \"x\"");
    let both = ["embed", "--model", path(&model), "--prompt-name", "x", "--prompt", "y", "a"];
    fail(&both, 2, "--prompt");
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
