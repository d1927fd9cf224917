//! The command line as a process: its output, and its errors.

#[path = "common/program.rs"]
mod program;

use std::process::{Command, Stdio};

use rachis_testkit::goldens::{Goldens, Limits, fixture, kind, relative_error};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

use program::{fail, json, path, rachis, succeed, tiny_bert};

#[test]
fn run_reproduces_the_goldens() {
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

/// A masked language model as transformers saves it has one head and no pooler.
#[test]
fn run_writes_the_logits_of_the_heads_in_the_file() {
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

/// Runs a fixture and compares the outputs `tensors` with the goldens. `names` are pairs of our input name and the
/// golden's.
fn check_run((family, model): (&str, &str), names: &[(&str, &str)], tensors: &[&str]) {
    let goldens = Goldens::read(format!("{model}/goldens.safetensors"));
    let limits = Limits::read();
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.safetensors"), dir.path().join("out.safetensors"));
    for dtype in [Dtype::I32, Dtype::I64] {
        let inputs = names.iter().map(|(ours, theirs)| {
            let array = goldens.input("rpad_s13", theirs).unwrap();
            let bytes: Vec<u8> = if dtype == Dtype::I64 {
                array.data.iter().flat_map(|x| i64::from(*x).to_le_bytes()).collect()
            } else {
                array.data.iter().flat_map(|x| x.to_le_bytes()).collect()
            };
            (ours, array.shape.clone(), bytes)
        });
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
        let kind = kind(family, tensor);
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
fn failures_are_status_1_and_name_the_cause() {
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

/// Runs every subcommand that prints, with `output` as standard output, and returns status and standard error.
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
fn a_closed_pipe_is_not_an_error() {
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
fn a_failed_write_is_an_error() {
    for (status, errors) in
        print_to(|| std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into())
    {
        assert_eq!(status, Some(1), "{errors}");
        assert!(errors.starts_with("error: standard output: ") && errors.lines().count() == 1, "{errors}");
    }
}

/// A tiny BERT whose file also has the tensors `extra`, which it does not read.
fn bert_with(extra: &[(&str, Dtype, &[u8])]) -> tempfile::TempDir {
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
fn control_characters_of_names_are_escaped() {
    let name = "\u{1b}]0;title\u{7}\nsecond\tline\u{202e}\u{9b}1m größe 日本 it's";
    let dir = bert_with(&[(name, Dtype::U8, &[0])]);
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
fn verify_finds_nan() {
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
fn verify_checks_every_float_type() {
    let doubles = [1.0, f64::INFINITY, f64::NAN, f64::MAX].map(f64::to_le_bytes).concat();
    let complex = [1.0, f32::NEG_INFINITY].map(f32::to_le_bytes).concat();
    let dir = bert_with(&[
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
