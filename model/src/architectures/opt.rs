//! OPT (Zhang et al., arXiv:2205.01068): a causal decoder with learned positions. The reference implementations are
//! KerasHub's `OPTBackbone` and transformers' `OPTModel`.
//!
//! ```text
//! x = E_token[id] W_in + E_position[position]
//! for each layer:
//!     x = x + CausalMultiHead(LayerNorm(x))
//!     x = x + FFN(LayerNorm(x)),                FFN(x) = relu(x W1 + b1) W2 + b2
//! logits = LayerNorm(x) W_out E_token^T
//! CausalMultiHead(x) = Concat(head_1, ..., head_h) Wo + bo,
//!     head_i = softmax(mask + q_i k_i^T / sqrt(d_head)) v_i
//! ```
//!
//! `W_in` and `W_out` exist only where token vectors are narrower than the layers. The 350M model has its norms behind
//! the sub-layers, `x = LayerNorm(x + f(x))`, and none at the end.

mod config;

use rachis_kernels::AttentionMask;
use rachis_loader::Preset;

pub use config::{OptConfig, OptPositions};

use crate::architectures::causal::CausalNetwork;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::Fields;
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Embedding, Embeddings, FeedForwardNames,
    LayerRange, Linear, LogitsHead, Norm, NormConfig, NormKind, NormPlacement, PositionCount,
    PositionEmbedding, Positions, Stack, is_tied, table_and_head,
};
use crate::weights::{Scope, WeightSource};

/// The OPT decoder. `forward` takes [`Tokens`](crate::Tokens) and gives a [`SequenceOutput`](crate::SequenceOutput).
pub type OptBackbone = BackboneOf<OptConfig>;

/// The names of weights.
struct Names {
    tokens: &'static str,
    positions: &'static str,
    layer: &'static str,
    block: BlockNames,
    norm: &'static str,
}

const HUGGING_FACE: Names = Names {
    tokens: "embed_tokens",
    positions: "embed_positions",
    layer: "layers",
    block: BlockNames {
        attention: AttentionNames::Separate([
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
        ]),
        attention_norm: "self_attn_layer_norm",
        cross: None,
        feed_forward: FeedForwardNames { input: "fc1", gate: None, output: "fc2" },
        feed_forward_norm: Some("final_layer_norm"),
    },
    norm: "final_layer_norm",
};

const KERAS: Names = Names {
    tokens: "token_and_position_embedding/token_embedding",
    positions: "token_and_position_embedding/position_embedding",
    layer: "transformer_decoder",
    block: BlockNames::KERAS,
    norm: "layer_normalization",
};

/// The constant of every norm. No configuration has another.
const EPSILON: f32 = 1e-5;

impl Architecture for OptConfig {
    type Network = CausalNetwork;

    fn read(preset: &Preset) -> Result<OptConfig> {
        OptConfig::from_preset(preset)
    }

    fn adjusted(self, preset: &Preset) -> OptConfig {
        let source = WeightSource::Preset(preset);
        let table = OptConfig::root(&source).at(source.pick(&HUGGING_FACE, &KERAS).tokens);
        OptConfig { tie_embedding_weights: is_tied(&table, self.tie_embedding_weights), ..self }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &WeightSource<'_>) -> Result<CausalNetwork> {
        let config = self;
        config.validate()?;
        let (hidden, width) = (config.hidden_dim, config.embedding_dim);
        let kind = if config.norm_affine { NormKind::Layer } else { NormKind::PlainLayer };
        let root = OptConfig::root(source);
        let names = source.pick(&HUGGING_FACE, &KERAS);
        let shape = [config.vocabulary_size, width];
        let (tokens, head) = table_and_head(&root.at(names.tokens), shape, config.tie_embedding_weights)?;
        let positions = PositionEmbedding {
            table: Embedding::load_after(
                &root.at(names.positions),
                source.unused_positions(),
                config.max_sequence_length,
                hidden,
            )?,
            count: match config.positions {
                OptPositions::Absolute => PositionCount::All,
                OptPositions::RealTokens => PositionCount::RealTokens,
            },
        };
        let projection = |name: &str, from, to| {
            (width != hidden).then(|| Linear::load(&root.at(name), from, to, false)).transpose()
        };
        let norm = NormConfig { kind, epsilon: EPSILON };
        let block = BlockConfig {
            attention: AttentionConfig::standard(hidden, config.num_heads, config.use_bias),
            intermediate: config.intermediate_dim,
            activation: config.activation,
            norm,
            placement: if config.norm_first { NormPlacement::Pre } else { NormPlacement::Post },
            mask: AttentionMask::Causal,
        };
        let final_norm = || Norm::load(&root.at(names.norm), hidden, norm);
        let layers = LayerRange { name: names.layer, first: 0, count: config.num_layers };
        let stack = Stack {
            embeddings: Embeddings {
                projection: projection("project_in", width, hidden)?,
                positions: Some(positions),
                ..Embeddings::of(tokens)
            },
            positions: Positions::Embedded,
            blocks: Stack::blocks(&root, layers, &names.block, block)?,
            config: block,
            norm: (config.norm_first && config.final_norm).then(final_norm).transpose()?,
            projection: projection("project_out", hidden, width)?,
        };
        let head = LogitsHead::new(head, 1.0);
        Ok(CausalNetwork { stack, head, positions: config.max_sequence_length })
    }
}

impl OptConfig {
    fn root<'s>(source: &'s WeightSource<'_>) -> Scope<'s> {
        source.root(&["model.decoder.", "decoder.", ""], "embed_positions.weight")
    }
}
