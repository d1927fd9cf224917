use super::*;

fn config(text: &str) -> Config {
    Config::parse("config.json", text.as_bytes()).unwrap()
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn hugging_face() {
    let config = config(
        r#"{"model_type": "bert", "hidden_size": 32, "eps": 1e-12, "tie": true, "act": "gelu",
            "dtype": "float32", "pad": null, "zero": 0, "registered_name": null}"#,
    );
    assert_eq!(config.source(), &ConfigSource::HuggingFace { model_type: "bert".to_owned() });
    assert_eq!((config.usize("hidden_size").unwrap(), config.usize("zero").unwrap()), (32, 0));
    assert_eq!((config.f64("eps").unwrap(), config.f32("eps").unwrap()), (1e-12, 1e-12));
    assert_eq!(config.f32("hidden_size").unwrap(), 32.0, "an integer is a number");
    assert_eq!((config.bool("tie").unwrap(), config.str("act").unwrap()), (true, "gelu"));
    assert_eq!(config.opt_function("act").unwrap(), Some("gelu"));
    assert_eq!(config.dtype().unwrap(), Some("float32"));
    assert_eq!(config.fields().count(), 9);
    assert!(config.value("pad").is_none() && config.value("act").is_some());
    for absent in ["pad", "none"] {
        assert_eq!(config.opt_usize(absent).unwrap(), None);
        assert_eq!(config.opt_f32(absent).unwrap(), None);
        assert_eq!(config.opt_f64(absent).unwrap(), None);
        assert_eq!(config.opt_bool(absent).unwrap(), None);
        assert_eq!(config.opt_str(absent).unwrap(), None);
        assert_eq!(config.opt_function(absent).unwrap(), None);
    }
    assert_eq!(
        message(config.usize("pad")),
        "\"config.json\": field \"pad\": expected an integer, 0 or more, found null"
    );
    assert_eq!(
        message(config.str("none")),
        "\"config.json\": field \"none\": expected a string, found nothing"
    );
}

#[test]
fn keras() {
    let config = config(
        r#"{"class_name": "T5Backbone", "registered_name": "keras_nlp>T5Backbone", "model_type": "t5", "config": {
            "num_layers": 2,
            "dtype": {"class_name": "DTypePolicy", "config": {"name": "bfloat16"}},
            "activation": {"class_name": "function", "config": "keras_hub>gelu_approximate"}}}"#,
    );
    assert_eq!(config.source(), &ConfigSource::Keras { class_name: "T5Backbone".to_owned() });
    assert_eq!(config.usize("num_layers").unwrap(), 2);
    assert_eq!(config.opt_str("class_name").unwrap(), None, "the outer object is not read");
    assert_eq!(config.dtype().unwrap(), Some("bfloat16"));
    assert_eq!(config.opt_function("activation").unwrap(), Some("gelu_approximate"));
    assert!(message(config.str("activation")).ends_with("expected a string, found an object of 2 fields"));
}

#[test]
fn dtype_policies() {
    let hugging_face = |fields| config(&format!(r#"{{"model_type": "bert" {fields}}}"#));
    assert_eq!(hugging_face("").dtype().unwrap(), None);
    assert_eq!(
        hugging_face(r#", "dtype": null, "torch_dtype": "float16""#).dtype().unwrap(),
        Some("float16")
    );
    assert_eq!(hugging_face(r#", "torch_dtype": "torch.bfloat16""#).dtype().unwrap(), Some("bfloat16"));
    assert_eq!(
        hugging_face(r#", "dtype": "float32", "torch_dtype": "float16""#).dtype().unwrap(),
        Some("float32")
    );
    assert!(hugging_face(r#", "dtype": {"config": {"name": "float32"}}"#).dtype().is_err());

    let keras =
        |dtype| config(&format!(r#"{{"registered_name": "BertBackbone", "config": {{"dtype": {dtype}}}}}"#));
    assert_eq!(keras("null").dtype().unwrap(), None);
    assert_eq!(keras(r#""mixed_bfloat16""#).dtype().unwrap(), Some("mixed_bfloat16"));
    let map =
        r#"{"class_name": "DTypePolicyMap", "config": {"default_policy": "float32", "policy_map": {}}}"#;
    assert!(message(keras(map).dtype()).contains("expected a dtype or a DTypePolicy"));
}

/// Integers are as large as they say, for the model to judge; everything that is not one is refused.
#[test]
fn numbers_of_the_wrong_kind() {
    let config = config(
        r#"{"model_type": "x", "huge": 1152921504606846976, "max": 18446744073709551615,
            "over": 18446744073709551616, "negative": -1, "fraction": 1.5, "whole": 12.0, "exponent": 1e3,
            "text": "12", "nan": "NaN", "wide": 1e300, "list": [1], "bool": true}"#,
    );
    assert_eq!(config.usize("huge").unwrap(), 1 << 60);
    assert_eq!(config.usize("max").unwrap(), usize::MAX);
    for field in ["over", "negative", "fraction", "whole", "exponent", "text", "nan", "wide", "list", "bool"]
    {
        assert!(message(config.usize(field)).contains(field), "{field}");
        assert!(config.opt_usize(field).is_err(), "{field}");
    }
    for field in ["text", "nan", "list", "bool"] {
        assert!(config.f32(field).is_err() && config.f64(field).is_err(), "{field}");
    }
    assert!(message(config.f32("wide")).ends_with("expected a number in the range of float32, found 1e+300"));
    assert_eq!((config.f64("wide").unwrap(), config.f64("negative").unwrap()), (1e300, -1.0));
    assert!(config.bool("huge").is_err() && config.bool("text").is_err() && config.str("bool").is_err());
}

#[test]
fn lists_of_integers() {
    let config = config(
        r#"{"model_type": "x", "one": 3, "many": [3, 0], "none": [], "null": null, "mixed": [1, null],
            "nested": [[1]], "negative": [-1], "text": "1"}"#,
    );
    let list = |field| config.opt_usizes(field).unwrap();
    assert_eq!(list("one"), Some(vec![3]));
    assert_eq!(list("many"), Some(vec![3, 0]));
    assert_eq!((list("none"), list("null"), list("absent")), (Some(vec![]), None, None));
    for field in ["mixed", "nested", "negative", "text"] {
        assert!(message(config.opt_usizes(field)).contains(field), "{field}");
    }
}

#[test]
fn messages_stay_short() {
    let long = "a\\n".repeat(10_000);
    let config = config(&format!(r#"{{"model_type": "x", "field": "{long}"}}"#));
    let message = message(config.usize("field"));
    assert!(message.len() < 500 && !message.contains('\n'), "{message}");
}
