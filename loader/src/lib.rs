//! Reads the directory of a pretrained model into named, typed tensors, without copying a weight.
//!
//! A *preset* is a directory with a `config.json` and weights. [`Preset::open`] maps the weight files (or reads them,
//! see [`Access`]), checks every length, offset and name in them before it is used, and returns [`Tensor`]s: owned,
//! shared handles to a range of a file.
//!
//! ```
//! use rachis_loader::{Data, Preset, Region, TensorDtype};
//!
//! // A safetensors file: eight bytes of header length, a JSON header, the data.
//! let header = r#"{"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
//! let mut file = (header.len() as u64).to_le_bytes().to_vec();
//! file.extend(header.bytes());
//! file.extend([1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()));
//!
//! // `Preset::open("models/bert", Access::Map)` does the same for a directory.
//! let config = br#"{"model_type": "bert", "num_hidden_layers": 12}"#;
//! let preset = Preset::from_bytes(config, Region::from_vec("model.safetensors", file))?;
//!
//! assert_eq!(preset.config().usize("num_hidden_layers")?, 12);
//! let bias = preset.require("bias")?;
//! assert_eq!((bias.dtype(), bias.shape()), (TensorDtype::F32, &[2][..]));
//! assert!(matches!(bias.data(), Data::F32([1.5, -2.0])));
//! # Ok::<(), rachis_loader::Error>(())
//! ```
//!
//! # Goals
//! - **Two libraries' files.** Hugging Face directories (`model.safetensors`, or the shards that
//!   `model.safetensors.index.json` names) and KerasHub presets (`model.weights.h5`, or the shards that
//!   `model.weights.json` names). `config.json` decides which of the two a directory is.
//! - **Untrusted files.** Whatever a file holds, the result is a value or one typed [`Error`] whose one-line message
//!   says which file or tensor is wrong, what was expected and what was found. There is no panic and no unbounded
//!   allocation, nothing is executed, and no file outside the preset directory is read because a file names it.
//! - **No copies.** Weights are used where they lie. The one exception is a tensor that its file places off its
//!   element's alignment: it is copied once, and counted ([`Preset::bytes_copied`], [`Tensor::copied`]).
//! - **Names.** `hf://owner/name`, `kaggle://...` and the names of KerasHub's presets are found in the caches of
//!   Python's tools, without a network: see [`Handle`] and [`Preset::named`].
//!
//! # Non-goals
//! - Arithmetic: the crate converts no element types. The caller decides how to widen a bfloat16.
//! - Pickles (`pytorch_model.bin`): they can run code, and are refused by name.
//! - Chunked or compressed HDF5 data, which could only be copied.
//! - Tokenizers: their files are read as text or bytes ([`Preset::read_text`]) and not interpreted.
//!
//! # Design
//! A [`Region`] holds the bytes of one file. The parser of a format ([`safetensors::parse`], [`hdf5::parse`]) checks a
//! region and returns tensors, each of which shares the region. All checks happen there, so that [`Tensor::data`] is a
//! cast and cannot fail. A mapped file must not change while it is mapped: see [`Access::Map`].
//!
//! Unsafe code exists in the module of [`Region`] alone (memory maps, and the aligned memory that files are read into).
//! The compiler holds this: the crate denies unsafe code everywhere else.
//!
//! # Features
//! - `hub` (off by default): downloads from the Hugging Face hub, in the module `hub`. It is additive: only the calls
//!   named `fetch` and `fetch_config` open a socket; every other function stays offline.

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod caches;
mod cast;
mod config;
mod dir;
mod dtype;
mod error;
mod files;
pub mod handle;
pub mod hdf5;
#[cfg(feature = "hub")]
pub mod hub;
mod json;
mod keras;
#[allow(unsafe_code, reason = "memory maps, and aligned memory seen as bytes")]
mod map;
mod preset;
pub mod safetensors;
mod save;
mod shards;
mod tensor;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use caches::Caches;
pub use config::{Config, ConfigSource};
pub use dtype::TensorDtype;
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use handle::Handle;
pub use map::{Access, Region};
pub use preset::{FileInfo, Preset};
pub use save::{NewTensor, TensorSink, save_preset};
pub use serde_json;
pub use tensor::{Data, Tensor};
