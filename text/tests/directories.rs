//! What the files of a sentence-transformers directory change, setting by setting, and what is refused by its name.

mod common;

use rachis::kernels::Ctx;
use rachis::{Backbone, BackboneInputs, BertInputs, Pooling, Session, Tokens};
use rachis_testkit::goldens::fixture;
use rachis_text::{
    Activation, EmbedMethod, EmbedOptions, Embeddings, Reranker, Similarity, TextEmbedder, rachis,
};
use serde_json::{Value, json};

use common::{Copied, safetensors};

const LONG: &str =
    "the keeper of the lighthouse counts the gulls that sit on the pier in the fog from the north";
const SETTINGS: &str = "sentence_bert_config.json";

fn open(dir: &Copied) -> TextEmbedder {
    TextEmbedder::from_preset(dir.path()).unwrap()
}

fn embed(embedder: &TextEmbedder, text: &str, options: &EmbedOptions) -> Embeddings {
    embedder.embed_with(&mut Session::new(Ctx::detect()), &[text], options).unwrap()
}

/// The vector of a text by the directory's own choices.
fn vector(dir: &Copied, text: &str) -> Embeddings {
    embed(&open(dir), text, &EmbedOptions::new())
}

/// The error of opening a directory, which must be one short line with this part.
#[track_caller]
fn refused(dir: &Copied, part: &str) {
    let error = TextEmbedder::from_preset(dir.path()).unwrap_err().to_string();
    assert!(error.contains(part), "expected {part}: {error}");
    assert!(error.lines().count() == 1 && error.len() < 500, "{error}");
}

