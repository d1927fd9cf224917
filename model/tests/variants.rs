//! Hugging Face directories in their many forms: parts that are there or not, tables by other names, heads tied or
//! not. And what KerasHub's defaults are.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::Batch;
use rachis::kernels::Ctx;
use rachis::loader::{Preset, Region};
use rachis::{
    Backbone, BartConfig, BartEncoder, BertConfig, Error, FalconConfig, OptConfig, Seq2SeqInputs,
    SequenceOutput, Session, T5Config, T5Encoder, Tokens,
};
use rachis_testkit::goldens::{Goldens, fixture};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

/// What a directory holds, to be changed.
#[derive(Clone)]
struct Files {
    config: Value,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Files {
    fn read(dir: impl AsRef<Path>) -> Files {
        let read = |name: &str| std::fs::read(dir.as_ref().join(name)).unwrap();
        let weights = read("model.safetensors");
        let tensors = SafeTensors::deserialize(&weights).unwrap();
        let owned = |(name, tensor): (&str, TensorView<'_>)| {
            (name.to_owned(), (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()))
        };
        Files {
            config: serde_json::from_slice(&read("config.json")).unwrap(),
            tensors: tensors.iter().map(owned).collect(),
        }
    }

    fn fixture(name: &str) -> Files {
        Files::read(fixture(name))
    }

    /// What `save_preset` writes of a model.
    fn saved(model: &Backbone) -> Files {
        let dir = tempfile::tempdir().unwrap();
        model.save_preset(dir.path(), None).unwrap();
        Files::read(dir.path())
    }

    /// Without the tensors whose names begin so.
    fn without(mut self, prefix: &str) -> Files {
        let before = self.tensors.len();
        self.tensors.retain(|name, _| !name.starts_with(prefix));
        assert!(self.tensors.len() < before, "nothing begins with {prefix}");
        self
    }

    fn renamed(mut self, from: &str, to: &str) -> Files {
        let tensor = self.tensors.remove(from).unwrap();
        self.tensors.insert(to.to_owned(), tensor);
        self
    }

    /// With one more tensor: another, times two.
    fn doubled(mut self, from: &str, to: &str) -> Files {
        let (dtype, shape, mut data) = self.tensors[from].clone();
        assert_eq!(dtype, Dtype::F32);
        for x in data.as_chunks_mut::<4>().0 {
            *x = (2.0 * f32::from_le_bytes(*x)).to_le_bytes();
        }
        self.tensors.insert(to.to_owned(), (dtype, shape, data));
        self
    }

    fn configured(mut self, field: &str, value: impl Into<Value>) -> Files {
        self.config[field] = value.into();
        self
    }

    fn names(&self) -> BTreeSet<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn preset(&self) -> Preset {
        let views = self.tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        let weights = safetensors::serialize(views, None).unwrap();
        Preset::from_bytes(self.config.to_string().as_bytes(), Region::from_vec("weights", weights)).unwrap()
    }

    fn load(&self) -> Backbone {
        Backbone::load(&self.preset()).unwrap()
    }

    /// The weight that a model misses here.
    fn missing(&self) -> String {
        match Backbone::load(&self.preset()).unwrap_err() {
            Error::MissingWeight { name } => name,
            error => panic!("{error}"),
        }
    }
}

fn ctx() -> Ctx<'static> {
    Ctx::detect()
}

/// Every output of the first case of a fixture's golden file, by its name.
type Outputs = BTreeMap<String, Vec<f32>>;

fn outputs(fixture: &str, model: &Backbone) -> Outputs {
    let goldens = Goldens::read(format!("{fixture}/goldens.safetensors"));
    let case = goldens.cases()[0];
    common::run(model, ctx(), &goldens, case).into_iter().collect()
}

/// The same for BERT, with the heads that there are.
fn bert_outputs(files: &Files) -> Outputs {
    let preset = files.preset();
    let (model, heads) = common::bert(&preset);
    let goldens = Goldens::read("bert_gelu/goldens.safetensors");
    let batch = Batch::of(&goldens, goldens.cases()[0]);
    common::outputs(&model, &heads, ctx(), &batch).into_iter().collect()
}

/// That there is everything of `all` but these, and the same.
#[track_caller]
fn assert_all_but(missing: &[&str], found: &Outputs, all: &Outputs) {
    let expected: Outputs =
        all.clone().into_iter().filter(|(name, _)| !missing.contains(&&name[..])).collect();
    assert_eq!(expected.len() + missing.len(), all.len());
    assert!(*found == expected, "{:?}", found.keys());
}

