//! Transformers on the CPU: five backbones on hand-written SIMD kernels, with weights used where they lie.

mod architectures;
mod backbone;
mod config;
mod decoder;
mod error;
pub mod generation;
mod layers;
mod pooling;
mod session;
mod trace;
mod weights;

pub use architectures::seq2seq::{Seq2SeqInputs, Seq2SeqOutput};
pub use architectures::{bart, bert, falcon, opt, t5};
pub use backbone::{Backbone, BackboneOf, PresetOptions, PresetWeights};
pub use bart::{BartBackbone, BartConfig};
pub use bert::{BertBackbone, BertConfig, BertInputs, BertOutput};
pub use config::DtypePolicy;
pub use decoder::Decoder;
pub use error::{Error, Result};
pub use falcon::{FalconBackbone, FalconConfig};
pub use generation::{Generated, GenerationConfig, GenerationInputs, generate};
pub use layers::Embedding;
pub use opt::{OptBackbone, OptConfig};
pub use pooling::{Pooling, normalize};
pub use session::Tokens;
pub use session::{CacheDtype, CacheOptions};
pub use session::{Model, Observer, Plan, SequenceOutput, Session, Tower, TowerObserver};
pub use t5::{T5Backbone, T5Config};
pub use weights::Storage;

pub use rachis_kernels as kernels;
pub use rachis_loader as loader;

/// The README's example, compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
