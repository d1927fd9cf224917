//! OPT (Zhang et al., arXiv:2205.01068): a causal decoder with learned positions. The reference implementations are
//! KerasHub's `OPTBackbone` and transformers' `OPTModel`.

mod config;

use std::path::Path;

use rachis_kernels::Ctx;
use rachis_loader::{Access, Preset};

pub use config::{OptConfig, OptPositions};

use crate::config::{DtypePolicy, unused_positions};
use crate::decoder::private::Stacks;
use crate::error::Result;
use crate::forward;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Counting, Embedding, Embeddings,
    FeedForwardNames, Linear, LogitsHead, Norm, NormKind, Order, PositionEmbedding, Positions, Stack,
};
use crate::session::{Model, Observer, Plan, SequenceOutput, Session};
use crate::tokens::Tokens;
use crate::weights::Source;

/// The OPT decoder.
#[derive(Debug)]
pub struct OptBackbone {
    config: OptConfig,
    dtype: DtypePolicy,
    stack: Stack,
    head: LogitsHead,
}

const NAMES: BlockNames = BlockNames {
    attention: AttentionNames::Apart([
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
    ]),
    attention_norm: "self_attn_layer_norm",
    cross: None,
    feed_forward: FeedForwardNames { input: "fc1", gate: None, output: "fc2" },
    feed_forward_norm: Some("final_layer_norm"),
};

/// Of every norm; no configuration has another.
const EPSILON: f32 = 1e-5;

impl OptBackbone {
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`OptBackbone::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<OptBackbone> {
        OptBackbone::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`OptBackbone::from_preset`].
    pub fn load(preset: &Preset) -> Result<OptBackbone> {
        let (config, dtype) = (OptConfig::from_preset(preset)?, DtypePolicy::of(preset.config())?);
        OptBackbone::build(config, dtype, unused_positions(preset), &Source::Preset(preset))
    }

    /// A model of this configuration with random weights: kernels and embeddings truncated normal with standard
    /// deviation 0.02, biases zero. The same seed gives the same model.
    ///
    /// # Errors
    /// A configuration that no model can have, or one that there is no memory for.
    pub fn random(config: OptConfig, seed: u64) -> Result<OptBackbone> {
        Source::randomly(seed, |source| OptBackbone::build(config.clone(), DtypePolicy::Float32, 0, source))
    }

    fn build(
        config: OptConfig,
        dtype: DtypePolicy,
        unused_positions: usize,
        source: &Source<'_>,
    ) -> Result<OptBackbone> {
        config.validate()?;
        let (hidden, width) = (config.hidden_dim, config.embedding_dim);
        let kind = if config.norm_affine { NormKind::Layer } else { NormKind::PlainLayer };
        let root = source.scope(source.prefix(&["model.decoder.", "decoder.", ""], "embed_tokens.weight"));
        let tokens = Embedding::load(&root.at("embed_tokens"), config.vocabulary_size, width)?;
        let head = LogitsHead::new(Linear::tied(tokens.weight(), None), 1.0);
        let positions = PositionEmbedding {
            table: Embedding::load_after(
                &root.at("embed_positions"),
                unused_positions,
                config.max_sequence_length,
                hidden,
            )?,
            counting: match config.positions {
                OptPositions::Absolute => Counting::Absolute,
                OptPositions::Counted => Counting::Real,
            },
        };
        let projection = |name: &str, from, to| {
            (width != hidden).then(|| Linear::load(&root.at(name), from, to, false)).transpose()
        };
        let block = BlockConfig {
            attention: AttentionConfig::square(hidden, config.num_heads, config.use_bias),
            inner: config.intermediate_dim,
            activation: config.activation,
            norm: (kind, EPSILON),
            order: if config.norm_first { Order::NormFirst } else { Order::NormLast },
            causal: true,
        };
        let norm = || Norm::load(&root.at("final_layer_norm"), hidden, (kind, EPSILON));
        let stack = Stack {
            embeddings: Embeddings {
                projection: projection("project_in", width, hidden)?,
                positions: Some(positions),
                ..Embeddings::of(tokens)
            },
            positions: Positions::Embedded,
            blocks: Stack::blocks(&root.at("layers"), config.num_layers, &NAMES, block)?,
            config: block,
            norm: config.norm_first.then(norm).transpose()?,
            projection: projection("project_out", hidden, width)?,
        };
        Ok(OptBackbone { config, dtype, stack, head })
    }

    /// The configuration.
    pub fn config(&self) -> &OptConfig {
        &self.config
    }

    /// The dtype policy that the preset states.
    pub fn dtype(&self) -> DtypePolicy {
        self.dtype
    }

    /// The table of token vectors, which is also that of the logits.
    pub fn token_embedding(&self) -> &Embedding {
        &self.stack.embeddings.tokens
    }

    /// One forward pass: a vector of `embedding_dim` for every token.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the inputs do not fit the model; nothing is computed then.
    pub fn forward<'s>(
        &self,
        session: &'s mut Session<'_>,
        tokens: Tokens<'_>,
    ) -> Result<SequenceOutput<'s>> {
        forward::causal(self, session, tokens, None)
    }

    /// One forward pass that shows every layer's output, of width `hidden_dim`, to `observer`.
    ///
    /// # Errors
    /// As [`OptBackbone::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        tokens: Tokens<'_>,
        observer: Observer<'_>,
    ) -> Result<SequenceOutput<'s>> {
        forward::causal(self, session, tokens, Some(observer))
    }
}

impl Stacks for OptBackbone {
    fn encoder(&self) -> Option<&Stack> {
        None
    }

    fn decoder(&self) -> &Stack {
        &self.stack
    }

    fn head(&self) -> &LogitsHead {
        &self.head
    }

    fn positions(&self) -> usize {
        self.config.max_sequence_length
    }
}

impl Model for OptBackbone {
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        forward::causal_plan(self, ctx, (batch, seq))
    }
}
