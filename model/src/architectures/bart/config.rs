//! BART's configuration, with KerasHub's names of fields.

use rachis_kernels::Activation;
use rachis_loader::{ConfigSource, Preset};
use serde_json::json;

use crate::config::{
    Fields, LARGEST_DIM, LARGEST_TABLE, MOST_LAYERS, activation, divisor, fields, number, other_architecture,
    rate, within,
};
use crate::error::Result;

/// The arguments of a [`BartBackbone`](super::BartBackbone), and those that Hugging Face has beyond KerasHub's.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BartConfig {
    /// Rows of the token table.
    pub vocabulary_size: usize,
    /// Number of layers of the encoder.
    pub num_layers: usize,
    /// Attention heads of an encoder layer; must divide `hidden_dim`.
    pub num_heads: usize,
    /// Width of a token's vector.
    pub hidden_dim: usize,
    /// Width between the two dense layers of the encoder's feed-forward blocks.
    pub intermediate_dim: usize,
    /// Dropout rate in training; inference has none.
    pub dropout: f32,
    /// The largest number of positions of a sequence.
    pub max_sequence_length: usize,
    /// Number of layers of the decoder. In KerasHub it equals the number of the encoder.
    pub decoder_num_layers: usize,
    /// Attention heads of a decoder layer; must divide `hidden_dim`.
    pub decoder_num_heads: usize,
    /// Width between the two dense layers of the decoder's feed-forward blocks.
    pub decoder_intermediate_dim: usize,
    /// The activation between the dense layers.
    pub activation: Activation,
    /// Whether token vectors are multiplied by the square root of `hidden_dim`.
    pub scale_embedding: bool,
    /// Whether the token table is also the weight of the logits.
    pub tie_embedding_weights: bool,
    /// Whether the encoder and the decoder have token tables of their own, not one that they share.
    pub separate_token_tables: bool,
}

impl Default for BartConfig {
    /// BART base, with KerasHub's defaults.
    fn default() -> Self {
        BartConfig {
            vocabulary_size: 50_265,
            num_layers: 6,
            num_heads: 12,
            hidden_dim: 768,
            intermediate_dim: 3072,
            dropout: 0.1,
            max_sequence_length: 1024,
            decoder_num_layers: 6,
            decoder_num_heads: 12,
            decoder_intermediate_dim: 3072,
            activation: Activation::GeluErf,
            scale_embedding: false,
            tie_embedding_weights: true,
            separate_token_tables: false,
        }
    }
}

impl BartConfig {
    /// The configuration of a preset, with Hugging Face's or KerasHub's names of fields.
    ///
    /// # Errors
    /// When a field is missing, malformed or out of range, or the preset holds another architecture.
    pub fn from_preset(preset: &Preset) -> Result<BartConfig> {
        let config = preset.config();
        let defaults = BartConfig::default();
        let parsed = match config.source() {
            ConfigSource::HuggingFace { model_type } if model_type == "bart" => BartConfig {
                vocabulary_size: config.usize("vocab_size")?,
                num_layers: config.usize("encoder_layers")?,
                num_heads: config.usize("encoder_attention_heads")?,
                hidden_dim: config.usize("d_model")?,
                intermediate_dim: config.usize("encoder_ffn_dim")?,
                dropout: config.opt_f32("dropout")?.unwrap_or(defaults.dropout),
                max_sequence_length: config.usize("max_position_embeddings")?,
                decoder_num_layers: config.usize("decoder_layers")?,
                decoder_num_heads: config.usize("decoder_attention_heads")?,
                decoder_intermediate_dim: config.usize("decoder_ffn_dim")?,
                activation: activation(config.opt_str("activation_function")?.unwrap_or("gelu"))?,
                scale_embedding: config.opt_bool("scale_embedding")?.unwrap_or(false),
                tie_embedding_weights: config.opt_bool("tie_word_embeddings")?.unwrap_or(true),
                ..defaults
            },
            ConfigSource::Keras { class_name } if class_name == "BartBackbone" => {
                let (num_layers, num_heads) = (config.usize("num_layers")?, config.usize("num_heads")?);
                let intermediate_dim = config.usize("intermediate_dim")?;
                BartConfig {
                    vocabulary_size: config.usize("vocabulary_size")?,
                    num_layers,
                    num_heads,
                    hidden_dim: config.usize("hidden_dim")?,
                    intermediate_dim,
                    dropout: config.opt_f32("dropout")?.unwrap_or(defaults.dropout),
                    max_sequence_length: config
                        .opt_usize("max_sequence_length")?
                        .unwrap_or(defaults.max_sequence_length),
                    decoder_num_layers: num_layers,
                    decoder_num_heads: num_heads,
                    decoder_intermediate_dim: intermediate_dim,
                    ..defaults
                }
            }
            _ => return Err(other_architecture(preset, "BartBackbone")),
        };
        parsed.validate()?;
        Ok(parsed)
    }

    /// The fields of a Hugging Face configuration.
    pub(crate) fn to_hugging_face(&self) -> Result<Fields> {
        Ok(fields(json!({
            "architectures": ["BartForConditionalGeneration"],
            "model_type": "bart",
            "is_encoder_decoder": true,
            "vocab_size": self.vocabulary_size,
            "d_model": self.hidden_dim,
            "encoder_layers": self.num_layers,
            "encoder_attention_heads": self.num_heads,
            "encoder_ffn_dim": self.intermediate_dim,
            "decoder_layers": self.decoder_num_layers,
            "decoder_attention_heads": self.decoder_num_heads,
            "decoder_ffn_dim": self.decoder_intermediate_dim,
            "dropout": number(self.dropout),
            "max_position_embeddings": self.max_sequence_length,
            "activation_function": self.activation.name(),
            "scale_embedding": self.scale_embedding,
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
        within("decoder_num_layers", self.decoder_num_layers, MOST_LAYERS)?;
        within("decoder_num_heads", self.decoder_num_heads, self.hidden_dim)?;
        within("decoder_intermediate_dim", self.decoder_intermediate_dim, LARGEST_DIM)?;
        divisor("num_heads", self.num_heads, ("hidden_dim", self.hidden_dim))?;
        divisor("decoder_num_heads", self.decoder_num_heads, ("hidden_dim", self.hidden_dim))?;
        rate("dropout", self.dropout)
    }
}