#[test]
fn every_name_of_the_settings_file_is_read() {
    for (i, name) in
        ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"].iter().enumerate()
    {
        let dir = Copied::of("text/embed/old_5_1");
        let file = format!("sentence_{name}_config.json");
        dir.remove(SETTINGS).put(&file, format!(r#"{{"max_seq_length": {}}}"#, i + 5));
        assert_eq!(open(&dir).max_tokens(), Some(i + 5), "{file}");
        // An empty one counts as absent.
        if i > 0 {
            dir.put(SETTINGS, "{}");
            assert_eq!(open(&dir).max_tokens(), Some(i + 5), "{file}");
            dir.put(SETTINGS, r#"{"max_seq_length": 40}"#);
            assert_eq!(open(&dir).max_tokens(), Some(40), "{file}");
        }
    }
}

#[test]
fn limits_in_their_order() {
    let dir = Copied::of("text/embed/old_5_1");
    let limit = |settings: Value| {
        dir.put(SETTINGS, settings.to_string());
        open(&dir).max_tokens()
    };
    dir.set("tokenizer_config.json", json!({ "model_max_length": null }));
    assert_eq!(limit(json!({})), Some(64), "the model's positions");
    dir.set("tokenizer_config.json", json!({ "model_max_length": 1e30 }));
    assert_eq!(limit(json!({})), Some(64), "no limit of the tokenizer");
    dir.set("tokenizer_config.json", json!({ "model_max_length": 20 }));
    assert_eq!(limit(json!({})), Some(20));
    assert_eq!(limit(json!({ "max_seq_length": null })), Some(20));
    assert_eq!(limit(json!({ "max_seq_length": 30 })), Some(30));
    // The caller's word is not capped; a text beyond the model's positions is an error then.
    assert_eq!(limit(json!({ "max_seq_length": 100 })), Some(100));
    let long = LONG.repeat(10);
    let error = open(&dir).embed(&mut Session::new(Ctx::detect()), &["a", &long]).unwrap_err().to_string();
    assert!(error.contains("sequence 1 is 100, expected at most 64"), "{error}");
    assert_eq!(
        limit(json!({ "max_seq_length": 30, "processor_kwargs": { "model_max_length": 9 } })),
        Some(9)
    );
    assert_eq!(limit(json!({ "max_seq_length": 30, "tokenizer_args": { "model_max_length": 9 } })), Some(9));

    let short = |settings: Value, method: EmbedMethod| {
        dir.put(SETTINGS, settings.to_string());
        embed(&open(&dir), LONG, &EmbedOptions::new().with_method(method))
    };
    let [eight, ten] = [8, 10].map(|limit| short(json!({ "max_seq_length": limit }), EmbedMethod::Encode));
    let both = json!({ "max_seq_length": 30, "query_length": 8, "document_length": 10 });
    assert_eq!(short(both.clone(), EmbedMethod::Query), eight);
    assert_eq!(short(both.clone(), EmbedMethod::Document), ten);
    assert_ne!(short(both, EmbedMethod::Encode), eight);
    for part in ["text", "common"] {
        let call = json!({ "query_length": 9, "processing_kwargs": { part: { "max_length": 10 } } });
        assert_eq!(short(call, EmbedMethod::Query), ten);
    }
    let never = json!({ "max_seq_length": 8, "processing_kwargs": { "text": { "truncation": false } } });
    let whole = json!({ "max_seq_length": 60 });
    assert_eq!(short(never, EmbedMethod::Encode), short(whole, EmbedMethod::Encode));
    let bare = json!({ "processing_kwargs": { "text": { "add_special_tokens": false } } });
    assert_ne!(short(bare, EmbedMethod::Encode), short(json!({}), EmbedMethod::Encode));
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let dir = Copied::of("text/embed/old_5_1");
    for (settings, part) in [
        (json!({ "max_seq_length": "40" }), "max_seq_length is \"40\""),
        (json!({ "max_seq_length": 0 }), "max_seq_length is 0"),
        (json!({ "max_seq_length": -1 }), "max_seq_length is -1"),
        (json!({ "max_seq_length": 4.5 }), "max_seq_length is 4.5"),
        (json!({ "do_lower_case": "yes" }), "do_lower_case is \"yes\""),
        (json!({ "max_length": 8 }), "field \"max_length\" is not implemented"),
        (json!({ "query_expansion": { "strategy": "min" } }), "query_expansion"),
        (json!({ "transformer_task": "fill-mask" }), "transformer_task is \"fill-mask\""),
        (json!({ "transformer_task": "sequence-classification" }), "makes scores"),
        (json!({ "modality_config": { "message": {} } }), "message"),
        (json!({ "modality_config": { "text": { "method": "generate" } } }), "method is \"generate\""),
        (
            json!({ "modality_config": { "text": { "method": "forward", "method_output_name": ["hidden_states", 2] } } }),
            "method_output_name",
        ),
        (json!({ "model_args": { "num_hidden_layers": 1 } }), "num_hidden_layers"),
        (json!({ "config_kwargs": { "is_decoder": true } }), "is_decoder"),
        (json!({ "tokenizer_args": { "truncation_side": "left" } }), "truncation_side"),
        (json!({ "processing_kwargs": { "text": { "stride": 2 } } }), "stride"),
        (json!({ "processing_kwargs": { "image": {} } }), "image"),
        (json!({ "processing_kwargs": { "text": { "truncation": "some" } } }), "truncation is \"some\""),
        (json!([]), "not a JSON object"),
    ] {
        dir.put(SETTINGS, settings.to_string());
        refused(&dir, part);
    }
    let long = "x".repeat(100_000);
    dir.put(SETTINGS, json!({ long.clone(): 1, "max_seq_length": long }).to_string());
    refused(&dir, "xxx");
    dir.put(SETTINGS, "{");
    refused(&dir, SETTINGS);
    // Fewer tokens than special ones are an error of the call.
    dir.put(SETTINGS, r#"{"max_seq_length": 1}"#);
    let error = open(&dir).embed(&mut Session::new(Ctx::detect()), &["a"]).unwrap_err().to_string();
    assert!(error.contains("max_length is 1"), "{error}");
}

#[test]
fn modules_that_are_not_implemented_are_refused_by_name() {
    let dir = Copied::of("text/embed/chain");
    let modules = |list: &[(&str, &str)]| {
        let list: Vec<Value> =
            list.iter().map(|(class, path)| json!({ "type": class, "path": path })).collect();
        dir.put("modules.json", Value::from(list).to_string());
    };
    const FIRST: (&str, &str) = ("sentence_transformers.models.Transformer", "");
    const POOLING: (&str, &str) = ("sentence_transformers.models.Pooling", "1_Pooling");
    for class in
        ["Router", "Asym", "WeightedLayerPooling", "LSTM", "CNN", "BoW", "WordWeights", "StaticEmbedding"]
    {
        modules(&[FIRST, POOLING, (&format!("sentence_transformers.models.{class}"), "2_Dense")]);
        refused(&dir, &format!("module \"{class}\" is not implemented"));
    }
    for (list, part) in [
        (&[FIRST, POOLING, ("mine.Dense", "2_Dense")][..], "module \"mine.Dense\""),
        (&[("sentence_transformers.models.WordEmbeddings", "")], "module \"WordEmbeddings\""),
        (&[POOLING], "module \"Pooling\""),
        (&[FIRST], "no module before the end makes sentence_embedding"),
        (
            &[FIRST, ("sentence_transformers.models.Dense", "2_Dense"), POOLING],
            "no module before Dense makes sentence_embedding",
        ),
        (&[FIRST, ("sentence_transformers.models.Pooling", "../1_Pooling")], "../1_Pooling"),
        (&[FIRST, ("sentence_transformers.models.Pooling", "/1_Pooling")], "/1_Pooling"),
        (&[FIRST, ("sentence_transformers.models.Pooling", "8_Pooling")], "8_Pooling/config.json"),
        (
            &[FIRST, POOLING, ("sentence_transformers.models.Dense", "1_Pooling")],
            "1_Pooling/model.safetensors",
        ),
        (&[("sentence_transformers.models.Transformer", "0_Transformer"), POOLING], "the Transformer is in"),
        (&[], "has no modules"),
    ] {
        modules(list);
        refused(&dir, part);
    }
    for (list, part) in
        [("{}", "not a list"), ("[1]", "type is not a string"), ("[{\"type\": \"a\"}]", "path is not")]
    {
        dir.put("modules.json", list);
        refused(&dir, part);
    }
}

#[test]
fn configurations_of_modules_are_checked() {
    for (file, fields, part) in [
        ("1_Pooling/config.json", json!({ "pooling_mode": "sum" }), "pooling_mode is \"sum\""),
        ("1_Pooling/config.json", json!({ "pooling_mode": [] }), "pooling_mode is []"),
        ("1_Pooling/config.json", json!({ "pooling_mode": ["mean", 1] }), "pooling_mode is"),
        ("1_Pooling/config.json", json!({ "include_prompt": 1 }), "include_prompt is 1"),
        ("1_Pooling/config.json", json!({ "pooling_mode_new": true }), "field \"pooling_mode_new\""),
        (
            "2_Dense/config.json",
            json!({ "in_features": 15 }),
            "shape of linear.weight is [18, 16], expected [18, 15]",
        ),
        ("2_Dense/config.json", json!({ "in_features": "16" }), "in_features is \"16\""),
        ("2_Dense/config.json", json!({ "bias": true }), "has no tensor linear.bias"),
        ("2_Dense/config.json", json!({ "activation_function": "torch.nn.RReLU" }), "RReLU"),
        ("2_Dense/config.json", json!({ "activation_function": 1 }), "activation_function is 1"),
        ("2_Dense/config.json", json!({ "use_residual": true }), "has no tensor residual.weight"),
        ("2_Dense/config.json", json!({ "module_input_name": "scores" }), "makes scores"),
        (
            "2_Dense/config.json",
            json!({ "module_input_name": "features" }),
            "module_input_name is \"features\"",
        ),
        ("2_Dense/config.json", json!({ "module_output_name": "token_embeddings" }), "not implemented"),
        ("3_LayerNorm/config.json", json!({ "dimension": 17 }), "norm.weight"),
        ("3_LayerNorm/config.json", json!({ "eps": 0.1 }), "field \"eps\""),
        (
            "5_Dense/config.json",
            json!({ "bias": false }),
            "tensor \"linear.bias\" is not one of the module's",
        ),
        (
            "config_sentence_transformers.json",
            json!({ "default_prompt_name": "x" }),
            "default_prompt_name is \"x\"",
        ),
        ("config_sentence_transformers.json", json!({ "prompts": { "x": 1 } }), "x is 1"),
        ("config_sentence_transformers.json", json!({ "prompts": [] }), "prompts is []"),
        ("config_sentence_transformers.json", json!({ "truncate_dim": 0 }), "truncate_dim is 0"),
    ] {
        let dir = Copied::of("text/embed/chain");
        dir.set(file, fields);
        refused(&dir, part);
    }
    let dir = Copied::of("text/embed/chain");
    dir.put("2_Dense/model.safetensors", "not safetensors");
    refused(&dir, "2_Dense/model.safetensors");
    let wide = vec![0.0; 17 * 16];
    dir.put("2_Dense/model.safetensors", safetensors(&[("linear.weight", &[17, 16], wide)]));
    dir.set("2_Dense/config.json", json!({ "out_features": 17 }));
    refused(&dir, "3_LayerNorm/config.json: dimension is 18, expected 17");
}

/// A matrix of small numbers.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + 11) % 64) as f32 / 64.0 - 0.5).collect()
}

/// A linear layer on the tokens' vectors and then the mean is the same as the mean and then the layer.
#[test]
fn modules_may_work_on_the_vectors_of_tokens() {
    let dir = Copied::of("text/embed/pool_mean");
    let dense = |place: &str| {
        let fields = json!({
            "in_features": 16, "out_features": 24, "bias": false,
            "activation_function": "torch.nn.modules.linear.Identity", "module_input_name": place,
        });
        dir.put("2_Dense/config.json", fields.to_string());
    };
    dir.put("2_Dense/model.safetensors", safetensors(&[("linear.weight", &[24, 16], numbers(24 * 16))]));
    let modules = |order: [&str; 3]| {
        let list: Vec<Value> = order
            .iter()
            .zip(["", "1_Pooling", "2_Dense"])
            .map(|(class, path)| json!({ "type": format!("sentence_transformers.models.{class}"), "path": path }))
            .collect();
        let mut list = list;
        if order[1] == "Dense" {
            list[1]["path"] = "2_Dense".into();
            list[2]["path"] = "1_Pooling".into();
        }
        dir.put("modules.json", Value::from(list).to_string());
    };
    dense("sentence_embedding");
    modules(["Transformer", "Pooling", "Dense"]);
    let after = vector(&dir, LONG);
    dense("token_embeddings");
    modules(["Transformer", "Dense", "Pooling"]);
    let before = vector(&dir, LONG);
    assert_eq!(before.dimension(), 24);
    for (a, b) in after.as_slice().iter().zip(before.as_slice()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    // Two ways of pooling after it are twice as wide.
    dir.set("1_Pooling/config.json", json!({ "pooling_mode": ["cls", "max"] }));
    assert_eq!(vector(&dir, LONG).dimension(), 48);
    let pooled = open(&dir).with_pooling(Pooling::Last).unwrap();
    assert_eq!(pooled.dimension(), 24);
}

#[test]
fn the_pooled_output_may_be_the_vector() {
    let dir = Copied::of("text/embed/pool_mean");
    let text = json!({ "method": "forward", "method_output_name": "pooler_output" });
    dir.set(
        SETTINGS,
        json!({ "modality_config": { "text": text }, "module_output_name": "sentence_embedding" }),
    );
    let modules =
        json!([{ "type": "sentence_transformers.base.modules.transformer.Transformer", "path": "" }]);
    dir.put("modules.json", modules.to_string());
    let got = vector(&dir, LONG);

    let embedder = open(&dir);
    let ids = embedder.tokenizer().encode(LONG).unwrap().ids;
    let Backbone::Bert(model) = Backbone::from_preset(dir.path()).unwrap() else { panic!("not a BERT") };
    let mut session = Session::new(Ctx::detect());
    let tokens = Tokens::padded(&ids, 1, ids.len());
    let output = model.forward(&mut session, BertInputs { tokens, segment_ids: None }).unwrap();
    assert_eq!(got.as_slice(), output.pooled_output.unwrap().row(0));
}

#[test]
fn directories_of_other_kinds_have_the_modules_of_a_plain_one() {
    let plain = vector(&Copied::of("text/embed/plain"), LONG);
    let dir = Copied::of("text/embed/prompts_default");
    dir.set("config_sentence_transformers.json", json!({ "model_type": "CrossEncoder" }));
    let got = vector(&dir, LONG);
    // The same model, without its modules, its prompts and its own settings.
    dir.remove("modules.json").remove("config_sentence_transformers.json").remove(SETTINGS);
    assert_eq!(vector(&dir, LONG), got);
    assert_eq!(got.dimension(), plain.dimension());

    let dir = Copied::of("text/embed/plain");
    dir.set("config.json", json!({ "architectures": ["BertForCausalLM"] }));
    let last = vector(&dir, LONG);
    assert_eq!(embed(&open(&dir).with_pooling(Pooling::Last).unwrap(), LONG, &EmbedOptions::new()), last);
    assert_ne!(last, plain);
    dir.set("config.json", json!({ "is_causal": false }));
    assert_eq!(vector(&dir, LONG), plain);
}

/// Decoders alone, and BART, whose vectors in the library are those of its decoder.
#[test]
fn models_that_write_have_vectors_too() {
    let dir = Copied::of("text/generate/opt");
    let embedder = open(&dir);
    let ids = embedder.tokenizer().encode(LONG).unwrap().ids;
    let model = Backbone::from_preset(dir.path()).unwrap();
    let mut session = Session::new(Ctx::detect());
    let mut pooled = |inputs: BackboneInputs<'_>, pooling: Pooling| {
        let output = model.forward(&mut session, inputs).unwrap().sequence_output();
        let mut out = vec![0.0; output.hidden_dim()];
        pooling.pool(output, &mut out).unwrap();
        out
    };
    let tokens = Tokens::padded(&ids, 1, ids.len());
    assert_eq!(vector(&dir, LONG).as_slice(), pooled(tokens.into(), Pooling::Last), "a ForCausalLM");

    let dir = Copied::of("text/generate/bart");
    let ids = open(&dir).tokenizer().encode(LONG).unwrap().ids;
    let model = Backbone::from_preset(dir.path()).unwrap();
    let start = decoder_start(&dir);
    let shifted: Vec<u32> = [&[start], &ids[..ids.len() - 1]].concat();
    let inputs = rachis::Seq2SeqInputs {
        encoder: Tokens::padded(&ids, 1, ids.len()),
        decoder: Tokens::padded(&shifted, 1, ids.len()),
    };
    let output = model.forward(&mut session, inputs).unwrap().sequence_output();
    let mut mean = vec![0.0; output.hidden_dim()];
    Pooling::Mean.pool(output, &mut mean).unwrap();
    assert_eq!(vector(&dir, LONG).as_slice(), mean);
}

/// The token before the decoder's first one.
fn decoder_start(dir: &Copied) -> u32 {
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.path().join("config.json")).unwrap()).unwrap();
    config["decoder_start_token_id"].as_u64().unwrap_or(2) as u32
}

#[test]
fn prompts_and_similarity_of_a_directory() {
    let dir = Copied::of("text/embed/prompts");
    let prompts: Vec<(String, String)> =
        open(&dir).prompts().map(|(name, prompt)| (name.to_owned(), prompt.to_owned())).collect();
    let expected =
        [("bare", ""), ("document", ""), ("passage", "Represent the text: "), ("query", "query: ")];
    assert!(prompts.iter().map(|(name, prompt)| (name.as_str(), prompt.as_str())).eq(expected));
    assert_eq!(open(&dir).similarity(), Similarity::Cosine);
    const CONFIG: &str = "config_sentence_transformers.json";
    dir.set(CONFIG, json!({ "similarity_fn_name": "dot", "truncate_dim": 6, "prompts": { "query": null } }));
    let embedder = open(&dir);
    assert_eq!((embedder.similarity(), embedder.dimension()), (Similarity::Dot, 6));
    let query = EmbedOptions::new().with_method(EmbedMethod::Query);
    assert_eq!(embed(&embedder, LONG, &query), embed(&embedder, LONG, &EmbedOptions::new()));
    // A prompt in the call wins over the default, and over a name beside it.
    dir.set(CONFIG, json!({ "default_prompt_name": "passage", "prompts": { "passage": "so: " } }));
    let embedder = open(&dir);
    let whole = embed(&embedder, &format!("so: {LONG}"), &EmbedOptions::new().with_prompt(""));
    assert_eq!(embed(&embedder, LONG, &EmbedOptions::new()), whole);
    assert_eq!(
        embed(&embedder, LONG, &EmbedOptions::new().with_prompt("so: ").with_prompt_name("none")),
        whole
    );
    let wide = EmbedOptions::new().with_truncate_dim(1000);
    assert_eq!(embed(&embedder, LONG, &wide).dimension(), 16);
    assert_eq!(whole.dimension(), 6);
}

#[test]
fn keras_presets_of_other_models_are_refused() {
    let error = TextEmbedder::from_preset(fixture("text/keras/opt_lm")).unwrap_err().to_string();
    assert!(error.contains("embed needs a BertBackbone, found OptBackbone"), "{error}");
    let error = Reranker::from_preset(fixture("text/keras/embedder")).unwrap_err().to_string();
    assert!(error.contains("rerank needs a Hugging Face directory"), "{error}");
}

#[test]
fn activations_of_rerankers_in_their_order() {
    const CONFIG: &str = "config_sentence_transformers.json";
    let activation = |dir: &Copied| Reranker::from_preset(dir.path()).map(|reranker| reranker.activation());
    let dir = Copied::of("text/rerank/one_default");
    assert_eq!(activation(&dir).unwrap(), Activation::Sigmoid);
    dir.set(
        "config.json",
        json!({ "sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh" }),
    );
    assert_eq!(activation(&dir).unwrap(), Activation::Tanh);
    dir.set(
        "config.json",
        json!({ "sentence_transformers": { "activation_fn": "torch.nn.modules.linear.Identity" } }),
    );
    assert_eq!(activation(&dir).unwrap(), Activation::Identity);
    // A class of another package is not loaded, and the default is taken.
    dir.set("config.json", json!({ "sentence_transformers": { "activation_fn": "mine.Tanh" } }));
    assert_eq!(activation(&dir).unwrap(), Activation::Sigmoid);
    dir.set("config.json", json!({ "sentence_transformers": { "activation_fn": "torch.nn.Threshold" } }));
    assert!(activation(&dir).unwrap_err().to_string().contains("Threshold"));
    let dir = Copied::of("text/rerank/one_identity_6");
    dir.set("config.json", json!({ "sentence_transformers": { "activation_fn": "torch.nn.Sigmoid" } }));
    assert_eq!(activation(&dir).unwrap(), Activation::Identity);
    // Without the class of the model, the file is not one of a cross-encoder.
    dir.set(CONFIG, json!({ "model_type": null }));
    assert_eq!(activation(&dir).unwrap(), Activation::Sigmoid);
    let dir = Copied::of("text/rerank/three");
    assert_eq!(activation(&dir).unwrap(), Activation::Identity);
    let error =
        Reranker::from_preset(dir.path()).unwrap().rank(&mut Session::new(Ctx::detect()), "a", &["b"]);
    assert!(error.unwrap_err().to_string().contains("number of labels is 3"));
}

/// Scores by modules on the pooled vector, in place of a head for classification.
#[test]
fn rerankers_may_have_modules() {
    let dir = Copied::of("text/embed/pool_mean");
    dir.set(
        "config_sentence_transformers.json",
        json!({ "model_type": "CrossEncoder", "similarity_fn_name": null }),
    );
    let class = |class: &str, path: &str| json!({ "type": format!("sentence_transformers.models.{class}"), "path": path });
    let modules = [class("Transformer", ""), class("Pooling", "1_Pooling"), class("Dense", "2_Dense")];
    dir.put("modules.json", Value::from(modules.to_vec()).to_string());
    let fields = json!({
        "in_features": 16, "out_features": 1, "bias": false, "module_output_name": "scores",
        "activation_function": "torch.nn.modules.linear.Identity",
    });
    dir.put("2_Dense/config.json", fields.to_string());
    dir.put("2_Dense/model.safetensors", safetensors(&[("linear.weight", &[1, 16], numbers(16))]));
    let reranker = Reranker::from_preset(dir.path()).unwrap();
    let mut session = Session::new(Ctx::detect());
    let options = rachis_text::RerankOptions::new().with_activation(Activation::Identity);
    let scores = reranker.scores_with(&mut session, &[("a query", LONG)], &options).unwrap();

    // The same by the embedder's pooling of the pair's tokens.
    let ids = reranker.tokenizer().encode(("a query", LONG)).unwrap();
    let Backbone::Bert(model) = Backbone::from_preset(dir.path()).unwrap() else { panic!("not a BERT") };
    let inputs =
        BertInputs { tokens: Tokens::padded(&ids.ids, 1, ids.len()), segment_ids: Some(&ids.type_ids) };
    let mut mean = [0.0; 16];
    Pooling::Mean.pool(model.forward(&mut session, inputs).unwrap().sequence_output, &mut mean).unwrap();
    let expected: f32 = mean.iter().zip(numbers(16)).map(|(x, w)| x * w).sum();
    assert!((scores.as_slice()[0] - expected).abs() < 1e-5, "{:?}, expected {expected}", scores.as_slice());
}
