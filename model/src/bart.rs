//! BART (Lewis et al., arXiv:1910.13461): an encoder and a causal decoder that attends to it, with learned positions
//! and normalisation after each block. The reference implementations are KerasHub's `BartBackbone` and transformers'
//! `BartModel`.

mod config;

use std::path::Path;

use rachis_kernels::Ctx;
use rachis_loader::{Access, Preset};

pub use config::BartConfig;

use crate::config::{DtypePolicy, unused_positions};
use crate::decoder::private::Stacks;
use crate::error::Result;
use crate::forward::{self, Seq2SeqInputs, Seq2SeqOutput};
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Counting, Embedding, Embeddings,
    FeedForwardNames, Linear, LogitsHead, Norm, NormKind, Order, PositionEmbedding, Positions, Stack,
};
use crate::session::{Model, Plan, Session, TowerObserver};
use crate::weights::{Init, Source};

/// The BART encoder and decoder.
#[derive(Debug)]
pub struct BartBackbone {
    config: BartConfig,
    dtype: DtypePolicy,
    encoder: Stack,
    decoder: Stack,
    head: LogitsHead,
}

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

impl BartBackbone {
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`BartBackbone::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<BartBackbone> {
        BartBackbone::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`BartBackbone::from_preset`].
    pub fn load(preset: &Preset) -> Result<BartBackbone> {
        let (config, dtype) = (BartConfig::from_preset(preset)?, DtypePolicy::of(preset.config())?);
        let has_bias = preset.tensor("final_logits_bias").is_some();
        BartBackbone::build(config, dtype, (unused_positions(preset), has_bias), &Source::Preset(preset))
    }

    /// A model of this configuration with random weights: kernels and embeddings truncated normal with standard
    /// deviation 0.02, biases zero. The same seed gives the same model.
    ///
    /// # Errors
    /// A configuration that no model can have, or one that there is no memory for.
    pub fn random(config: BartConfig, seed: u64) -> Result<BartBackbone> {
        Source::randomly(seed, |source| {
            BartBackbone::build(config.clone(), DtypePolicy::Float32, (0, false), source)
        })
    }

    fn build(
        config: BartConfig,
        dtype: DtypePolicy,
        (unused_positions, has_logits_bias): (usize, bool),
        source: &Source<'_>,
    ) -> Result<BartBackbone> {
        config.validate()?;
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let root = source.scope(source.prefix(&["model.", ""], "shared.weight"));
        let scale = if config.scale_embedding { (hidden as f32).sqrt() } else { 1.0 };
        let tokens = Embedding::load(&root.at("shared"), vocabulary, hidden)?.scaled(scale);
        let bias = || source.scope("").weight("final_logits_bias", &[1, vocabulary], Init::Zeros);
        let head = Linear::tied(tokens.weight(), has_logits_bias.then(bias).transpose()?);
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
                                unused_positions,
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
        Ok(BartBackbone { config, dtype, encoder, decoder, head: LogitsHead::new(head, 1.0) })
    }

    /// The configuration.
    pub fn config(&self) -> &BartConfig {
        &self.config
    }

    /// The dtype policy that the preset states.
    pub fn dtype(&self) -> DtypePolicy {
        self.dtype
    }

    /// The table of token vectors, which is also that of the logits.
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
    /// As [`BartBackbone::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: Seq2SeqInputs<'_>,
        observer: TowerObserver<'_>,
    ) -> Result<Seq2SeqOutput<'s>> {
        forward::seq2seq(self, session, inputs, Some(observer))
    }
}

impl Stacks for BartBackbone {
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
        self.config.max_sequence_length
    }
}

impl Model for BartBackbone {
    /// For sequences of up to `seq` tokens in the encoder and as many in the decoder.
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        forward::seq2seq_plan(self, ctx, (batch, seq))
    }
}
