//! The sizes of an attention and the names of its weights.

/// The names of an attention's weights, below the layer's own name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AttentionNames {
    /// One layer each for queries, keys, values, and the output.
    Separate([&'static str; 4]),
    /// One layer for queries, keys and values, ordered by key head, and one for the output.
    Fused([&'static str; 2]),
}

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionConfig {
    pub(crate) hidden: usize,
    /// Heads of queries.
    pub(crate) heads: usize,
    /// Heads of keys and of values, each shared by `heads / kv_heads` heads of queries.
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Multiplies the scores.
    pub(crate) scale: f32,
    /// Whether projections have biases.
    pub(crate) bias: bool,
}

impl AttentionConfig {
    /// The attention of Vaswani et al.: as many heads of keys as of queries, `hidden / heads` wide, and the scale
    /// `1 / sqrt(head_dim)`.
    pub(crate) fn standard(hidden: usize, heads: usize, bias: bool) -> AttentionConfig {
        let head_dim = hidden / heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        AttentionConfig { hidden, heads, kv_heads: heads, head_dim, scale, bias }
    }

    /// Columns of the queries of all heads.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of the keys of all heads, and of their values.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Columns of queries, keys and values together.
    pub(crate) fn qkv_width(&self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }
}
