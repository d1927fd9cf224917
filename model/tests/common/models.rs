//! Configurations of small models of every architecture.

use rachis::falcon::FalconPositions;
use rachis::{BartConfig, BertConfig, FalconConfig, OptConfig, T5Config};

/// The sizes that all architectures have.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub vocabulary: usize,
    pub layers: usize,
    pub heads: usize,
    pub hidden: usize,
    pub inner: usize,
    pub positions: usize,
}

impl Sizes {
    pub fn bert(self) -> BertConfig {
        BertConfig {
            vocabulary_size: self.vocabulary,
            num_layers: self.layers,
            num_heads: self.heads,
            hidden_dim: self.hidden,
            intermediate_dim: self.inner,
            max_sequence_length: self.positions,
            ..BertConfig::default()
        }
    }

    pub fn opt(self) -> OptConfig {
        OptConfig {
            vocabulary_size: self.vocabulary,
            num_layers: self.layers,
            num_heads: self.heads,
            hidden_dim: self.hidden,
            intermediate_dim: self.inner,
            max_sequence_length: self.positions,
            embedding_dim: self.hidden,
            ..OptConfig::default()
        }
    }

    /// With two towers of these sizes.
    pub fn bart(self) -> BartConfig {
        BartConfig {
            vocabulary_size: self.vocabulary,
            num_layers: self.layers,
            num_heads: self.heads,
            hidden_dim: self.hidden,
            intermediate_dim: self.inner,
            max_sequence_length: self.positions,
            decoder_num_layers: self.layers,
            decoder_num_heads: self.heads,
            decoder_intermediate_dim: self.inner,
            ..BartConfig::default()
        }
    }

    /// With two towers of these sizes.
    pub fn t5(self) -> T5Config {
        T5Config {
            vocabulary_size: self.vocabulary,
            num_layers: self.layers,
            num_heads: self.heads,
            hidden_dim: self.hidden,
            intermediate_dim: self.inner,
            decoder_num_layers: self.layers,
            ..T5Config::default()
        }
    }

    /// With ALiBi, and keys for every head.
    pub fn falcon(self) -> FalconConfig {
        FalconConfig {
            vocabulary_size: self.vocabulary,
            num_layers: self.layers,
            num_attention_heads: self.heads,
            hidden_dim: self.hidden,
            intermediate_dim: self.inner,
            num_kv_heads: self.heads,
            ..FalconConfig::default()
        }
    }

    /// With rotary positions, blocks side by side, and so many heads of keys.
    pub fn rotary_falcon(self, num_kv_heads: usize) -> FalconConfig {
        let mut config = self.falcon();
        config.num_kv_heads = num_kv_heads;
        config.use_bias = false;
        config.parallel = true;
        config.separate_norms = true;
        config.positions = FalconPositions::Rotary { theta: 10_000.0 };
        config
    }
}
