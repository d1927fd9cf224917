//! Falcon (Almazrouei et al., arXiv:2311.16867): a causal decoder in two families. The RefinedWeb models have ALiBi and
//! blocks behind one another; the others turn queries and keys by their positions, share keys between heads, and
//! compute attention and feed-forward side by side. The reference implementations are KerasHub's `FalconBackbone`,
//! which has the first family, and transformers' `FalconModel`.

mod config;

use rachis_loader::Preset;

pub use config::{FalconConfig, FalconPositions};

use crate::architectures::causal::CausalParts;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::{Fields, LARGEST_TABLE};
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Embedding, Embeddings, FeedForwardNames,
    Linear, LogitsHead, Norm, NormKind, Order, Positions, Stack, UNTIED_HEAD,
};
use crate::weights::Source;

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
    attention: AttentionNames::Apart([
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
    type Parts = CausalParts;

    fn read(preset: &Preset) -> Result<FalconConfig> {
        FalconConfig::from_preset(preset)
    }

    fn adjusted(self, preset: &Preset) -> FalconConfig {
        FalconConfig { tie_embedding_weights: preset.tensor(UNTIED_HEAD).is_none(), ..self }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &Source<'_>) -> Result<CausalParts> {
        let config = self;
        config.validate()?;
        let (hidden, heads) = (config.hidden_dim, config.num_attention_heads);
        let head_dim = hidden / heads;
        let root = source.root(&["transformer.", ""], "word_embeddings.weight");
        let tokens = Embedding::load(
            &root.at(source.pick("word_embeddings", "reversible_embedding")),
            config.vocabulary_size,
            hidden,
        )?;
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
            (false, _) => source.pick(&NAMES, &KERAS),
        };
        let (layer, last) = source.pick(("h", "ln_f"), ("falcon_transformer_decoder", "layer_normalization"));
        let norm = (NormKind::Layer, config.layer_norm_epsilon);
        let stack = Stack {
            embeddings: Embeddings::of(tokens),
            positions: match config.positions {
                FalconPositions::Alibi { round } => Positions::alibi(heads, round),
                FalconPositions::Rotary { theta } => Positions::Rotary { theta, head_dim },
            },
            blocks: Stack::blocks(&root, (layer, 0, config.num_layers), names, block)?,
            config: block,
            norm: Some(Norm::load(&root.at(last), hidden, norm)?),
            projection: None,
        };
        Ok(CausalParts { stack, head: LogitsHead::new(head, 1.0), positions: LARGEST_TABLE })
    }
}
