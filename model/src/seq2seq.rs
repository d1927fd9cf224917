//! Models of an encoder and a decoder.

use std::path::Path;

use rachis_kernels::{Ctx, MatRef, Span};
use rachis_loader::{Access, Preset};

use crate::cache::CrossKeys;
use crate::config::DtypePolicy;
use crate::decoder::private::Stacks;
use crate::error::{Result, request};
use crate::layers::{Embedding, LogitsHead, Room, Scene, SceneMemory, Stack};
use crate::session::{Model, Plan, SequenceOutput, Session, Tower, TowerObserver, carve};
use crate::tokens::{First, Tokens};
use crate::weights::Source;

pub(crate) mod private {
    use super::{LogitsHead, Preset, Result, Source, Stack};

    /// What an architecture is: a configuration, and what is built of it.
    pub trait Seq2SeqConfig: Sized {
        /// The configuration of a preset.
        ///
        /// # Errors
        /// A field that is missing, malformed or absurd; a preset of another architecture.
        fn read(preset: &Preset) -> Result<Self>;

        /// The model with weights from `source`.
        ///
        /// # Errors
        /// A configuration that no model can have; a weight that is missing or misshapen.
        fn build(&self, source: &Source<'_>) -> Result<Seq2SeqParts>;

        /// The most positions of a sequence, of either side.
        fn positions(&self) -> usize;
    }

    /// What a [`super::Seq2SeqBackbone`] is made of.
    #[derive(Debug)]
    pub struct Seq2SeqParts {
        pub(crate) encoder: Stack,
        pub(crate) decoder: Stack,
        pub(crate) head: LogitsHead,
    }
}

use private::{Seq2SeqConfig, Seq2SeqParts};

/// A model of an encoder and a decoder, of the architecture of its configuration.
#[derive(Debug)]
pub struct Seq2SeqBackbone<C> {
    config: C,
    dtype: DtypePolicy,
    parts: Seq2SeqParts,
}

/// The inputs of an encoder-decoder model, as many sequences in each; the padding masks are part of the tokens.
#[derive(Debug, Clone, Copy)]
pub struct Seq2SeqInputs<'a> {
    /// `encoder_token_ids` and `encoder_padding_mask`.
    pub encoder: Tokens<'a>,
    /// `decoder_token_ids` and `decoder_padding_mask`.
    pub decoder: Tokens<'a>,
}

/// The outputs of an encoder-decoder model, in the session's memory.
#[derive(Debug, Clone, Copy)]
pub struct Seq2SeqOutput<'s> {
    /// A vector for every token of the encoder.
    pub encoder_sequence_output: SequenceOutput<'s>,
    /// A vector for every token of the decoder.
    pub decoder_sequence_output: SequenceOutput<'s>,
}

