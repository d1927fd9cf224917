//! Any of the backbones, chosen by a preset's configuration.

use std::ffi::OsStr;
use std::path::Path;

use rachis_kernels::{Ctx, Dtype};
use rachis_loader::Preset;

use super::private::Sealed;
use super::{BackboneInputs, BackboneOutput, PresetOptions};
use crate::architectures::bart::{BartBackbone, BartEncoder};
use crate::architectures::bert::BertBackbone;
use crate::architectures::falcon::FalconBackbone;
use crate::architectures::opt::OptBackbone;
use crate::architectures::t5::{T5Backbone, T5Encoder};
use crate::config::{architecture, other_architecture};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::layers::Embedding;
use crate::session::{Model, SequenceOutput, Session, Tower, TowerObserver, WorkspacePlan};

/// A backbone whose architecture the preset decides.
#[derive(Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "a program has a few models, and moves none of them")]
pub enum Backbone {
    /// See [`BartBackbone`].
    Bart(BartBackbone),
    /// See [`BartEncoder`].
    BartEncoder(BartEncoder),
    /// See [`BertBackbone`].
    Bert(BertBackbone),
    /// See [`FalconBackbone`].
    Falcon(FalconBackbone),
    /// See [`OptBackbone`].
    Opt(OptBackbone),
    /// See [`T5Backbone`].
    T5(T5Backbone),
    /// See [`T5Encoder`].
    T5Encoder(T5Encoder),
}

/// Does the same with the model of each variant.
macro_rules! each {
    ($backbone:expr, $model:ident => $do:expr) => {
        match $backbone {
            Backbone::Bart($model) => $do,
            Backbone::BartEncoder($model) => $do,
            Backbone::Bert($model) => $do,
            Backbone::Falcon($model) => $do,
            Backbone::Opt($model) => $do,
            Backbone::T5($model) => $do,
            Backbone::T5Encoder($model) => $do,
        }
    };
}

