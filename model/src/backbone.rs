//! A backbone: a configuration, the model that it describes, and the ways to get one.

mod any;

use std::ffi::OsStr;
use std::path::Path;

use rachis_kernels::Ctx;
use rachis_loader::{Access, Preset};

pub use any::Backbone;

use crate::config::{DtypePolicy, Fields};
use crate::decoder::private::Stacks;
use crate::error::Result;
use crate::layers::{Embedding, LogitsHead, Stack};
use crate::session::{Model, Plan, Session};
use crate::weights::Source;
use crate::weights::{Storage, Tensors};

pub(crate) mod private {
    use super::{Ctx, Embedding, Fields, Plan, Preset, Result, Session, Source, Tensors};

    /// An architecture's configuration, and what is built of it.
    pub trait Architecture: Sized {
        type Parts: Forward;

        /// The configuration of a preset.
        ///
        /// # Errors
        /// A field that is missing, malformed or absurd; a preset of another architecture.
        fn read(preset: &Preset) -> Result<Self>;

        /// This configuration with what the weights themselves say, whatever the configuration does.
        #[must_use]
        fn adjusted(self, preset: &Preset) -> Self {
            let _ = preset;
            self
        }

        /// The fields of a Hugging Face configuration.
        ///
        /// # Errors
        /// What transformers has no model for.
        fn to_hugging_face(&self) -> Result<Fields>;

        /// The model with weights from `source`.
        ///
        /// # Errors
        /// A configuration that no model can have; a weight that is missing or misshapen.
        fn build(&self, source: &Source<'_>) -> Result<Self::Parts>;
    }

    /// What models of one kind are made of: their layers, and the forward pass through them.
    pub trait Forward {
        type Inputs<'a>;
        type Output<'s>;
        type Observer<'o>;

        fn token_embedding(&self) -> &Embedding;

        /// What is to be stored, under the names of `like`.
        fn save<'m>(&'m self, like: &'m Self, tensors: &mut Tensors<'m>);

        /// The working memory for `batch` sequences of up to `seq` tokens.
        ///
        /// # Errors
        /// When the size is beyond the model's limits.
        fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan>;

        /// One forward pass, which shows every layer's output to `observer`.
        ///
        /// # Errors
        /// When the inputs do not fit the model.
        fn run<'s>(
            &self,
            session: &'s mut Session<'_>,
            inputs: Self::Inputs<'_>,
            observer: Option<Self::Observer<'_>>,
        ) -> Result<Self::Output<'s>>;
    }
}

use private::{Architecture, Forward};

/// A model of the architecture that the configuration `C` is of.
///
/// What [`BackboneOf::forward`] takes and gives depends on its kind: [`BertBackbone`](crate::BertBackbone),
/// [`OptBackbone`](crate::OptBackbone), [`FalconBackbone`](crate::FalconBackbone),
/// [`BartBackbone`](crate::BartBackbone) and [`T5Backbone`](crate::T5Backbone) say what.
#[derive(Debug)]
pub struct BackboneOf<C: Architecture> {
    config: C,
    dtype: DtypePolicy,
    parts: C::Parts,
}

