//! Requests and configurations that do not fit: a typed error that names the part at fault, before any compute.

use rachis::falcon::FalconPositions;
use rachis::kernels::Ctx;
use rachis::loader::{Preset, Region};
use rachis::{
    Backbone, BertBackbone, BertConfig, BertInputs, Error, FalconBackbone, FalconConfig, Model, Session,
    Tokens,
};

fn tiny() -> BertConfig {
    BertConfig {
        vocabulary_size: 10,
        num_layers: 1,
        num_heads: 2,
        hidden_dim: 8,
        intermediate_dim: 16,
        max_sequence_length: 6,
        ..BertConfig::default()
    }
}

fn refused(tokens: Tokens<'_>, segment_ids: Option<&[u32]>, expected: &str) {
    let model = BertBackbone::random(tiny(), 1).unwrap();
    let mut session = Session::new(Ctx::detect());
    let error = model.forward(&mut session, BertInputs { tokens, segment_ids }).unwrap_err();
    assert!(matches!(error, Error::Request(_)), "{error:?}");
    assert_eq!(error.to_string(), expected);
    // The session is as good as before.
    let good = BertInputs { tokens: Tokens::padded(&[1, 2], 1, 2), segment_ids: None };
    assert!(model.forward(&mut session, good).is_ok());
}

#[test]
fn requests() {
    refused(Tokens::padded(&[1, 10], 1, 2), None, "token id of sequence 0 is 10, expected less than 10");
    refused(
        Tokens::padded(&[u32::MAX], 1, 1),
        None,
        "token id of sequence 0 is 4294967295, expected less than 10",
    );
    refused(Tokens::padded(&[1; 7], 1, 7), None, "length of sequence 0 is 7, expected at most 6");
    refused(Tokens::padded(&[], 0, 5), None, "batch is 0, expected at least one sequence");
    refused(Tokens::padded(&[], 2, 0), None, "number of real tokens of sequence 0 is 0, expected at least 1");
    refused(
        Tokens::padded(&[], usize::MAX, 0),
        None,
        "number of real tokens of sequence 0 is 0, expected at least 1",
    );
    refused(Tokens::padded(&[1, 2, 3], 2, 2), None, "length of token_ids is 3, expected 4");
    refused(
        Tokens::padded(&[1], usize::MAX, 2),
        None,
        "length of token_ids is 1, expected 18446744073709551615",
    );
    refused(Tokens::ragged(&[], &[]), None, "batch is 0, expected at least one sequence");
    refused(
        Tokens::ragged(&[1, 2], &[2, 0]),
        None,
        "number of real tokens of sequence 1 is 0, expected at least 1",
    );
    refused(Tokens::ragged(&[1, 2], &[1, 2]), None, "length of token_ids is 2, expected 3");
    refused(
        Tokens::ragged(&[1], &[usize::MAX, 2]),
        None,
        "length of token_ids is 1, expected 18446744073709551615",
    );
    let mask = [1, 1, 0, 0];
    let all_padding = "number of real tokens of sequence 1 is 0, expected at least 1";
    refused(Tokens::with_mask(&[1, 2, 3, 4], 2, 2, &mask), None, all_padding);
    refused(Tokens::with_mask(&[1, 2], 1, 2, &[1]), None, "length of padding_mask is 1, expected 2");
    refused(
        Tokens::with_mask(&[1, 2], 1, 2, &[1, 2]),
        None,
        "padding_mask of sequence 0 is 2, expected 0 or 1",
    );
    refused(Tokens::padded(&[1, 2], 1, 2), Some(&[0]), "length of segment_ids is 1, expected 2");
    refused(Tokens::padded(&[1, 2], 1, 2), Some(&[0, 2]), "segment id is 2, expected less than 2");
}

