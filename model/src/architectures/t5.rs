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

use crate::architectures::encoder::{EncoderConfig, EncoderNetwork, WithEncoder};
use crate::architectures::seq2seq::Seq2SeqNetwork;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::{Fields, LARGEST_TABLE};
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Buckets, Direction, Embedding, Embeddings,
    FeedForwardNames, LayerRange, Linear, LoadedTables, LogitsHead, Norm, NormConfig, NormKind,
    NormPlacement, Positions, RelativeBias, Stack, TowerTables,
};
use crate::weights::{Init, Naming, Scope, WeightSource};

/// The T5 encoder and decoder. `forward` takes [`Seq2SeqInputs`](crate::Seq2SeqInputs) and gives a
/// [`Seq2SeqOutput`](crate::Seq2SeqOutput).
pub type T5Backbone = BackboneOf<T5Config>;

/// The T5 encoder by itself, transformers' `T5EncoderModel`. `forward` takes [`Tokens`](crate::Tokens) and gives a
/// [`SequenceOutput`](crate::SequenceOutput). It loads the encoder of a whole model, too.
pub type T5Encoder = BackboneOf<EncoderConfig<T5Config>>;

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

    fn adjusted(self, preset: &Preset) -> T5Config {
        let source = WeightSource::Preset(preset);
        let tables = TowerTables::of(&T5Config::root(&source));
        match source.naming() {
            // transformers reads every T5 as a tied one, and takes `tie_word_embeddings` for the scale of the logits.
            Naming::HuggingFace => T5Config {
                tie_embedding_weights: tables.is_tied(true),
                separate_token_tables: tables.are_separate(),
                ..self
            },
            Naming::Keras => self,
        }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &WeightSource<'_>) -> Result<Seq2SeqNetwork> {
        let config = self;
        config.validate()?;
        let (shape, root) = ([config.vocabulary_size, config.hidden_dim], T5Config::root(source));
        let untied_keras = root.naming() == Naming::Keras && !config.tie_embedding_weights;
        let tied = config.tie_embedding_weights || untied_keras;
        let tables = TowerTables::of(&root);
        let LoadedTables { encoder, decoder, head } =
            tables.load(shape, config.separate_token_tables, tied)?;
        let head = if untied_keras {
            // KerasHub keeps the matrix in the layer of the table.
            let [vocabulary, hidden] = shape;
            let table = tables.encoder(false, false);
            Linear::from_input_rows(table.named("vars/1", &[hidden, vocabulary], Init::KERNEL)?)
        } else {
            Linear::from_output_rows(head, None)
        };
        let scale = if config.scale_logits { 1.0 / (config.hidden_dim as f32).sqrt() } else { 1.0 };
        let head = LogitsHead::new(head, scale);
        let (encoder, decoder) = (config.encoder(&root, encoder)?, config.decoder(&root, decoder)?);
        Ok(Seq2SeqNetwork { encoder, decoder, head, positions: LARGEST_TABLE })
    }
}

impl WithEncoder for T5Config {
    fn build_encoder(&self, source: &WeightSource<'_>) -> Result<EncoderNetwork> {
        self.validate()?;
        let root = T5Config::root(source);
        let table = TowerTables::of(&root).encoder(self.separate_token_tables, self.tie_embedding_weights);
        let table = Embedding::load(&table, self.vocabulary_size, self.hidden_dim)?;
        Ok(EncoderNetwork { stack: self.encoder(&root, table)?, positions: LARGEST_TABLE })
    }

    fn encoder_to_hugging_face(&self) -> Result<Fields> {
        let mut fields = self.to_hugging_face()?;
        fields.insert("architectures".to_owned(), ["T5EncoderModel"].into());
        fields.insert("is_encoder_decoder".to_owned(), false.into());
        Ok(fields)
    }
}

impl T5Config {
    fn root<'s>(source: &'s WeightSource<'_>) -> Scope<'s> {
        source.root(&[""], "")
    }

    fn encoder(&self, root: &Scope<'_>, table: Embedding) -> Result<Stack> {
        let names = root.pick(&ENCODER, &KERAS_ENCODER);
        let layers = LayerRange { name: names.layer, first: 0, count: self.num_layers };
        self.stack(root, names, table, (layers, Direction::Both))
    }

    fn decoder(&self, root: &Scope<'_>, table: Embedding) -> Result<Stack> {
        let (names, first) = root.pick((&DECODER, 0), (&KERAS_DECODER, self.num_layers));
        let layers = LayerRange { name: names.layer, first, count: self.decoder_num_layers };
        self.stack(root, names, table, (layers, Direction::Before))
    }

    fn stack(
        &self,
        root: &Scope<'_>,
        names: &Names,
        table: Embedding,
        (layers, direction): (LayerRange, Direction),
    ) -> Result<Stack> {
        let norm = NormConfig { kind: NormKind::Rms, epsilon: self.layer_norm_epsilon };
        let block = BlockConfig {
            attention: AttentionConfig {
                hidden: self.hidden_dim,
                heads: self.num_heads,
                kv_heads: self.num_heads,
                head_dim: self.key_value_dim,
                scale: 1.0,
                bias: false,
            },
            intermediate: self.intermediate_dim,
            activation: self.activation,
            norm,
            placement: NormPlacement::Pre,
            mask: match direction {
                Direction::Both => AttentionMask::None,
                Direction::Before => AttentionMask::Causal,
            },
        };
        let buckets = Buckets { count: self.num_buckets, max_distance: self.max_distance, direction };
        let block_names = match self.use_gated_activation {
            true => BlockNames { feed_forward: names.gated, ..names.block },
            false => names.block,
        };
        let bias = root.layer(names.layer, layers.first).at(names.bias);
        Ok(Stack {
            embeddings: Embeddings::of(table),
            positions: Positions::Relative(RelativeBias::load(&bias, self.num_heads, buckets)?),
            blocks: Stack::blocks(root, layers, &block_names, block)?,
            config: block,
            norm: Some(Norm::load(&root.at(names.norm), self.hidden_dim, norm)?),
            projection: None,
        })
    }
}
