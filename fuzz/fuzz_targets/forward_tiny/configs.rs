//! Small configurations of all architectures, at times with one absurd field, and the same as `config.json`.

use rachis::falcon::{AlibiRounding, FalconPositions};
use rachis::kernels::Activation;
use rachis::opt::OptPositions;
use rachis::{
    Backbone, BartBackbone, BartConfig, BertBackbone, BertConfig, FalconBackbone, FalconConfig, OptBackbone,
    OptConfig, Result, T5Backbone, T5Config,
};
use serde_json::{Value, json};

use crate::Input;

#[derive(Debug, Clone)]
pub enum Config {
    Bert(BertConfig),
    Opt(OptConfig),
    Bart(BartConfig),
    T5(T5Config),
    Falcon(FalconConfig),
}

impl Config {
    pub fn new(input: &Input) -> Config {
        let mut config = Config::fair(input);
        let [field, value] = input.absurd.map(usize::from);
        let numbers = config.numbers().len();
        if let Some(number) = config.numbers().into_iter().nth(field % 128) {
            *number = NUMBERS[value % NUMBERS.len()];
        } else if let Some(float) = config.floats().into_iter().nth(field % 128 - numbers) {
            *float = FLOATS[value % FLOATS.len()];
        } else if let (Config::Falcon(FalconConfig { positions, .. }), 100) = (&mut config, field % 128) {
            *positions = FalconPositions::Rotary { theta: THETAS[value % THETAS.len()] };
        }
        config
    }

    /// One that a model can have.
    fn fair(input: &Input) -> Config {
        let [heads, head_dim, inner, vocabulary, positions, layers, more, last, ..] =
            input.sizes.map(usize::from);
        let (num_heads, head_dim) = (1 + heads % 4, 1 + head_dim % 12);
        let (hidden_dim, intermediate_dim) = (num_heads * head_dim, 1 + inner % 64);
        let (vocabulary_size, max_sequence_length) = (2 + vocabulary % 59, 8 + positions % 12);
        let (num_layers, decoder_num_layers) = (1 + layers % 2, 1 + layers / 2 % 2);
        let is = |bit: u8| input.choices[0] >> bit & 1 == 1;
        let activation = ACTIVATIONS[usize::from(input.choices[1]) % ACTIVATIONS.len()];
        match input.architecture % 5 {
            0 => Config::Bert(BertConfig {
                vocabulary_size,
                num_layers,
                num_heads,
                hidden_dim,
                intermediate_dim,
                max_sequence_length,
                num_segments: 1 + more % 3,
                activation,
                ..BertConfig::default()
            }),
            1 => Config::Opt(OptConfig {
                vocabulary_size,
                num_layers,
                num_heads,
                hidden_dim,
                intermediate_dim,
                max_sequence_length,
                embedding_dim: if is(0) { 1 + more % 60 } else { hidden_dim },
                activation,
                norm_first: is(1),
                use_bias: is(2),
                norm_affine: is(3),
                positions: if is(4) { OptPositions::Absolute } else { OptPositions::RealTokens },
                ..OptConfig::default()
            }),
            2 => Config::Bart(BartConfig {
                vocabulary_size,
                num_layers,
                num_heads,
                hidden_dim,
                intermediate_dim,
                max_sequence_length,
                decoder_num_layers,
                decoder_num_heads: if is(0) { hidden_dim } else { num_heads },
                decoder_intermediate_dim: 1 + more % 64,
                activation,
                scale_embedding: is(1),
                ..BartConfig::default()
            }),
            3 => Config::T5(T5Config {
                vocabulary_size,
                num_layers,
                num_heads,
                hidden_dim: 1 + more % 48,
                intermediate_dim,
                key_value_dim: head_dim,
                activation,
                use_gated_activation: is(0),
                tie_embedding_weights: is(1),
                decoder_num_layers,
                num_buckets: 4 * (1 + last % 8),
                max_distance: 2 * (1 + last % 8) + 1 + positions,
                scale_logits: is(2),
                ..T5Config::default()
            }),
            _ => {
                let rotary = is(0);
                let hidden_dim = if rotary { 2 * (head_dim / 2 + 1) * num_heads } else { hidden_dim };
                let divisors: Vec<usize> = (1..=num_heads).filter(|n| num_heads.is_multiple_of(*n)).collect();
                let positions = if rotary {
                    FalconPositions::Rotary { theta: 10_000.0 }
                } else {
                    let rounding = if is(4) { AlibiRounding::Bf16 } else { AlibiRounding::None };
                    FalconPositions::Alibi { rounding }
                };
                Config::Falcon(FalconConfig {
                    vocabulary_size,
                    num_layers,
                    num_attention_heads: num_heads,
                    hidden_dim,
                    intermediate_dim,
                    num_kv_heads: divisors[more % divisors.len()],
                    activation,
                    use_bias: is(1),
                    parallel: is(2),
                    separate_norms: is(3),
                    positions,
                    tie_embedding_weights: is(5),
                    ..FalconConfig::default()
                })
            }
        }
    }

