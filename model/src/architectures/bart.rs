//! BART (Lewis et al., arXiv:1910.13461): an encoder and a causal decoder that attends to it, with learned positions
//! and normalisation after each block. The reference implementations are KerasHub's `BartBackbone` and transformers'
//! `BartModel`.

mod config;

use rachis_loader::Preset;

pub use config::BartConfig;

use crate::architectures::seq2seq::Seq2SeqParts;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::Fields;
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Counting, Embedding, Embeddings,
    FeedForwardNames, Linear, LogitsHead, Norm, NormKind, Order, PositionEmbedding, Positions, Stack,
    UNTIED_HEAD, head_weight, shared_table,
};
use crate::weights::{Init, Source};

/// The BART encoder and decoder. `forward` takes [`Seq2SeqInputs`](crate::Seq2SeqInputs) and gives a
/// [`Seq2SeqOutput`](crate::Seq2SeqOutput).
pub type BartBackbone = BackboneOf<BartConfig>;

const SELF_ATTENTION: [&str; 4] =
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
const CROSS_ATTENTION: [&str; 4] =
    ["encoder_attn.q_proj", "encoder_attn.k_proj", "encoder_attn.v_proj", "encoder_attn.out_proj"];

/// What an encoder's or a decoder's weights are called.
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
        attention: AttentionNames::Apart(SELF_ATTENTION),
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
        cross: Some((AttentionNames::Apart(CROSS_ATTENTION), "encoder_attn_layer_norm")),
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

/// Of every norm; no configuration has another.
const NORM: (NormKind, f32) = (NormKind::Layer, 1e-5);

impl Architecture for BartConfig {
    type Parts = Seq2SeqParts;

    fn read(preset: &Preset) -> Result<BartConfig> {
        BartConfig::from_preset(preset)
    }

    /// A file without a head, as of a bare model, and one of a tied model with a copy of the table leave it tied.
    fn adjusted(self, preset: &Preset) -> BartConfig {
        let tied = self.tie_embedding_weights || preset.tensor(UNTIED_HEAD).is_none();
        BartConfig { tie_embedding_weights: tied, ..self }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &Source<'_>) -> Result<Seq2SeqParts> {
        let config = self;
        config.validate()?;
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let root = source.root(&["model.", ""], "encoder.embed_positions.weight");
        let scale = if config.scale_embedding { (hidden as f32).sqrt() } else { 1.0 };
        let tokens = Embedding::load(&shared_table(&root), vocabulary, hidden)?.scaled(scale);
        let bias = || source.scope("").named("final_logits_bias", &[1, vocabulary], Init::Zeros);
        let head = head_weight(source, (&tokens, config.tie_embedding_weights), [vocabulary, hidden])?;
        let head = Linear::tied(head, source.has("final_logits_bias").then(bias).transpose()?);
        let block = BlockConfig {
            attention: AttentionConfig::square(hidden, config.num_heads, true),
            inner: config.intermediate_dim,
            activation: config.activation,
            norm: NORM,
            order: Order::NormLast,
            causal: false,
        };
        let stack = |names: &Names, (layers, block): (usize, BlockConfig)| -> Result<Stack> {
            Ok(Stack {
                embeddings: Embeddings {
                    positions: Some(PositionEmbedding {
                        table: Embedding::load_after(
                            &root.at(names.positions),
                            source.unused_positions(),
                            config.max_sequence_length,
                            hidden,
                        )?,
                        counting: Counting::Absolute,
                    }),
                    norm: Some(Norm::load(&root.at(names.norm), hidden, NORM)?),
                    ..Embeddings::of(tokens.clone())
                },
                positions: Positions::Embedded,
                blocks: Stack::blocks(&root, (names.layer, 0, layers), &names.block, block)?,
                config: block,
                norm: None,
                projection: None,
            })
        };
        let encoder = stack(source.pick(&ENCODER, &KERAS_ENCODER), (config.num_layers, block))?;
        let block = BlockConfig {
            attention: AttentionConfig::square(hidden, config.decoder_num_heads, true),
            inner: config.decoder_intermediate_dim,
            causal: true,
            ..block
        };
        let decoder = stack(source.pick(&DECODER, &KERAS_DECODER), (config.decoder_num_layers, block))?;
        Ok(Seq2SeqParts {
            encoder,
            decoder,
            head: LogitsHead::new(head, 1.0),
            positions: config.max_sequence_length,
        })
    }
}
