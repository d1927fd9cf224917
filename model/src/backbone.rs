//! A backbone: a configuration, the model that it describes, and the ways to get one.

mod any;

use std::path::Path;

use rachis_kernels::Ctx;
use rachis_loader::{Access, Preset};

pub use any::Backbone;

use crate::config::DtypePolicy;
use crate::decoder::private::Stacks;
use crate::error::Result;
use crate::layers::{Embedding, LogitsHead, Stack};
use crate::session::{Model, Plan, Session};
use crate::weights::Source;

pub(crate) mod private {
    use super::{Ctx, Embedding, Plan, Preset, Result, Session, Source};

    /// An architecture's configuration, and what is built of it.
    pub trait Architecture: Sized {
        type Parts: Forward;

        /// The configuration of a preset.
        ///
        /// # Errors
        /// A field that is missing, malformed or absurd; a preset of another architecture.
        fn read(preset: &Preset) -> Result<Self>;

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
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`BackboneOf::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<Self> {
        Self::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`BackboneOf::from_preset`].
    pub fn load(preset: &Preset) -> Result<Self> {
        let (config, dtype) = (C::read(preset)?, DtypePolicy::of(preset.config())?);
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

    /// The configuration.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// The dtype policy that the preset states.
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
        self.parts.run(session, inputs, Some(observer))
    }
}

impl<C: Architecture> Model for BackboneOf<C> {
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        self.parts.plan(ctx, batch, seq)
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
