//! BART (Lewis et al., arXiv:1910.13461): an encoder and a causal decoder that attends to it, with learned positions
//! and normalisation after each block. The reference implementations are KerasHub's `BartBackbone` and transformers'
//! `BartModel`.

mod config;

use rachis_loader::Preset;

pub use config::BartConfig;

use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Counting, Embedding, Embeddings,
    FeedForwardNames, Linear, LogitsHead, Norm, NormKind, Order, PositionEmbedding, Positions, Stack,
};
use crate::seq2seq::Seq2SeqBackbone;
use crate::seq2seq::private::{Seq2SeqConfig, Seq2SeqParts};
use crate::weights::{Init, Source};

/// The BART encoder and decoder.
pub type BartBackbone = Seq2SeqBackbone<BartConfig>;

const SELF_ATTENTION: [&str; 4] =
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
const CROSS_ATTENTION: [&str; 4] =
    ["encoder_attn.q_proj", "encoder_attn.k_proj", "encoder_attn.v_proj", "encoder_attn.out_proj"];

const ENCODER: BlockNames = BlockNames {
    attention: AttentionNames::Apart(SELF_ATTENTION),
    attention_norm: "self_attn_layer_norm",
    cross: None,
    feed_forward: FeedForwardNames { input: "fc1", gate: None, output: "fc2" },
    feed_forward_norm: Some("final_layer_norm"),
};
const DECODER: BlockNames = BlockNames {
    cross: Some((AttentionNames::Apart(CROSS_ATTENTION), "encoder_attn_layer_norm")),
    ..ENCODER
};

/// Of every norm; no configuration has another.
const NORM: (NormKind, f32) = (NormKind::Layer, 1e-5);

impl Seq2SeqConfig for BartConfig {
    fn read(preset: &Preset) -> Result<BartConfig> {
        BartConfig::from_preset(preset)
    }

    fn build(&self, source: &Source<'_>) -> Result<Seq2SeqParts> {
        let config = self;
        config.validate()?;
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let root = source.scope(source.prefix(&["model.", ""], "shared.weight"));
        let scale = if config.scale_embedding { (hidden as f32).sqrt() } else { 1.0 };
        let tokens = Embedding::load(&root.at("shared"), vocabulary, hidden)?.scaled(scale);
        let bias = || source.scope("").weight("final_logits_bias", &[1, vocabulary], Init::Zeros);
        let head = Linear::tied(tokens.weight(), source.has("final_logits_bias").then(bias).transpose()?);
        let block = BlockConfig {
            attention: AttentionConfig::square(hidden, config.num_heads, true),
            inner: config.intermediate_dim,
            activation: config.activation,
            norm: NORM,
            order: Order::NormLast,
            causal: false,
        };
        let stack =
            |name: &str, names: &BlockNames, (layers, block): (usize, BlockConfig)| -> Result<Stack> {
                let scope = root.at(name);
                Ok(Stack {
                    embeddings: Embeddings {
                        positions: Some(PositionEmbedding {
                            table: Embedding::load_after(
                                &scope.at("embed_positions"),
                                source.unused_positions(),
                                config.max_sequence_length,
                                hidden,
                            )?,
                            counting: Counting::Absolute,
                        }),
                        norm: Some(Norm::load(&scope.at("layernorm_embedding"), hidden, NORM)?),
                        ..Embeddings::of(tokens.clone())
                    },
                    positions: Positions::Embedded,
                    blocks: Stack::blocks(&scope.at("layers"), layers, names, block)?,
                    config: block,
                    norm: None,
                    projection: None,
                })
            };
        let encoder = stack("encoder", &ENCODER, (config.num_layers, block))?;
        let block = BlockConfig {
            attention: AttentionConfig::square(hidden, config.decoder_num_heads, true),
            inner: config.decoder_intermediate_dim,
            causal: true,
            ..block
        };
        let decoder = stack("decoder", &DECODER, (config.decoder_num_layers, block))?;
        Ok(Seq2SeqParts { encoder, decoder, head: LogitsHead::new(head, 1.0) })
    }

    fn positions(&self) -> usize {
        self.max_sequence_length
    }
}