#[test]
fn ids_of_padding_are_not_looked_at() {
    let model = BertBackbone::random(tiny(), 1).unwrap();
    let mut session = Session::new(Ctx::detect());
    let tokens = Tokens::with_mask(&[1, 999], 1, 2, &[1, 0]);
    let output = model.forward(&mut session, BertInputs { tokens, segment_ids: None }).unwrap();
    let mut padded = [f32::NAN; 16];
    output.sequence_output.write_padded(&mut padded).unwrap();
    assert!(padded[..8].iter().any(|x| *x != 0.0) && padded[8..].iter().all(|x| *x == 0.0));
    assert!(output.sequence_output.write_padded(&mut [0.0; 15]).is_err());
}

#[test]
fn plans_beyond_the_model_are_refused() {
    let model = BertBackbone::random(tiny(), 1).unwrap();
    let ctx = Ctx::detect();
    assert!(model.plan(&ctx, 3, 6).is_ok());
    assert!(model.plan(&ctx, 1, 7).is_err());
    assert!(model.plan(&ctx, usize::MAX, 6).is_err());
    let mut session = Session::new(ctx);
    for seq in [0, 6] {
        let error = session.reserve(&model, usize::MAX, seq).unwrap_err().to_string();
        assert!(error.starts_with("batch is 18446744073709551615"), "{error}");
    }
}

/// A request that there is no memory for, 16 TiB here, is an error and not the end of the process.
#[test]
fn requests_beyond_memory_are_refused() {
    let config = {
        let mut config = tiny();
        config.num_heads = 1;
        config.hidden_dim = 2;
        config.intermediate_dim = 1 << 20;
        config.max_sequence_length = 1 << 22;
        config
    };
    let model = BertBackbone::random(config, 1).unwrap();
    let mut session = Session::new(Ctx::detect());
    let ids = vec![1; 1 << 22];
    let tokens = Tokens::padded(&ids, 1, ids.len());
    let error = model.forward(&mut session, BertInputs { tokens, segment_ids: None }).unwrap_err();
    let memory = matches!(error, Error::Kernel(rachis::kernels::Error::OutOfMemory { .. }));
    assert!(memory, "{error:?}");
    let few = Tokens::padded(&ids[..2], 1, 2);
    assert!(model.forward(&mut session, BertInputs { tokens: few, segment_ids: None }).is_ok());
}

#[test]
fn models_beyond_any_memory_are_refused() {
    let wide = {
        let mut config = tiny();
        config.hidden_dim = 1 << 20;
        config
    };
    let deep = {
        let mut config = tiny();
        config.num_layers = 4096;
        config.hidden_dim = 1 << 12;
        config.intermediate_dim = 1 << 12;
        config
    };
    let long = {
        let mut config = tiny();
        config.vocabulary_size = 1 << 24;
        config.hidden_dim = 1 << 13;
        config
    };
    for config in [wide, deep, long] {
        let error = BertBackbone::random(config, 1).unwrap_err().to_string();
        assert!(error.contains("at most 68719476736 elements in all weights"), "{error}");
    }
}

#[test]
fn configurations() {
    let refused = |change: fn(&mut BertConfig), expected: &str| {
        let mut config = tiny();
        change(&mut config);
        let error = BertBackbone::random(config, 1).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert_eq!(error.to_string(), expected);
    };
    refused(|c| c.num_heads = 0, "config: num_heads is 0, expected 1 to 8");
    refused(|c| c.num_heads = 3, "config: num_heads is 3, expected a divisor of hidden_dim 8");
    refused(|c| c.num_layers = 1 << 60, "config: num_layers is 1152921504606846976, expected 1 to 4096");
    refused(|c| c.hidden_dim = 0, "config: hidden_dim is 0, expected 1 to 1048576");
    refused(
        |c| c.hidden_dim = usize::MAX,
        "config: hidden_dim is 18446744073709551615, expected 1 to 1048576",
    );
    refused(|c| c.vocabulary_size = 0, "config: vocabulary_size is 0, expected 1 to 16777216");
    refused(|c| c.intermediate_dim = 0, "config: intermediate_dim is 0, expected 1 to 1048576");
    refused(|c| c.max_sequence_length = 0, "config: max_sequence_length is 0, expected 1 to 16777216");
    refused(|c| c.num_segments = 0, "config: num_segments is 0, expected 1 to 16777216");
    refused(|c| c.dropout = f32::NAN, "config: dropout is NaN, expected 0 to 1");
    let epsilon = "config: layer_norm_epsilon is NaN, expected a finite number, not negative";
    refused(|c| c.layer_norm_epsilon = f32::NAN, epsilon);
}

