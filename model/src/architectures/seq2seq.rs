//! Models of an encoder and a decoder.

use rachis_kernels::{Ctx, Span};

use crate::backbone::private::Forward;
use crate::decoder::private::Stacks;
use crate::error::{Result, request};
use crate::layers::{Embedding, LogitsHead, Room, Scene, SceneMemory, Stack, matrix};
use crate::session::CrossKeys;
use crate::session::{self, Plan, SequenceOutput, Session, Tower, TowerObserver, carve};
use crate::session::{First, Tokens};
use crate::weights::Tensors;

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

/// What a model of an encoder and a decoder is made of.
#[derive(Debug)]
pub struct Seq2SeqParts {
    pub(crate) encoder: Stack,
    pub(crate) decoder: Stack,
    pub(crate) head: LogitsHead,
    /// The most positions of a sequence, of either side.
    pub(crate) positions: usize,
}

impl Forward for Seq2SeqParts {
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
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        let rows = session::rows(batch, (seq, self.positions))?;
        let scratch = self.encoder.scratch_len(ctx, rows).max(self.decoder.scratch_len(ctx, rows));
        let hidden = self.sizes(ctx, (rows, seq), (rows, seq)).iter().sum();
        Ok(Plan { hidden, scratch, apart: self.encoder.apart(ctx, (rows, seq)) })
    }

    fn run<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: Seq2SeqInputs<'_>,
        mut observer: Option<TowerObserver<'_>>,
    ) -> Result<Seq2SeqOutput<'s>> {
        let Seq2SeqParts { encoder, decoder, .. } = self;
        let Session { call: ctx, work, stop, .. } = session;
        let (from, to) = (inputs.encoder.batch(), inputs.decoder.batch());
        if from != to {
            return Err(request("sequences of the decoder", to, format!("{from}, as in the encoder")));
        }
        let limits = (decoder.vocabulary_size(), self.positions);
        work.source.fill(inputs.encoder, limits, First::IfReal)?;
        work.rows.fill(inputs.decoder, limits, First::IfReal)?;
        work.cross.clear();
        let spans = work.rows.spans.iter().zip(&work.source.spans);
        work.cross
            .extend(spans.map(|(to, from)| Span { queries: to.queries.clone(), keys: from.keys.clone() }));

        let (from, to) = (work.source.len(), work.rows.len());
        let sizes = self.sizes(ctx, (from, work.source.end()), (to, work.rows.end()));
        let (source, rows, cross) = (&work.source, &work.rows, &work.cross);
        let threads = &mut work.threads;
        let [states, x, y, z, wide, positions, keys] = carve(&mut work.hidden, sizes)?;
        let width = encoder.output_dim();
        ctx.enter(|ctx| -> Result<()> {
            let mut observe = |layer: usize, output: SequenceOutput<'_>| {
                if let Some(observe) = observer.as_mut() {
                    observe(Tower::Encoder, layer, output);
                }
            };
            let pieces = [&mut *states, &mut *y, &mut *z, &mut *wide, &mut *positions];
            encoder.run(ctx, Scene::of(source), Room { pieces, threads, stop }, Some(&mut observe))?;
            let mut observe = |layer: usize, output: SequenceOutput<'_>| {
                if let Some(observe) = observer.as_mut() {
                    observe(Tower::Decoder, layer, output);
                }
            };
            let kept = CrossKeys::shared(keys, ctx.precision(), [from, decoder.config.attention.key_width()]);
            let states = Some(matrix(states, [from, width])?);
            let memory = Some(SceneMemory { states, spans: cross, kept });
            let room = Room { pieces: [x, y, z, wide, positions], threads, stop };
            decoder.run(ctx, Scene { memory, ..Scene::of(rows) }, room, Some(&mut observe))
        })?;
        let [states, x, ..] = carve(&mut work.hidden, sizes)?;
        let states = matrix(states, [from, width])?;
        Ok(Seq2SeqOutput {
            encoder_sequence_output: SequenceOutput { data: states, rows: &work.source },
            decoder_sequence_output: SequenceOutput {
                data: matrix(x, [to, decoder.output_dim()])?,
                rows: &work.rows,
            },
        })
    }
}

impl Seq2SeqParts {
    /// Elements of the encoder's output, of what the stacks use, the decoder's output first, and of keys and values
    /// of the encoder's rows: for rows, and what their positions are less than, of the source and the target.
    fn sizes(&self, ctx: &Ctx, source: (usize, usize), target: (usize, usize)) -> [usize; 7] {
        let Seq2SeqParts { encoder, decoder, .. } = self;
        let (first, second) = (encoder.sizes(ctx, source), decoder.sizes(ctx, target));
        let [_, y, z, wide, positions]: [usize; 5] = std::array::from_fn(|i| first[i].max(second[i]));
        let keys = 2 * source.0 * decoder.config.attention.key_width();
        [first[0], second[0], y, z, wide, positions, keys]
    }
}

impl Stacks for Seq2SeqParts {
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
