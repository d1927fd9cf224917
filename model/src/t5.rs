//! T5 (Raffel et al., arXiv:1910.10683) and its later forms T5 1.1 and Flan-T5: an encoder and a causal decoder without
//! position embeddings, whose scores have a bias for each range of distances and no scale, and whose norms only divide
//! by the root mean square. The reference implementations are KerasHub's `T5Backbone` and transformers' `T5Model`.

mod config;

use std::path::Path;

use rachis_kernels::Ctx;
use rachis_loader::{Access, Preset};

pub use config::T5Config;

use crate::config::{DtypePolicy, LARGEST_TABLE};
use crate::decoder::private::Stacks;
use crate::error::Result;
use crate::forward::{self, Seq2SeqInputs, Seq2SeqOutput};
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Buckets, Embedding, Embeddings,
    FeedForwardNames, Linear, LogitsHead, Norm, NormKind, Order, Positions, RelativeBias, Stack,
};
use crate::session::{Model, Plan, Session, TowerObserver};
use crate::weights::Source;

/// The T5 encoder and decoder.
#[derive(Debug)]
pub struct T5Backbone {
    config: T5Config,
    dtype: DtypePolicy,
    encoder: Stack,
    decoder: Stack,
    head: LogitsHead,
}

const ENCODER: BlockNames = BlockNames {
    attention: AttentionNames::Apart([
        "layer.0.SelfAttention.q",
        "layer.0.SelfAttention.k",
        "layer.0.SelfAttention.v",
        "layer.0.SelfAttention.o",
    ]),
    attention_norm: "layer.0.layer_norm",
    cross: None,
    feed_forward: FeedForwardNames {
        input: "layer.1.DenseReluDense.wi",
        gate: None,
        output: "layer.1.DenseReluDense.wo",
    },
    feed_forward_norm: Some("layer.1.layer_norm"),
};
const GATED_ENCODER: BlockNames = BlockNames {
    feed_forward: FeedForwardNames {
        input: "layer.1.DenseReluDense.wi_0",
        gate: Some("layer.1.DenseReluDense.wi_1"),
        output: "layer.1.DenseReluDense.wo",
    },
    ..ENCODER
};
const DECODER: BlockNames = BlockNames {
    cross: Some((
        AttentionNames::Apart([
            "layer.1.EncDecAttention.q",
            "layer.1.EncDecAttention.k",
            "layer.1.EncDecAttention.v",
            "layer.1.EncDecAttention.o",
        ]),
        "layer.1.layer_norm",
    )),
    feed_forward: FeedForwardNames {
        input: "layer.2.DenseReluDense.wi",
        gate: None,
        output: "layer.2.DenseReluDense.wo",
    },
    feed_forward_norm: Some("layer.2.layer_norm"),
    ..ENCODER
};
const GATED_DECODER: BlockNames = BlockNames {
    feed_forward: FeedForwardNames {
        input: "layer.2.DenseReluDense.wi_0",
        gate: Some("layer.2.DenseReluDense.wi_1"),
        output: "layer.2.DenseReluDense.wo",
    },
    ..DECODER
};

/// The logits' weights, where they are not the token table.
const HEAD: &str = "lm_head.weight";

