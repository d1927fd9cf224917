//! From the bytes of a preset directory to named, typed tensors, without copying a weight.
//!
//! A preset is a directory with a `config.json` and weights. [`Preset::open`] maps the weight files (or reads
//! them, see [`Access`]), proves every length, offset and name in them before using it, and hands out
//! [`Tensor`]s: owned, shared handles to a range of a file, read where it lies. The crate knows no kernels and
//! converts no dtypes; whoever computes decides how to widen a `bf16`.
//!
//! It reads Hugging Face directories (`model.safetensors`, or the shards that `model.safetensors.index.json`
//! names) and the presets of KerasHub (`model.weights.h5`, or the shards that `model.weights.json` names). Which
//! of the two a directory is, its `config.json` says.
//!
//! A preset can be named instead: `hf://owner/name`, `kaggle://...` and the names of KerasHub's presets are found in
//! the caches that Python's tools keep, without a network. See [`Handle`], [`Preset::named`], and, with the feature
//! `hub`, `hub::Hub`, which downloads what is missing.
//!
//! # Contract
//! - Every file is untrusted. Whatever it holds, the result is a value or one typed [`Error`] whose one-line
//!   message names the file or tensor, what was expected and what was found: no panic, no unbounded
//!   allocation, nothing executed, no file outside the preset directory read because a file said so.
//! - No weight byte is copied, except those of a tensor that its file places off its element's alignment:
//!   such a tensor is copied once, and counted ([`Preset::bytes_copied`], [`Tensor::copied`]).
//! - A mapped file must stay as it is while mapped: see [`Access::Map`].
//!
//! ```no_run
//! use rachis_loader::{Access, Data, Preset};
//!
//! let preset = Preset::open("models/bert", Access::Map)?;
//! println!("{:?}, {} layers", preset.config().source(), preset.config().usize("num_hidden_layers")?);
//! if let Data::F32(bias) = preset.require("bert.pooler.dense.bias")?.data() {
//!     println!("{bias:?}");
//! }
//! # Ok::<(), rachis_loader::Error>(())
//! ```

mod cast;
mod config;
mod dir;
mod error;
mod files;
pub mod handle;
pub mod hdf5;
#[cfg(feature = "hub")]
pub mod hub;
mod json;
mod keras;
mod map;
mod preset;
pub mod safetensors;
mod save;
mod shards;
mod tensor;

pub use config::{Config, ConfigSource};
pub use error::{Error, Result};
pub use handle::{Caches, Handle};
pub use map::{Access, Region};
pub use preset::{FileInfo, Preset};
pub use save::{NewTensor, TensorSink, save_preset};
pub use tensor::{Data, Dtype, Tensor};