impl<C: Seq2SeqConfig> Seq2SeqBackbone<C> {
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
        &self.parts.encoder.embeddings.tokens
    }

    /// One forward pass of encoder and decoder.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the inputs do not fit the model; nothing is computed then.
    pub fn forward<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: Seq2SeqInputs<'_>,
    ) -> Result<Seq2SeqOutput<'s>> {
        self.run(session, inputs, None)
    }

    /// One forward pass that shows every layer's output to `observer`.
    ///
    /// # Errors
    /// As [`Seq2SeqBackbone::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: Seq2SeqInputs<'_>,
        observer: TowerObserver<'_>,
    ) -> Result<Seq2SeqOutput<'s>> {
        self.run(session, inputs, Some(observer))
    }

    fn run<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: Seq2SeqInputs<'_>,
        mut observer: Option<TowerObserver<'_>>,
    ) -> Result<Seq2SeqOutput<'s>> {
        let Seq2SeqParts { encoder, decoder, .. } = &self.parts;
        let Session { ctx, work, .. } = session;
        let (from, to) = (inputs.encoder.batch(), inputs.decoder.batch());
        if from != to {
            return Err(request("sequences of the decoder", to, format!("{from}, as in the encoder")));
        }
        let limits = (decoder.vocabulary_size(), self.config.positions());
        work.source.fill(inputs.encoder, limits, First::IfReal)?;
        work.rows.fill(inputs.decoder, limits, First::IfReal)?;
        work.cross.clear();
        let spans = work.rows.spans.iter().zip(&work.source.spans);
        work.cross
            .extend(spans.map(|(to, from)| Span { queries: to.queries.clone(), keys: from.keys.clone() }));

        let (from, to) = (work.source.len(), work.rows.len());
        let sizes = self.sizes((from, work.source.end()), (to, work.rows.end()));
        let (source, rows, spans, scratch) = (&work.source, &work.rows, &work.cross, &mut work.scratch);
        let [states, x, y, z, wide, positions, keys] = carve(&mut work.hidden, sizes);
        let width = encoder.output_dim();
        ctx.enter(|| -> Result<()> {
            let mut observe = |layer: usize, output: SequenceOutput<'_>| {
                if let Some(observe) = observer.as_mut() {
                    observe(Tower::Encoder, layer, output);
                }
            };
            let pieces = [&mut *states, &mut *y, &mut *z, &mut *wide, &mut *positions];
            encoder.run(ctx, Scene::of(source), Room { pieces, scratch }, Some(&mut observe))?;
            let mut observe = |layer: usize, output: SequenceOutput<'_>| {
                if let Some(observe) = observer.as_mut() {
                    observe(Tower::Decoder, layer, output);
                }
            };
            let kept = CrossKeys::shared(keys, ctx.precision(), [from, decoder.config.attention.key_width()]);
            let states = Some(MatRef::new(&states[..from * width], from, width)?);
            let memory = Some(SceneMemory { states, spans, kept });
            let room = Room { pieces: [x, y, z, wide, positions], scratch };
            decoder.run(ctx, Scene { memory, ..Scene::of(rows) }, room, Some(&mut observe))
        })?;
        let [states, x, ..] = carve(&mut work.hidden, sizes);
        let states = MatRef::new(&states[..from * width], from, width)?;
        let width = decoder.output_dim();
        Ok(Seq2SeqOutput {
            encoder_sequence_output: SequenceOutput { data: states, rows: &work.source },
            decoder_sequence_output: SequenceOutput {
                data: MatRef::new(&x[..to * width], to, width)?,
                rows: &work.rows,
            },
        })
    }

    /// Elements of the encoder's output, of what the stacks use, the decoder's output first, and of keys and values
    /// of the encoder's rows: for rows, and what their positions are less than, of the source and the target.
    fn sizes(&self, source: (usize, usize), target: (usize, usize)) -> [usize; 7] {
        let Seq2SeqParts { encoder, decoder, .. } = &self.parts;
        let (first, second) = (encoder.sizes(source.0, source.1), decoder.sizes(target.0, target.1));
        let [_, y, z, wide, positions]: [usize; 5] = std::array::from_fn(|i| first[i].max(second[i]));
        let keys = 2 * source.0 * decoder.config.attention.key_width();
        [first[0], second[0], y, z, wide, positions, keys]
    }
}

impl<C: Seq2SeqConfig> Stacks for Seq2SeqBackbone<C> {
    fn encoder(&self) -> Option<&Stack> {
        Some(&self.parts.encoder)
    }

    fn decoder(&self) -> &Stack {
        &self.parts.decoder
    }

    fn head(&self) -> &LogitsHead {
        &self.parts.head
    }

    fn positions(&self) -> usize {
        self.config.positions()
    }
}

impl<C: Seq2SeqConfig> Model for Seq2SeqBackbone<C> {
    /// For sequences of up to `seq` tokens in the encoder and as many in the decoder.
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        let rows = crate::session::rows(batch, (seq, self.config.positions()))?;
        let Seq2SeqParts { encoder, decoder, .. } = &self.parts;
        let scratch = encoder.scratch_len(ctx, rows).max(decoder.scratch_len(ctx, rows));
        Ok(Plan { hidden: self.sizes((rows, seq), (rows, seq)).iter().sum(), scratch })
    }
}
