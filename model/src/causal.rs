//! Models that are a decoder alone.

use std::path::Path;

use rachis_kernels::{Ctx, MatRef};
use rachis_loader::{Access, Preset};

use crate::config::DtypePolicy;
use crate::decoder::private::Stacks;
use crate::error::Result;
use crate::layers::{Embedding, LogitsHead, Room, Scene, Stack};
use crate::session::{Model, Observer, Plan, SequenceOutput, Session, carve};
use crate::tokens::{First, Tokens};
use crate::weights::Source;

pub(crate) mod private {
    use super::{LogitsHead, Preset, Result, Source, Stack};

    /// What an architecture is: a configuration, and what is built of it.
    pub trait CausalConfig: Sized {
        /// The configuration of a preset.
        ///
        /// # Errors
        /// A field that is missing, malformed or absurd; a preset of another architecture.
        fn read(preset: &Preset) -> Result<Self>;

        /// The model with weights from `source`.
        ///
        /// # Errors
        /// A configuration that no model can have; a weight that is missing or misshapen.
        fn build(&self, source: &Source<'_>) -> Result<CausalParts>;

        /// The most positions of a sequence.
        fn positions(&self) -> usize;
    }

    /// What a [`super::CausalBackbone`] is made of.
    #[derive(Debug)]
    pub struct CausalParts {
        pub(crate) stack: Stack,
        pub(crate) head: LogitsHead,
    }
}

use private::{CausalConfig, CausalParts};

/// A model that is a decoder alone, of the architecture of its configuration.
#[derive(Debug)]
pub struct CausalBackbone<C> {
    config: C,
    dtype: DtypePolicy,
    parts: CausalParts,
}

impl<C: CausalConfig> CausalBackbone<C> {
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// `load` for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<Self> {
        Self::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As `from_preset`.
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
        &self.parts.stack.embeddings.tokens
    }

    /// One forward pass: a vector for every token.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the inputs do not fit the model; nothing is computed then.
    pub fn forward<'s>(
        &self,
        session: &'s mut Session<'_>,
        tokens: Tokens<'_>,
    ) -> Result<SequenceOutput<'s>> {
        self.run(session, tokens, None)
    }

    /// One forward pass that shows every layer's output, of width `hidden_dim`, to `observer`.
    ///
    /// # Errors
    /// As [`CausalBackbone::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        tokens: Tokens<'_>,
        observer: Observer<'_>,
    ) -> Result<SequenceOutput<'s>> {
        self.run(session, tokens, Some(observer))
    }

    fn run<'s>(
        &self,
        session: &'s mut Session<'_>,
        tokens: Tokens<'_>,
        observer: Option<Observer<'_>>,
    ) -> Result<SequenceOutput<'s>> {
        let stack = &self.parts.stack;
        let Session { ctx, work, .. } = session;
        work.rows.fill(tokens, (stack.vocabulary_size(), self.config.positions()), First::IfReal)?;
        let rows = work.rows.len();
        let pieces = carve(&mut work.hidden, stack.sizes(rows, work.rows.end()));
        let (scene, room) = (Scene::of(&work.rows), Room { pieces, scratch: &mut work.scratch });
        ctx.enter(|| stack.run(ctx, scene, room, observer))?;
        let width = stack.output_dim();
        let x = &work.hidden.take(rows * width)[..];
        Ok(SequenceOutput { data: MatRef::new(x, rows, width)?, rows: &work.rows })
    }
}

impl<C: CausalConfig> Stacks for CausalBackbone<C> {
    fn encoder(&self) -> Option<&Stack> {
        None
    }

    fn decoder(&self) -> &Stack {
        &self.parts.stack
    }

    fn head(&self) -> &LogitsHead {
        &self.parts.head
    }

    fn positions(&self) -> usize {
        self.config.positions()
    }
}

impl<C: CausalConfig> Model for CausalBackbone<C> {
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        let rows = crate::session::rows(batch, (seq, self.config.positions()))?;
        Ok(Plan::of(&self.parts.stack, ctx, (rows, seq)))
    }
}
