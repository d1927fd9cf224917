//! OPT (Zhang et al., arXiv:2205.01068): a causal decoder with learned positions. The reference implementations are
//! KerasHub's `OPTBackbone` and transformers' `OPTModel`.

mod config;

use rachis_loader::Preset;

pub use config::{OptConfig, OptPositions};

use crate::architectures::causal::CausalParts;
use crate::backbone::BackboneOf;
use crate::backbone::private::Architecture;
use crate::config::Fields;
use crate::error::Result;
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Counting, Embedding, Embeddings,
    FeedForwardNames, Linear, LogitsHead, Norm, NormKind, Order, PositionEmbedding, Positions, Stack,
    UNTIED_HEAD, head_weight,
};
use crate::weights::Source;

/// The OPT decoder. `forward` takes [`Tokens`](crate::Tokens) and gives a [`SequenceOutput`](crate::SequenceOutput).
pub type OptBackbone = BackboneOf<OptConfig>;

/// What weights are called.
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

/// Of every norm; no configuration has another.
const EPSILON: f32 = 1e-5;

impl Architecture for OptConfig {
    type Parts = CausalParts;

    fn read(preset: &Preset) -> Result<OptConfig> {
        OptConfig::from_preset(preset)
    }

    /// A file without a head, as of a bare model, and one of a tied model with a copy of the table leave it tied.
    fn adjusted(self, preset: &Preset) -> OptConfig {
        let tied = self.tie_embedding_weights || preset.tensor(UNTIED_HEAD).is_none();
        OptConfig { tie_embedding_weights: tied, ..self }
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &Source<'_>) -> Result<CausalParts> {
        let config = self;
        config.validate()?;
        let (hidden, width) = (config.hidden_dim, config.embedding_dim);
        let kind = if config.norm_affine { NormKind::Layer } else { NormKind::PlainLayer };
        let root = source.root(&["model.decoder.", "decoder.", ""], "embed_tokens.weight");
        let names = source.pick(&HUGGING_FACE, &KERAS);
        let tokens = Embedding::load(&root.at(names.tokens), config.vocabulary_size, width)?;
        let shape = [config.vocabulary_size, width];
        let head = head_weight(source, (&tokens, config.tie_embedding_weights), shape)?;
        let head = LogitsHead::new(Linear::tied(head, None), 1.0);
        let positions = PositionEmbedding {
            table: Embedding::load_after(
                &root.at(names.positions),
                source.unused_positions(),
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
        let norm = || Norm::load(&root.at(names.norm), hidden, (kind, EPSILON));
        let stack = Stack {
            embeddings: Embeddings {
                projection: projection("project_in", width, hidden)?,
                positions: Some(positions),
                ..Embeddings::of(tokens)
            },
            positions: Positions::Embedded,
            blocks: Stack::blocks(&root, (names.layer, 0, config.num_layers), &names.block, block)?,
            config: block,
            norm: (config.norm_first && config.final_norm).then(norm).transpose()?,
            projection: projection("project_out", hidden, width)?,
        };
        Ok(CausalParts { stack, head, positions: config.max_sequence_length })
    }
}
