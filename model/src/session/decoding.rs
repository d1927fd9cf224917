//! What decoding does to a session: [`Session::start`], and what the methods of [`Decoder`] change.

use rachis_kernels::MatRef;

use super::{
    CacheLayout, CacheOptions, Extent, First, Limits, SequenceOutput, Session, Tokens, WorkerPlan,
    WorkspacePlan,
};
use crate::decoder::Decoder;
use crate::error::{RequestError, Result};
use crate::layers::{CrossInput, StackInput, StackWorkspace, matrix};

impl Session<'_> {
    /// Forgets all sequences and allocates a cache for new ones, which this model will decode. Steps that add one token
    /// to each sequence then allocate nothing.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) when the size is beyond the model's limits, and an error when the
    /// memory could not be allocated.
    pub fn start(&mut self, model: &(impl Decoder + ?Sized), options: CacheOptions) -> Result<()> {
        let CacheOptions { sequences, capacity, .. } = options;
        let max = model.max_positions();
        if capacity > max {
            return Err(RequestError::Capacity { found: capacity, max }.into());
        }
        let team = self.team();
        let ctx = self.ctx_for(model.dtype(), &team);
        let stack = model.decoder();
        let layout = CacheLayout::of(stack, model.has_encoder());
        self.cache.start(model.identity(), layout, options, ctx.precision())?;
        let plan = WorkspacePlan::of(stack, &ctx, Extent { rows: sequences, positions: capacity });
        let head = model.head().scratch_len(&ctx, sequences);
        // With a cache, all threads share every product, and none needs scratch of its own.
        let plan = WorkspacePlan { scratch: plan.scratch.max(head), workers: WorkerPlan::NONE, ..plan };
        self.reserve_plan(plan, sequences, 1)
    }

    /// Forgets the tokens of a sequence.
    ///
    /// # Errors
    /// [`RequestError::UnknownSequence`] when the session has no such sequence.
    pub fn clear_sequence(&mut self, sequence: usize) -> Result<()> {
        self.cache.clear(sequence)
    }

    /// Makes the sequence `to` a copy of the sequence `from`.
    ///
    /// # Errors
    /// [`RequestError::UnknownSequence`] when the session lacks one of the two,
    /// [`RequestError::DifferentSources`] when they attend to different sources.
    pub fn copy_sequence(&mut self, from: usize, to: usize) -> Result<()> {
        self.cache.copy(from, to)
    }

    /// [`Decoder::encode`]: runs the encoder, projects each decoder layer's keys and values of its output into the
    /// cache, and commits the sources.
    pub(crate) fn encode<'s>(
        &'s mut self,
        model: &(impl Decoder + ?Sized),
        sources: Tokens<'_>,
    ) -> Result<SequenceOutput<'s>> {
        let Some(encoder) = model.encoder() else {
            return Err(RequestError::NoEncoder { what: "source" }.into());
        };
        let decoder = model.decoder();
        let team = self.team();
        let ctx = self.ctx_for(model.dtype(), &team);
        let Session { work, cache, stop, .. } = self;
        cache.expect(model.identity())?;
        let limits = Limits { vocabulary: encoder.vocabulary_size(), positions: model.max_positions() };
        work.source.fill(sources, limits, First::IfReal)?;
        let mut kv = cache.replace_sources(&work.source.spans)?;
        let sizes = encoder.sizes(&ctx, work.source.extent());
        let mut buffers = sizes.carve(work.activations.take(sizes.total())?);
        let shape = [work.source.len(), encoder.output_dim()];
        let (threads, source) = (&mut work.threads, &work.source);
        ctx.enter(|ctx| -> Result<()> {
            let workspace = StackWorkspace { buffers: buffers.reborrow(), threads, stop };
            encoder.run(ctx, StackInput::of(source), workspace, None)?;
            let states = matrix(buffers.states, shape)?;
            for (i, block) in decoder.blocks.iter().enumerate() {
                stop.check()?;
                block.project_source(ctx, &mut threads.caller.scratch, states, &mut kv.layer(i))?;
            }
            Ok(())
        })?;
        cache.commit_sources(&work.source.spans);
        Ok(SequenceOutput { data: matrix(buffers.states, shape)?, rows: &work.source })
    }

    /// [`Decoder::decode`]: lays out the new rows, runs the decoder on them, and commits them.
    pub(crate) fn decode<'s>(
        &'s mut self,
        model: &(impl Decoder + ?Sized),
        sequences: &[usize],
        tokens: Tokens<'_>,
    ) -> Result<SequenceOutput<'s>> {
        let stack = model.decoder();
        let team = self.team();
        let ctx = self.ctx_for(model.dtype(), &team);
        let Session { work, cache, stop, .. } = self;
        cache.expect(model.identity())?;
        if sequences.len() != tokens.batch() {
            let (found, expected) = (sequences.len(), tokens.batch());
            return Err(RequestError::SequenceCount { what: "number of sequences", found, expected }.into());
        }
        let limits = Limits { vocabulary: stack.vocabulary_size(), positions: model.max_positions() };
        work.rows.fill_after(tokens, limits, First::IfReal, |i| {
            sequences.get(i).and_then(|sequence| cache.committed(*sequence)).unwrap_or_default()
        })?;
        cache.extend(sequences, &work.rows)?;
        let extent = Extent { rows: work.rows.len(), positions: cache.positions_end() };
        let sizes = stack.sizes(&ctx, extent);
        let buffers = sizes.carve(work.activations.take(sizes.total())?);
        let (threads, rows) = (&mut work.threads, &work.rows);
        ctx.enter(|ctx| {
            let (own, cross) = cache.pending()?;
            let cross = cross.map(|cache| CrossInput { states: None, cache });
            let input = StackInput { cache: Some(own), cross, ..StackInput::of(rows) };
            stack.run(ctx, input, StackWorkspace { buffers, threads, stop }, None)
        })?;
        cache.commit();
        work.output(stack)
    }

    /// [`Decoder::logits`]
    pub(crate) fn logits(
        &mut self,
        model: &(impl Decoder + ?Sized),
        rows: MatRef<'_, f32>,
        logits: &mut [f32],
    ) -> Result<()> {
        let team = self.team();
        let ctx = self.ctx_for(model.dtype(), &team);
        model.head().apply(&ctx, &mut self.work.threads.caller.scratch, rows, logits)
    }
}
