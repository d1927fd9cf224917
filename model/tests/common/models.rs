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
        let mut config = BertConfig::default();
        config.vocabulary_size = self.vocabulary;
        config.num_layers = self.layers;
        config.num_heads = self.heads;
        config.hidden_dim = self.hidden;
        config.intermediate_dim = self.inner;
        config.max_sequence_length = self.positions;
        config
    }

    pub fn opt(self) -> OptConfig {
        let mut config = OptConfig::default();
        config.vocabulary_size = self.vocabulary;
        config.num_layers = self.layers;
        config.num_heads = self.heads;
        config.hidden_dim = self.hidden;
        config.intermediate_dim = self.inner;
        config.max_sequence_length = self.positions;
        config.embedding_dim = self.hidden;
        config
    }

    /// With two towers of these sizes.
    pub fn bart(self) -> BartConfig {
        let mut config = BartConfig::default();
        config.vocabulary_size = self.vocabulary;
        config.num_layers = self.layers;
        config.num_heads = self.heads;
        config.hidden_dim = self.hidden;
        config.intermediate_dim = self.inner;
        config.max_sequence_length = self.positions;
        config.decoder_num_layers = self.layers;
        config.decoder_num_heads = self.heads;
        config.decoder_intermediate_dim = self.inner;
        config
    }

    /// With two towers of these sizes.
    pub fn t5(self) -> T5Config {
        let mut config = T5Config::default();
        config.vocabulary_size = self.vocabulary;
        config.num_layers = self.layers;
        config.num_heads = self.heads;
        config.hidden_dim = self.hidden;
        config.intermediate_dim = self.inner;
        config.decoder_num_layers = self.layers;
        config
    }

    /// With ALiBi, and keys for every head.
    pub fn falcon(self) -> FalconConfig {
        let mut config = FalconConfig::default();
        config.vocabulary_size = self.vocabulary;
        config.num_layers = self.layers;
        config.num_attention_heads = self.heads;
        config.hidden_dim = self.hidden;
        config.intermediate_dim = self.inner;
        config.num_kv_heads = self.heads;
        config
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
