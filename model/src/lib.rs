//! Transformers on the CPU: five backbones on hand-written SIMD kernels, with weights used where they lie.

mod backbone;
pub mod bart;
pub mod bert;
mod config;
mod error;
mod generation;
mod layers;
pub mod opt;
mod pooling;
mod session;
mod tokens;
mod weights;

pub use backbone::Backbone;
pub use bart::{BartBackbone, BartConfig, BartInputs, BartOutput};
pub use bert::{BertBackbone, BertConfig, BertInputs, BertOutput};
pub use config::DtypePolicy;
pub use error::{Error, Result};
pub use generation::{
    BeamRule, BeamSearch, Choice, Contrastive, EarlyStopping, GenerationConfig, Sampler, Strategy,
};
pub use layers::Embedding;
pub use opt::{OptBackbone, OptConfig, OptInputs};
pub use pooling::{Pooling, normalize};
pub use session::{Model, Observer, Plan, SequenceOutput, Session, Tower, TowerObserver};
pub use tokens::Tokens;

pub use rachis_kernels as kernels;
pub use rachis_loader as loader;

/// The README's example, compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