/// As transformers saves masked language models, token classifiers and question answerers.
#[test]
fn bert_without_a_pooler() {
    let full = Files::fixture("bert_gelu/hf");
    let files = full.clone().without("bert.pooler.").without("cls.seq_relationship.");
    assert_all_but(&["pooled_output", "nsp_logits"], &bert_outputs(&files), &bert_outputs(&full));

    let saved = Files::saved(&files.load());
    assert_eq!(saved.names().iter().filter(|name| name.contains("pooler")).count(), 0);
    let all = outputs("bert_gelu", &full.load());
    assert_all_but(&["pooled_output"], &outputs("bert_gelu", &saved.load()), &all);

    for part in ["bert.pooler.dense.weight", "bert.pooler.dense.bias"] {
        assert_eq!(full.clone().without(part).missing(), part);
    }
}

#[test]
fn each_head_of_bert_by_itself() {
    let full = Files::fixture("bert_gelu/hf");
    let all = bert_outputs(&full);
    let masked = full.clone().without("cls.seq_relationship.");
    assert_all_but(&["nsp_logits"], &bert_outputs(&masked), &all);
    let next = full.clone().without("cls.predictions.");
    assert_all_but(&["mlm_logits"], &bert_outputs(&next), &all);
    assert_all_but(&["mlm_logits", "nsp_logits"], &bert_outputs(&full.without("cls.")), &all);
}

/// BERT that masks what follows a token, or whose scores know distances, is another model.
#[test]
fn other_forms_of_bert_are_refused() {
    let full = Files::fixture("bert_gelu/hf");
    let refused =
        |name: &str, value: Value| match Backbone::load(&full.clone().configured(name, value).preset())
            .unwrap_err()
        {
            Error::Config { field, .. } => assert_eq!(field, name),
            error => panic!("{error}"),
        };
    refused("is_decoder", true.into());
    refused("position_embedding_type", "relative_key".into());
    full.clone().configured("position_embedding_type", "absolute").load();
}

/// Files of encoder-decoder models may have the token table under any of its names, the head's among them.
#[test]
fn token_tables_by_any_of_their_names() {
    for (name, prefix) in [("t5_relu_tied/hf", ""), ("bart_sym/hf", "model."), ("bart_sym/hf_bare", "")] {
        let (full, fixture) = (Files::fixture(name), name.split('/').next().unwrap());
        let expected = outputs(fixture, &full.load());
        let tables = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"];
        let [shared, encoder, decoder] = tables.map(|table| format!("{prefix}{table}.weight"));
        for other in [&encoder, &decoder, "lm_head.weight"] {
            let found = outputs(fixture, &full.clone().renamed(&shared, other).load());
            assert!(found == expected, "{name} {other}");
        }
        assert_eq!(full.without(&shared).missing(), shared, "{name}");
    }
    for (name, table) in [
        ("opt_pre", "model.decoder.embed_tokens.weight"),
        ("falcon_7b_style", "transformer.word_embeddings.weight"),
    ] {
        let mut full = Files::fixture(&format!("{name}/hf")).configured("tie_word_embeddings", true);
        full.tensors.remove("lm_head.weight");
        let expected = outputs(name, &full.load());
        let files = full.renamed(table, "lm_head.weight");
        assert!(outputs(name, &files.load()) == expected, "{name}");
        assert_eq!(files.configured("tie_word_embeddings", false).missing(), table);
    }
}

/// An encoder and a decoder with token tables of their own look tokens up in them.
#[test]
fn token_tables_of_each_tower() {
    for (name, prefix) in [("t5_relu_tied", ""), ("bart_sym", "model.")] {
        let mut full = Files::fixture(&format!("{name}/hf"));
        full.tensors.remove("final_logits_bias");
        let expected = outputs(name, &full.load());
        let [shared, encoder, decoder] = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"]
            .map(|table| format!("{prefix}{table}.weight"));
        // The norm behind BART's tables takes a factor out again; T5's encoder has one before each layer.
        let of_decoder = full.clone().doubled(&shared, &decoder);
        let found = outputs(name, &of_decoder.load());
        assert!(found["encoder_sequence_output"] == expected["encoder_sequence_output"], "{name}");
        assert!(found["decoder_sequence_output"] != expected["decoder_sequence_output"], "{name}");
        let saved = Files::saved(&of_decoder.load());
        assert!(outputs(name, &saved.load()) == found, "{name}: {:?}", saved.names());

        let of_both = of_decoder.doubled(&shared, &encoder);
        let found = outputs(name, &of_both.load());
        assert!(found["encoder_sequence_output"] != expected["encoder_sequence_output"], "{name}");
        let saved = Files::saved(&of_both.load());
        assert!(saved.names().contains(encoder.as_str()) && saved.names().contains(decoder.as_str()));
        assert!(outputs(name, &saved.load()) == found, "{name}: {:?}", saved.names());
    }
}

