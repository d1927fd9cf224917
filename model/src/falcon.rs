//! Falcon (Almazrouei et al., arXiv:2311.16867): a causal decoder in two families. The RefinedWeb models have ALiBi and
//! blocks behind one another; the others turn queries and keys by their positions, share keys between heads, and
//! compute attention and feed-forward side by side. The reference implementations are KerasHub's `FalconBackbone`,
//! which has the first family, and transformers' `FalconModel`.

mod config;

use std::path::Path;

use rachis_kernels::Ctx;
use rachis_loader::{Access, Preset};

pub use config::{FalconConfig, FalconPositions};

use crate::config::{DtypePolicy, LARGEST_TABLE};
use crate::decoder::private::Stacks;
use crate::error::Result;
use crate::forward;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Embedding, Embeddings, FeedForwardNames,
    Linear, LogitsHead, Norm, NormKind, Order, Positions, Stack,
};
use crate::session::{Model, Observer, Plan, SequenceOutput, Session};
use crate::tokens::Tokens;
use crate::weights::Source;

/// The Falcon decoder.
#[derive(Debug)]
pub struct FalconBackbone {
    config: FalconConfig,
    dtype: DtypePolicy,
    stack: Stack,
    head: LogitsHead,
}

const NAMES: BlockNames = BlockNames {
    attention: AttentionNames::Fused(["self_attention.query_key_value", "self_attention.dense"]),
    attention_norm: "input_layernorm",
    cross: None,
    feed_forward: FeedForwardNames { input: "mlp.dense_h_to_4h", gate: None, output: "mlp.dense_4h_to_h" },
    feed_forward_norm: Some("post_attention_layernorm"),
};
const SHARED_NORM: BlockNames = BlockNames { feed_forward_norm: None, ..NAMES };
const TWO_NORMS: BlockNames =
    BlockNames { attention_norm: "ln_attn", feed_forward_norm: Some("ln_mlp"), ..NAMES };

/// The logits' weights, where they are not the token table.
const HEAD: &str = "lm_head.weight";

impl FalconBackbone {
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`FalconBackbone::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<FalconBackbone> {
        FalconBackbone::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`FalconBackbone::from_preset`].
    pub fn load(preset: &Preset) -> Result<FalconBackbone> {
        let mut config = FalconConfig::from_preset(preset)?;
        // The file knows, whatever the configuration says.
        config.tie_embedding_weights = preset.tensor(HEAD).is_none();
        FalconBackbone::build(config, DtypePolicy::of(preset.config())?, &Source::Preset(preset))
    }

    /// A model of this configuration with random weights: kernels and embeddings truncated normal with standard
    /// deviation 0.02, biases zero. The same seed gives the same model.
    ///
    /// # Errors
    /// A configuration that no model can have, or one that there is no memory for.
    pub fn random(config: FalconConfig, seed: u64) -> Result<FalconBackbone> {
        Source::randomly(seed, |source| FalconBackbone::build(config.clone(), DtypePolicy::Float32, source))
    }

    fn build(config: FalconConfig, dtype: DtypePolicy, source: &Source<'_>) -> Result<FalconBackbone> {
        config.validate()?;
        let (hidden, heads) = (config.hidden_dim, config.num_attention_heads);
        let head_dim = hidden / heads;
        let root = source.scope(source.prefix(&["transformer.", ""], "word_embeddings.weight"));
        let tokens = Embedding::load(&root.at("word_embeddings"), config.vocabulary_size, hidden)?;
        let head = if config.tie_embedding_weights {
            Linear::tied(tokens.weight(), None)
        } else {
            Linear::load(&source.scope("lm_head."), hidden, config.vocabulary_size, false)?
        };
        let block = BlockConfig {
            attention: AttentionConfig {
                kv_heads: config.num_kv_heads,
                ..AttentionConfig::square(hidden, heads, config.use_bias)
            },
            inner: config.intermediate_dim,
            activation: config.activation,
            norm: (NormKind::Layer, config.block_norm_epsilon),
            order: if config.parallel { Order::Parallel } else { Order::NormFirst },
            causal: true,
        };
        let names = match (config.parallel, config.separate_norms) {
            (true, true) => &TWO_NORMS,
            (true, false) => &SHARED_NORM,
            (false, _) => &NAMES,
        };
        let norm = (NormKind::Layer, config.layer_norm_epsilon);
        let stack = Stack {
            embeddings: Embeddings::of(tokens),
            positions: match config.positions {
                FalconPositions::Alibi { round } => Positions::alibi(heads, round),
                FalconPositions::Rotary { theta } => Positions::Rotary { theta, head_dim },
            },
            blocks: Stack::blocks(&root.at("h"), config.num_layers, names, block)?,
            config: block,
            norm: Some(Norm::load(&root.at("ln_f"), hidden, norm)?),
            projection: None,
        };
        Ok(FalconBackbone { config, dtype, stack, head: LogitsHead::new(head, 1.0) })
    }

    /// The configuration.
    pub fn config(&self) -> &FalconConfig {
        &self.config
    }

    /// The dtype policy that the preset states.
    pub fn dtype(&self) -> DtypePolicy {
        self.dtype
    }

    /// The table of token vectors, which is also that of the logits where the two are tied.
    pub fn token_embedding(&self) -> &Embedding {
        &self.stack.embeddings.tokens
    }

    /// One forward pass: a vector of `hidden_dim` for every token.
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

    /// One forward pass that shows every layer's output to `observer`.
    ///
    /// # Errors
    /// As [`FalconBackbone::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        tokens: Tokens<'_>,
        observer: Observer<'_>,
    ) -> Result<SequenceOutput<'s>> {
        forward::causal(self, session, tokens, Some(observer))
    }
}

impl Stacks for FalconBackbone {
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
        LARGEST_TABLE
    }
}

impl Model for FalconBackbone {
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        forward::causal_plan(self, ctx, (batch, seq))
    }
}
