//! Presets in memory: a `config.json` and a safetensors file with what it asks for, at times damaged.

use rachis::loader::{Preset, Region};
use rachis::{Backbone, BartConfig, BertConfig, FalconConfig, OptConfig, Result, T5Config};
use rachis_testkit::Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::Input;
use crate::configs::Config;

/// What is wrong with a preset.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    None,
    Missing,
    Shape,
    Dtype,
    Cut,
    Unknown,
}

/// The model of a preset, with the configuration read from it. A model whose configuration can be read and whose
/// weights are whole must load, and no other may.
pub fn load(input: &Input, config: &Config) -> Result<(Backbone, Config)> {
    let json = damaged_json(input, config).to_string();
    let empty = Region::from_vec("empty", [&2u64.to_le_bytes()[..], b"{}"].concat());
    let config = parsed(&Preset::from_bytes(json.as_bytes(), empty)?, config)?;
    let damage = match input.damage[0] % 32 {
        0 => Damage::Missing,
        1 => Damage::Shape,
        2 => Damage::Dtype,
        3 => Damage::Cut,
        4 => Damage::Unknown,
        _ => Damage::None,
    };
    // A configuration may ask for more than a file is made with here.
    let whole = config.is_small();
    let mut tensors = if whole { tensors(&config, input) } else { Vec::new() };
    let at = usize::from(input.damage[1]) % tensors.len().max(1);
    let (mut optional, mut replaced) = (false, false);
    if let (true, Damage::Missing) = (whole, damage) {
        let name = tensors.remove(at).0;
        optional = ["lm_head.weight", "final_logits_bias"].contains(&&*name);
        // A head that is tied to the table stands in for it.
        let table = ["shared.weight", "embed_tokens.weight", "word_embeddings.weight"];
        replaced = table.iter().any(|table| name.ends_with(table))
            && tensors.iter().any(|(name, ..)| name == "lm_head.weight");
    }
    let bytes = file(input, &tensors, (damage, at));
    let model = Preset::from_bytes(json.as_bytes(), Region::from_vec("weights", bytes))
        .map_err(Into::into)
        .and_then(|preset| Backbone::load(&preset));
    let good = whole && (matches!(damage, Damage::None | Damage::Unknown) || optional);
    match &model {
        Ok(_) => assert!(good || replaced, "{config:?} with {damage:?} of {at} was loaded"),
        Err(error) => assert!(!good, "{config:?}: {error}"),
    }
    Ok((model?, config))
}

fn parsed(preset: &Preset, config: &Config) -> Result<Config> {
    match config {
        Config::Bert(_) => BertConfig::from_preset(preset).map(Config::Bert),
        Config::Opt(_) => OptConfig::from_preset(preset).map(Config::Opt),
        Config::Bart(_) => BartConfig::from_preset(preset).map(Config::Bart),
        Config::T5(_) => T5Config::from_preset(preset).map(Config::T5),
        Config::Falcon(_) => FalconConfig::from_preset(preset).map(Config::Falcon),
    }
}

/// The configuration, at times with another value of a field, or without it.
fn damaged_json(input: &Input, config: &Config) -> Value {
    let mut json = config.json();
    let Value::Object(fields) = &mut json else { return json };
    let names: Vec<String> = fields.keys().cloned().collect();
    let name = &names[usize::from(input.damage[1]) % names.len()];
    let other = match input.damage[0] % 128 {
        64 => json!(null),
        65 => json!("two"),
        66 => json!(-1),
        67 => json!(1.5),
        68 => json!([4]),
        69 => json!(true),
        70 => json!(1e300),
        71 => {
            fields.remove(name);
            return json;
        }
        _ => return json,
    };
    fields.insert(name.clone(), other);
    json
}

