//! The layers that architectures are made of.

mod embedding;
mod linear;
mod norm;

pub use embedding::Embedding;
pub(crate) use linear::Linear;
pub(crate) use norm::LayerNorm;
