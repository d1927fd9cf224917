//! The encoder of an encoder-decoder model by itself: T5's in `T5EncoderModel` and in sentence-t5.

use rachis_kernels::Ctx;
use rachis_loader::Preset;

use crate::architectures::causal;
use crate::backbone::private::{Architecture, Network};
use crate::config::Fields;
use crate::error::Result;
use crate::layers::{Embedding, Stack};
use crate::session::{Extent, Observer, SequenceOutput, Session, Tokens, WorkspacePlan};
use crate::weights::{Tensors, WeightSource};

/// The configuration of an encoder by itself: that of the model that it is a part of. What that says about the decoder
/// has no effect.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig<C>(pub C);

/// A model whose encoder may stand by itself.
pub trait WithEncoder: Architecture {
    /// The encoder with weights from `source`.
    ///
    /// # Errors
    /// See [`Architecture::build`].
    fn build_encoder(&self, source: &WeightSource<'_>) -> Result<EncoderNetwork>;

    /// The fields of the encoder's Hugging Face configuration.
    ///
    /// # Errors
    /// When transformers has no class for the encoder by itself.
    fn encoder_to_hugging_face(&self) -> Result<Fields>;
}

/// The layers of an encoder.
#[derive(Debug)]
pub struct EncoderNetwork {
    pub(crate) stack: Stack,
    /// The largest number of positions of a sequence.
    pub(crate) positions: usize,
}

impl<C: WithEncoder> Architecture for EncoderConfig<C> {
    type Network = EncoderNetwork;

    fn read(preset: &Preset) -> Result<Self> {
        C::read(preset).map(EncoderConfig)
    }

    fn adjusted(self, preset: &Preset) -> Self {
        EncoderConfig(self.0.adjusted(preset))
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.0.encoder_to_hugging_face()
    }

    fn build(&self, source: &WeightSource<'_>) -> Result<EncoderNetwork> {
        self.0.build_encoder(source)
    }
}

impl Network for EncoderNetwork {
    type Inputs<'a> = Tokens<'a>;
    type Output<'s> = SequenceOutput<'s>;
    type Observer<'o> = Observer<'o>;

    fn token_embedding(&self) -> &Embedding {
        &self.stack.embeddings.tokens
    }

    fn save<'m>(&'m self, like: &'m Self, tensors: &mut Tensors<'m>) {
        self.stack.save(&like.stack, tensors);
    }

    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<WorkspacePlan> {
        Ok(WorkspacePlan::of(&self.stack, ctx, Extent::of_batch(batch, seq, self.positions)?))
    }

    fn run<'s>(
        &self,
        ctx: &Ctx,
        session: &'s mut Session<'_>,
        tokens: Tokens<'_>,
        observer: Option<Observer<'_>>,
    ) -> Result<SequenceOutput<'s>> {
        causal::run_stack((&self.stack, self.positions), ctx, session, tokens, observer)
    }
}
