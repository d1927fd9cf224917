//! T5 (Raffel et al., arXiv:1910.10683) and its later forms T5 1.1 and Flan-T5: an encoder and a causal decoder without
//! position embeddings, whose scores have a bias for each range of distances and no scale, and whose norms only divide
//! by the root mean square. The reference implementations are KerasHub's `T5Backbone` and transformers' `T5Model`.

mod config;

use rachis_loader::Preset;

pub use config::T5Config;

use crate::config::LARGEST_TABLE;
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Buckets, Embedding, Embeddings,
    FeedForwardNames, Linear, LogitsHead, Norm, NormKind, Order, Positions, RelativeBias, Stack,
};
use crate::seq2seq::Seq2SeqBackbone;
use crate::seq2seq::private::{Seq2SeqConfig, Seq2SeqParts};
use crate::weights::Source;

/// The T5 encoder and decoder.
pub type T5Backbone = Seq2SeqBackbone<T5Config>;

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

impl Seq2SeqConfig for T5Config {
    fn read(preset: &Preset) -> Result<T5Config> {
        let config = T5Config::from_preset(preset)?;
        // The file knows: newer configurations of untied models call themselves tied.
        Ok(T5Config { tie_embedding_weights: preset.tensor(HEAD).is_none(), ..config })
    }

    fn build(&self, source: &Source<'_>) -> Result<Seq2SeqParts> {
        let config = self;
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
        Ok(Seq2SeqParts { encoder, decoder, head: LogitsHead::new(head, scale) })
    }

    fn positions(&self) -> usize {
        LARGEST_TABLE
    }
}
