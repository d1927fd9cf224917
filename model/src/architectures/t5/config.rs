//! T5's configuration, with KerasHub's names of fields.

use rachis_kernels::Activation;
use rachis_loader::{ConfigSource, Preset};
use serde_json::json;

use crate::config::{
    Fields, LARGEST_DIM, LARGEST_TABLE, MOST_LAYERS, activation, epsilon, field, fields, keras_activation,
    number, other_architecture, rate, within,
};
use crate::error::Result;

/// The arguments of a [`T5Backbone`](super::T5Backbone), and those that Hugging Face has beyond KerasHub's.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct T5Config {
    /// Rows of the token table.
    pub vocabulary_size: usize,
    /// Number of layers of the encoder.
    pub num_layers: usize,
    /// Attention heads of a layer.
    pub num_heads: usize,
    /// Width of a token's vector.
    pub hidden_dim: usize,
    /// Width between the dense layers of a feed-forward block.
    pub intermediate_dim: usize,
    /// Width of a head. All heads together may be wider or narrower than `hidden_dim`.
    pub key_value_dim: usize,
    /// Dropout rate in training; inference has none.
    pub dropout: f32,
    /// The activation between the dense layers.
    pub activation: Activation,
    /// Whether a third dense layer gates the activation, as in T5 1.1 and Flan-T5.
    pub use_gated_activation: bool,
    /// The constant that every norm adds to the mean square.
    pub layer_norm_epsilon: f32,
    /// Whether the token table is also the weight of the logits.
    pub tie_embedding_weights: bool,
    /// Whether the encoder and the decoder have token tables of their own, not one that they share.
    pub separate_token_tables: bool,
    /// Number of layers of the decoder. In KerasHub it equals the number of the encoder.
    pub decoder_num_layers: usize,
    /// Number of buckets of distances, each with its own bias: a multiple of 4.
    pub num_buckets: usize,
    /// Distances from here on share the last bucket.
    pub max_distance: usize,
    /// Whether logits are divided by the square root of `hidden_dim`. In KerasHub they are when they are tied.
    pub scale_logits: bool,
}

impl Default for T5Config {
    /// The sizes of T5 base with KerasHub's defaults. These include the gate of T5 1.1, which the first T5 lacks.
    fn default() -> Self {
        T5Config {
            vocabulary_size: 32_128,
            num_layers: 12,
            num_heads: 12,
            hidden_dim: 768,
            intermediate_dim: 3072,
            key_value_dim: 64,
            dropout: 0.1,
            activation: Activation::Relu,
            use_gated_activation: true,
            layer_norm_epsilon: 1e-6,
            tie_embedding_weights: true,
            separate_token_tables: false,
            decoder_num_layers: 12,
            num_buckets: 32,
            max_distance: 128,
            scale_logits: true,
        }
    }
}

impl T5Config {
    /// The configuration of a preset, with Hugging Face's or KerasHub's names of fields.
    ///
    /// # Errors
    /// When a field is missing, malformed or out of range, or the preset holds another architecture.
    pub fn from_preset(preset: &Preset) -> Result<T5Config> {
        let config = preset.config();
        let defaults = T5Config::default();
        let dropout = |found: Option<f32>| found.unwrap_or(defaults.dropout);
        let epsilon = config.opt_f32("layer_norm_epsilon")?.unwrap_or(defaults.layer_norm_epsilon);
        let parsed = match config.source() {
            ConfigSource::HuggingFace { model_type } if model_type == "t5" => {
                let num_layers = config.usize("num_layers")?;
                let (use_gated_activation, activation) =
                    feed_forward(config.opt_str("feed_forward_proj")?.unwrap_or("relu"))?;
                let tied = config.opt_bool("tie_word_embeddings")?.unwrap_or(true);
                T5Config {
                    vocabulary_size: config.usize("vocab_size")?,
                    num_layers,
                    num_heads: config.usize("num_heads")?,
                    hidden_dim: config.usize("d_model")?,
                    intermediate_dim: config.usize("d_ff")?,
                    key_value_dim: config.opt_usize("d_kv")?.unwrap_or(defaults.key_value_dim),
                    dropout: dropout(config.opt_f32("dropout_rate")?),
                    activation,
                    use_gated_activation,
                    layer_norm_epsilon: epsilon,
                    tie_embedding_weights: tied,
                    separate_token_tables: false,
                    decoder_num_layers: config.opt_usize("num_decoder_layers")?.unwrap_or(num_layers),
                    num_buckets: config
                        .opt_usize("relative_attention_num_buckets")?
                        .unwrap_or(defaults.num_buckets),
                    max_distance: config
                        .opt_usize("relative_attention_max_distance")?
                        .unwrap_or(defaults.max_distance),
                    scale_logits: config.opt_bool("scale_decoder_outputs")?.unwrap_or(tied),
                }
            }
            ConfigSource::Keras { class_name } if class_name == "T5Backbone" => {
                let (num_heads, hidden_dim) = (config.usize("num_heads")?, config.usize("hidden_dim")?);
                let num_layers = config.usize("num_layers")?;
                let tied = config.opt_bool("tie_embedding_weights")?.unwrap_or(true);
                T5Config {
                    vocabulary_size: config.usize("vocabulary_size")?,
                    num_layers,
                    num_heads,
                    hidden_dim,
                    intermediate_dim: config.usize("intermediate_dim")?,
                    key_value_dim: match config.opt_usize("key_value_dim")? {
                        Some(dim) => dim,
                        None => hidden_dim.checked_div(num_heads).unwrap_or(0),
                    },
                    dropout: dropout(config.opt_f32("dropout")?),
                    activation: keras_activation(config.opt_function("activation")?.unwrap_or("relu"))?,
                    use_gated_activation: config
                        .opt_bool("use_gated_activation")?
                        .unwrap_or(defaults.use_gated_activation),
                    layer_norm_epsilon: epsilon,
                    tie_embedding_weights: tied,
                    decoder_num_layers: num_layers,
                    scale_logits: tied,
                    ..defaults
                }
            }
            _ => return Err(other_architecture(preset, "T5Backbone")),
        };
        parsed.validate()?;
        Ok(parsed)
    }

