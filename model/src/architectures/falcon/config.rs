//! Falcon's configuration, with KerasHub's names of fields.

use rachis_kernels::{Activation, AlibiRounding};
use rachis_loader::{Config, ConfigSource, Preset};
use serde_json::json;

use crate::config::{
    Fields, LARGEST_DIM, LARGEST_TABLE, MOST_LAYERS, activation, divisor, epsilon, field, fields, number,
    other_architecture, rate, within,
};
use crate::error::Result;

/// The arguments of a [`FalconBackbone`](super::FalconBackbone), and those that Hugging Face has beyond KerasHub's.
#[derive(Debug, Clone, PartialEq)]
pub struct FalconConfig {
    /// Rows of the token table.
    pub vocabulary_size: usize,
    /// Number of transformer layers.
    pub num_layers: usize,
    /// Heads of queries of a layer; must divide `hidden_dim`.
    pub num_attention_heads: usize,
    /// Width of a token's vector.
    pub hidden_dim: usize,
    /// Width between the two dense layers of a feed-forward block.
    pub intermediate_dim: usize,
    /// The constant that the last norm adds to the variance. In Hugging Face's models every norm adds it.
    pub layer_norm_epsilon: f32,
    /// Dropout rate of attention in training; inference has none.
    pub attention_dropout_rate: f32,
    /// Dropout rate of the feed-forward blocks in training; inference has none.
    pub feedforward_dropout_rate: f32,
    /// Heads of keys and values, each shared by as many heads of queries; must divide `num_attention_heads`.
    pub num_kv_heads: usize,
    /// The activation between the dense layers.
    pub activation: Activation,
    /// Whether dense layers have biases.
    pub use_bias: bool,
    /// Whether a layer's attention and feed-forward block have the same input, instead of one following the other.
    pub parallel: bool,
    /// Whether the two have separate norms. Only with `parallel`.
    pub separate_norms: bool,
    /// What positions do.
    pub positions: FalconPositions,
    /// The constant that the layers' norms add to the variance: always 1e-5 in KerasHub.
    pub block_norm_epsilon: f32,
    /// Whether the token table is also the weight of the logits.
    pub tie_embedding_weights: bool,
}

/// What positions do in a Falcon model.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum FalconPositions {
    /// ALiBi: the head's slope times the key's position is added to the scores.
    Alibi {
        /// How slopes and biases are rounded: in bf16 in transformers, not at all in KerasHub.
        rounding: AlibiRounding,
    },
    /// RoPE: queries and keys are rotated by angles proportional to their positions.
    Rotary {
        /// The base of the geometric sequence of frequencies.
        theta: f64,
    },
}

impl Default for FalconConfig {
    /// Falcon RefinedWeb 1B, with KerasHub's defaults.
    fn default() -> Self {
        FalconConfig {
            vocabulary_size: 50_304,
            num_layers: 24,
            num_attention_heads: 32,
            hidden_dim: 2048,
            intermediate_dim: 8192,
            layer_norm_epsilon: 1e-5,
            attention_dropout_rate: 0.0,
            feedforward_dropout_rate: 0.0,
            num_kv_heads: 32,
            activation: Activation::GeluErf,
            use_bias: true,
            parallel: false,
            separate_norms: false,
            positions: FalconPositions::Alibi { rounding: AlibiRounding::None },
            block_norm_epsilon: 1e-5,
            tie_embedding_weights: true,
        }
    }
}