fn file(input: &Input, tensors: &[(String, Vec<usize>)], (damage, at): (Damage, usize)) -> Vec<u8> {
    let mut rng = Rng::new(u64::from(input.seed) + 1);
    let scale = [0.02, 0.1, 0.5, 1.0][usize::from(input.dtypes) / 4 % 4];
    let mut data = Vec::new();
    for (i, (name, shape)) in tensors.iter().enumerate() {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| (scale * rng.signed()) as f32).collect();
        let bytes = |bits: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|x| bits(*x)).collect::<Vec<u8>>();
        let kind = usize::from(input.dtypes) % 4;
        let (dtype, bytes) = match if kind == 3 { (i + at) % 3 } else { kind } {
            0 => (Dtype::F32, bytes(&|x| x.to_le_bytes().to_vec())),
            1 => (Dtype::BF16, bytes(&|x| rachis::kernels::bf16::from_f32(x).to_le_bytes().to_vec())),
            _ => (Dtype::F16, bytes(&|x| rachis::kernels::f16::from_f32(x).to_le_bytes().to_vec())),
        };
        let (dtype, shape) = match damage {
            Damage::Dtype if i == at && dtype == Dtype::F32 => (Dtype::I32, shape.clone()),
            Damage::Dtype if i == at => (Dtype::I16, shape.clone()),
            Damage::Shape if i == at => (dtype, [&shape[..], &[1]].concat()),
            _ => (dtype, shape.clone()),
        };
        data.push((name.clone(), dtype, shape, bytes));
    }
    if damage == Damage::Unknown {
        data.push(("another".to_owned(), Dtype::I64, vec![1], vec![0; 8]));
    }
    let views = data.iter().map(|(name, dtype, shape, bytes)| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let mut bytes = safetensors::serialize(views, None).unwrap();
    if damage == Damage::Cut {
        bytes.truncate(bytes.len() - 1);
    }
    bytes
}

