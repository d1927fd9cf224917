//! Any of the backbones, as a preset's configuration names it.

use std::ffi::OsStr;
use std::path::Path;

use rachis_loader::Preset;

use super::PresetOptions;
use crate::architectures::bart::BartBackbone;
use crate::architectures::bert::BertBackbone;
use crate::architectures::falcon::FalconBackbone;
use crate::architectures::opt::OptBackbone;
use crate::architectures::t5::T5Backbone;
use crate::config::{DtypePolicy, architecture, other_architecture};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::layers::Embedding;
use crate::weights::Storage;

/// A backbone whose class is inferred from the preset.
#[derive(Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "a program has a few models, and moves none of them")]
pub enum Backbone {
    /// See [`BartBackbone`].
    Bart(BartBackbone),
    /// See [`BertBackbone`].
    Bert(BertBackbone),
    /// See [`FalconBackbone`].
    Falcon(FalconBackbone),
    /// See [`OptBackbone`].
    Opt(OptBackbone),
    /// See [`T5Backbone`].
    T5(T5Backbone),
}

/// What all of them do alike.
macro_rules! each {
    ($backbone:expr, $model:ident => $do:expr) => {
        match $backbone {
            Backbone::Bart($model) => $do,
            Backbone::Bert($model) => $do,
            Backbone::Falcon($model) => $do,
            Backbone::Opt($model) => $do,
            Backbone::T5($model) => $do,
        }
    };
}

impl Backbone {
    /// The model of the preset of this name, its weights memory-mapped: a directory of Hugging Face's or KerasHub's, or a
    /// handle that is looked for in the caches of both libraries: `hf://owner/name`, `kaggle://...`, or a name of
    /// KerasHub's such as `bert_base_en` (see [`Handle`](rachis_loader::Handle)).
    ///
    /// The files must not be truncated or written in place while the model lives; see
    /// [`Access::Map`](rachis_loader::Access::Map), and [`Backbone::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A name that leads nowhere, a file that is missing or malformed, an architecture this crate does not have, a weight that is missing
    /// or misshapen.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<Backbone> {
        Backbone::from_preset_with(name, PresetOptions::default())
    }

    /// The model of the preset of this name, opened as `options` say.
    ///
    /// # Errors
    /// As [`Backbone::from_preset`]; without weights, also a configuration that there is no memory for.
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<Backbone> {
        Backbone::load_with(&options.open(name)?, options)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`Backbone::from_preset`].
    pub fn load(preset: &Preset) -> Result<Backbone> {
        Backbone::load_with(preset, PresetOptions::default())
    }

    /// The model in an opened preset. Of the options, how the preset's files are accessed is settled by now.
    ///
    /// # Errors
    /// As [`Backbone::from_preset_with`].
    pub fn load_with(preset: &Preset, options: PresetOptions) -> Result<Backbone> {
        match architecture(preset) {
            "bart" | "BartBackbone" => BartBackbone::load_with(preset, options).map(Backbone::Bart),
            "bert" | "BertBackbone" => BertBackbone::load_with(preset, options).map(Backbone::Bert),
            "falcon" | "RefinedWeb" | "RefinedWebModel" | "FalconBackbone" => {
                FalconBackbone::load_with(preset, options).map(Backbone::Falcon)
            }
            "opt" | "OPTBackbone" => OptBackbone::load_with(preset, options).map(Backbone::Opt),
            "t5" | "T5Backbone" => T5Backbone::load_with(preset, options).map(Backbone::T5),
            _ => Err(other_architecture(preset, "one of: bart, bert, falcon, opt, t5")),
        }
    }

    /// Writes the model as a Hugging Face directory: see [`BackboneOf::save_preset`](super::BackboneOf::save_preset).
    ///
    /// # Errors
    /// As there.
    pub fn save_preset(&self, dir: impl AsRef<Path>, storage: Storage) -> Result<()> {
        each!(self, model => model.save_preset(dir, storage))
    }

    /// The class, by KerasHub's name.
    pub fn name(&self) -> &'static str {
        match self {
            Backbone::Bart(_) => "BartBackbone",
            Backbone::Bert(_) => "BertBackbone",
            Backbone::Falcon(_) => "FalconBackbone",
            Backbone::Opt(_) => "OptBackbone",
            Backbone::T5(_) => "T5Backbone",
        }
    }

    /// The dtype policy: that of the options, or the one that the preset states.
    pub fn dtype(&self) -> DtypePolicy {
        each!(self, model => model.dtype())
    }

    /// The table of token vectors.
    pub fn token_embedding(&self) -> &Embedding {
        each!(self, model => model.token_embedding())
    }

    /// The model as one that writes tokens; `None` of an encoder alone.
    pub fn decoder(&self) -> Option<&dyn Decoder> {
        match self {
            Backbone::Bart(model) => Some(model),
            Backbone::Bert(_) => None,
            Backbone::Falcon(model) => Some(model),
            Backbone::Opt(model) => Some(model),
            Backbone::T5(model) => Some(model),
        }
    }
}
