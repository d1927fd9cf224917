//! Any of the backbones, as a preset's configuration names it.

use std::path::Path;

use rachis_loader::{Access, Preset};

use crate::bart::BartBackbone;
use crate::bert::BertBackbone;
use crate::config::{DtypePolicy, architecture, other_architecture};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::falcon::FalconBackbone;
use crate::layers::Embedding;
use crate::opt::OptBackbone;
use crate::t5::T5Backbone;

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

impl Backbone {
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`Backbone::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, an architecture this crate does not have, a weight that is missing
    /// or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<Backbone> {
        Backbone::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`Backbone::from_preset`].
    pub fn load(preset: &Preset) -> Result<Backbone> {
        match architecture(preset) {
            "bart" | "BartBackbone" => BartBackbone::load(preset).map(Backbone::Bart),
            "bert" | "BertBackbone" => BertBackbone::load(preset).map(Backbone::Bert),
            "falcon" | "RefinedWeb" | "RefinedWebModel" | "FalconBackbone" => {
                FalconBackbone::load(preset).map(Backbone::Falcon)
            }
            "opt" | "OPTBackbone" => OptBackbone::load(preset).map(Backbone::Opt),
            "t5" | "T5Backbone" => T5Backbone::load(preset).map(Backbone::T5),
            _ => Err(other_architecture(preset, "one of: bart, bert, falcon, opt, t5")),
        }
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

    /// The dtype policy that the preset states.
    pub fn dtype(&self) -> DtypePolicy {
        match self {
            Backbone::Bart(model) => model.dtype(),
            Backbone::Bert(model) => model.dtype(),
            Backbone::Falcon(model) => model.dtype(),
            Backbone::Opt(model) => model.dtype(),
            Backbone::T5(model) => model.dtype(),
        }
    }

    /// The table of token vectors.
    pub fn token_embedding(&self) -> &Embedding {
        match self {
            Backbone::Bart(model) => model.token_embedding(),
            Backbone::Bert(model) => model.token_embedding(),
            Backbone::Falcon(model) => model.token_embedding(),
            Backbone::Opt(model) => model.token_embedding(),
            Backbone::T5(model) => model.token_embedding(),
        }
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
