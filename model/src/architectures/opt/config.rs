//! OPT's configuration, with KerasHub's names of fields.

use rachis_kernels::Activation;
use rachis_loader::{ConfigSource, Preset};
use serde_json::json;

use crate::config::{
    Fields, LARGEST_DIM, LARGEST_TABLE, MOST_LAYERS, activation, divisor, fields, number, other_architecture,
    rate, within,
};
use crate::error::Result;

/// The arguments of an [`OptBackbone`](super::OptBackbone), and those that Hugging Face has beyond KerasHub's.
#[derive(Debug, Clone, PartialEq)]
pub struct OptConfig {
    /// Rows of the token table.
    pub vocabulary_size: usize,
    /// Number of transformer layers.
    pub num_layers: usize,
    /// Attention heads of a layer; must divide `hidden_dim`.
    pub num_heads: usize,
    /// Width of a token's vector within the layers.
    pub hidden_dim: usize,
    /// Width between the two dense layers of a feed-forward block.
    pub intermediate_dim: usize,
    /// Dropout rate in training; inference has none.
    pub dropout: f32,
    /// The largest number of positions of a sequence.
    pub max_sequence_length: usize,
    /// Width of the token table and of the output. Where it differs from `hidden_dim`, projections convert between the
    /// two.
    pub embedding_dim: usize,
    /// The activation between the dense layers.
    pub activation: Activation,
    /// Whether norms are before the sub-layers, with one more at the end. The 350M model has them behind the sub-layers
    /// instead.
    pub norm_first: bool,
    /// Whether there is the norm at the end. Only with `norm_first`.
    pub final_norm: bool,
    /// Whether dense layers have biases.
    pub use_bias: bool,
    /// Whether norms have a scale and a shift.
    pub norm_affine: bool,
    /// How positions are counted.
    pub positions: OptPositions,
    /// Whether the token table is also the weight of the logits.
    pub tie_embedding_weights: bool,
}

/// How the positions of tokens are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OptPositions {
    /// From the start of the sequence, padding included, as in KerasHub.
    Absolute,
    /// The number of real tokens before the token, as in transformers.
    RealTokens,
}

impl Default for OptConfig {
    /// OPT 125M, with KerasHub's defaults.
    fn default() -> Self {
        OptConfig {
            vocabulary_size: 50_272,
            num_layers: 12,
            num_heads: 12,
            hidden_dim: 768,
            intermediate_dim: 3072,
            dropout: 0.1,
            max_sequence_length: 2048,
            embedding_dim: 768,
            activation: Activation::Relu,
            norm_first: true,
            final_norm: true,
            use_bias: true,
            norm_affine: true,
            positions: OptPositions::Absolute,
            tie_embedding_weights: true,
        }
    }
}

impl OptConfig {
    /// The configuration of a preset, with Hugging Face's or KerasHub's names of fields.
    ///
    /// # Errors
    /// When a field is missing, malformed or out of range, or the preset holds another architecture.
    pub fn from_preset(preset: &Preset) -> Result<OptConfig> {
        let config = preset.config();
        let defaults = OptConfig::default();
        let parsed = match config.source() {
            ConfigSource::HuggingFace { model_type } if model_type == "opt" => {
                let hidden_dim = config.usize("hidden_size")?;
                OptConfig {
                    vocabulary_size: config.usize("vocab_size")?,
                    num_layers: config.usize("num_hidden_layers")?,
                    num_heads: config.usize("num_attention_heads")?,
                    hidden_dim,
                    intermediate_dim: config.usize("ffn_dim")?,
                    dropout: config.opt_f32("dropout")?.unwrap_or(defaults.dropout),
                    max_sequence_length: config.usize("max_position_embeddings")?,
                    embedding_dim: config.opt_usize("word_embed_proj_dim")?.unwrap_or(hidden_dim),
                    activation: activation(config.opt_str("activation_function")?.unwrap_or("relu"))?,
                    norm_first: config.opt_bool("do_layer_norm_before")?.unwrap_or(true),
                    final_norm: !config.opt_bool("_remove_final_layer_norm")?.unwrap_or(false),
                    use_bias: config.opt_bool("enable_bias")?.unwrap_or(true),
                    norm_affine: config.opt_bool("layer_norm_elementwise_affine")?.unwrap_or(true),
                    positions: match config.opt_bool("absolute_positions")? {
                        Some(true) => OptPositions::Absolute,
                        Some(false) | None => OptPositions::RealTokens,
                    },
                    tie_embedding_weights: config.opt_bool("tie_word_embeddings")?.unwrap_or(true),
                }
            }
            ConfigSource::Keras { class_name } if class_name == "OPTBackbone" => {
                let hidden_dim = config.usize("hidden_dim")?;
                OptConfig {
                    vocabulary_size: config.usize("vocabulary_size")?,
                    num_layers: config.usize("num_layers")?,
                    num_heads: config.usize("num_heads")?,
                    hidden_dim,
                    intermediate_dim: config.usize("intermediate_dim")?,
                    dropout: config.opt_f32("dropout")?.unwrap_or(defaults.dropout),
                    max_sequence_length: config
                        .opt_usize("max_sequence_length")?
                        .unwrap_or(defaults.max_sequence_length),
                    embedding_dim: hidden_dim,
                    ..defaults
                }
            }
            _ => return Err(other_architecture(preset, "OptBackbone")),
        };
        parsed.validate()?;
        Ok(parsed)
    }

    /// The fields of a Hugging Face configuration, and `absolute_positions`, which transformers ignores.
    pub(crate) fn to_hugging_face(&self) -> Result<Fields> {
        Ok(fields(json!({
            "architectures": ["OPTForCausalLM"],
            "model_type": "opt",
            "vocab_size": self.vocabulary_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "hidden_size": self.hidden_dim,
            "ffn_dim": self.intermediate_dim,
            "dropout": number(self.dropout),
            "max_position_embeddings": self.max_sequence_length,
            "word_embed_proj_dim": self.embedding_dim,
            "activation_function": self.activation.name(),
            "do_layer_norm_before": self.norm_first,
            "_remove_final_layer_norm": !self.final_norm,
            "enable_bias": self.use_bias,
            "layer_norm_elementwise_affine": self.norm_affine,
            "tie_word_embeddings": self.tie_embedding_weights,
            "absolute_positions": self.positions == OptPositions::Absolute,
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
        within("num_heads", self.num_heads, self.hidden_dim)?;
        within("intermediate_dim", self.intermediate_dim, LARGEST_DIM)?;
        within("max_sequence_length", self.max_sequence_length, LARGEST_TABLE)?;
        within("embedding_dim", self.embedding_dim, LARGEST_DIM)?;
        divisor("num_heads", self.num_heads, ("hidden_dim", self.hidden_dim))?;
        rate("dropout", self.dropout)
    }
}