/// A head that the files have is the head, whatever the configuration ties: transformers 5 compares.
#[test]
fn heads_of_their_own() {
    for (name, table) in [
        ("opt_pre", "model.decoder.embed_tokens.weight"),
        ("opt_350m_style", "model.decoder.embed_tokens.weight"),
        ("bart_sym", "model.shared.weight"),
        ("t5_relu_tied", "shared.weight"),
    ] {
        let mut tied = Files::fixture(&format!("{name}/hf"));
        let bias = tied.tensors.remove("final_logits_bias");
        let both = tied.clone().doubled(table, "lm_head.weight");
        let expected = outputs(name, &tied.load());
        let bare = tied.configured("tie_word_embeddings", false).configured("scale_decoder_outputs", true);
        assert!(outputs(name, &bare.load()) == expected, "{name}: a file without a head");
        let found = outputs(name, &both.load());
        for (tensor, expected) in &expected {
            let scale = if tensor == "logits" { 2.0 } else { 1.0 };
            let expected: Vec<f32> = expected.iter().map(|x| scale * x).collect();
            assert!(found[tensor] == expected, "{name} {tensor}");
        }
        let mut files =
            both.configured("tie_word_embeddings", false).configured("scale_decoder_outputs", true);
        assert!(outputs(name, &files.load()) == found, "{name}");
        files.tensors.extend(bias.map(|bias| ("final_logits_bias".to_owned(), bias)));
        let saved = Files::saved(&files.load());
        assert!(saved.tensors == files.tensors, "{name}: {:?}", saved.names());
        assert_eq!(saved.config["tie_word_embeddings"], false);
    }
}

/// The table and the bias of a masked language model by every name.
#[test]
fn masked_language_models_by_the_names_of_their_parts() {
    let table = "bert.embeddings.word_embeddings.weight";
    let [bias, decoder, of_decoder] =
        ["bias", "decoder.weight", "decoder.bias"].map(|part| format!("cls.predictions.{part}"));
    let full = Files::fixture("bert_gelu/hf");
    let all = bert_outputs(&full);
    assert!(bert_outputs(&full.clone().renamed(&bias, &of_decoder)) == all);
    assert!(bert_outputs(&full.clone().renamed(table, &decoder)) == all);
    assert_eq!(
        full.clone().renamed(table, &decoder).configured("tie_word_embeddings", false).missing(),
        table
    );
    let untied = full.doubled(table, &decoder);
    let found = bert_outputs(&untied);
    assert!(found["mlm_logits"] != all["mlm_logits"]);
    assert_all_but(
        &["mlm_logits"],
        &found.into_iter().filter(|(name, _)| name != "mlm_logits").collect(),
        &all,
    );
}

/// A file of an encoder alone, and the encoder of a whole model.
#[test]
fn encoders_by_themselves() {
    let ids = [9, 12, 7, 15, 3];
    for (name, root) in [("t5_relu_tied", ""), ("t5_gated_untied", ""), ("bart_sym", "model.")] {
        let full = Files::fixture(&format!("{name}/hf"));
        let mut session = Session::new(ctx());
        let tokens = Tokens::ragged(&ids, &[5]);
        let inputs = Seq2SeqInputs { encoder: tokens, decoder: Tokens::ragged(&ids[..1], &[1]) };
        let expected = match full.load() {
            Backbone::T5(model) => rows(model.forward(&mut session, inputs).unwrap().encoder_sequence_output),
            Backbone::Bart(model) => {
                rows(model.forward(&mut session, inputs).unwrap().encoder_sequence_output)
            }
            other => panic!("{}", other.name()),
        };
        let decoder = format!("{root}decoder.");
        let mut alone = full.clone().without(&decoder);
        alone.tensors.remove("lm_head.weight");
        let alone = alone.load();
        assert!(alone.decoder().is_none());
        assert_eq!(rows(alone.forward(&mut session, tokens).unwrap().sequence_output()), expected, "{name}");
        if root.is_empty() {
            let whole = T5Encoder::load(&full.preset()).unwrap();
            assert_eq!(rows(whole.forward(&mut session, tokens).unwrap()), expected, "{name}");
            let saved = Files::saved(&alone);
            assert_eq!(saved.config["architectures"], json!(["T5EncoderModel"]));
            let again = saved.load();
            assert_eq!(again.name(), "T5EncoderModel");
            assert_eq!(rows(again.forward(&mut session, tokens).unwrap().sequence_output()), expected);
        } else {
            let whole = BartEncoder::load(&full.preset()).unwrap();
            assert_eq!(rows(whole.forward(&mut session, tokens).unwrap()), expected, "{name}");
            let dir = tempfile::tempdir().unwrap();
            assert!(alone.save_preset(dir.path(), None).is_err());
        }
    }
}

