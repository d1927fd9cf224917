//! A backbone: a configuration, the model that it describes, and the ways to make one.

mod any;
mod io;
mod options;

use std::ffi::OsStr;
use std::path::Path;

use rachis_kernels::{Ctx, Dtype};
use rachis_loader::Preset;

pub use any::Backbone;
pub use io::{BackboneInputs, BackboneOutput};
#[cfg(feature = "hub")]
pub use options::Download;
pub use options::{PresetOptions, PresetWeights};

use crate::config::preset_dtype;
use crate::decoder::private::DecoderStacks;
use crate::error::Result;
use crate::layers::{Embedding, LogitsHead, Stack};
use crate::session::{Model, Session, WorkspacePlan};
use crate::weights::{Tensors, WeightSource};

pub(crate) mod private {
    use super::{Ctx, Embedding, Preset, Result, Session, Tensors, WeightSource, WorkspacePlan};
    use crate::config::Fields;

    /// Keeps [`Model`](super::Model) to the types of this crate.
    pub trait Sealed {}

    /// An architecture's configuration.
    pub trait Architecture: Sized {
        /// What is built from the configuration.
        type Network: Network;

        /// The configuration of a preset.
        ///
        /// # Errors
        /// A field that is missing, malformed or out of range; a preset of another architecture.
        fn read(preset: &Preset) -> Result<Self>;

        /// This configuration, corrected where the preset's weights show something else.
        #[must_use]
        fn adjusted(self, preset: &Preset) -> Self {
            let _ = preset;
            self
        }

        /// The fields of a Hugging Face configuration.
        ///
        /// # Errors
        /// A configuration that transformers has no model for.
        fn to_hugging_face(&self) -> Result<Fields>;

        /// The network with weights from `source`.
        ///
        /// # Errors
        /// A configuration that no model can have; a weight that is missing or has another shape.
        fn build(&self, source: &WeightSource<'_>) -> Result<Self::Network>;
    }

    /// The layers of a model, and the forward pass through them.
    pub trait Network {
        type Inputs<'a>;
        type Output<'s>;
        type Observer<'o>;

        fn token_embedding(&self) -> &Embedding;

        /// Adds the tensors to save, under the names of `like`.
        fn save<'m>(&'m self, like: &'m Self, tensors: &mut Tensors<'m>);

        /// The working memory for `batch` sequences of up to `seq` tokens.
        ///
        /// # Errors
        /// When the size is beyond the model's limits.
        fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<WorkspacePlan>;

        /// One forward pass in the context `ctx`, which shows every layer's output to `observer`.
        ///
        /// # Errors
        /// When the inputs do not fit the model.
        fn run<'s>(
            &self,
            ctx: &Ctx,
            session: &'s mut Session<'_>,
            inputs: Self::Inputs<'_>,
            observer: Option<Self::Observer<'_>>,
        ) -> Result<Self::Output<'s>>;
    }
}

use private::{Architecture, Network, Sealed};

/// A model of the architecture whose configuration is `C`.
///
/// The inputs and the output of [`BackboneOf::forward`] depend on the architecture:
/// [`BertBackbone`](crate::BertBackbone), [`OptBackbone`](crate::OptBackbone),
/// [`FalconBackbone`](crate::FalconBackbone), [`BartBackbone`](crate::BartBackbone) and
/// [`T5Backbone`](crate::T5Backbone) name them.
#[derive(Debug)]
pub struct BackboneOf<C: Architecture> {
    config: C,
    dtype: Dtype,
    network: C::Network,
}