#[test]
fn angles_are_finite() {
    let refused = |theta| {
        let positions = FalconPositions::Rotary { theta };
        let config = FalconConfig { positions, ..FalconConfig::default() };
        FalconBackbone::random(config, 1).unwrap_err().to_string()
    };
    for theta in [f64::NAN, f64::INFINITY, -1.0, 0.0, f64::MIN_POSITIVE, 0.5] {
        assert!(refused(theta).contains("expected a finite number, at least 1"), "{theta}");
    }
}

/// Names and shapes out of files are shown on one line of bounded length.
#[test]
fn messages_are_short_lines() {
    let preset = |config: &str, weights: &[u8]| {
        let weights = Region::from_vec("weights", weights.to_vec());
        Backbone::load(&Preset::from_bytes(config.as_bytes(), weights).unwrap()).unwrap_err().to_string()
    };
    let long = "x".repeat(9000);
    let sizes = r#""vocab_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 1,
        "intermediate_size": 1, "max_position_embeddings": 1"#;
    let header = format!(
        r#"{{"embeddings.LayerNorm.weight":{{"dtype":"U8","shape":[{}1],"data_offsets":[0,1]}}}}"#,
        "1,".repeat(7)
    );
    let weights = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), b"x"].concat();
    let empty = [&2u64.to_le_bytes()[..], b"{}"].concat();
    for (config, weights) in [
        (r#"{"model_type": "a\nb"}"#.to_owned(), &empty),
        (format!(r#"{{"model_type": "{long}"}}"#), &empty),
        (format!(r#"{{"model_type": "bert", "hidden_act": "a\nb{long}", {sizes}}}"#), &empty),
        (format!(r#"{{"model_type": "bert", "dtype": "a\nb{long}", {sizes}}}"#), &empty),
        (format!(r#"{{"model_type": "bert", {sizes}}}"#), &weights),
    ] {
        let message = preset(&config, weights);
        assert!(!message.contains('\n') && message.len() < 1000, "{message:?}");
    }
}

/// Weights that are not those of the configuration.
#[test]
fn weights_that_are_missing_or_misshapen_are_named() {
    let dir = rachis_testkit::goldens::fixture("bert_gelu/hf");
    let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let weights = std::fs::read(dir.join("model.safetensors")).unwrap();
    let load = |config: &str, from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut weights = weights.clone();
        let at = weights.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        weights[at..at + to.len()].copy_from_slice(to.as_bytes());
        let preset = Preset::from_bytes(config.as_bytes(), Region::from_vec("weights", weights)).unwrap();
        Backbone::load(&preset)
    };
    assert!(load(&config, "pooler", "pooler").is_ok());
    let error = load(&config, "pooler.dense.bias", "pooler.dense.bios").unwrap_err();
    assert!(
        matches!(&error, Error::MissingWeight { name } if name.ends_with("pooler.dense.bias")),
        "{error}"
    );
    let error = load(&config, "\"dtype\":\"F32\"", "\"dtype\":\"I32\"").unwrap_err();
    assert!(matches!(&error, Error::WeightDtype { found, .. } if found == "I32"), "{error}");
    let mut wider: serde_json::Value = serde_json::from_str(&config).unwrap();
    wider["intermediate_size"] = (wider["intermediate_size"].as_u64().unwrap() + 1).into();
    let error = load(&wider.to_string(), "pooler", "pooler").unwrap_err();
    assert!(matches!(&error, Error::WeightShape { .. }), "{error}");
}