/// The vectors of a batch of one.
fn rows(output: SequenceOutput<'_>) -> Vec<f32> {
    let rows = output.sequence(0);
    (0..rows.rows()).flat_map(|r| rows.row(r).to_vec()).collect()
}

#[test]
fn opt_without_its_last_norm() {
    let full = Files::fixture("opt_pre/hf");
    let expected = outputs("opt_pre", &full.load());
    let files = full.without("model.decoder.final_layer_norm.").configured("_remove_final_layer_norm", true);
    let found = outputs("opt_pre", &files.load());
    let last = found.keys().filter(|name| name.starts_with("hs.")).max().unwrap();
    assert!(found["sequence_output"] == found[last] && found[last] == expected[last]);
    assert!(found["sequence_output"] != expected["sequence_output"]);
    let saved = Files::saved(&files.load());
    assert_eq!((saved.names(), &saved.config["_remove_final_layer_norm"]), (files.names(), &true.into()));

    // Where each sum is normalised there is none to remove.
    let full = Files::fixture("opt_350m_style/hf");
    let files = full.clone().configured("_remove_final_layer_norm", true);
    assert!(outputs("opt_350m_style", &files.load()) == outputs("opt_350m_style", &full.load()));
}

/// A Keras directory that states only the arguments that have no default.
#[test]
fn defaults_are_those_of_keras_hub() {
    let dir = tempfile::tempdir().unwrap();
    let preset = |class: &str, config: Value| {
        let registered = format!("keras_hub>{class}");
        let json = json!({ "class_name": class, "registered_name": registered, "config": config });
        std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
        Preset::named_config(dir.path()).unwrap()
    };
    let sizes = |vocabulary: usize, layers: usize| {
        json!({
            "vocabulary_size": vocabulary, "num_layers": layers, "num_heads": 12, "hidden_dim": 768,
            "intermediate_dim": 3072,
        })
    };
    let found = BertConfig::from_preset(&preset("BertBackbone", sizes(30_522, 12))).unwrap();
    assert_eq!(found, BertConfig::default());
    let found = OptConfig::from_preset(&preset("OPTBackbone", sizes(50_272, 12))).unwrap();
    assert_eq!(found, OptConfig::default());
    let found = BartConfig::from_preset(&preset("BartBackbone", sizes(50_265, 6))).unwrap();
    assert_eq!(found, BartConfig::default());
    let found = T5Config::from_preset(&preset("T5Backbone", sizes(32_128, 12))).unwrap();
    assert_eq!(found, T5Config::default());
    let falcon = json!({
        "vocabulary_size": 50_304, "num_layers": 24, "num_attention_heads": 32, "hidden_dim": 2048,
        "intermediate_dim": 8192,
    });
    let found = FalconConfig::from_preset(&preset("FalconBackbone", falcon)).unwrap();
    assert_eq!(found, FalconConfig::default());
}

/// Weights of another configuration would be left out in silence, and another model computed.
#[test]
fn layers_and_biases_beyond_the_configuration_are_refused() {
    let extra = |files: Files| match Backbone::load(&files.preset()).unwrap_err() {
        Error::ExtraWeight { name } => name,
        error => panic!("{error}"),
    };
    for (name, field, layer) in [
        ("bert_gelu", "num_hidden_layers", "bert.encoder.layer.1."),
        ("opt_pre", "num_hidden_layers", "model.decoder.layers.1."),
        ("falcon_rw", "num_hidden_layers", "transformer.h.1."),
        ("bart_sym", "encoder_layers", "model.encoder.layers.1."),
        ("t5_relu_tied", "num_decoder_layers", "decoder.block.1."),
    ] {
        let name = extra(Files::fixture(&format!("{name}/hf")).configured(field, 1));
        assert!(name.starts_with(layer), "{name}");
    }
    let name = extra(Files::fixture("opt_pre/hf").configured("enable_bias", false));
    assert!(name.starts_with("model.decoder.layers.0.") && name.ends_with(".bias"), "{name}");
}
