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

use crate::architectures::encoder::{EncoderConfig, EncoderNetwork, WithEncoder};
use crate::architectures::seq2seq::Seq2SeqNetwork;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::{Fields, field};
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Embedding, Embeddings, FeedForwardNames,
    LayerRange, Linear, LoadedTables, LogitsHead, Norm, NormConfig, NormKind, NormPlacement, PositionCount,
    PositionEmbedding, Positions, Stack, TowerTables,
};
use crate::weights::{Init, Scope, WeightSource};

/// The BART encoder and decoder. `forward` takes [`Seq2SeqInputs`](crate::Seq2SeqInputs) and gives a
/// [`Seq2SeqOutput`](crate::Seq2SeqOutput).
pub type BartBackbone = BackboneOf<BartConfig>;

/// The BART encoder by itself. `forward` takes [`Tokens`](crate::Tokens) and gives a
/// [`SequenceOutput`](crate::SequenceOutput).
pub type BartEncoder = BackboneOf<EncoderConfig<BartConfig>>;

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

    fn adjusted(self, preset: &Preset) -> BartConfig {
        let source = WeightSource::Preset(preset);
        let tables = TowerTables::of(&BartConfig::root(&source));
        BartConfig {
            tie_embedding_weights: tables.is_tied(self.tie_embedding_weights),
            separate_token_tables: tables.are_separate(),
            ..self
        }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &WeightSource<'_>) -> Result<Seq2SeqNetwork> {
        let config = self;
        config.validate()?;
        let (shape, root) = ([config.vocabulary_size, config.hidden_dim], BartConfig::root(source));
        let (separate, tied) = (config.separate_token_tables, config.tie_embedding_weights);
        let LoadedTables { encoder, decoder, head } = TowerTables::of(&root).load(shape, separate, tied)?;
        let bias = || source.scope("").named("final_logits_bias", &[1, shape[0]], Init::Zeros);
        let head = Linear::from_output_rows(head, source.has("final_logits_bias").then(bias).transpose()?);
        Ok(Seq2SeqNetwork {
            encoder: config.encoder(&root, encoder)?,
            decoder: config.decoder(&root, decoder)?,
            head: LogitsHead::new(head, 1.0),
            positions: config.max_sequence_length,
        })
    }
}

impl WithEncoder for BartConfig {
    fn build_encoder(&self, source: &WeightSource<'_>) -> Result<EncoderNetwork> {
        self.validate()?;
        let root = BartConfig::root(source);
        let table = TowerTables::of(&root).encoder(self.separate_token_tables, self.tie_embedding_weights);
        let table = Embedding::load(&table, self.vocabulary_size, self.hidden_dim)?;
        Ok(EncoderNetwork { stack: self.encoder(&root, table)?, positions: self.max_sequence_length })
    }

    fn encoder_to_hugging_face(&self) -> Result<Fields> {
        Err(field("model", "the encoder of BART by itself", "one that transformers has a class for"))
    }
}

impl BartConfig {
    fn root<'s>(source: &'s WeightSource<'_>) -> Scope<'s> {
        source.root(&["model.", ""], "encoder.embed_positions.weight")
    }

    fn encoder(&self, root: &Scope<'_>, table: Embedding) -> Result<Stack> {
        let block = BlockConfig {
            attention: AttentionConfig::standard(self.hidden_dim, self.num_heads, true),
            intermediate: self.intermediate_dim,
            activation: self.activation,
            norm: NORM,
            placement: NormPlacement::Post,
            mask: AttentionMask::None,
        };
        self.stack(root, root.pick(&ENCODER, &KERAS_ENCODER), table, (self.num_layers, block))
    }

    fn decoder(&self, root: &Scope<'_>, table: Embedding) -> Result<Stack> {
        let block = BlockConfig {
            attention: AttentionConfig::standard(self.hidden_dim, self.decoder_num_heads, true),
            intermediate: self.decoder_intermediate_dim,
            activation: self.activation,
            norm: NORM,
            placement: NormPlacement::Post,
            mask: AttentionMask::Causal,
        };
        self.stack(root, root.pick(&DECODER, &KERAS_DECODER), table, (self.decoder_num_layers, block))
    }

    /// A stack of this number of blocks.
    fn stack(
        &self,
        root: &Scope<'_>,
        names: &Names,
        table: Embedding,
        (count, block): (usize, BlockConfig),
    ) -> Result<Stack> {
        let scale = if self.scale_embedding { (self.hidden_dim as f32).sqrt() } else { 1.0 };
        let layers = LayerRange { name: names.layer, first: 0, count };
        Ok(Stack {
            embeddings: Embeddings {
                positions: Some(PositionEmbedding {
                    table: Embedding::load_after(
                        &root.at(names.positions),
                        root.unused_positions(),
                        self.max_sequence_length,
                        self.hidden_dim,
                    )?,
                    count: PositionCount::All,
                }),
                norm: Some(Norm::load(&root.at(names.norm), self.hidden_dim, NORM)?),
                ..Embeddings::of(table.scaled(scale))
            },
            positions: Positions::Embedded,
            blocks: Stack::blocks(root, layers, &names.block, block)?,
            config: block,
            norm: None,
            projection: None,
        })
    }
}
