//! Transformers on the CPU: five backbones on hand-written SIMD kernels, with weights used where they lie.

mod backbone;
pub mod bart;
pub mod bert;
mod cache;
mod causal;
mod config;
mod decoder;
mod error;
pub mod falcon;
pub mod generation;
mod layers;
pub mod opt;
mod pooling;
mod random;
mod save;
mod seq2seq;
mod session;
mod stop;
pub mod t5;
mod tokens;
mod trace;
mod weights;

pub use backbone::{Backbone, BackboneOf, PresetOptions, PresetWeights};
pub use bart::{BartBackbone, BartConfig};
pub use bert::{BertBackbone, BertConfig, BertInputs, BertOutput};
pub use cache::{CacheDtype, CacheOptions};
pub use config::DtypePolicy;
pub use decoder::Decoder;
pub use error::{Error, Result};
pub use falcon::{FalconBackbone, FalconConfig};
pub use generation::{Generated, GenerationConfig, GenerationInputs, generate};
pub use layers::Embedding;
pub use opt::{OptBackbone, OptConfig};
pub use pooling::{Pooling, normalize};
pub use save::Storage;
pub use seq2seq::{Seq2SeqInputs, Seq2SeqOutput};
pub use session::{Model, Observer, Plan, SequenceOutput, Session, Tower, TowerObserver};
pub use t5::{T5Backbone, T5Config};
pub use tokens::Tokens;

pub use rachis_kernels as kernels;
pub use rachis_loader as loader;

/// The README's example, compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
