//! BART (Lewis et al., arXiv:1910.13461): an encoder and a causal decoder that attends to it, with learned positions.
//! The reference implementations are KerasHub's `BartBackbone` and transformers' `BartModel`.
//!
//! ```text
//! x = LayerNorm(s E_token[id] + E_position[position]),   s = 1, or sqrt(d) in some models
//! for each encoder layer:
//!     x = LayerNorm(x + MultiHead(x, x, x))
//!     x = LayerNorm(x + FFN(x)),                         FFN(x) = gelu(x W1 + b1) W2 + b2
//! for each decoder layer, with the encoder's output m:
//!     y = LayerNorm(y + CausalMultiHead(y, y, y))
//!     y = LayerNorm(y + MultiHead(y, m, m))
//!     y = LayerNorm(y + FFN(y))
//! logits = y E_token^T + b
//! MultiHead(q, k, v) = Concat(head_1, ..., head_h) Wo + bo,
//!     head_i = softmax(q Wq_i (k Wk_i)^T / sqrt(d_head)) v Wv_i
//! ```

mod config;
mod heads;

use rachis_kernels::AttentionMask;
use rachis_loader::Preset;

pub use config::BartConfig;
pub(crate) use heads::load as load_heads;

use crate::architectures::seq2seq::Seq2SeqNetwork;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::Fields;
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Embedding, Embeddings, FeedForwardNames,
    LayerRange, Linear, LogitsHead, Norm, NormConfig, NormKind, NormPlacement, PositionCount,
    PositionEmbedding, Positions, Stack, has_head, head_weight, shared_table,
};
use crate::weights::{Init, WeightSource};

/// The BART encoder and decoder. `forward` takes [`Seq2SeqInputs`](crate::Seq2SeqInputs) and gives a
/// [`Seq2SeqOutput`](crate::Seq2SeqOutput).
pub type BartBackbone = BackboneOf<BartConfig>;

const SELF_ATTENTION: [&str; 4] =
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
const CROSS_ATTENTION: [&str; 4] =
    ["encoder_attn.q_proj", "encoder_attn.k_proj", "encoder_attn.v_proj", "encoder_attn.out_proj"];

/// The names of an encoder's or a decoder's weights.
struct Names {
    positions: &'static str,
    norm: &'static str,
    layer: &'static str,
    block: BlockNames,
}

const ENCODER: Names = Names {
    positions: "encoder.embed_positions",
    norm: "encoder.layernorm_embedding",
    layer: "encoder.layers",
    block: BlockNames {
        attention: AttentionNames::Separate(SELF_ATTENTION),
        attention_norm: "self_attn_layer_norm",
        cross: None,
        feed_forward: FeedForwardNames { input: "fc1", gate: None, output: "fc2" },
        feed_forward_norm: Some("final_layer_norm"),
    },
};
const DECODER: Names = Names {
    positions: "decoder.embed_positions",
    norm: "decoder.layernorm_embedding",
    layer: "decoder.layers",
    block: BlockNames {
        cross: Some((AttentionNames::Separate(CROSS_ATTENTION), "encoder_attn_layer_norm")),
        ..ENCODER.block
    },
};

const KERAS_ENCODER: Names = Names {
    positions: "position_embedding",
    norm: "layer_normalization",
    layer: "transformer_encoder",
    block: BlockNames::KERAS,
};
const KERAS_DECODER: Names = Names {
    positions: "position_embedding_1",
    norm: "layer_normalization_1",
    layer: "transformer_decoder",
    block: BlockNames::KERAS_CROSS,
};

/// Every norm. No configuration has another constant.
const NORM: NormConfig = NormConfig { kind: NormKind::Layer, epsilon: 1e-5 };

impl Architecture for BartConfig {
    type Network = Seq2SeqNetwork;

    fn read(preset: &Preset) -> Result<BartConfig> {
        BartConfig::from_preset(preset)
    }

    /// The logits are tied to the token table in files without a head, such as those of a bare model. A tied model
    /// whose file has a copy of the table stays tied.
    fn adjusted(self, preset: &Preset) -> BartConfig {
        let tied = self.tie_embedding_weights || !has_head(preset);
        BartConfig { tie_embedding_weights: tied, ..self }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &WeightSource<'_>) -> Result<Seq2SeqNetwork> {
        let config = self;
        config.validate()?;
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let root = source.root(&["model.", ""], "encoder.embed_positions.weight");
        let scale = if config.scale_embedding { (hidden as f32).sqrt() } else { 1.0 };
        let tokens = Embedding::load(&shared_table(&root), vocabulary, hidden)?.scaled(scale);
        let bias = || source.scope("").named("final_logits_bias", &[1, vocabulary], Init::Zeros);
        let tied = config.tie_embedding_weights.then_some(&tokens);
        let head = head_weight(source, tied, [vocabulary, hidden])?;
        let head = Linear::from_output_rows(head, source.has("final_logits_bias").then(bias).transpose()?);
        let block = BlockConfig {
            attention: AttentionConfig::standard(hidden, config.num_heads, true),
            intermediate: config.intermediate_dim,
            activation: config.activation,
            norm: NORM,
            placement: NormPlacement::Post,
            mask: AttentionMask::None,
        };
        let stack = |names: &Names, count: usize, block: BlockConfig| -> Result<Stack> {
            let layers = LayerRange { name: names.layer, first: 0, count };
            Ok(Stack {
                embeddings: Embeddings {
                    positions: Some(PositionEmbedding {
                        table: Embedding::load_after(
                            &root.at(names.positions),
                            source.unused_positions(),
                            config.max_sequence_length,
                            hidden,
                        )?,
                        count: PositionCount::All,
                    }),
                    norm: Some(Norm::load(&root.at(names.norm), hidden, NORM)?),
                    ..Embeddings::of(tokens.clone())
                },
                positions: Positions::Embedded,
                blocks: Stack::blocks(&root, layers, &names.block, block)?,
                config: block,
                norm: None,
                projection: None,
            })
        };
        let encoder = stack(source.pick(&ENCODER, &KERAS_ENCODER), config.num_layers, block)?;
        let block = BlockConfig {
            attention: AttentionConfig::standard(hidden, config.decoder_num_heads, true),
            intermediate: config.decoder_intermediate_dim,
            mask: AttentionMask::Causal,
            ..block
        };
        let decoder = stack(source.pick(&DECODER, &KERAS_DECODER), config.decoder_num_layers, block)?;
        Ok(Seq2SeqNetwork {
            encoder,
            decoder,
            head: LogitsHead::new(head, 1.0),
            positions: config.max_sequence_length,
        })
    }
}
