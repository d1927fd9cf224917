//! OPT's configuration, by KerasHub's names.

use rachis_kernels::Activation;
use rachis_loader::{ConfigSource, Preset};
use serde_json::json;

use crate::config::{
    Fields, LARGEST_DIM, LARGEST_TABLE, MOST_LAYERS, activation, activation_name, divisor, fields, number,
    other_architecture, rate, within,
};
use crate::error::Result;

/// The arguments of an [`OptBackbone`](super::OptBackbone), and those that Hugging Face has beyond KerasHub.
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
    /// The most positions of a sequence.
    pub max_sequence_length: usize,
    /// Width of the token table and of the output; projections lead to and from `hidden_dim` where it differs.
    pub embedding_dim: usize,
    /// Between the dense layers.
    pub activation: Activation,
    /// Whether blocks normalise what goes in, and a last norm what comes out; the 350M model normalises each sum
    /// instead.
    pub norm_first: bool,
    /// Whether there is that last norm; no matter where each sum is normalised.
    pub final_norm: bool,
    /// Whether dense layers have biases.
    pub use_bias: bool,
    /// Whether norms have a scale and a shift.
    pub norm_affine: bool,
    /// What a token's position is.
    pub positions: OptPositions,
    /// Whether the logits' weights are the token table.
    pub tie_embedding_weights: bool,
}

/// What a token's position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OptPositions {
    /// Its place in the sequence, padding included, as in KerasHub.
    Absolute,
    /// The number of real tokens before it, as in transformers.
    Counted,
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
    /// The configuration of a preset, from Hugging Face's names or KerasHub's.
    ///
    /// # Errors
    /// A field that is missing, malformed or absurd; a preset of another architecture.
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
                        Some(false) | None => OptPositions::Counted,
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

    /// The fields of a Hugging Face configuration, and `absolute_positions`, which transformers does not know.
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
            "activation_function": activation_name(self.activation)?,
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
