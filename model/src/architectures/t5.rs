//! T5 (Raffel et al., arXiv:1910.10683) and its later forms T5 1.1 and Flan-T5: an encoder and a causal decoder without
//! position embeddings, whose scores have a bias for each range of distances and no scale, and whose norms only divide
//! by the root mean square. The reference implementations are KerasHub's `T5Backbone` and transformers' `T5Model`.

mod config;

use rachis_loader::Preset;

pub use config::T5Config;

use crate::architectures::seq2seq::Seq2SeqParts;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::{Fields, LARGEST_TABLE};
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Buckets, Embedding, Embeddings,
    FeedForwardNames, Linear, LogitsHead, Norm, NormKind, Order, Positions, RelativeBias, Stack, UNTIED_HEAD,
    shared_table,
};
use crate::weights::{Init, Naming, Source};

/// The T5 encoder and decoder. `forward` takes [`Seq2SeqInputs`](crate::Seq2SeqInputs) and gives a
/// [`Seq2SeqOutput`](crate::Seq2SeqOutput).
pub type T5Backbone = BackboneOf<T5Config>;

/// What an encoder's or a decoder's weights are called.
struct Names {
    layer: &'static str,
    /// Within the first layer.
    bias: &'static str,
    norm: &'static str,
    /// Without a gate and with one.
    block: [BlockNames; 2],
}

const ENCODER: Names = Names {
    layer: "encoder.block",
    bias: "layer.0.SelfAttention.relative_attention_bias",
    norm: "encoder.final_layer_norm",
    block: [READER, BlockNames { feed_forward: GATED_READER, ..READER }],
};
const DECODER: Names = Names {
    layer: "decoder.block",
    norm: "decoder.final_layer_norm",
    block: [WRITER, BlockNames { feed_forward: GATED_WRITER, ..WRITER }],
    ..ENCODER
};

const READER: BlockNames = BlockNames {
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
const GATED_READER: FeedForwardNames = FeedForwardNames {
    input: "layer.1.DenseReluDense.wi_0",
    gate: Some("layer.1.DenseReluDense.wi_1"),
    output: "layer.1.DenseReluDense.wo",
};
const WRITER: BlockNames = BlockNames {
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
    ..READER
};
const GATED_WRITER: FeedForwardNames = FeedForwardNames {
    input: "layer.2.DenseReluDense.wi_0",
    gate: Some("layer.2.DenseReluDense.wi_1"),
    output: "layer.2.DenseReluDense.wo",
};

/// The decoder's layers are numbered on from the encoder's.
const KERAS_ENCODER: Names = Names {
    layer: "t5_transformer_layer",
    bias: "self_attention",
    norm: "t5_layer_norm",
    block: [KERAS, BlockNames { feed_forward: KERAS_GATED, ..KERAS }],
};
const KERAS_DECODER: Names = Names {
    norm: "t5_layer_norm_1",
    block: [KERAS_CROSS, BlockNames { feed_forward: KERAS_GATED, ..KERAS_CROSS }],
    ..KERAS_ENCODER
};

const KERAS: BlockNames = BlockNames {
    attention: AttentionNames::Apart([
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
        AttentionNames::Apart([
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
    type Parts = Seq2SeqParts;

    fn read(preset: &Preset) -> Result<T5Config> {
        T5Config::from_preset(preset)
    }

    /// Newer configurations of untied models call themselves tied.
    fn adjusted(self, preset: &Preset) -> T5Config {
        match Source::Preset(preset).naming() {
            Naming::HuggingFace => {
                T5Config { tie_embedding_weights: preset.tensor(UNTIED_HEAD).is_none(), ..self }
            }
            Naming::Keras => self,
        }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &Source<'_>) -> Result<Seq2SeqParts> {
        let config = self;
        config.validate()?;
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let norm = (NormKind::Rms, config.layer_norm_epsilon);
        let root = source.root(&[""], "shared.weight");
        let table = shared_table(&root);
        let tokens = Embedding::load(&table, vocabulary, hidden)?;
        let head = match (config.tie_embedding_weights, root.naming()) {
            (true, _) => Linear::tied(tokens.weight(), None),
            (false, Naming::HuggingFace) => Linear::load(&root.at("lm_head"), hidden, vocabulary, false)?,
            (false, Naming::Keras) => {
                Linear::of_inputs(table.named("vars/1", &[hidden, vocabulary], Init::KERNEL)?)
            }
        };
        let scale = if config.scale_logits { 1.0 / (hidden as f32).sqrt() } else { 1.0 };
        let gated = usize::from(config.use_gated_activation);
        let stack = |names: &Names, (first, layers): (usize, usize), causal| -> Result<Stack> {
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
            let bias = root.layer(names.layer, first).at(names.bias);
            Ok(Stack {
                embeddings: Embeddings::of(tokens.clone()),
                positions: Positions::Relative(RelativeBias::load(&bias, config.num_heads, buckets)?),
                blocks: Stack::blocks(&root, (names.layer, first, layers), &names.block[gated], block)?,
                config: block,
                norm: Some(Norm::load(&root.at(names.norm), hidden, norm)?),
                projection: None,
            })
        };
        let encoder = stack(source.pick(&ENCODER, &KERAS_ENCODER), (0, config.num_layers), false)?;
        let first = source.pick(0, config.num_layers);
        let decoder = stack(source.pick(&DECODER, &KERAS_DECODER), (first, config.decoder_num_layers), true)?;
        Ok(Seq2SeqParts { encoder, decoder, head: LogitsHead::new(head, scale), positions: LARGEST_TABLE })
    }
}
