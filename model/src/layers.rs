//! The layers that architectures are made of.

mod block;
mod embedding;
mod linear;
mod norm;

pub(crate) use block::{Block, BlockConfig, BlockNames, Buffers, Memory};
pub use embedding::Embedding;
pub(crate) use linear::Linear;
pub(crate) use norm::LayerNorm;
