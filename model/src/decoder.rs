//! Decoding token by token: what all models that write have in common.

use rachis_kernels::MatRef;

use crate::error::{Result, request};
use crate::layers::{Room, Scene, SceneMemory, Stack, matrix};
use crate::session::{CacheLayout, CacheOptions};
use crate::session::{First, Tokens};
use crate::session::{Model, Plan, SequenceOutput, Session, carve};

pub(crate) mod private {
    use crate::layers::{LogitsHead, Stack};

    /// The parts of a model that decodes.
    pub trait Stacks {
        /// What reads the source, where there is one.
        fn encoder(&self) -> Option<&Stack>;
        /// What writes.
        fn decoder(&self) -> &Stack;
        /// From the decoder's output to logits.
        fn head(&self) -> &LogitsHead;
        /// The most positions of a sequence.
        fn positions(&self) -> usize;
    }
}

/// A model that writes a token at a time: [`OptBackbone`](crate::OptBackbone),
/// [`FalconBackbone`](crate::FalconBackbone), [`BartBackbone`](crate::BartBackbone) and
/// [`T5Backbone`](crate::T5Backbone).
///
/// [`Session::start`] makes room for some sequences. [`Decoder::decode`] then appends tokens to any of them, many at
/// first and later one by one, through the same code; sequences may be of different lengths, start and leave at
/// any time. The output has the bits of a forward pass over all of the sequence's tokens, whatever the pieces,
/// unless the cache stores keys and values in less precision.
pub trait Decoder: Model + private::Stacks {
    /// Number of logits of a position.
    fn vocabulary_size(&self) -> usize {
        self.head().vocabulary_size()
    }

    /// Whether sequences are written from a source that [`Decoder::encode`] reads.
    fn has_encoder(&self) -> bool {
        self.encoder().is_some()
    }

    /// The most positions of a sequence.
    fn max_positions(&self) -> usize {
        self.positions()
    }

    /// Reads sources and keeps what the decoder attends to: each is that of as many of the session's sequences in a
    /// row. A vector for every token of the sources.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the model has no encoder, the session was not started for it, or the sources
    /// do not fit. The sources before are forgotten, if the call was cancelled.
    fn encode<'s>(&self, session: &'s mut Session<'_>, sources: Tokens<'_>) -> Result<SequenceOutput<'s>> {
        let Some(encoder) = self.encoder() else {
            return Err(request("source", "given", "none: the model has no encoder"));
        };
        let decoder = self.decoder();
        session.compute_in(self.dtype());
        let Session { call: ctx, work, cache, stop, .. } = session;
        cache.expect(CacheLayout::of(decoder, true))?;
        work.source.fill(sources, (encoder.vocabulary_size(), self.positions()), First::IfReal)?;
        let mut keys = cache.sources(&work.source.spans)?;
        let (rows, end) = (work.source.len(), work.source.end());
        let mut pieces = carve(&mut work.hidden, encoder.sizes(ctx, (rows, end)))?;
        let width = encoder.output_dim();
        let (threads, source) = (&mut work.threads, &work.source);
        ctx.enter(|ctx| -> Result<()> {
            let scene = Scene::of(source);
            let room = Room { pieces: pieces.each_mut().map(|piece| &mut **piece), threads, stop };
            encoder.run(ctx, scene, room, None)?;
            let states = matrix(pieces[0], [rows, width])?;
            for (i, block) in decoder.blocks.iter().enumerate() {
                stop.check()?;
                block.project_memory(ctx, &mut threads.caller.scratch, states, &mut keys.layer(i))?;
            }
            Ok(())
        })?;
        cache.commit_sources(&work.source.spans);
        let [x, ..] = pieces;
        Ok(SequenceOutput { data: matrix(x, [rows, width])?, rows: &work.source })
    }

    /// Appends tokens to sequences, one of them to each: the i-th of `tokens` to `sequences[i]`. A vector for every
    /// new token.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the session was not started for this model, a sequence is named twice, or would
    /// grow beyond the cache's capacity or the model's positions; the sequences are as before then.
    fn decode<'s>(
        &self,
        session: &'s mut Session<'_>,
        sequences: &[usize],
        tokens: Tokens<'_>,
    ) -> Result<SequenceOutput<'s>> {
        let stack = self.decoder();
        session.compute_in(self.dtype());
        let Session { call: ctx, work, cache, stop, .. } = session;
        cache.expect(CacheLayout::of(stack, self.has_encoder()))?;
        if sequences.len() != tokens.batch() {
            return Err(request("number of sequences", sequences.len(), tokens.batch()));
        }
        let limits = (stack.vocabulary_size(), self.positions());
        work.rows.fill_after(tokens, limits, First::IfReal, |i| {
            sequences.get(i).and_then(|sequence| cache.so_far(*sequence)).unwrap_or_default()
        })?;
        cache.extend(sequences, &work.rows)?;
        let rows = work.rows.len();
        let pieces = carve(&mut work.hidden, stack.sizes(ctx, (rows, cache.end())))?;
        let (threads, new) = (&mut work.threads, &work.rows);
        ctx.enter(|ctx| {
            let (kept, cross) = cache.kept()?;
            let memory = cross.map(|(kept, spans)| SceneMemory { states: None, spans, kept });
            let scene = Scene { kept: Some(kept), memory, ..Scene::of(new) };
            stack.run(ctx, scene, Room { pieces, threads, stop }, None)
        })?;
        cache.commit();
        work.output(stack)
    }

    /// Logits `[rows, vocabulary_size]` of rows of the decoder's output, copied out of the session first: all of
    /// them, or only those that are needed, such as the last of each sequence.
    ///
    /// # Errors
    /// Shapes that disagree.
    fn logits(&self, session: &mut Session<'_>, rows: MatRef<'_, f32>, logits: &mut [f32]) -> Result<()> {
        session.compute_in(self.dtype());
        let Session { call: ctx, work, .. } = session;
        self.head().apply(ctx, &mut work.threads.caller.scratch, rows, logits)
    }
}

impl<M: Model + private::Stacks + ?Sized> Decoder for M {}
