//! T5 (Raffel et al., arXiv:1910.10683) and its later versions T5 1.1 and Flan-T5: an encoder and a causal decoder that
//! attends to it, without position embeddings. The reference implementations are KerasHub's `T5Backbone` and
//! transformers' `T5Model`.
//!
//! ```text
//! x = E_token[id]
//! for each encoder layer:
//!     x = x + MultiHead(Norm(x)),          head_i = softmax(q_i k_i^T + B_i) v_i,   without a scale
//!     x = x + FFN(Norm(x))
//! for each decoder layer, with the encoder's output m = Norm(x):
//!     y = y + CausalMultiHead(Norm(y)),    with biases B of its own
//!     y = y + MultiHead(Norm(y), m, m),    without biases
//!     y = y + FFN(Norm(y))
//! logits = (1 / sqrt(d)) Norm(y) E_token^T,    or Norm(y) W where they are not tied
//! Norm(x) = g x / sqrt(mean(x^2) + epsilon)
//! FFN(x) = relu(x W1) W2,                  in T5 1.1 (gelu(x W1) * x V) W2
//! B_i[s, t] = a learned number of head i for the bucket of the distance t - s, the same in all layers
//! ```

mod config;

use rachis_kernels::AttentionMask;
use rachis_loader::Preset;

pub use config::T5Config;

use crate::architectures::seq2seq::Seq2SeqNetwork;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::{Fields, LARGEST_TABLE};
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Buckets, Direction, Embedding, Embeddings,
    FeedForwardNames, LayerRange, Linear, LogitsHead, Norm, NormConfig, NormKind, NormPlacement, Positions,
    RelativeBias, Stack, has_head, shared_table,
};
use crate::weights::{Init, Naming, WeightSource};

/// The T5 encoder and decoder. `forward` takes [`Seq2SeqInputs`](crate::Seq2SeqInputs) and gives a
/// [`Seq2SeqOutput`](crate::Seq2SeqOutput).
pub type T5Backbone = BackboneOf<T5Config>;

/// The names of an encoder's or a decoder's weights.
struct Names {
    layer: &'static str,
    /// The table of biases, in the first layer.
    bias: &'static str,
    norm: &'static str,
    block: BlockNames,
    /// The names of a gated feed-forward block.
    gated: FeedForwardNames,
}

const ENCODER: Names = Names {
    layer: "encoder.block",
    bias: "layer.0.SelfAttention.relative_attention_bias",
    norm: "encoder.final_layer_norm",
    block: ENCODER_BLOCK,
    gated: ENCODER_GATED,
};
const DECODER: Names = Names {
    layer: "decoder.block",
    norm: "decoder.final_layer_norm",
    block: DECODER_BLOCK,
    gated: DECODER_GATED,
    ..ENCODER
};