impl T5Backbone {
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`T5Backbone::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<T5Backbone> {
        T5Backbone::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`T5Backbone::from_preset`].
    pub fn load(preset: &Preset) -> Result<T5Backbone> {
        let mut config = T5Config::from_preset(preset)?;
        // The file knows: newer configurations of untied models call themselves tied.
        config.tie_embedding_weights = preset.tensor(HEAD).is_none();
        T5Backbone::build(config, DtypePolicy::of(preset.config())?, &Source::Preset(preset))
    }

    /// A model of this configuration with random weights: kernels and embeddings truncated normal with standard
    /// deviation 0.02, biases zero. The same seed gives the same model.
    ///
    /// # Errors
    /// A configuration that no model can have, or one that there is no memory for.
    pub fn random(config: T5Config, seed: u64) -> Result<T5Backbone> {
        Source::randomly(seed, |source| T5Backbone::build(config.clone(), DtypePolicy::Float32, source))
    }

    fn build(config: T5Config, dtype: DtypePolicy, source: &Source<'_>) -> Result<T5Backbone> {
        config.validate()?;
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let norm = (NormKind::Rms, config.layer_norm_epsilon);
        let root = source.scope("");
        let tokens = Embedding::load(&root.at("shared"), vocabulary, hidden)?;
        let head = if config.tie_embedding_weights {
            Linear::tied(tokens.weight(), None)
        } else {
            Linear::load(&root.at("lm_head"), hidden, vocabulary, false)?
        };
        let scale = if config.scale_logits { 1.0 / (hidden as f32).sqrt() } else { 1.0 };
        let stack = |name: &str, names: &BlockNames, (layers, causal): (usize, bool)| -> Result<Stack> {
            let scope = root.at(name);
            let block = BlockConfig {
                attention: AttentionConfig {
                    hidden,
                    heads: config.num_heads,
                    kv_heads: config.num_heads,
                    head_dim: config.key_value_dim,
                    scale: 1.0,
                    bias: false,
                },
                inner: config.intermediate_dim,
                activation: config.activation,
                norm,
                order: Order::NormFirst,
                causal,
            };
            let buckets = Buckets {
                count: config.num_buckets,
                max_distance: config.max_distance,
                bidirectional: !causal,
            };
            let bias = scope.at("block.0.layer.0.SelfAttention.relative_attention_bias");
            Ok(Stack {
                embeddings: Embeddings::of(tokens.clone()),
                positions: Positions::Relative(RelativeBias::load(&bias, config.num_heads, buckets)?),
                blocks: Stack::blocks(&scope.at("block"), layers, names, block)?,
                config: block,
                norm: Some(Norm::load(&scope.at("final_layer_norm"), hidden, norm)?),
                projection: None,
            })
        };
        let gated = config.use_gated_activation;
        let (reader, writer) = if gated { (&GATED_ENCODER, &GATED_DECODER) } else { (&ENCODER, &DECODER) };
        let encoder = stack("encoder", reader, (config.num_layers, false))?;
        let decoder = stack("decoder", writer, (config.decoder_num_layers, true))?;
        Ok(T5Backbone { config, dtype, encoder, decoder, head: LogitsHead::new(head, scale) })
    }

    /// The configuration.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// The dtype policy that the preset states.
    pub fn dtype(&self) -> DtypePolicy {
        self.dtype
    }

    /// The table of token vectors, which is also that of the logits where the two are tied.
    pub fn token_embedding(&self) -> &Embedding {
        &self.encoder.embeddings.tokens
    }

    /// One forward pass of encoder and decoder.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the inputs do not fit the model; nothing is computed then.
    pub fn forward<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: Seq2SeqInputs<'_>,
    ) -> Result<Seq2SeqOutput<'s>> {
        forward::seq2seq(self, session, inputs, None)
    }

    /// One forward pass that shows every layer's output to `observer`.
    ///
    /// # Errors
    /// As [`T5Backbone::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: Seq2SeqInputs<'_>,
        observer: TowerObserver<'_>,
    ) -> Result<Seq2SeqOutput<'s>> {
        forward::seq2seq(self, session, inputs, Some(observer))
    }
}

impl Stacks for T5Backbone {
    fn encoder(&self) -> Option<&Stack> {
        Some(&self.encoder)
    }

    fn decoder(&self) -> &Stack {
        &self.decoder
    }

    fn head(&self) -> &LogitsHead {
        &self.head
    }

    fn positions(&self) -> usize {
        LARGEST_TABLE
    }
}

impl Model for T5Backbone {
    /// For sequences of up to `seq` tokens in the encoder and as many in the decoder.
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        forward::seq2seq_plan(self, ctx, (batch, seq))
    }
}
