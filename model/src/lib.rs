//! Transformer models on the CPU: BART, BERT, Falcon, OPT and T5, with KerasHub's names and results.
//!
//! ```
//! use rachis::{Ctx, OptBackbone, OptConfig, Session, Tokens};
//!
//! # fn main() -> rachis::Result<()> {
//! // `OptBackbone::from_preset(directory)` would load the weights of a preset.
//! let mut config = OptConfig::default();
//! (config.vocabulary_size, config.num_layers, config.max_sequence_length) = (100, 2, 32);
//! (config.num_heads, config.hidden_dim, config.embedding_dim, config.intermediate_dim) = (2, 16, 16, 32);
//! let model = OptBackbone::random(config, 1)?;
//!
//! let mut session = Session::new(Ctx::detect());
//! let output = model.forward(&mut session, Tokens::padded(&[5, 6, 7], 1, 3))?;
//! assert_eq!((output.batch(), output.hidden_dim()), (1, 16));
//! assert_eq!(output.sequence(0).rows(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Goals
//!
//! - The numbers of the reference: a Hugging Face directory gives the results of transformers, a Keras directory
//!   those of KerasHub.
//! - Weights are used where they lie in the file, memory-mapped, in float32, bfloat16 or float16.
//! - A result depends on nothing but the model and the sequence: not on the batch, the padding, or the number of
//!   threads.
//! - Files and requests that are malformed are errors that name the part at fault, and never a panic.
//!
//! # Non-goals
//!
//! Training, quantised weights, processors other than CPUs, and architectures beyond the five. Texts are the
//! business of the crate `rachis-text`.
//!
//! # Design
//!
//! - [`Backbone`] loads a preset of any architecture; [`BertBackbone`] and its siblings are the typed classes. A
//!   model is read only and may be shared by threads.
//! - [`Session`] is one stream of requests: working memory, and the KV cache of sequences that are being decoded. It
//!   allocates nothing once it has grown to the largest request.
//! - [`Tokens`] is a batch, padded or ragged; [`SequenceOutput`] has a vector for every real token.
//! - [`Decoder`] appends tokens to sequences; [`generate`] chooses tokens by greedy choice, sampling, beam search or
//!   contrastive search.
//! - [`Heads`] are the layers of tasks that a preset's files have: classifiers, masked language models.
//! - [`kernels`] has the context (instruction-set level, threads, precision), [`loader`] the presets.
//!
//! # Features
//!
//! All are off by default.
//!
//! - `hub`: downloads of `hf://` presets, when [`PresetOptions`] or the caller ask for them.
//! - `tracing`: spans around stacks, layers and logits, for a subscriber of the crate `tracing`.

#![forbid(unsafe_code)]

mod architectures;
mod backbone;
mod config;
mod decoder;
mod error;
pub mod generation;
pub mod heads;
mod layers;
mod pooling;
mod session;
mod trace;
mod weights;

pub use architectures::bart::{BartBackbone, BartConfig, BartEncoder};
pub use architectures::bert::{BertBackbone, BertConfig, BertInputs, BertOutput};
pub use architectures::encoder::EncoderConfig;
pub use architectures::falcon::{FalconBackbone, FalconConfig};
pub use architectures::opt::{OptBackbone, OptConfig};
pub use architectures::seq2seq::{Seq2SeqInputs, Seq2SeqOutput};
pub use architectures::t5::{T5Backbone, T5Config, T5Encoder};
pub use architectures::{bart, bert, falcon, opt, t5};
#[cfg(feature = "hub")]
pub use backbone::Download;
pub use backbone::{Backbone, BackboneInputs, BackboneOf, BackboneOutput, PresetOptions, PresetWeights};
pub use decoder::Decoder;
pub use error::{Error, RequestError, Result};
pub use generation::{Generated, GenerationConfig, GenerationInputs, generate};
pub use heads::Heads;
pub use layers::Embedding;
pub use pooling::{Pooling, normalize};
pub use session::{
    CacheOptions, Model, Observer, SequenceOutput, Session, Tokens, Tower, TowerObserver, WorkspacePlan,
};

pub use rachis_kernels as kernels;
pub use rachis_kernels::{Ctx, Dtype, Precision};
pub use rachis_loader as loader;