/// What a model of the configuration needs, by Hugging Face's names.
fn tensors(config: &Config, input: &Input) -> Vec<(String, Vec<usize>)> {
    let mut list = List(Vec::new());
    let is = |bit: u8| input.choices[0] >> bit & 1 == 1;
    match config {
        Config::Bert(c) => {
            let (hidden, root) = (c.hidden_dim, if is(6) { "bert." } else { "" });
            list.add(format!("{root}embeddings.word_embeddings.weight"), &[c.vocabulary_size, hidden]);
            list.add(
                format!("{root}embeddings.position_embeddings.weight"),
                &[c.max_sequence_length, hidden],
            );
            list.add(format!("{root}embeddings.token_type_embeddings.weight"), &[c.num_segments, hidden]);
            list.norm(format!("{root}embeddings.LayerNorm"), hidden);
            for i in 0..c.num_layers {
                let at = format!("{root}encoder.layer.{i}.");
                list.square(
                    &at,
                    ["query", "key", "value"].map(|name| format!("attention.self.{name}")),
                    hidden,
                );
                list.square(&at, ["attention.output.dense".to_owned()], hidden);
                list.norm(format!("{at}attention.output.LayerNorm"), hidden);
                list.dense(format!("{at}intermediate.dense"), [c.intermediate_dim, hidden], true);
                list.dense(format!("{at}output.dense"), [hidden, c.intermediate_dim], true);
                list.norm(format!("{at}output.LayerNorm"), hidden);
            }
            list.dense(format!("{root}pooler.dense"), [hidden, hidden], true);
        }
        Config::Opt(c) => {
            let (hidden, width) = (c.hidden_dim, c.embedding_dim);
            let root = if is(6) { "model.decoder." } else { "decoder." };
            list.add(format!("{root}embed_tokens.weight"), &[c.vocabulary_size, width]);
            list.add(format!("{root}embed_positions.weight"), &[c.max_sequence_length + 2, hidden]);
            if hidden != width {
                list.dense(format!("{root}project_in"), [hidden, width], false);
                list.dense(format!("{root}project_out"), [width, hidden], false);
            }
            for i in 0..c.num_layers {
                let at = format!("{root}layers.{i}.");
                for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                    list.dense(format!("{at}self_attn.{name}"), [hidden, hidden], c.use_bias);
                }
                list.dense(format!("{at}fc1"), [c.intermediate_dim, hidden], c.use_bias);
                list.dense(format!("{at}fc2"), [hidden, c.intermediate_dim], c.use_bias);
                if c.norm_affine {
                    list.norm(format!("{at}self_attn_layer_norm"), hidden);
                    list.norm(format!("{at}final_layer_norm"), hidden);
                }
            }
            if c.norm_first && c.norm_affine {
                list.norm(format!("{root}final_layer_norm"), hidden);
            }
        }
        Config::Bart(c) => {
            let (hidden, root) = (c.hidden_dim, if is(6) { "model." } else { "" });
            list.add(format!("{root}shared.weight"), &[c.vocabulary_size, hidden]);
            let stacks = [
                ("encoder", c.num_layers, c.intermediate_dim, false),
                ("decoder", c.decoder_num_layers, c.decoder_intermediate_dim, true),
            ];
            for (name, layers, inner, cross) in stacks {
                list.add(
                    format!("{root}{name}.embed_positions.weight"),
                    &[c.max_sequence_length + 2, hidden],
                );
                list.norm(format!("{root}{name}.layernorm_embedding"), hidden);
                for i in 0..layers {
                    let at = format!("{root}{name}.layers.{i}.");
                    for attention in ["self_attn", "encoder_attn"].into_iter().take(1 + usize::from(cross)) {
                        let names = ["q", "k", "v", "out"].map(|name| format!("{attention}.{name}_proj"));
                        list.square(&at, names, hidden);
                        list.norm(format!("{at}{attention}_layer_norm"), hidden);
                    }
                    list.dense(format!("{at}fc1"), [inner, hidden], true);
                    list.dense(format!("{at}fc2"), [hidden, inner], true);
                    list.norm(format!("{at}final_layer_norm"), hidden);
                }
            }
            if is(7) {
                list.add("final_logits_bias".to_owned(), &[1, c.vocabulary_size]);
            }
        }
        Config::T5(c) => {
            let (hidden, width) = (c.hidden_dim, c.num_heads * c.key_value_dim);
            list.add("shared.weight".to_owned(), &[c.vocabulary_size, hidden]);
            for (name, layers, cross) in
                [("encoder", c.num_layers, false), ("decoder", c.decoder_num_layers, true)]
            {
                let bias = format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
                list.add(bias, &[c.num_buckets, c.num_heads]);
                for i in 0..layers {
                    let at = format!("{name}.block.{i}.layer.");
                    let last = 1 + usize::from(cross);
                    for (j, attention) in ["SelfAttention", "EncDecAttention"].iter().take(last).enumerate() {
                        for name in ["q", "k", "v"] {
                            list.dense(format!("{at}{j}.{attention}.{name}"), [width, hidden], false);
                        }
                        list.dense(format!("{at}{j}.{attention}.o"), [hidden, width], false);
                        list.add(format!("{at}{j}.layer_norm.weight"), &[hidden]);
                    }
                    let into: &[&str] = if c.use_gated_activation { &["wi_0", "wi_1"] } else { &["wi"] };
                    for name in into {
                        let name = format!("{at}{last}.DenseReluDense.{name}");
                        list.dense(name, [c.intermediate_dim, hidden], false);
                    }
                    list.dense(format!("{at}{last}.DenseReluDense.wo"), [hidden, c.intermediate_dim], false);
                    list.add(format!("{at}{last}.layer_norm.weight"), &[hidden]);
                }
                list.add(format!("{name}.final_layer_norm.weight"), &[hidden]);
            }
            if is(7) {
                list.add("lm_head.weight".to_owned(), &[c.vocabulary_size, hidden]);
            }
        }
        Config::Falcon(c) => {
            let (hidden, root) = (c.hidden_dim, if is(6) { "transformer." } else { "" });
            let width = hidden / c.num_attention_heads * (c.num_attention_heads + 2 * c.num_kv_heads);
            list.add(format!("{root}word_embeddings.weight"), &[c.vocabulary_size, hidden]);
            for i in 0..c.num_layers {
                let at = format!("{root}h.{i}.");
                list.dense(format!("{at}self_attention.query_key_value"), [width, hidden], c.use_bias);
                list.dense(format!("{at}self_attention.dense"), [hidden, hidden], c.use_bias);
                list.dense(format!("{at}mlp.dense_h_to_4h"), [c.intermediate_dim, hidden], c.use_bias);
                list.dense(format!("{at}mlp.dense_4h_to_h"), [hidden, c.intermediate_dim], c.use_bias);
                let norms: &[&str] = match (c.parallel, c.separate_norms) {
                    (true, true) => &["ln_attn", "ln_mlp"],
                    (true, false) => &["input_layernorm"],
                    (false, _) => &["input_layernorm", "post_attention_layernorm"],
                };
                norms.iter().for_each(|name| list.norm(format!("{at}{name}"), hidden));
            }
            list.norm(format!("{root}ln_f"), hidden);
            if is(7) {
                list.add("lm_head.weight".to_owned(), &[c.vocabulary_size, hidden]);
            }
        }
    }
    list.0
}

struct List(Vec<(String, Vec<usize>)>);

impl List {
    fn add(&mut self, name: String, shape: &[usize]) {
        self.0.push((name, shape.to_vec()));
    }

    fn dense(&mut self, name: String, [outputs, inputs]: [usize; 2], bias: bool) {
        self.add(format!("{name}.weight"), &[outputs, inputs]);
        if bias {
            self.add(format!("{name}.bias"), &[outputs]);
        }
    }

    fn square<const N: usize>(&mut self, at: &str, names: [String; N], width: usize) {
        names.iter().for_each(|name| self.dense(format!("{at}{name}"), [width, width], true));
    }

    fn norm(&mut self, name: String, width: usize) {
        self.add(format!("{name}.weight"), &[width]);
        self.add(format!("{name}.bias"), &[width]);
    }
}
