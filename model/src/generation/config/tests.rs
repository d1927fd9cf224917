use rachis_loader::{Access, Region};

use super::*;
use crate::generation::KerasSampler;

/// A safetensors file without tensors.
const NO_TENSORS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

/// A preset with this `config.json`.
fn preset(config: &str) -> Preset {
    Preset::from_bytes(config.as_bytes(), Region::from_static("weights", NO_TENSORS)).unwrap()
}

/// The configuration of a `config.json` with these fields.
fn of(fields: &str) -> Result<GenerationConfig> {
    GenerationConfig::from_preset(&preset(&format!(r#"{{"model_type": "bart" {fields}}}"#)))
}

fn message<T>(result: Result<T>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn no_fields_give_the_default() {
    assert_eq!(of("").unwrap(), GenerationConfig::default());
    assert_eq!(
        of(r#", "eos_token_id": null, "task_specific_params": {"x": {"num_beams": 9}}"#).unwrap(),
        of("").unwrap()
    );
}

#[test]
fn fields_of_config_json_are_read() {
    let found =
        of(r#", "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0, "decoder_start_token_id": 2,
        "forced_eos_token_id": [2], "forced_bos_token_id": 0, "num_beams": 4, "length_penalty": 2,
        "early_stopping": true, "min_length": 56, "max_length": 142, "no_repeat_ngram_size": 3,
        "suppress_tokens": [5, 6], "begin_suppress_tokens": 7, "num_return_sequences": 2"#)
        .unwrap();
    let rule = BeamRule::HuggingFace { length_penalty: 2.0, early_stopping: EarlyStopping::True };
    let expected = GenerationConfig {
        max_length: Some(142),
        min_length: 56,
        strategy: BeamSearch { num_beams: 4, rule }.into(),
        num_return_sequences: 2,
        no_repeat_ngram_size: 3,
        forced_bos_token_id: Some(0),
        forced_eos_token_id: Some(2),
        suppress_tokens: vec![5, 6],
        begin_suppress_tokens: vec![7],
        eos_token_ids: vec![2],
        pad_token_id: Some(1),
        bos_token_id: Some(0),
        decoder_start_token_id: Some(2),
        ..Default::default()
    };
    assert_eq!(found, expected);
    found.validate(8).unwrap();
    assert_eq!(message(found.validate(7)), "config: begin_suppress_tokens is 7, expected less than 7");
}

#[test]
fn do_sample_gives_a_sampler() {
    let sampler = |fields| of(fields).unwrap().strategy;
    let filtered = |top_k, top_p, temperature| -> Strategy {
        Sampler { temperature, ..Sampler::filtered(top_k, top_p) }.into()
    };
    assert_eq!(sampler(r#", "do_sample": true"#), filtered(Some(50), 1.0, 1.0));
    assert_eq!(
        sampler(r#", "do_sample": true, "top_k": 0, "top_p": 0.5, "temperature": 0.75, "num_beams": 1"#),
        filtered(None, 0.5, 0.75)
    );
    assert_eq!(sampler(r#", "do_sample": false, "top_p": 0.5"#), Sampler::greedy().into());
    let message = message(of(r#", "do_sample": true, "num_beams": 3"#));
    assert_eq!(message, "config: num_beams is 3, expected 1 with do_sample: sampled beams are not supported");
}

#[test]
fn malformed_fields_are_named() {
    for (fields, name) in [
        (r#""eos_token_id": [2, "x"]"#, "eos_token_id"),
        (r#""eos_token_id": -1"#, "eos_token_id"),
        (r#""eos_token_id": 4294967296"#, "eos_token_id"),
        (r#""pad_token_id": [1]"#, "pad_token_id"),
        (r#""forced_eos_token_id": [1, 2]"#, "forced_eos_token_id"),
        (r#""suppress_tokens": {}"#, "suppress_tokens"),
        (r#""early_stopping": "sometimes""#, "early_stopping"),
        (r#""do_sample": 1"#, "do_sample"),
        (r#""num_beams": 0"#, "num_beams"),
        (r#""num_beams": 1e9"#, "num_beams"),
        (r#""num_beams": 1000000000"#, "num_beams"),
        (r#""num_beams": 2, "length_penalty": 1e300"#, "length_penalty"),
        (r#""max_length": 0"#, "max_length"),
        (r#""max_new_tokens": 0"#, "max_new_tokens"),
        (r#""num_return_sequences": 2"#, "num_return_sequences"),
        (r#""repetition_penalty": 0"#, "repetition_penalty"),
        (r#""do_sample": true, "temperature": 0"#, "temperature"),
        (r#""do_sample": true, "top_p": 0"#, "top_p"),
    ] {
        let message = message(of(&format!(", {fields}")));
        assert!(message.contains(name), "{fields}: {message}");
    }
}

#[test]
fn token_ids_are_less_than_the_vocabulary_size() {
    let default = GenerationConfig::default;
    for (config, name) in [
        (GenerationConfig { pad_token_id: Some(9), ..default() }, "pad_token_id"),
        (GenerationConfig { eos_token_ids: vec![1, 9], ..default() }, "eos_token_id"),
        (GenerationConfig { forced_eos_token_id: Some(u32::MAX), ..default() }, "forced_eos_token_id"),
        (GenerationConfig { decoder_start_token_id: Some(9), ..default() }, "decoder_start_token_id"),
        (GenerationConfig { eos_token_ids: vec![0; 1 << 10], ..default() }, "number of end tokens"),
    ] {
        assert!(message(config.validate(9)).starts_with(&format!("config: {name} is ")), "{name}");
    }
}

#[test]
fn generation_config_json_takes_precedence() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(dir.path().join(name), text).unwrap();
    write("config.json", br#"{"model_type": "opt", "eos_token_id": 2, "num_beams": 4}"#);
    write("model.safetensors", NO_TENSORS);
    let read = || GenerationConfig::from_preset(&Preset::open(dir.path(), Access::Read).unwrap());
    assert_eq!(read().unwrap().eos_token_ids, [2]);
    write("generation_config.json", br#"{"eos_token_id": [3, 4], "max_new_tokens": 7, "new_field": {}}"#);
    let expected =
        GenerationConfig { eos_token_ids: vec![3, 4], max_new_tokens: Some(7), ..Default::default() };
    assert_eq!(read().unwrap(), expected, "config.json is ignored");
    for text in ["[]", "{", r#"{"eos_token_id": true}"#] {
        write("generation_config.json", text.as_bytes());
        assert!(message(read()).contains("generation_config.json"), "{text}");
    }
}

#[test]
fn a_keras_preset_has_keras_hubs_default_sampler() {
    let preset = Preset::open(rachis_testkit::goldens::fixture("opt_pre/keras"), Access::Map).unwrap();
    let config = GenerationConfig::from_preset(&preset).unwrap();
    assert_eq!(config.strategy, Strategy::from(KerasSampler::TopK));
    assert_eq!((config.max_length, config.eos_token_ids.len()), (Some(1024), 0));
}

#[test]
fn length_limit_follows_max_new_tokens_and_max_length() {
    let default = GenerationConfig::default();
    assert_eq!(default.length_limit(7, None).unwrap(), 27);
    assert_eq!(default.length_limit(7, Some(10)).unwrap(), 10);
    assert!(message(default.length_limit(10, Some(10))).contains("length of the prompt is 10"));
    let all = GenerationConfig { max_length: Some(30), ..default };
    assert_eq!(all.length_limit(29, Some(29)).unwrap(), 30, "the last token has no position");
    assert!(message(all.length_limit(2, Some(28))).contains("maximum length is 30, expected at most 29"));
    assert!(all.length_limit(30, None).is_err());
    let new = GenerationConfig { max_new_tokens: Some(5), ..all };
    assert_eq!(new.length_limit(40, None).unwrap(), 45);
    assert!(new.length_limit(usize::MAX, None).is_err());
}
