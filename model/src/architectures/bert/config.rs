//! BERT's configuration, with KerasHub's names of fields.

use rachis_kernels::Activation;
use rachis_loader::{ConfigSource, Preset};
use serde_json::json;

use crate::config::{
    Fields, LARGEST_DIM, LARGEST_TABLE, MOST_LAYERS, activation, divisor, epsilon, field, fields, number,
    other_architecture, rate, within,
};
use crate::error::Result;

/// The arguments of a [`BertBackbone`](super::BertBackbone).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BertConfig {
    /// Rows of the token table.
    pub vocabulary_size: usize,
    /// Number of transformer layers.
    pub num_layers: usize,
    /// Attention heads of a layer; must divide `hidden_dim`.
    pub num_heads: usize,
    /// Width of a token's vector.
    pub hidden_dim: usize,
    /// Width between the two dense layers of a feed-forward block.
    pub intermediate_dim: usize,
    /// Dropout rate in training; inference has none.
    pub dropout: f32,
    /// Rows of the position table.
    pub max_sequence_length: usize,
    /// Rows of the segment table.
    pub num_segments: usize,
    /// The activation between the dense layers: Hugging Face's `hidden_act`; always the tanh form of gelu in KerasHub.
    pub activation: Activation,
    /// The constant that every layer norm adds to the variance.
    pub layer_norm_epsilon: f32,
    /// Whether the token table is also the matrix of the masked-language-model head, where files have only one of them.
    pub tie_embedding_weights: bool,
}

impl Default for BertConfig {
    /// BERT base, uncased English, with KerasHub's defaults.
    fn default() -> Self {
        BertConfig {
            vocabulary_size: 30_522,
            num_layers: 12,
            num_heads: 12,
            hidden_dim: 768,
            intermediate_dim: 3072,
            dropout: 0.1,
            max_sequence_length: 512,
            num_segments: 2,
            activation: Activation::GeluTanh,
            layer_norm_epsilon: 1e-12,
            tie_embedding_weights: true,
        }
    }
}

impl BertConfig {
    /// The configuration of a preset, with Hugging Face's or KerasHub's names of fields.
    ///
    /// # Errors
    /// When a field is missing, malformed or out of range, or the preset holds another architecture.
    pub fn from_preset(preset: &Preset) -> Result<BertConfig> {
        let config = preset.config();
        let defaults = BertConfig::default();
        let parsed = match config.source() {
            ConfigSource::HuggingFace { model_type } if model_type == "bert" => {
                if config.opt_bool("is_decoder")?.unwrap_or(false) {
                    return Err(field("is_decoder", true, "false"));
                }
                let positions = config.opt_str("position_embedding_type")?.unwrap_or("absolute");
                if positions != "absolute" {
                    return Err(field("position_embedding_type", positions, "absolute"));
                }
                BertConfig {
                    vocabulary_size: config.usize("vocab_size")?,
                    num_layers: config.usize("num_hidden_layers")?,
                    num_heads: config.usize("num_attention_heads")?,
                    hidden_dim: config.usize("hidden_size")?,
                    intermediate_dim: config.usize("intermediate_size")?,
                    dropout: config.opt_f32("hidden_dropout_prob")?.unwrap_or(defaults.dropout),
                    max_sequence_length: config.usize("max_position_embeddings")?,
                    num_segments: config.opt_usize("type_vocab_size")?.unwrap_or(defaults.num_segments),
                    activation: activation(config.opt_str("hidden_act")?.unwrap_or("gelu"))?,
                    layer_norm_epsilon: config
                        .opt_f32("layer_norm_eps")?
                        .unwrap_or(defaults.layer_norm_epsilon),
                    tie_embedding_weights: config.opt_bool("tie_word_embeddings")?.unwrap_or(true),
                }
            }
            ConfigSource::Keras { class_name } if class_name == "BertBackbone" => BertConfig {
                vocabulary_size: config.usize("vocabulary_size")?,
                num_layers: config.usize("num_layers")?,
                num_heads: config.usize("num_heads")?,
                hidden_dim: config.usize("hidden_dim")?,
                intermediate_dim: config.usize("intermediate_dim")?,
                dropout: config.opt_f32("dropout")?.unwrap_or(defaults.dropout),
                max_sequence_length: config
                    .opt_usize("max_sequence_length")?
                    .unwrap_or(defaults.max_sequence_length),
                num_segments: config.opt_usize("num_segments")?.unwrap_or(defaults.num_segments),
                ..defaults
            },
            _ => return Err(other_architecture(preset, "BertBackbone")),
        };
        parsed.validate()?;
        Ok(parsed)
    }

    /// The fields of a Hugging Face configuration.
    pub(crate) fn to_hugging_face(&self) -> Result<Fields> {
        Ok(fields(json!({
            "architectures": ["BertModel"],
            "model_type": "bert",
            "vocab_size": self.vocabulary_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "hidden_size": self.hidden_dim,
            "intermediate_size": self.intermediate_dim,
            "hidden_dropout_prob": number(self.dropout),
            "max_position_embeddings": self.max_sequence_length,
            "type_vocab_size": self.num_segments,
            "hidden_act": self.activation.name(),
            "layer_norm_eps": number(self.layer_norm_epsilon),
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
        within("num_heads", self.num_heads, self.hidden_dim)?;
        within("intermediate_dim", self.intermediate_dim, LARGEST_DIM)?;
        within("max_sequence_length", self.max_sequence_length, LARGEST_TABLE)?;
        within("num_segments", self.num_segments, LARGEST_TABLE)?;
        divisor("num_heads", self.num_heads, ("hidden_dim", self.hidden_dim))?;
        epsilon("layer_norm_epsilon", self.layer_norm_epsilon)?;
        rate("dropout", self.dropout)
    }
}
