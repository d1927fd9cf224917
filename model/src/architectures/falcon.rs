//! Falcon (Almazrouei et al., arXiv:2311.16867): a causal decoder in two families. The reference implementations are
//! KerasHub's `FalconBackbone`, which has the first family, and transformers' `FalconModel`.
//!
//! The RefinedWeb models have ALiBi and sequential sub-layers:
//!
//! ```text
//! x = x + MultiHead(LayerNorm(x)),      head_i = softmax(mask + (q_i k_i^T + m_i [0, 1, ..., n-1]) / sqrt(d_head)) v_i
//! x = x + FFN(LayerNorm(x)),            FFN(x) = gelu(x W1) W2
//! ```
//!
//! The others have rotary positions, keys and values that several heads share, and parallel sub-layers:
//!
//! ```text
//! x = x + MultiQuery(LayerNorm(x)) + FFN(LayerNorm(x)),
//!     head_i = softmax(mask + R(q_i) R(k_g(i))^T / sqrt(d_head)) v_g(i)
//! R(x) at position t: each pair (x_j, x_{j + d/2}) is rotated by the angle t theta^(-2j/d)
//! ```
//!
//! Both end with `logits = LayerNorm(x) E_token^T`.

mod config;

use rachis_kernels::AttentionMask;
use rachis_loader::Preset;

pub use config::{FalconConfig, FalconPositions};
pub use rachis_kernels::AlibiRounding;

use crate::architectures::causal::CausalNetwork;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::{Fields, LARGEST_TABLE};
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Embeddings, FeedForwardNames, LayerRange,
    LogitsHead, Norm, NormConfig, NormKind, NormPlacement, Positions, Stack, is_tied, table_and_head,
};
use crate::weights::{Scope, WeightSource};

/// The Falcon decoder. `forward` takes [`Tokens`](crate::Tokens) and gives a
/// [`SequenceOutput`](crate::SequenceOutput).
pub type FalconBackbone = BackboneOf<FalconConfig>;

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

const KERAS: BlockNames = BlockNames {
    attention: AttentionNames::Separate([
        "attention_layer/query_dense",
        "attention_layer/key_dense",
        "attention_layer/value_dense",
        "attention_layer/output_dense",
    ]),
    attention_norm: "input_layernorm",
    cross: None,
    feed_forward: FeedForwardNames { input: "dense_h_to_4h", gate: None, output: "dense_4h_to_h" },
    feed_forward_norm: Some("post_attention_layernorm"),
};

impl Architecture for FalconConfig {
    type Network = CausalNetwork;

    fn read(preset: &Preset) -> Result<FalconConfig> {
        FalconConfig::from_preset(preset)
    }

    fn adjusted(self, preset: &Preset) -> FalconConfig {
        let source = WeightSource::Preset(preset);
        let tied = is_tied(&FalconConfig::table(&source), self.tie_embedding_weights);
        FalconConfig { tie_embedding_weights: tied, ..self }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &WeightSource<'_>) -> Result<CausalNetwork> {
        let config = self;
        config.validate()?;
        let (hidden, heads) = (config.hidden_dim, config.num_attention_heads);
        let head_dim = hidden / heads;
        let root = FalconConfig::root(source);
        let shape = [config.vocabulary_size, hidden];
        let (tokens, head) =
            table_and_head(&FalconConfig::table(source), shape, config.tie_embedding_weights)?;
        let block = BlockConfig {
            attention: AttentionConfig {
                kv_heads: config.num_kv_heads,
                ..AttentionConfig::standard(hidden, heads, config.use_bias)
            },
            intermediate: config.intermediate_dim,
            activation: config.activation,
            norm: NormConfig { kind: NormKind::Layer, epsilon: config.block_norm_epsilon },
            placement: if config.parallel { NormPlacement::Parallel } else { NormPlacement::Pre },
            mask: AttentionMask::Causal,
        };
        let names = match (config.parallel, config.separate_norms) {
            (true, true) => &TWO_NORMS,
            (true, false) => &SHARED_NORM,
            (false, _) => source.pick(&NAMES, &KERAS),
        };
        let (layer, last) = source.pick(("h", "ln_f"), ("falcon_transformer_decoder", "layer_normalization"));
        let layers = LayerRange { name: layer, first: 0, count: config.num_layers };
        let norm = NormConfig { kind: NormKind::Layer, epsilon: config.layer_norm_epsilon };
        let stack = Stack {
            embeddings: Embeddings::of(tokens),
            positions: match config.positions {
                FalconPositions::Alibi { rounding } => Positions::alibi(heads, rounding),
                FalconPositions::Rotary { theta } => Positions::Rotary { theta, head_dim },
            },
            blocks: Stack::blocks(&root, layers, names, block)?,
            config: block,
            norm: Some(Norm::load(&root.at(last), hidden, norm)?),
            projection: None,
        };
        Ok(CausalNetwork { stack, head: LogitsHead::new(head, 1.0), positions: LARGEST_TABLE })
    }
}

impl FalconConfig {
    fn root<'s>(source: &'s WeightSource<'_>) -> Scope<'s> {
        source.root(&["transformer.", ""], "ln_f.weight")
    }

    fn table<'s>(source: &'s WeightSource<'_>) -> Scope<'s> {
        FalconConfig::root(source).at(source.pick("word_embeddings", "reversible_embedding"))
    }
}