const ENCODER_BLOCK: BlockNames = BlockNames {
    attention: AttentionNames::Separate([
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
const ENCODER_GATED: FeedForwardNames = FeedForwardNames {
    input: "layer.1.DenseReluDense.wi_0",
    gate: Some("layer.1.DenseReluDense.wi_1"),
    output: "layer.1.DenseReluDense.wo",
};
const DECODER_BLOCK: BlockNames = BlockNames {
    cross: Some((
        AttentionNames::Separate([
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
    ..ENCODER_BLOCK
};
const DECODER_GATED: FeedForwardNames = FeedForwardNames {
    input: "layer.2.DenseReluDense.wi_0",
    gate: Some("layer.2.DenseReluDense.wi_1"),
    output: "layer.2.DenseReluDense.wo",
};

/// The decoder's layers are numbered on from the encoder's.
const KERAS_ENCODER: Names = Names {
    layer: "t5_transformer_layer",
    bias: "self_attention",
    norm: "t5_layer_norm",
    block: KERAS,
    gated: KERAS_GATED,
};
const KERAS_DECODER: Names = Names { norm: "t5_layer_norm_1", block: KERAS_CROSS, ..KERAS_ENCODER };

const KERAS: BlockNames = BlockNames {
    attention: AttentionNames::Separate([
        "self_attention/query_projector",
        "self_attention/key_projector",
        "self_attention/value_projector",
        "self_attention/output_projector",
    ]),
    attention_norm: "self_attention_layer_norm",
    cross: None,
    feed_forward: FeedForwardNames { input: "input_projector", gate: None, output: "output_projector" },
    feed_forward_norm: Some("layer_norm"),
};
const KERAS_GATED: FeedForwardNames = FeedForwardNames { gate: Some("gate_projector"), ..KERAS.feed_forward };
const KERAS_CROSS: BlockNames = BlockNames {
    cross: Some((
        AttentionNames::Separate([
            "cross_attention/query_projector",
            "cross_attention/key_projector",
            "cross_attention/value_projector",
            "cross_attention/output_projector",
        ]),
        "cross_attention_layer_norm",
    )),
    ..KERAS
};

impl Architecture for T5Config {
    type Network = Seq2SeqNetwork;

    fn read(preset: &Preset) -> Result<T5Config> {
        T5Config::from_preset(preset)
    }

    /// Newer configurations of untied Hugging Face models call themselves tied: the presence of a head decides.
    fn adjusted(self, preset: &Preset) -> T5Config {
        match WeightSource::Preset(preset).naming() {
            Naming::HuggingFace => T5Config { tie_embedding_weights: !has_head(preset), ..self },
            Naming::Keras => self,
        }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &WeightSource<'_>) -> Result<Seq2SeqNetwork> {
        let config = self;
        config.validate()?;
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let norm = NormConfig { kind: NormKind::Rms, epsilon: config.layer_norm_epsilon };
        let root = source.root(&[""], "shared.weight");
        let table = shared_table(&root);
        let tokens = Embedding::load(&table, vocabulary, hidden)?;
        let head = match (config.tie_embedding_weights, root.naming()) {
            (true, _) => Linear::from_output_rows(tokens.weight(), None),
            (false, Naming::HuggingFace) => Linear::load(&root.at("lm_head"), hidden, vocabulary, false)?,
            (false, Naming::Keras) => {
                Linear::from_input_rows(table.named("vars/1", &[hidden, vocabulary], Init::KERNEL)?)
            }
        };
        let scale = if config.scale_logits { 1.0 / (hidden as f32).sqrt() } else { 1.0 };
        let stack = |names: &Names, first, count, direction| -> Result<Stack> {
            let block = BlockConfig {
                attention: AttentionConfig {
                    hidden,
                    heads: config.num_heads,
                    kv_heads: config.num_heads,
                    head_dim: config.key_value_dim,
                    scale: 1.0,
                    bias: false,
                },
                intermediate: config.intermediate_dim,
                activation: config.activation,
                norm,
                placement: NormPlacement::Pre,
                mask: match direction {
                    Direction::Both => AttentionMask::None,
                    Direction::Before => AttentionMask::Causal,
                },
            };
            let buckets = Buckets { count: config.num_buckets, max_distance: config.max_distance, direction };
            let block_names = match config.use_gated_activation {
                true => BlockNames { feed_forward: names.gated, ..names.block },
                false => names.block,
            };
            let layers = LayerRange { name: names.layer, first, count };
            let bias = root.layer(names.layer, first).at(names.bias);
            Ok(Stack {
                embeddings: Embeddings::of(tokens.clone()),
                positions: Positions::Relative(RelativeBias::load(&bias, config.num_heads, buckets)?),
                blocks: Stack::blocks(&root, layers, &block_names, block)?,
                config: block,
                norm: Some(Norm::load(&root.at(names.norm), hidden, norm)?),
                projection: None,
            })
        };
        let names = source.pick(&ENCODER, &KERAS_ENCODER);
        let encoder = stack(names, 0, config.num_layers, Direction::Both)?;
        let (names, first) = source.pick((&DECODER, 0), (&KERAS_DECODER, config.num_layers));
        let decoder = stack(names, first, config.decoder_num_layers, Direction::Before)?;
        Ok(Seq2SeqNetwork { encoder, decoder, head: LogitsHead::new(head, scale), positions: LARGEST_TABLE })
    }
}