impl<C: Architecture> BackboneOf<C> {
    /// The model of the preset of this name, its weights memory-mapped: a directory of Hugging Face's or KerasHub's, or a
    /// handle that is looked for in the caches of both libraries: `hf://owner/name`, `kaggle://...`, or a name of
    /// KerasHub's such as `bert_base_en` (see [`Handle`](rachis_loader::Handle)).
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`BackboneOf::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A name that leads nowhere, a file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<Self> {
        Self::from_preset_with(name, PresetOptions::default())
    }

    /// The model of the preset of this name, opened as `options` say.
    ///
    /// # Errors
    /// As [`BackboneOf::from_preset`]; without weights, also a configuration that there is no memory for.
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<Self> {
        Self::load_with(&options.open(name)?, options)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`BackboneOf::from_preset`].
    pub fn load(preset: &Preset) -> Result<Self> {
        Self::load_with(preset, PresetOptions::default())
    }

    /// The model in an opened preset. Of the options, how the preset's files are accessed is settled by now.
    ///
    /// # Errors
    /// As [`BackboneOf::from_preset_with`].
    pub fn load_with(preset: &Preset, options: PresetOptions) -> Result<Self> {
        let config = C::read(preset)?;
        let dtype = options.dtype.map_or_else(|| DtypePolicy::of(preset.config()), Ok)?;
        if let PresetWeights::Random { seed } = options.weights {
            return Ok(Self { dtype, ..Self::random(config, seed)? });
        }
        let config = config.adjusted(preset);
        let parts = config.build(&Source::Preset(preset))?;
        Ok(Self { config, dtype, parts })
    }

    /// A model of this configuration with random weights: kernels and embeddings truncated normal with standard
    /// deviation 0.02, biases zero. The same seed gives the same model.
    ///
    /// # Errors
    /// A configuration that no model can have, or one that there is no memory for.
    pub fn random(config: C, seed: u64) -> Result<Self> {
        let parts = Source::randomly(seed, |source| config.build(source))?;
        Ok(Self { config, dtype: DtypePolicy::Float32, parts })
    }

    /// Writes the model as a Hugging Face directory, `config.json` and `model.safetensors`, that transformers and this
    /// crate open. The directory is made if it is not there; files of these names in it are replaced, each in one
    /// step, when they are complete. Tokenizers and generation settings are no part of a model: copy their files.
    ///
    /// A model of a Keras preset goes on as KerasHub's here, also where transformers has another convention (OPT's
    /// positions, the rounding of Falcon's ALiBi): fields of the configuration, which transformers ignores, say so.
    ///
    /// # Errors
    /// A configuration that transformers has no model for, numbers beyond the range of [`Storage::Float16`], and what
    /// the file system refuses.
    pub fn save_preset(&self, dir: impl AsRef<Path>, storage: Storage) -> Result<()> {
        let mut config = self.config.to_hugging_face()?;
        let dtype = match storage {
            Storage::Unchanged => self.dtype,
            Storage::Float32 => DtypePolicy::Float32,
            Storage::Bfloat16 => DtypePolicy::Bfloat16,
            Storage::Float16 => DtypePolicy::Float16,
        };
        config.insert("dtype".to_owned(), dtype.name().into());
        let like = self.config.build(&Source::counted())?;
        let mut tensors = Tensors::default();
        self.parts.save(&like, &mut tensors);
        let list = tensors.list(storage);
        rachis_loader::save_preset(dir.as_ref(), config, &list, |i, sink| tensors.write(i, storage, sink))
    }

    /// The configuration.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// The dtype policy: that of the options, or the one that the preset states. It decides the precision of products in
    /// every session whose context was not given one.
    pub fn dtype(&self) -> DtypePolicy {
        self.dtype
    }

    /// The table of token vectors, which is also that of the logits where the two are tied.
    pub fn token_embedding(&self) -> &Embedding {
        self.parts.token_embedding()
    }

    /// One forward pass: a vector for every token, in the session's memory.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the inputs do not fit the model; nothing is computed then.
    pub fn forward<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: <C::Parts as Forward>::Inputs<'_>,
    ) -> Result<<C::Parts as Forward>::Output<'s>> {
        session.compute_in(self.dtype);
        self.parts.run(session, inputs, None)
    }

    /// One forward pass that shows every layer's output, of width `hidden_dim`, to `observer`: an
    /// [`Observer`](crate::Observer), or a [`TowerObserver`](crate::TowerObserver) of a model with two towers.
    ///
    /// # Errors
    /// As [`BackboneOf::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: <C::Parts as Forward>::Inputs<'_>,
        observer: <C::Parts as Forward>::Observer<'_>,
    ) -> Result<<C::Parts as Forward>::Output<'s>> {
        session.compute_in(self.dtype);
        self.parts.run(session, inputs, Some(observer))
    }
}

impl<C: Architecture> Model for BackboneOf<C> {
    fn dtype(&self) -> DtypePolicy {
        self.dtype
    }

    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        self.parts.plan(&ctx.with_default_precision(self.dtype.precision()), batch, seq)
    }
}

impl<C: Architecture<Parts: Stacks>> Stacks for BackboneOf<C> {
    fn encoder(&self) -> Option<&Stack> {
        self.parts.encoder()
    }

    fn decoder(&self) -> &Stack {
        self.parts.decoder()
    }

    fn head(&self) -> &LogitsHead {
        self.parts.head()
    }

    fn positions(&self) -> usize {
        self.parts.positions()
    }
}

/// How a preset becomes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresetOptions {
    /// What the model computes in, instead of what the preset states. Weights stay stored as they are.
    pub dtype: Option<DtypePolicy>,
    /// Where the weights come from.
    pub weights: PresetWeights,
}

/// Where the weights of a model come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PresetWeights {
    /// The preset's files, memory-mapped: see [`Access::Map`] for what must not happen to them.
    #[default]
    Mapped,
    /// The preset's files, read into memory.
    Read,
    /// Nowhere: the preset is a configuration, and the weights are random, as with [`BackboneOf::random`].
    Random {
        /// The same seed gives the same model.
        seed: u64,
    },
}

impl PresetOptions {
    /// Opens what a model needs of the preset of this name.
    ///
    /// # Errors
    /// A name that leads nowhere; a file that is missing or malformed.
    pub fn open(self, name: impl AsRef<OsStr>) -> Result<Preset> {
        Ok(match self.weights {
            PresetWeights::Mapped => Preset::named(name, Access::Map)?,
            PresetWeights::Read => Preset::named(name, Access::Read)?,
            PresetWeights::Random { .. } => Preset::named_config(name)?,
        })
    }
}
