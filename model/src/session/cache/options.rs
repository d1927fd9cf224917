//! The size of a KV cache.

use rachis_kernels::Dtype;

use crate::layers::Stack;

/// The size of a session's KV cache.
///
/// ```
/// use rachis::{CacheOptions, Dtype};
///
/// let options = CacheOptions::new(4, 512).with_dtype(Dtype::Bfloat16);
/// assert_eq!((options.sequences, options.capacity), (4, 512));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheOptions {
    /// Number of sequences. Calls name them by their numbers: 0, 1, and so on.
    pub sequences: usize,
    /// The largest number of tokens of a sequence.
    pub capacity: usize,
    /// The type that keys and values are stored as. `None` is the type that the forward pass computes them in, so that
    /// decoding token by token gives the bits of a forward pass. `Bfloat16` rounds to 8 bits of precision, `Float16` to
    /// 11, with values beyond 65504 becoming infinite.
    pub dtype: Option<Dtype>,
}

impl CacheOptions {
    /// A cache for `sequences` sequences of up to `capacity` tokens, in the type of the forward pass.
    pub fn new(sequences: usize, capacity: usize) -> CacheOptions {
        CacheOptions { sequences, capacity, dtype: None }
    }

    /// The options with keys and values stored as `dtype`.
    #[must_use]
    pub fn with_dtype(self, dtype: Dtype) -> CacheOptions {
        CacheOptions { dtype: Some(dtype), ..self }
    }
}

/// The shape of a model's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CacheLayout {
    pub(crate) layers: usize,
    /// Columns of the keys of all heads, and of their values.
    pub(crate) width: usize,
    /// Whether layers attend to a source as well.
    pub(crate) cross: bool,
}

impl CacheLayout {
    /// The shape of the keys and values of this decoder, with or without attention to a source.
    pub(crate) fn of(decoder: &Stack, cross: bool) -> CacheLayout {
        CacheLayout { layers: decoder.blocks.len(), width: decoder.config.attention.kv_width(), cross }
    }
}