impl FalconConfig {
    /// The configuration of a preset, with Hugging Face's names of fields (of any version) or KerasHub's.
    ///
    /// # Errors
    /// When a field is missing, malformed or out of range, or the preset holds another architecture.
    pub fn from_preset(preset: &Preset) -> Result<FalconConfig> {
        let config = preset.config();
        let defaults = FalconConfig::default();
        let parsed = match config.source() {
            ConfigSource::HuggingFace { model_type }
                if matches!(model_type.as_str(), "falcon" | "RefinedWeb" | "RefinedWebModel") =>
            {
                FalconConfig::hugging_face(config, defaults)?
            }
            ConfigSource::Keras { class_name } if class_name == "FalconBackbone" => {
                let heads = config.usize("num_attention_heads")?;
                FalconConfig {
                    vocabulary_size: config.usize("vocabulary_size")?,
                    num_layers: config.usize("num_layers")?,
                    num_attention_heads: heads,
                    hidden_dim: config.usize("hidden_dim")?,
                    intermediate_dim: config.usize("intermediate_dim")?,
                    layer_norm_epsilon: config
                        .opt_f32("layer_norm_epsilon")?
                        .unwrap_or(defaults.layer_norm_epsilon),
                    attention_dropout_rate: config.opt_f32("attention_dropout_rate")?.unwrap_or(0.0),
                    feedforward_dropout_rate: config.opt_f32("feedforward_dropout_rate")?.unwrap_or(0.0),
                    num_kv_heads: heads,
                    ..defaults
                }
            }
            _ => return Err(other_architecture(preset, "FalconBackbone")),
        };
        parsed.validate()?;
        Ok(parsed)
    }

    fn hugging_face(config: &Config, defaults: FalconConfig) -> Result<FalconConfig> {
        let either = |name: &str, old: &str| match config.opt_usize(old)? {
            Some(value) => Ok(value),
            None => config.usize(name),
        };
        let flag =
            |name: &str, default: bool| Ok::<_, crate::Error>(config.opt_bool(name)?.unwrap_or(default));
        let heads = either("num_attention_heads", "n_head")?;
        let hidden_dim = config.usize("hidden_size")?;
        let old_groups = config.opt_usize("n_head_kv")?;
        let new_architecture = flag("new_decoder_architecture", old_groups.is_some())?;
        let parallel = flag("parallel_attn", true)?;
        let norms = config.opt_usize("num_ln_in_parallel_attn")?.unwrap_or(2);
        if new_architecture && (norms > 2 || norms == 0 || norms == 1 && !parallel) {
            return Err(field("num_ln_in_parallel_attn", norms, "1 with parallel_attn, or 2"));
        }
        let num_kv_heads = match (new_architecture, flag("multi_query", true)?) {
            (true, _) => old_groups.or(config.opt_usize("num_kv_heads")?).unwrap_or(heads),
            (false, true) => 1,
            (false, false) => heads,
        };
        let epsilon = config.opt_f32("layer_norm_epsilon")?.unwrap_or(defaults.layer_norm_epsilon);
        Ok(FalconConfig {
            vocabulary_size: config.usize("vocab_size")?,
            num_layers: either("num_hidden_layers", "n_layer")?,
            num_attention_heads: heads,
            hidden_dim,
            intermediate_dim: config.opt_usize("ffn_hidden_size")?.unwrap_or(hidden_dim.saturating_mul(4)),
            layer_norm_epsilon: epsilon,
            attention_dropout_rate: config.opt_f32("attention_dropout")?.unwrap_or(0.0),
            feedforward_dropout_rate: config.opt_f32("hidden_dropout")?.unwrap_or(0.0),
            num_kv_heads,
            activation: activation(config.opt_str("activation")?.unwrap_or("gelu"))?,
            use_bias: flag("bias", false)?,
            parallel: parallel || new_architecture,
            separate_norms: new_architecture && norms == 2,
            positions: if flag("alibi", false)? {
                FalconPositions::Alibi {
                    rounding: match flag("round_alibi", true)? {
                        true => AlibiRounding::Bf16,
                        false => AlibiRounding::None,
                    },
                }
            } else {
                FalconPositions::Rotary { theta: rotary_theta(config)? }
            },
            block_norm_epsilon: config.opt_f32("block_norm_epsilon")?.unwrap_or(epsilon),
            tie_embedding_weights: flag("tie_word_embeddings", true)?,
        })
    }

