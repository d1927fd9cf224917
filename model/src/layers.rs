//! The layers that architectures are made of.

mod attention;
mod block;
mod buffers;
mod classifier;
mod embedding;
mod embeddings;
mod feed_forward;
mod head;
mod linear;
mod masked_lm;
mod matrix;
mod micro_batch;
mod norm;
mod positions;
mod relative_bias;
mod stack;
mod tables;

pub(crate) use attention::{AttentionConfig, AttentionNames};
pub(crate) use block::{BlockConfig, BlockNames, NormPlacement};
pub(crate) use buffers::{StackBuffers, StackSizes, StackWorkspace};
pub use classifier::Classifier;
pub use embedding::Embedding;
pub(crate) use embeddings::{Embeddings, PositionCount, PositionEmbedding};
pub(crate) use feed_forward::FeedForwardNames;
pub use head::LogitsHead;
pub(crate) use linear::{Epilogue, Linear};
pub use masked_lm::MaskedLmHead;
pub(crate) use masked_lm::MaskedLmParts;
pub(crate) use matrix::{matrix, matrix_as, matrix_len, matrix_mut};
pub(crate) use micro_batch::{ThreadScratch, Threads};
pub(crate) use norm::{Norm, NormConfig, NormKind};
pub(crate) use positions::Positions;
pub(crate) use relative_bias::{Buckets, Direction, RelativeBias};
pub use stack::Stack;
pub(crate) use stack::{CrossInput, LayerRange, StackInput};
pub(crate) use tables::{LoadedTables, TowerTables, is_tied, table_and_head};
