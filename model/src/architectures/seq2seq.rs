//! Models of an encoder and a decoder that attends to its output.

use rachis_kernels::{Ctx, Span};

use crate::backbone::private::Network;
use crate::decoder::private::DecoderStacks;
use crate::error::{RequestError, Result};
use crate::layers::{
    CrossInput, Embedding, LogitsHead, Stack, StackBuffers, StackInput, StackSizes, StackWorkspace, matrix,
};
use crate::session::{
    CrossCache, CrossKv, Extent, First, Limits, SequenceOutput, Session, Tokens, Tower, TowerObserver,
    WorkspacePlan, take_front,
};
use crate::weights::Tensors;

/// The inputs of an encoder-decoder model: as many sequences for the encoder as for the decoder. The padding masks are
/// part of the tokens.
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

/// The layers of an encoder-decoder model.
#[derive(Debug)]
pub struct Seq2SeqNetwork {
    pub(crate) encoder: Stack,
    pub(crate) decoder: Stack,
    pub(crate) head: LogitsHead,
    /// The largest number of positions of a sequence, of either side.
    pub(crate) positions: usize,
}

/// Lengths of the buffers of a forward pass, in elements of f32.
#[derive(Debug, Clone, Copy)]
struct Seq2SeqSizes {
    /// The encoder's states.
    encoder_states: usize,
    /// The decoder's buffers; the encoder uses all of them but the states.
    stack: StackSizes,
    /// Keys and values of the encoder's rows, for one layer of the decoder at a time.
    cross_kv: usize,
}

/// The buffers of a forward pass.
struct Seq2SeqBuffers<'w> {
    encoder_states: &'w mut [f32],
    stack: StackBuffers<'w>,
    cross_kv: &'w mut [f32],
}

impl Seq2SeqSizes {
    fn total(&self) -> usize {
        self.encoder_states.saturating_add(self.stack.total()).saturating_add(self.cross_kv)
    }

    /// The buffers, one after another, at the front of `memory`.
    fn carve<'w>(&self, mut memory: &'w mut [f32]) -> Seq2SeqBuffers<'w> {
        Seq2SeqBuffers {
            encoder_states: take_front(&mut memory, self.encoder_states),
            stack: self.stack.take(&mut memory),
            cross_kv: take_front(&mut memory, self.cross_kv),
        }
    }
}

impl Network for Seq2SeqNetwork {
    type Inputs<'a> = Seq2SeqInputs<'a>;
    type Output<'s> = Seq2SeqOutput<'s>;
    type Observer<'o> = TowerObserver<'o>;

    fn token_embedding(&self) -> &Embedding {
        &self.encoder.embeddings.tokens
    }

    fn save<'m>(&'m self, like: &'m Self, tensors: &mut Tensors<'m>) {
        self.encoder.save(&like.encoder, tensors);
        self.decoder.save(&like.decoder, tensors);
        self.head.save(&like.head, tensors);
    }

    /// For sequences of up to `seq` tokens in the encoder and as many in the decoder.
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<WorkspacePlan> {
        let extent = Extent::of_batch(batch, seq, self.positions)?;
        let scratch =
            self.encoder.scratch_len(ctx, extent.rows).max(self.decoder.scratch_len(ctx, extent.rows));
        let activations = self.sizes(ctx, extent, extent).total();
        Ok(WorkspacePlan { activations, scratch, workers: self.encoder.worker_plan(ctx, extent) })
    }

    fn run<'s>(
        &self,
        ctx: &Ctx,
        session: &'s mut Session<'_>,
        inputs: Seq2SeqInputs<'_>,
        mut observer: Option<TowerObserver<'_>>,
    ) -> Result<Seq2SeqOutput<'s>> {
        let Seq2SeqNetwork { encoder, decoder, .. } = self;
        let Session { work, stop, .. } = session;
        let (sources, targets) = (inputs.encoder.batch(), inputs.decoder.batch());
        if sources != targets {
            let what = "number of sequences of the decoder";
            return Err(RequestError::SequenceCount { what, found: targets, expected: sources }.into());
        }
        let limits = Limits { vocabulary: decoder.vocabulary_size(), positions: self.positions };
        work.source.fill(inputs.encoder, limits, First::IfReal)?;
        work.rows.fill(inputs.decoder, limits, First::IfReal)?;
        work.cross_spans.clear();
        let spans = work.rows.spans.iter().zip(&work.source.spans);
        work.cross_spans
            .extend(spans.map(|(to, from)| Span { queries: to.queries.clone(), keys: from.keys.clone() }));

        let sizes = self.sizes(ctx, work.source.extent(), work.rows.extent());
        let source_shape = [work.source.len(), encoder.output_dim()];
        let target_shape = [work.rows.len(), decoder.output_dim()];
        let (source, rows, cross_spans) = (&work.source, &work.rows, &work.cross_spans);
        let threads = &mut work.threads;
        let Seq2SeqBuffers { encoder_states, mut stack, cross_kv } =
            sizes.carve(work.activations.take(sizes.total())?);
        ctx.enter(|ctx| -> Result<()> {
            let mut observe = |layer: usize, output: SequenceOutput<'_>| {
                if let Some(observe) = observer.as_mut() {
                    observe(Tower::Encoder, layer, output);
                }
            };
            let buffers = stack.with_states(encoder_states);
            let workspace = StackWorkspace { buffers, threads, stop };
            encoder.run(ctx, StackInput::of(source), workspace, Some(&mut observe))?;
            let mut observe = |layer: usize, output: SequenceOutput<'_>| {
                if let Some(observe) = observer.as_mut() {
                    observe(Tower::Decoder, layer, output);
                }
            };
            let kv_shape = [source.len(), decoder.config.attention.kv_width()];
            let kv = CrossKv::shared(cross_kv, ctx.precision(), kv_shape);
            let states = Some(matrix(encoder_states, source_shape)?);
            let cross = Some(CrossInput { states, cache: CrossCache { kv, spans: cross_spans } });
            let workspace = StackWorkspace { buffers: stack, threads, stop };
            decoder.run(ctx, StackInput { cross, ..StackInput::of(rows) }, workspace, Some(&mut observe))
        })?;
        let Seq2SeqBuffers { encoder_states, stack, .. } = sizes.carve(work.activations.take(sizes.total())?);
        Ok(Seq2SeqOutput {
            encoder_sequence_output: SequenceOutput {
                data: matrix(encoder_states, source_shape)?,
                rows: &work.source,
            },
            decoder_sequence_output: SequenceOutput {
                data: matrix(stack.states, target_shape)?,
                rows: &work.rows,
            },
        })
    }
}

impl Seq2SeqNetwork {
    fn sizes(&self, ctx: &Ctx, source: Extent, target: Extent) -> Seq2SeqSizes {
        let (encoder, decoder) = (self.encoder.sizes(ctx, source), self.decoder.sizes(ctx, target));
        Seq2SeqSizes {
            encoder_states: encoder.states,
            stack: StackSizes { states: decoder.states, ..encoder.max(&decoder) },
            cross_kv: 2 * source.rows * self.decoder.config.attention.kv_width(),
        }
    }
}

impl DecoderStacks for Seq2SeqNetwork {
    fn encoder(&self) -> Option<&Stack> {
        Some(&self.encoder)
    }

    fn decoder(&self) -> &Stack {
        &self.decoder
    }

    fn head(&self) -> &LogitsHead {
        &self.head
    }

    fn positions(&self) -> usize {
        self.positions
    }
}
