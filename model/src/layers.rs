//! The layers that architectures are made of.

mod attention;
mod block;
mod embedding;
mod embeddings;
mod feed_forward;
mod head;
mod linear;
mod matrix;
mod micro_batch;
mod norm;
mod positions;
mod stack;

pub(crate) use attention::{AttentionConfig, AttentionNames};
pub(crate) use block::{BlockConfig, BlockNames, Order};
pub use embedding::Embedding;
pub(crate) use embedding::shared_table;
pub(crate) use embeddings::{Counting, Embeddings, PositionEmbedding};
pub(crate) use feed_forward::FeedForwardNames;
pub use head::LogitsHead;
pub(crate) use head::{UNTIED_HEAD, head_weight};
pub(crate) use linear::Linear;
pub(crate) use matrix::{matrix, matrix_as, matrix_len, matrix_mut};
pub(crate) use micro_batch::{Own, Threads};
pub(crate) use norm::{Norm, NormKind};
pub(crate) use positions::{Buckets, Positions, RelativeBias};
pub use stack::Stack;
pub(crate) use stack::{Room, Scene, SceneMemory};