impl Backbone {
    /// Loads the preset of this name, with its weights memory-mapped.
    ///
    /// A name is a directory of Hugging Face or KerasHub, or a handle that is looked up in the caches of both
    /// libraries: `hf://owner/name`, `kaggle://...`, or one of KerasHub's names such as `bert_base_en` (see
    /// [`Handle`](rachis_loader::Handle)).
    ///
    /// The files must not be truncated or written in place while the model lives; see
    /// [`Access::Map`](rachis_loader::Access::Map), and [`Backbone::load`] for presets that were opened otherwise.
    ///
    /// # Errors
    /// When there is no such preset, a file is missing or malformed, the crate does not have the architecture, or a
    /// weight is missing or has another shape.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<Backbone> {
        Backbone::from_preset_with(name, PresetOptions::default())
    }

    /// Loads the preset of this name as `options` say.
    ///
    /// # Errors
    /// See [`Backbone::from_preset`]. With random weights, also when their memory could not be allocated.
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<Backbone> {
        Backbone::load_with(&options.open(name)?, options)
    }

    /// The model in an opened preset. It shares the preset's weights and copies none.
    ///
    /// # Errors
    /// When the crate does not have the preset's architecture, or a weight is missing or has another shape.
    pub fn load(preset: &Preset) -> Result<Backbone> {
        Backbone::load_with(preset, PresetOptions::default())
    }

    /// The model in an opened preset, as `options` say. The options about opening the preset have no effect.
    ///
    /// # Errors
    /// See [`Backbone::load`]. With random weights, also when their memory could not be allocated.
    pub fn load_with(preset: &Preset, options: PresetOptions) -> Result<Backbone> {
        let encoder_alone = options.weights.is_encoder_alone(preset);
        match architecture(preset) {
            "bart" if encoder_alone => BartEncoder::load_with(preset, options).map(Backbone::BartEncoder),
            "bart" | "BartBackbone" => BartBackbone::load_with(preset, options).map(Backbone::Bart),
            "bert" | "BertBackbone" => BertBackbone::load_with(preset, options).map(Backbone::Bert),
            "falcon" | "RefinedWeb" | "RefinedWebModel" | "FalconBackbone" => {
                FalconBackbone::load_with(preset, options).map(Backbone::Falcon)
            }
            "opt" | "OPTBackbone" => OptBackbone::load_with(preset, options).map(Backbone::Opt),
            "t5" if encoder_alone => T5Encoder::load_with(preset, options).map(Backbone::T5Encoder),
            "t5" | "T5Backbone" => T5Backbone::load_with(preset, options).map(Backbone::T5),
            _ => Err(other_architecture(preset, "one of: bart, bert, falcon, opt, t5")),
        }
    }

    /// Writes the model as a Hugging Face directory: see [`BackboneOf::save_preset`](super::BackboneOf::save_preset).
    ///
    /// # Errors
    /// See [`BackboneOf::save_preset`](super::BackboneOf::save_preset).
    pub fn save_preset(&self, dir: impl AsRef<Path>, dtype: Option<Dtype>) -> Result<()> {
        each!(self, model => model.save_preset(dir, dtype))
    }

    /// The class, by KerasHub's name; of an encoder by itself by transformers'.
    pub fn name(&self) -> &'static str {
        match self {
            Backbone::Bart(_) => "BartBackbone",
            Backbone::BartEncoder(_) => "BartEncoder",
            Backbone::Bert(_) => "BertBackbone",
            Backbone::Falcon(_) => "FalconBackbone",
            Backbone::Opt(_) => "OptBackbone",
            Backbone::T5(_) => "T5Backbone",
            Backbone::T5Encoder(_) => "T5EncoderModel",
        }
    }

    /// The dtype of computation: that of the options, or the one that the preset states.
    pub fn dtype(&self) -> Dtype {
        each!(self, model => model.dtype())
    }

    /// The table of token vectors.
    pub fn token_embedding(&self) -> &Embedding {
        each!(self, model => model.token_embedding())
    }

    /// One forward pass, whatever the architecture.
    ///
    /// # Errors
    /// [`RequestError::InputKind`](crate::RequestError::InputKind) when the inputs are those of another kind of model,
    /// and other variants of [`Error::Request`](crate::Error::Request) when they do not fit; nothing is computed then.
    pub fn forward<'s, 'i>(
        &self,
        session: &'s mut Session<'_>,
        inputs: impl Into<BackboneInputs<'i>>,
    ) -> Result<BackboneOutput<'s>> {
        let inputs = inputs.into();
        Ok(match self {
            Backbone::Bart(model) => BackboneOutput::Seq2Seq(model.forward(session, inputs.seq2seq()?)?),
            Backbone::Bert(model) => BackboneOutput::Bert(model.forward(session, inputs.bert()?)?),
            Backbone::Falcon(model) => BackboneOutput::Sequence(model.forward(session, inputs.tokens()?)?),
            Backbone::Opt(model) => BackboneOutput::Sequence(model.forward(session, inputs.tokens()?)?),
            Backbone::T5(model) => BackboneOutput::Seq2Seq(model.forward(session, inputs.seq2seq()?)?),
            Backbone::BartEncoder(model) => {
                BackboneOutput::Sequence(model.forward(session, inputs.tokens()?)?)
            }
            Backbone::T5Encoder(model) => BackboneOutput::Sequence(model.forward(session, inputs.tokens()?)?),
        })
    }

    /// One forward pass that shows every layer's output to `observer`. The layers of BERT and of an encoder by itself
    /// are an encoder's, the layers of Falcon and OPT a decoder's.
    ///
    /// # Errors
    /// See [`Backbone::forward`].
    pub fn forward_observed<'s, 'i>(
        &self,
        session: &'s mut Session<'_>,
        inputs: impl Into<BackboneInputs<'i>>,
        observer: TowerObserver<'_>,
    ) -> Result<BackboneOutput<'s>> {
        let inputs = inputs.into();
        let tower = match self {
            Backbone::Falcon(_) | Backbone::Opt(_) => Tower::Decoder,
            _ => Tower::Encoder,
        };
        let mut one = |layer: usize, output: SequenceOutput<'_>| observer(tower, layer, output);
        Ok(match self {
            Backbone::Bart(model) => {
                BackboneOutput::Seq2Seq(model.forward_observed(session, inputs.seq2seq()?, observer)?)
            }
            Backbone::T5(model) => {
                BackboneOutput::Seq2Seq(model.forward_observed(session, inputs.seq2seq()?, observer)?)
            }
            Backbone::Bert(model) => {
                BackboneOutput::Bert(model.forward_observed(session, inputs.bert()?, &mut one)?)
            }
            Backbone::BartEncoder(model) => {
                BackboneOutput::Sequence(model.forward_observed(session, inputs.tokens()?, &mut one)?)
            }
            Backbone::T5Encoder(model) => {
                BackboneOutput::Sequence(model.forward_observed(session, inputs.tokens()?, &mut one)?)
            }
            Backbone::Falcon(model) => {
                BackboneOutput::Sequence(model.forward_observed(session, inputs.tokens()?, &mut one)?)
            }
            Backbone::Opt(model) => {
                BackboneOutput::Sequence(model.forward_observed(session, inputs.tokens()?, &mut one)?)
            }
        })
    }

    /// The model as one that writes tokens; `None` for an encoder alone.
    pub fn decoder(&self) -> Option<&dyn Decoder> {
        match self {
            Backbone::Bart(model) => Some(model),
            Backbone::Bert(_) | Backbone::BartEncoder(_) | Backbone::T5Encoder(_) => None,
            Backbone::Falcon(model) => Some(model),
            Backbone::Opt(model) => Some(model),
            Backbone::T5(model) => Some(model),
        }
    }
}

impl Sealed for Backbone {}

impl Model for Backbone {
    fn dtype(&self) -> Dtype {
        each!(self, model => model.dtype())
    }

    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<WorkspacePlan> {
        each!(self, model => model.plan(ctx, batch, seq))
    }
}
