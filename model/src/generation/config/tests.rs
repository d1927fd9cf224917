use rachis_loader::{Access, Region};
use serde_json::json;

use super::*;
use crate::generation::filters::Filters;
use crate::generation::{
    BeamRule, BeamSearch, Continuations, ContrastiveSearch, EarlyStopping, KerasSampler, Sampler,
};

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
        strategy: BeamSearch::new(4).with_rule(rule).into(),
        num_return_sequences: 2,
        no_repeat_ngram_size: 3,
        forced_bos_token_id: Some(0),
        forced_eos_token_ids: vec![2],
        suppress_tokens: vec![5, 6],
        begin_suppress_tokens: vec![7],
        eos_token_ids: vec![2],
        pad_token_id: Some(1),
        bos_token_id: Some(0),
        decoder_start_token_id: Some(2),
        ..Default::default()
    };
    assert_eq!(found, expected);
    found.validate(3).unwrap();
    assert_eq!(message(found.validate(2)), "config: forced_eos_token_id is 2, expected less than 2");
}

#[test]
fn do_sample_gives_a_sampler() {
    let strategy = |fields| of(fields).unwrap().strategy;
    let filtered = |filters: Filters, temperature| -> Strategy {
        Sampler { temperature, ..Sampler::filtered(filters) }.into()
    };
    assert_eq!(strategy(r#", "do_sample": true"#), filtered(Filters::new().with_top_k(50), 1.0));
    assert_eq!(
        strategy(r#", "do_sample": true, "top_k": 0, "top_p": 0.5, "temperature": 0.75, "num_beams": 1"#),
        filtered(Filters::new().with_top_p(0.5), 0.75)
    );
    assert_eq!(strategy(r#", "do_sample": false, "top_p": 0.5"#), Sampler::greedy().into());
    // Values at which transformers has no filter.
    assert_eq!(
        strategy(r#", "do_sample": true, "top_k": 0, "top_p": 1.5, "typical_p": 2, "eta_cutoff": 1.0"#),
        filtered(Filters::new(), 1.0)
    );
    let all = Filters {
        top_h: Some(0.4),
        min_p: Some(0.1),
        typical_p: 0.9,
        epsilon_cutoff: 0.01,
        eta_cutoff: 0.02,
        ..Filters::new().with_top_k(7)
    };
    let fields = r#", "do_sample": true, "top_k": 7, "top_h": 0.4, "min_p": 0.1, "typical_p": 0.9,
        "epsilon_cutoff": 0.01, "eta_cutoff": 0.02"#;
    assert_eq!(strategy(fields), filtered(all, 1.0));
}

#[test]
fn modes_of_beam_search() {
    let continuations = |fields: &str| match of(&format!(r#", "num_beams": 4 {fields}"#)).unwrap().strategy {
        Strategy::Beam(search) => search.continuations,
        other => panic!("{other:?}"),
    };
    assert_eq!(continuations(r#", "diversity_penalty": 0.5"#), Continuations::Best, "without groups");
    assert_eq!(
        continuations(r#", "diversity_penalty": 0.5, "num_beam_groups": 2"#),
        Continuations::Diverse { groups: 2, penalty: 0.5 }
    );
    let filters = Filters::new().with_top_k(50).with_top_p(0.5);
    assert_eq!(
        continuations(r#", "do_sample": true, "top_p": 0.5, "temperature": 2.0"#),
        Continuations::Drawn { temperature: 2.0, filters, seed: 0 }
    );
    for (fields, name) in [
        (r#""num_beam_groups": 2, "diversity_penalty": 1.0, "do_sample": true"#, "num_beam_groups"),
        (r#""num_beam_groups": 3, "diversity_penalty": 1.0"#, "num_beam_groups"),
        (r#""num_beam_groups": 2"#, "diversity_penalty"),
    ] {
        let message = message(of(&format!(r#", "num_beams": 4, {fields}"#)));
        assert!(message.contains(name), "{fields}: {message}");
    }
}

#[test]
fn penalty_alpha_gives_a_contrastive_search() {
    let strategy = |fields| of(fields).unwrap().strategy;
    assert_eq!(strategy(r#", "penalty_alpha": 0.6, "top_k": 4"#), ContrastiveSearch::new(4, 0.6).into());
    assert_eq!(strategy(r#", "penalty_alpha": 0.6"#), ContrastiveSearch::new(50, 0.6).into());
    assert_eq!(strategy(r#", "penalty_alpha": 0.6, "top_k": 1"#), Sampler::greedy().into());
    assert_eq!(strategy(r#", "penalty_alpha": 0.0, "top_k": 4"#), Sampler::greedy().into());
    assert_eq!(strategy(r#", "penalty_alpha": 0.6, "num_beams": 2"#), BeamSearch::new(2).into());
}

#[test]
fn processors_are_read() {
    let found = of(r#", "bad_words_ids": [[1], [2, 3]], "sequence_bias": [[[4], -10.0], [[5, 6], 2]],
        "encoder_repetition_penalty": 1.5, "encoder_no_repeat_ngram_size": 2, "eos_token_id": 2,
        "exponential_decay_length_penalty": [3, 1.6], "renormalize_logits": true,
        "remove_invalid_values": true, "forced_eos_token_id": [2, 3], "stop_strings": "end""#)
    .unwrap();
    let expected = GenerationConfig {
        bad_words_ids: vec![vec![1], vec![2, 3]],
        sequence_bias: vec![(vec![4], -10.0), (vec![5, 6], 2.0)],
        encoder_repetition_penalty: 1.5,
        encoder_no_repeat_ngram_size: 2,
        eos_token_ids: vec![2],
        exponential_decay_length_penalty: Some((3, 1.6)),
        renormalize_logits: true,
        remove_invalid_values: true,
        forced_eos_token_ids: vec![2, 3],
        stop_strings: vec!["end".to_owned()],
        ..GenerationConfig::default()
    };
    assert_eq!(found, expected);
    for (size, fits) in [(7, true), (6, false)] {
        assert_eq!(found.validate(size).is_ok(), fits);
    }
}

#[test]
fn ids_that_are_only_compared_are_not_judged() {
    let found = of(r#", "pad_token_id": -1, "bos_token_id": -1, "eos_token_id": [-1, 4294967296, 7],
        "suppress_tokens": [-1, 99], "begin_suppress_tokens": -1"#)
    .unwrap();
    let expected =
        GenerationConfig { eos_token_ids: vec![7], suppress_tokens: vec![99], ..GenerationConfig::default() };
    assert_eq!(found, expected);
    found.validate(5).unwrap();
}

#[test]
fn values_without_effect_are_not_judged() {
    let found = of(r#", "max_length": 0, "max_new_tokens": 4, "min_length": -1, "no_repeat_ngram_size": -1,
        "encoder_no_repeat_ngram_size": -2, "top_p": "x", "temperature": 0, "length_penalty": "x""#)
    .unwrap();
    let expected =
        GenerationConfig { max_length: Some(0), max_new_tokens: Some(4), ..GenerationConfig::default() };
    assert_eq!(found, expected);
    let most_probable = of(r#", "do_sample": true, "top_k": 1000000000, "top_p": 0"#).unwrap().strategy;
    assert_eq!(most_probable, Sampler::filtered(Filters::new().with_top_p(0.0)).into());
}

#[test]
fn fields_that_are_not_implemented_are_named() {
    for (name, value) in [
        ("watermarking_config", json!({ "bias": 2.5 })),
        ("guidance_scale", json!(1.5)),
        ("constraints", json!([{}])),
        ("force_words_ids", json!([[5]])),
        ("dola_layers", json!("high")),
        ("token_healing", json!(true)),
        ("max_time", json!(2.0)),
        ("cache_implementation", json!("quantized")),
    ] {
        let message = message(of(&format!(r#", "{name}": {value}"#)));
        assert!(message.starts_with(&format!("config: {name} is ")), "{message}");
        let preset = preset(&format!(r#"{{"model_type": "bart", "{name}": {value}}}"#));
        let fields = GenerationFields::from_preset(&preset).unwrap();
        fields.with(name, json!(null)).config().expect("the caller's value counts");
    }
    let neutral = r#", "guidance_scale": 1, "constraints": null, "force_words_ids": [], "token_healing": false,
        "cache_implementation": "static", "use_cache": false, "low_memory": true, "output_logits": true,
        "prompt_lookup_num_tokens": 3, "prefill_chunk_size": 7, "num_beam_groups": 2, "a_new_field": [1]"#;
    assert_eq!(of(neutral).unwrap(), GenerationConfig::default());
}

#[test]
fn known_fields() {
    for name in ["num_beams", "watermarking_config", "use_cache", "seed", "sampler"] {
        assert!(GenerationFields::is_known(name), "{name}");
    }
    assert!(!GenerationFields::is_known("num_beam") && !GenerationFields::is_known("vocab_size"));
}

#[test]
fn a_callers_value_comes_before_the_files() {
    let preset = preset(
        r#"{"model_type": "bart", "do_sample": true, "num_beams": 4, "top_k": 1, "eos_token_id": 2,
            "num_beam_groups": 9, "max_length": 18}"#,
    );
    let fields = GenerationFields::from_preset(&preset).unwrap();
    assert!(message(fields.config()).contains("num_beam_groups"));
    let one = fields.clone().with("num_beams", 1);
    let sampler = Sampler::filtered(Filters::new().with_top_k(1));
    assert_eq!(one.config().unwrap().strategy, sampler.into());
    let seeded = one.clone().with("seed", 3).with("top_k", json!(null)).config().unwrap();
    assert_eq!(seeded.strategy, Sampler::filtered(Filters::new()).with_seed(3).into());
    assert_eq!(one.clone().with("eos_token_id", json!(null)).config().unwrap().eos_token_ids, [0u32; 0]);
    assert_eq!(one.clone().with_default("eos_token_id", 5).config().unwrap().eos_token_ids, [2]);
    assert_eq!(one.clone().with_default("bos_token_id", 5).config().unwrap().bos_token_id, Some(5));
    assert!(message(one.with("max_length", "long").config()).contains("\"request\": field \"max_length\""));
}

#[test]
fn tasks_have_fields_and_a_prefix() {
    let preset = preset(
        r#"{"model_type": "t5", "prefix": "all: ", "num_beams": 4, "task_specific_params": {
            "summarization": {"num_beams": 2, "prefix": "summarize: ", "max_length": 14}, "odd": 7,
            "worse": {"prefix": 7}}}"#,
    );
    let fields = GenerationFields::from_preset(&preset).unwrap();
    assert_eq!(fields.prefix(), Some("all: "));
    let summarization = fields.clone().with_task("summarization").unwrap();
    assert_eq!(summarization.prefix(), Some("summarize: "));
    let found = summarization.config().unwrap();
    assert_eq!((found.max_length, found.strategy), (Some(14), BeamSearch::new(2).into()));
    assert_eq!(summarization.with("num_beams", 3).config().unwrap().strategy, BeamSearch::new(3).into());
    let plain = fields.clone().with_task("translation_en_to_de").unwrap();
    assert_eq!((plain.prefix(), plain.config().unwrap().max_length), (Some("all: "), None));
    for (task, part) in [("odd", "task_specific_params"), ("worse", "prefix"), ("sumarization", "task is")] {
        assert!(message(fields.clone().with_task(task)).contains(part), "{task}");
    }
}

#[test]
fn malformed_fields_are_named() {
    for (fields, name) in [
        (r#""eos_token_id": [2, "x"]"#, "eos_token_id"),
        (r#""eos_token_id": 2.5"#, "eos_token_id"),
        (r#""pad_token_id": "x""#, "pad_token_id"),
        (r#""forced_eos_token_id": -1"#, "forced_eos_token_id"),
        (r#""forced_bos_token_id": 4294967296"#, "forced_bos_token_id"),
        (r#""suppress_tokens": {}"#, "suppress_tokens"),
        (r#""bad_words_ids": [3]"#, "bad_words_ids"),
        (r#""bad_words_ids": [[]]"#, "bad_words_ids"),
        (r#""bad_words_ids": [[-3]]"#, "bad_words_ids"),
        (r#""sequence_bias": {"(3,)": 1.0}"#, "sequence_bias"),
        (r#""sequence_bias": [[[3], 1.0, 2]]"#, "sequence_bias"),
        (r#""sequence_bias": [[[3], 1e300]]"#, "sequence_bias"),
        (r#""exponential_decay_length_penalty": 3"#, "exponential_decay_length_penalty"),
        (r#""exponential_decay_length_penalty": [3, 2.0]"#, "exponential_decay_length_penalty"),
        (r#""encoder_repetition_penalty": 0"#, "encoder_repetition_penalty"),
        (r#""renormalize_logits": 1"#, "renormalize_logits"),
        (r#""stop_strings": ["a", ""]"#, "stop_strings"),
        (r#""penalty_alpha": 1.5"#, "alpha"),
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
        (r#""do_sample": true, "top_p": -0.1"#, "top_p"),
        (r#""do_sample": true, "typical_p": 0"#, "typical_p"),
        (r#""max_new_tokens": -1"#, "max_new_tokens"),
    ] {
        let message = message(of(&format!(", {fields}")));
        assert!(message.contains(name), "{fields}: {message}");
    }
}

#[test]
fn token_ids_are_less_than_the_vocabulary_size() {
    let default = GenerationConfig::default;
    for (config, name) in [
        (GenerationConfig { forced_eos_token_ids: vec![1, u32::MAX], ..default() }, "forced_eos_token_id"),
        (GenerationConfig { forced_bos_token_id: Some(9), ..default() }, "forced_bos_token_id"),
        (GenerationConfig { bad_words_ids: vec![vec![1, 9]], ..default() }, "bad_words_ids"),
        (GenerationConfig { sequence_bias: vec![(vec![9], 1.0)], ..default() }, "sequence_bias"),
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

#[test]
fn samplers_of_keras_hub_are_chosen_by_name_or_by_their_arguments() {
    let preset = Preset::open(rachis_testkit::goldens::fixture("opt_pre/keras"), Access::Map).unwrap();
    let fields = GenerationFields::from_preset(&preset).unwrap();
    let strategy = |more: serde_json::Value| {
        let mut fields = fields.clone();
        more.as_object().unwrap().iter().for_each(|(name, value)| fields.set(name, value.clone()));
        fields.config().unwrap().strategy
    };
    for sampler in KerasSampler::ALL {
        assert_eq!(strategy(json!({ "sampler": sampler.name() })), sampler.into());
    }
    assert_eq!(strategy(json!({ "do_sample": false })), Sampler::greedy().into());
    assert_eq!(strategy(json!({ "top_k": 3, "seed": 4 })), Sampler::top_k(3).with_seed(4).into());
    assert_eq!(strategy(json!({ "top_p": 0.25 })), Sampler::top_p(0.25).into());
    assert_eq!(strategy(json!({ "num_beams": 3 })), BeamSearch::keras(3).into());
    assert_eq!(
        strategy(json!({ "num_beams": 1, "temperature": 2.0 })),
        Sampler::top_k(5).with_temperature(2.0).into()
    );
    let contrastive = json!({ "sampler": "contrastive", "top_k": 2, "penalty_alpha": 0.25 });
    assert_eq!(strategy(contrastive), ContrastiveSearch::new(2, 0.25).into());
    assert!(message(fields.clone().with("sampler", "speculative").config()).contains("speculative"));
    let stop = |value: serde_json::Value| {
        let fields = fields.clone().with_default("eos_token_id", 2).with("stop_token_ids", value);
        fields.config().unwrap().eos_token_ids
    };
    assert_eq!((stop(json!("auto")), stop(json!([3, 4])), stop(json!(null))), (vec![2], vec![3, 4], vec![]));
}