    /// The fields of a Hugging Face configuration.
    pub(crate) fn to_hugging_face(&self) -> Result<Fields> {
        let name = match (self.use_gated_activation, self.activation) {
            (false, activation) => activation.name().to_owned(),
            // transformers means the tanh form by the short name.
            (true, Activation::GeluTanh) => "gated-gelu".to_owned(),
            (true, Activation::GeluErf) => "gated-gelu_python".to_owned(),
            (true, activation) => format!("gated-{}", activation.name()),
        };
        Ok(fields(json!({
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "is_encoder_decoder": true,
            "vocab_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "num_decoder_layers": self.decoder_num_layers,
            "num_heads": self.num_heads,
            "d_model": self.hidden_dim,
            "d_ff": self.intermediate_dim,
            "d_kv": self.key_value_dim,
            "dropout_rate": number(self.dropout),
            "feed_forward_proj": name,
            "layer_norm_epsilon": number(self.layer_norm_epsilon),
            "tie_word_embeddings": self.tie_embedding_weights,
            "scale_decoder_outputs": self.scale_logits,
            "relative_attention_num_buckets": self.num_buckets,
            "relative_attention_max_distance": self.max_distance,
        })))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the first field that no model can have.
    pub fn validate(&self) -> Result<()> {
        within("vocabulary_size", self.vocabulary_size, LARGEST_TABLE)?;
        within("num_layers", self.num_layers, MOST_LAYERS)?;
        within("decoder_num_layers", self.decoder_num_layers, MOST_LAYERS)?;
        within("hidden_dim", self.hidden_dim, LARGEST_DIM)?;
        within("num_heads", self.num_heads, LARGEST_DIM)?;
        within("key_value_dim", self.key_value_dim, LARGEST_DIM / self.num_heads)?;
        within("intermediate_dim", self.intermediate_dim, LARGEST_DIM)?;
        within("num_buckets", self.num_buckets, LARGEST_DIM)?;
        if !self.num_buckets.is_multiple_of(4) {
            return Err(field("num_buckets", self.num_buckets, "a multiple of 4"));
        }
        within("max_distance", self.max_distance, LARGEST_TABLE)?;
        if self.max_distance <= self.num_buckets / 2 {
            let expected = format!("more than half of num_buckets {}", self.num_buckets);
            return Err(field("max_distance", self.max_distance, expected));
        }
        epsilon("layer_norm_epsilon", self.layer_norm_epsilon)?;
        rate("dropout", self.dropout)
    }
}

/// Hugging Face's `feed_forward_proj`: whether the block is gated, and the activation.
fn feed_forward(name: &str) -> Result<(bool, Activation)> {
    match name.strip_prefix("gated-") {
        // The models mean the tanh form by this name.
        Some("gelu") => Ok((true, Activation::GeluTanh)),
        Some(gated) => Ok((true, activation(gated)?)),
        None => Ok((false, activation(name)?)),
    }
}