    /// The fields of a Hugging Face configuration, and `round_alibi` and `block_norm_epsilon`, which transformers
    /// ignores.
    pub(crate) fn to_hugging_face(&self) -> Result<Fields> {
        let all = self.num_kv_heads == self.num_attention_heads;
        let new = self.parallel && (self.separate_norms || !all && self.num_kv_heads > 1);
        if !self.parallel && !all && self.num_kv_heads > 1 {
            let expected = "1, or as many as heads, where blocks follow one another in transformers";
            return Err(field("num_kv_heads", self.num_kv_heads, expected));
        }
        let theta = match self.positions {
            FalconPositions::Alibi { .. } => DEFAULT_THETA,
            FalconPositions::Rotary { theta } => theta,
        };
        Ok(fields(json!({
            "architectures": ["FalconForCausalLM"],
            "model_type": "falcon",
            "vocab_size": self.vocabulary_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_kv_heads": self.num_kv_heads,
            "hidden_size": self.hidden_dim,
            "ffn_hidden_size": self.intermediate_dim,
            "layer_norm_epsilon": number(self.layer_norm_epsilon),
            "block_norm_epsilon": number(self.block_norm_epsilon),
            "attention_dropout": number(self.attention_dropout_rate),
            "hidden_dropout": number(self.feedforward_dropout_rate),
            "activation": self.activation.name(),
            "bias": self.use_bias,
            "new_decoder_architecture": new,
            "num_ln_in_parallel_attn": if self.separate_norms { 2 } else { 1 },
            "parallel_attn": self.parallel,
            "multi_query": !all,
            "alibi": matches!(self.positions, FalconPositions::Alibi { .. }),
            "round_alibi": self.positions != FalconPositions::Alibi { rounding: AlibiRounding::None },
            "rope_theta": theta,
            "tie_word_embeddings": self.tie_embedding_weights,
        })))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the first field that no model can have.
    pub fn validate(&self) -> Result<()> {
        within("vocabulary_size", self.vocabulary_size, LARGEST_TABLE)?;
        within("num_layers", self.num_layers, MOST_LAYERS)?;
        within("hidden_dim", self.hidden_dim, LARGEST_DIM)?;
        within("num_attention_heads", self.num_attention_heads, self.hidden_dim)?;
        within("num_kv_heads", self.num_kv_heads, self.num_attention_heads)?;
        within("intermediate_dim", self.intermediate_dim, LARGEST_DIM)?;
        divisor("num_attention_heads", self.num_attention_heads, ("hidden_dim", self.hidden_dim))?;
        let heads = ("num_attention_heads", self.num_attention_heads);
        divisor("num_kv_heads", self.num_kv_heads, heads)?;
        if let FalconPositions::Rotary { theta } = self.positions {
            let head_dim = self.hidden_dim / self.num_attention_heads;
            if !head_dim.is_multiple_of(2) {
                return Err(field("num_attention_heads", head_dim, "heads of even width, to be rotated"));
            }
            // Angles are the position divided by powers of theta.
            if !(theta.is_finite() && theta >= 1.0) {
                return Err(field("rope_theta", theta, "a finite number, at least 1"));
            }
        }
        epsilon("layer_norm_epsilon", self.layer_norm_epsilon)?;
        epsilon("block_norm_epsilon", self.block_norm_epsilon)?;
        rate("attention_dropout_rate", self.attention_dropout_rate)?;
        rate("feedforward_dropout_rate", self.feedforward_dropout_rate)
    }
}

/// RoPE's theta, by its new name or its old one. Scaled positions are refused: no Falcon model has them.
fn rotary_theta(config: &Config) -> Result<f64> {
    if let Some(scaling) = config.value("rope_scaling").filter(|scaling| !scaling.is_null()) {
        return Err(field("rope_scaling", scaling, "null"));
    }
    let Some(parameters) = config.value("rope_parameters").filter(|parameters| !parameters.is_null()) else {
        return Ok(config.opt_f64("rope_theta")?.unwrap_or(DEFAULT_THETA));
    };
    match parameters.get("rope_type").map(|kind| kind.as_str()) {
        None | Some(Some("default")) => {}
        Some(_) => return Err(field("rope_parameters", parameters, "of rope_type default")),
    }
    match parameters.get("rope_theta") {
        None => Ok(DEFAULT_THETA),
        Some(theta) => {
            theta.as_f64().ok_or_else(|| field("rope_parameters", parameters, "a number as rope_theta"))
        }
    }
}

const DEFAULT_THETA: f64 = 10_000.0;
