//! How a preset becomes a model.

use std::ffi::OsStr;

use rachis_kernels::Dtype;
#[cfg(feature = "hub")]
use rachis_loader::hub::Hub;
use rachis_loader::{Access, Preset};

use crate::error::Result;

/// How a preset becomes a model.
///
/// ```
/// use rachis::{Dtype, PresetOptions, PresetWeights};
///
/// let options = PresetOptions::new().with_dtype(Dtype::Bfloat16).with_weights(PresetWeights::Read);
/// assert_eq!(options.dtype, Some(Dtype::Bfloat16));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PresetOptions {
    /// The dtype of computation. `None` is the dtype that the preset states. Weights stay stored as they are.
    pub dtype: Option<Dtype>,
    /// Where the weights come from.
    pub weights: PresetWeights,
    /// Whether files of an `hf://` preset may be downloaded. With the feature `hub` only.
    #[cfg(feature = "hub")]
    pub download: Download,
}

/// Where the weights of a model come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PresetWeights {
    /// The preset's files, memory-mapped: see [`Access::Map`] for what must not happen to them.
    #[default]
    Mapped,
    /// The preset's files, read into memory.
    Read,
    /// Random numbers, as for [`BackboneOf::random`](crate::BackboneOf::random). The preset needs no weight files.
    Random {
        /// The same seed gives the same model.
        seed: u64,
    },
}

/// Whether files that are missing in the cache may be downloaded.
#[cfg(feature = "hub")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Download {
    /// No: a preset that is not in the cache is an error.
    #[default]
    Never,
    /// Yes, for an `hf://` preset, from the hub of the environment
    /// ([`Hub::from_env`]).
    IfMissing,
}

impl PresetWeights {
    /// Whether a preset of an encoder-decoder architecture is its encoder alone: the files have no layer of a decoder.
    /// For random weights it is what the configuration calls it.
    pub(crate) fn is_encoder_alone(self, preset: &Preset) -> bool {
        if let PresetWeights::Random { .. } = self {
            let classes = preset.config().value("architectures").and_then(|classes| classes.as_array());
            return classes.into_iter().flatten().any(|class| class == "T5EncoderModel");
        }
        let of_decoder = |name: &str| {
            let name = name.strip_prefix("model.").unwrap_or(name);
            name.starts_with("decoder.") && !name.starts_with("decoder.embed_tokens.")
        };
        !preset.tensors().iter().any(|tensor| of_decoder(tensor.name()))
    }
}

impl PresetOptions {
    /// The default options: the preset's dtype, its weights memory-mapped, and no downloads.
    pub fn new() -> PresetOptions {
        PresetOptions::default()
    }

    /// The options with this dtype of computation.
    #[must_use]
    pub fn with_dtype(self, dtype: Dtype) -> PresetOptions {
        PresetOptions { dtype: Some(dtype), ..self }
    }

    /// The options with weights from there.
    #[must_use]
    pub fn with_weights(self, weights: PresetWeights) -> PresetOptions {
        PresetOptions { weights, ..self }
    }

    /// The options with downloads allowed or not.
    #[cfg(feature = "hub")]
    #[must_use]
    pub fn with_download(self, download: Download) -> PresetOptions {
        PresetOptions { download, ..self }
    }

    /// Opens the files of the preset of this name that a model needs. With random weights that is the configuration
    /// alone.
    ///
    /// # Errors
    /// When there is no such preset, or a file is missing or malformed.
    pub fn open(self, name: impl AsRef<OsStr>) -> Result<Preset> {
        #[cfg(feature = "hub")]
        if self.download == Download::IfMissing {
            let hub = Hub::from_env()?;
            return Ok(match self.weights {
                PresetWeights::Mapped => Preset::fetch(name, Access::Map, &hub)?,
                PresetWeights::Read => Preset::fetch(name, Access::Read, &hub)?,
                PresetWeights::Random { .. } => Preset::fetch_config(name, &hub)?,
            });
        }
        Ok(match self.weights {
            PresetWeights::Mapped => Preset::named(name, Access::Map)?,
            PresetWeights::Read => Preset::named(name, Access::Read)?,
            PresetWeights::Random { .. } => Preset::named_config(name)?,
        })
    }
}
