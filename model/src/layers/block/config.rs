//! The sizes and choices of a layer and the names of its weights.

use rachis_kernels::{Activation, AttentionMask};

use crate::layers::feed_forward::FeedForwardNames;
use crate::layers::{AttentionConfig, AttentionNames, NormConfig};

/// The names of a layer's weights, below the layer's own name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockNames {
    pub(crate) attention: AttentionNames,
    pub(crate) attention_norm: &'static str,
    /// The attention to a source and its norm, if the layer has one.
    pub(crate) cross: Option<(AttentionNames, &'static str)>,
    pub(crate) feed_forward: FeedForwardNames,
    /// `None` where the feed-forward block shares the attention's norm.
    pub(crate) feed_forward_norm: Option<&'static str>,
}

impl BlockNames {
    /// KerasHub's `TransformerEncoder`.
    pub(crate) const KERAS: BlockNames = BlockNames {
        attention: AttentionNames::Separate([
            "_self_attention_layer/query_dense",
            "_self_attention_layer/key_dense",
            "_self_attention_layer/value_dense",
            "_self_attention_layer/output_dense",
        ]),
        attention_norm: "_self_attention_layer_norm",
        cross: None,
        feed_forward: FeedForwardNames {
            input: "_feedforward_intermediate_dense",
            gate: None,
            output: "_feedforward_output_dense",
        },
        feed_forward_norm: Some("_feedforward_layer_norm"),
    };

    /// KerasHub's `TransformerDecoder` with attention to an encoder.
    pub(crate) const KERAS_CROSS: BlockNames = BlockNames {
        cross: Some((
            AttentionNames::Separate([
                "_cross_attention_layer/query_dense",
                "_cross_attention_layer/key_dense",
                "_cross_attention_layer/value_dense",
                "_cross_attention_layer/output_dense",
            ]),
            "_cross_attention_layer_norm",
        )),
        ..BlockNames::KERAS
    };
}

/// The sizes and choices of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockConfig {
    pub(crate) attention: AttentionConfig,
    /// Width between the two dense layers of the feed-forward block.
    pub(crate) intermediate: usize,
    pub(crate) activation: Activation,
    pub(crate) norm: NormConfig,
    pub(crate) placement: NormPlacement,
    /// Whether a token attends to later tokens.
    pub(crate) mask: AttentionMask,
}

/// Where the norms of a layer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormPlacement {
    /// Behind each sub-layer: `x = norm(x + attention(x)); x = norm(x + feed_forward(x))`.
    Post,
    /// Before each sub-layer: `x = x + attention(norm(x)); x = x + feed_forward(norm(x))`.
    Pre,
    /// Before two sub-layers that have the same input: `x = x + attention(norm(x)) + feed_forward(norm(x))`.
    Parallel,
}