    fn numbers(&mut self) -> Vec<&mut usize> {
        match self {
            Config::Bert(c) => vec![
                &mut c.vocabulary_size,
                &mut c.num_layers,
                &mut c.num_heads,
                &mut c.hidden_dim,
                &mut c.intermediate_dim,
                &mut c.max_sequence_length,
                &mut c.num_segments,
            ],
            Config::Opt(c) => vec![
                &mut c.vocabulary_size,
                &mut c.num_layers,
                &mut c.num_heads,
                &mut c.hidden_dim,
                &mut c.intermediate_dim,
                &mut c.max_sequence_length,
                &mut c.embedding_dim,
            ],
            Config::Bart(c) => vec![
                &mut c.vocabulary_size,
                &mut c.num_layers,
                &mut c.num_heads,
                &mut c.hidden_dim,
                &mut c.intermediate_dim,
                &mut c.max_sequence_length,
                &mut c.decoder_num_layers,
                &mut c.decoder_num_heads,
                &mut c.decoder_intermediate_dim,
            ],
            Config::T5(c) => vec![
                &mut c.vocabulary_size,
                &mut c.num_layers,
                &mut c.num_heads,
                &mut c.hidden_dim,
                &mut c.intermediate_dim,
                &mut c.key_value_dim,
                &mut c.decoder_num_layers,
                &mut c.num_buckets,
                &mut c.max_distance,
            ],
            Config::Falcon(c) => vec![
                &mut c.vocabulary_size,
                &mut c.num_layers,
                &mut c.num_attention_heads,
                &mut c.hidden_dim,
                &mut c.intermediate_dim,
                &mut c.num_kv_heads,
            ],
        }
    }

    fn floats(&mut self) -> Vec<&mut f32> {
        match self {
            Config::Bert(c) => vec![&mut c.dropout, &mut c.layer_norm_epsilon],
            Config::Opt(c) => vec![&mut c.dropout],
            Config::Bart(c) => vec![&mut c.dropout],
            Config::T5(c) => vec![&mut c.dropout, &mut c.layer_norm_epsilon],
            Config::Falcon(c) => {
                vec![&mut c.attention_dropout_rate, &mut c.layer_norm_epsilon, &mut c.block_norm_epsilon]
            }
        }
    }

    /// Whether a model of this configuration takes little memory.
    pub fn is_small(&self) -> bool {
        self.clone().numbers().into_iter().all(|number| *number <= 200)
    }

    /// Whether a row of equal elements has a norm: not without an epsilon.
    pub fn has_norms(&self) -> bool {
        self.clone().floats().into_iter().skip(1).all(|epsilon| *epsilon > 0.0)
    }

    pub fn validate(&self) -> Result<()> {
        match self {
            Config::Bert(config) => config.validate(),
            Config::Opt(config) => config.validate(),
            Config::Bart(config) => config.validate(),
            Config::T5(config) => config.validate(),
            Config::Falcon(config) => config.validate(),
        }
    }

    pub fn random(&self, seed: u64) -> Result<Backbone> {
        match self.clone() {
            Config::Bert(config) => BertBackbone::random(config, seed).map(Backbone::Bert),
            Config::Opt(config) => OptBackbone::random(config, seed).map(Backbone::Opt),
            Config::Bart(config) => BartBackbone::random(config, seed).map(Backbone::Bart),
            Config::T5(config) => T5Backbone::random(config, seed).map(Backbone::T5),
            Config::Falcon(config) => FalconBackbone::random(config, seed).map(Backbone::Falcon),
        }
    }