impl<C: Architecture> BackboneOf<C> {
    /// Loads the preset of this name, with its weights memory-mapped.
    ///
    /// A name is a directory of Hugging Face or KerasHub, or a handle that is looked up in the caches of both
    /// libraries: `hf://owner/name`, `kaggle://...`, or one of KerasHub's names such as `bert_base_en` (see
    /// [`Handle`](rachis_loader::Handle)).
    ///
    /// The files must not be truncated or written in place while the model lives; see
    /// [`Access::Map`](rachis_loader::Access::Map), and [`BackboneOf::load`] for presets that were opened otherwise.
    ///
    /// # Errors
    /// When there is no such preset, a file is missing or malformed, the preset holds another architecture, or a
    /// weight is missing or has another shape.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<Self> {
        Self::from_preset_with(name, PresetOptions::default())
    }

    /// Loads the preset of this name as `options` say.
    ///
    /// # Errors
    /// See [`BackboneOf::from_preset`]. With random weights, also when their memory could not be allocated.
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<Self> {
        Self::load_with(&options.open(name)?, options)
    }

    /// The model in an opened preset. It shares the preset's weights and copies none.
    ///
    /// # Errors
    /// When the preset holds another architecture, or a weight is missing or has another shape.
    pub fn load(preset: &Preset) -> Result<Self> {
        Self::load_with(preset, PresetOptions::default())
    }

    /// The model in an opened preset, as `options` say. The options about opening the preset have no effect.
    ///
    /// # Errors
    /// See [`BackboneOf::load`]. With random weights, also when their memory could not be allocated.
    pub fn load_with(preset: &Preset, options: PresetOptions) -> Result<Self> {
        let config = C::read(preset)?;
        let dtype = options.dtype.map_or_else(|| preset_dtype(preset.config()), Ok)?;
        if let PresetWeights::Random { seed } = options.weights {
            return Ok(Self { dtype, ..Self::random(config, seed)? });
        }
        let config = config.adjusted(preset);
        let network = config.build(&WeightSource::Preset(preset))?;
        Ok(Self { config, dtype, network })
    }

    /// A model of this configuration with random weights: kernels and embeddings are truncated normal with standard
    /// deviation 0.02, biases are zero. The same seed gives the same model. Its dtype is float32.
    ///
    /// # Errors
    /// When no model can have the configuration, or the memory of the weights could not be allocated.
    pub fn random(config: C, seed: u64) -> Result<Self> {
        let network = WeightSource::random(seed, |source| config.build(source))?;
        Ok(Self { config, dtype: Dtype::Float32, network })
    }

    /// Writes the model as a Hugging Face directory, `config.json` and `model.safetensors`, that transformers and
    /// this crate open. `dtype` is the type of the stored weights, rounded to nearest with ties to even; `None` keeps
    /// each weight's type.
    ///
    /// The directory is created if it does not exist. Files of these names in it are replaced, each in one step, when
    /// they are complete. Tokenizers and generation settings are not part of a model: copy their files.
    ///
    /// A model of a Keras preset keeps KerasHub's conventions where transformers has others (OPT's positions, the
    /// rounding of Falcon's ALiBi): fields of the configuration say so, which this crate reads and transformers
    /// ignores.
    ///
    /// # Errors
    /// When transformers has no model for the configuration, a weight is outside the range of float16 that was
    /// chosen, or the file system reports an error.
    pub fn save_preset(&self, dir: impl AsRef<Path>, dtype: Option<Dtype>) -> Result<()> {
        let mut config = self.config.to_hugging_face()?;
        config.insert("dtype".to_owned(), dtype.unwrap_or(self.dtype).name().into());
        let like = self.config.build(&WeightSource::counted())?;
        let mut tensors = Tensors::default();
        self.network.save(&like, &mut tensors);
        let list = tensors.list(dtype);
        rachis_loader::save_preset(dir.as_ref(), config, &list, |i, sink| tensors.write(i, dtype, sink))
    }

    /// The configuration.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// The layers.
    pub(crate) fn network(&self) -> &C::Network {
        &self.network
    }

    /// The dtype of computation: that of the options, or the one that the preset states. It decides the precision of
    /// matrix products in every session whose context was not given one. Weights stay stored as they are, and softmax
    /// and norms are computed in float32 whatever it is.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The table of token vectors, which is also the weight of the logits where the two are tied.
    pub fn token_embedding(&self) -> &Embedding {
        self.network.token_embedding()
    }

    /// One forward pass: a vector for every token, in the session's memory.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) when the inputs do not fit the model; nothing is computed then.
    pub fn forward<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: <C::Network as Network>::Inputs<'_>,
    ) -> Result<<C::Network as Network>::Output<'s>> {
        let ctx = session.ctx_for(self.dtype);
        self.network.run(&ctx, session, inputs, None)
    }

    /// One forward pass that shows every layer's output, of width `hidden_dim`, to `observer`: an
    /// [`Observer`](crate::Observer), or a [`TowerObserver`](crate::TowerObserver) of a model with two towers.
    ///
    /// # Errors
    /// See [`BackboneOf::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: <C::Network as Network>::Inputs<'_>,
        observer: <C::Network as Network>::Observer<'_>,
    ) -> Result<<C::Network as Network>::Output<'s>> {
        let ctx = session.ctx_for(self.dtype);
        self.network.run(&ctx, session, inputs, Some(observer))
    }
}

impl<C: Architecture> Sealed for BackboneOf<C> {}

impl<C: Architecture> Model for BackboneOf<C> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<WorkspacePlan> {
        self.network.plan(&ctx.with_default_precision(self.dtype.into()), batch, seq)
    }
}

impl<C: Architecture<Network: DecoderStacks>> DecoderStacks for BackboneOf<C> {
    fn encoder(&self) -> Option<&Stack> {
        self.network.encoder()
    }

    fn decoder(&self) -> &Stack {
        self.network.decoder()
    }

    fn head(&self) -> &LogitsHead {
        self.network.head()
    }

    fn positions(&self) -> usize {
        self.network.positions()
    }
}