    /// Hugging Face's `config.json`, as far as it can say the same.
    pub fn json(&self) -> Value {
        match self {
            Config::Bert(c) => json!({
                "model_type": "bert",
                "vocab_size": c.vocabulary_size,
                "num_hidden_layers": c.num_layers,
                "num_attention_heads": c.num_heads,
                "hidden_size": c.hidden_dim,
                "intermediate_size": c.intermediate_dim,
                "hidden_dropout_prob": c.dropout,
                "max_position_embeddings": c.max_sequence_length,
                "type_vocab_size": c.num_segments,
                "hidden_act": name(c.activation),
                "layer_norm_eps": c.layer_norm_epsilon,
            }),
            Config::Opt(c) => json!({
                "model_type": "opt",
                "vocab_size": c.vocabulary_size,
                "num_hidden_layers": c.num_layers,
                "num_attention_heads": c.num_heads,
                "hidden_size": c.hidden_dim,
                "ffn_dim": c.intermediate_dim,
                "dropout": c.dropout,
                "max_position_embeddings": c.max_sequence_length,
                "word_embed_proj_dim": c.embedding_dim,
                "activation_function": name(c.activation),
                "do_layer_norm_before": c.norm_first,
                "enable_bias": c.use_bias,
                "layer_norm_elementwise_affine": c.norm_affine,
            }),
            Config::Bart(c) => json!({
                "model_type": "bart",
                "vocab_size": c.vocabulary_size,
                "encoder_layers": c.num_layers,
                "encoder_attention_heads": c.num_heads,
                "d_model": c.hidden_dim,
                "encoder_ffn_dim": c.intermediate_dim,
                "dropout": c.dropout,
                "max_position_embeddings": c.max_sequence_length,
                "decoder_layers": c.decoder_num_layers,
                "decoder_attention_heads": c.decoder_num_heads,
                "decoder_ffn_dim": c.decoder_intermediate_dim,
                "activation_function": name(c.activation),
                "scale_embedding": c.scale_embedding,
            }),
            Config::T5(c) => json!({
                "model_type": "t5",
                "vocab_size": c.vocabulary_size,
                "num_layers": c.num_layers,
                "num_heads": c.num_heads,
                "d_model": c.hidden_dim,
                "d_ff": c.intermediate_dim,
                "d_kv": c.key_value_dim,
                "dropout_rate": c.dropout,
                "feed_forward_proj":
                    format!("{}{}", if c.use_gated_activation { "gated-" } else { "" }, name(c.activation)),
                "layer_norm_epsilon": c.layer_norm_epsilon,
                "num_decoder_layers": c.decoder_num_layers,
                "relative_attention_num_buckets": c.num_buckets,
                "relative_attention_max_distance": c.max_distance,
                "scale_decoder_outputs": c.scale_logits,
            }),
            Config::Falcon(c) => {
                let grouped = c.separate_norms || ![1, c.num_attention_heads].contains(&c.num_kv_heads);
                json!({
                    "model_type": "falcon",
                    "vocab_size": c.vocabulary_size,
                    "num_hidden_layers": c.num_layers,
                    "num_attention_heads": c.num_attention_heads,
                    "hidden_size": c.hidden_dim,
                    "ffn_hidden_size": c.intermediate_dim,
                    "layer_norm_epsilon": c.layer_norm_epsilon,
                    "attention_dropout": c.attention_dropout_rate,
                    "new_decoder_architecture": grouped,
                    "num_ln_in_parallel_attn": if c.separate_norms { 2 } else { 1 },
                    "num_kv_heads": c.num_kv_heads,
                    "multi_query": c.num_kv_heads == 1,
                    "parallel_attn": c.parallel || grouped,
                    "bias": c.use_bias,
                    "activation": name(c.activation),
                    "alibi": matches!(c.positions, FalconPositions::Alibi { .. }),
                    "rope_theta": match c.positions {
                        FalconPositions::Rotary { theta } => json!(theta),
                        _ => Value::Null,
                    },
                })
            }
        }
    }
}

const NUMBERS: [usize; 16] = [
    0,
    1,
    2,
    3,
    5,
    7,
    64,
    4096,
    4097,
    1 << 20,
    (1 << 20) + 1,
    1 << 24,
    1 << 32,
    1 << 60,
    1 << 63,
    usize::MAX,
];
const FLOATS: [f32; 8] = [f32::NAN, -1.0, f32::INFINITY, 0.0, 1e-40, 1.0, f32::MAX, 1e-12];
const THETAS: [f64; 8] = [f64::NAN, 0.0, -1.0, 5e-324, 1.0, 0.5, f64::MAX, f64::INFINITY];
const ACTIVATIONS: [Activation; 7] = [
    Activation::GeluErf,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Silu,
    Activation::QuickGelu,
    Activation::Tanh,
    Activation::Identity,
];

fn name(activation: Activation) -> &'static str {
    match activation {
        Activation::GeluErf => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::Relu => "relu",
        Activation::Silu => "silu",
        Activation::QuickGelu => "quick_gelu",
        Activation::Tanh => "tanh",
        _ => "linear",
    }
}
