//! A stack: embeddings, layers, and what follows the last of them. An encoder or a decoder is one stack.

mod input;

use core::ops::Range;

use rachis_kernels::Ctx;

pub(crate) use input::{CrossInput, StackInput};

use crate::error::Result;
use crate::layers::block::{Block, BlockConfig, BlockNames};
use crate::layers::buffers::{
    BlockBuffers, LayerBuffers, RowSizes, StackBuffers, StackSizes, StackWorkspace,
};
use crate::layers::embeddings::Embeddings;
use crate::layers::micro_batch::{
    MicroBatchSpans, Share, ThreadScratch, Threads, divide, micro_batches, rows_in_flight, worker_count,
};
use crate::layers::positions::{Positions, QueryKeyPositions};
use crate::layers::{Epilogue, Linear, Norm, matrix, matrix_len, matrix_mut};
use crate::session::{Extent, Observer, SequenceOutput, WorkerPlan};
use crate::trace;
use crate::weights::{Naming, Scope, Tensors};

/// An encoder or a decoder.
#[derive(Debug)]
pub struct Stack {
    pub(crate) embeddings: Embeddings,
    pub(crate) positions: Positions,
    pub(crate) blocks: Vec<Block>,
    pub(crate) config: BlockConfig,
    /// Of the last layer's output.
    pub(crate) norm: Option<Norm>,
    /// From the width of the layers to that of the output.
    pub(crate) projection: Option<Linear>,
}

/// The layers of a stack that share a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerRange {
    pub(crate) name: &'static str,
    /// Number of the first layer. KerasHub numbers the decoder's layers on from the encoder's.
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// The contexts of a pass.
#[derive(Clone, Copy)]
struct PassContexts<'c> {
    /// With all threads.
    all: &'c Ctx<'c>,
    /// Within a share: without the pool where each thread has a share of its own.
    share: &'c Ctx<'c>,
}

/// Work on a micro-batch of rows, whose spans may be kept in the last argument.
type MicroBatchTask<'t> = &'t (
        dyn Fn(&mut StackInput<'_>, &Range<usize>, BlockBuffers<'_>, &mut MicroBatchSpans) -> Result<()>
            + Sync
    );

impl Stack {
    /// Loads layers. A Hugging Face file must have no more layers of this name.
    pub(crate) fn blocks(
        scope: &Scope<'_>,
        layers: LayerRange,
        names: &BlockNames,
        config: BlockConfig,
    ) -> Result<Vec<Block>> {
        let LayerRange { name, first, count } = layers;
        let end = first + count;
        if scope.naming() == Naming::HuggingFace {
            scope.layer(name, end).expect_none()?;
        }
        (first..end).map(|i| Block::load(&scope.layer(name, i), names, config)).collect()
    }

    /// Adds the tensors to save, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m Stack, tensors: &mut Tensors<'m>) {
        self.embeddings.save(&like.embeddings, tensors);
        if let (Positions::Relative(bias), Positions::Relative(like)) = (&self.positions, &like.positions) {
            bias.save(like, tensors);
        }
        self.blocks.iter().zip(&like.blocks).for_each(|(block, like)| block.save(like, tensors));
        if let (Some(norm), Some(like)) = (&self.norm, &like.norm) {
            norm.save(like, tensors);
        }
        if let (Some(projection), Some(like)) = (&self.projection, &like.projection) {
            projection.save(like, tensors);
        }
    }

    /// Rows of the token table.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.embeddings.tokens.table().rows()
    }

    /// Width of the layers.
    pub(crate) fn hidden_dim(&self) -> usize {
        self.config.attention.hidden
    }

    /// Width of the output.
    pub(crate) fn output_dim(&self) -> usize {
        if self.projection.is_some() { self.embeddings.width() } else { self.hidden_dim() }
    }

    /// Lengths of the buffers for calls of this extent.
    pub(crate) fn sizes(&self, ctx: &Ctx, Extent { rows, positions }: Extent) -> StackSizes {
        let (in_flight, row) = (rows_in_flight(ctx.threads(), rows, positions), self.row_sizes());
        let states = rows * row.states;
        StackSizes {
            // At the end they hold the output, which may be wider than the layers.
            states: states.max(matrix_len([rows, self.embeddings.width()])),
            context: in_flight * row.context,
            // The last projection reads all rows from there.
            sum: if self.projection.is_some() { states } else { in_flight * row.sum },
            intermediate: in_flight * row.intermediate,
            positions: self.positions.working_len(rows, positions),
        }
    }

    fn row_sizes(&self) -> RowSizes {
        let row = Block::row_sizes(&self.config);
        // Token vectors lie there before they are projected to the width of the layers.
        let intermediate = row.intermediate.max(matrix_len([1, self.embeddings.width()]));
        RowSizes { intermediate, ..row }
    }

    /// Elements of scratch that a call on `rows` rows needs, with up to as many rows in the sources.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        let blocks = self.blocks.first().map_or(0, |block| block.scratch_len(ctx, rows));
        let projections = self.embeddings.projection.iter().chain(&self.projection);
        projections.map(|projection| projection.scratch_len(ctx, rows, 0)).fold(blocks, usize::max)
    }

    /// The scratch of the threads that may take shares of sequences beside the calling thread.
    pub(crate) fn worker_plan(&self, ctx: &Ctx, extent: Extent) -> WorkerPlan {
        let rows = rows_in_flight(1, extent.rows, extent.positions);
        match worker_count(ctx, extent, self.hidden_dim()) {
            0 => WorkerPlan::NONE,
            count => WorkerPlan { count, scratch: self.scratch_len(&ctx.with_pool(None), rows) },
        }
    }

    /// Runs the layers. The output is the [`matrix`](matrix()) `[rows, output_dim]` at the start of the states.
    pub(crate) fn run(
        &self,
        ctx: &Ctx,
        mut input: StackInput<'_>,
        workspace: StackWorkspace<'_>,
        mut observer: Option<Observer<'_>>,
    ) -> Result<()> {
        let StackWorkspace { buffers, threads, stop } = workspace;
        let StackBuffers { states: all_states, mut layer, positions } = buffers;
        let (rows, hidden) = (input.rows, self.hidden_dim());
        let count = rows.len();
        let _span = trace::stack(count);
        let longest = rows.spans.iter().map(|span| span.queries.len()).max().unwrap_or(0);
        let Threads { caller, workers } = threads;
        let divided = input.is_independent() && divide(&rows.spans, hidden, workers);
        let (share_ctx, workers) =
            if divided { (&ctx.with_pool(None), &mut workers[..]) } else { (ctx, &mut [][..]) };
        let contexts = PassContexts { all: ctx, share: share_ctx };
        let states_len = count * self.row_sizes().states;
        let states = &mut all_states[..states_len];
        let mut share =
            Share { spans: &rows.spans, longest, states, layer: layer.reborrow(), caller, workers };

        self.for_each_micro_batch(contexts, &mut input, share.reborrow(), &|input, rows, buffers, _| {
            self.embeddings.apply(share_ctx, input.rows, rows.clone(), input.segments, buffers)
        })?;
        let keys = input.cache.as_ref().map_or(&rows.positions[..], |cache| cache.positions);
        let prepared =
            self.positions.prepare(QueryKeyPositions { queries: &rows.positions, keys }, positions)?;

        for i in 0..=self.blocks.len() {
            stop.check()?;
            if let Some(observe) = observer.as_mut() {
                observe(i, SequenceOutput { data: matrix(share.states, [count, hidden])?, rows });
            }
            let Some(block) = self.blocks.get(i) else { break };
            let _span = trace::layer(i);
            self.for_each_micro_batch(
                contexts,
                &mut input,
                share.reborrow(),
                &|input, rows, buffers, spans| {
                    stop.check()?;
                    let positions = prepared.of(rows, input.key_rows());
                    let (args, cross) = input.attention_args(i, rows, positions, self.config.mask, spans);
                    block.apply(share_ctx, args, cross, buffers)
                },
            )?;
        }

        if let Some(norm) = &self.norm {
            self.for_each_micro_batch(contexts, &mut input, share, &|_, rows, buffers, _| {
                let BlockBuffers { states, sum, .. } = buffers;
                // The norm of a row cannot be written where the row is.
                sum[..states.len()].copy_from_slice(states);
                let shape = [rows.len(), hidden];
                norm.apply(share_ctx, matrix(sum, shape)?, matrix_mut(states, shape)?)
            })?;
        }
        if let Some(projection) = &self.projection {
            let scratch = &mut caller.scratch;
            let sum = &mut layer.sum[..states_len];
            sum.copy_from_slice(&all_states[..states_len]);
            let out = matrix_mut::<f32>(all_states, [count, self.output_dim()])?;
            projection.apply(ctx, scratch, matrix(sum, [count, hidden])?, Epilogue::none(), out)?;
        }
        Ok(())
    }

    /// Runs `task` on each micro-batch of a share's rows. Where several threads have shares, they work at the same
    /// time.
    fn for_each_micro_batch(
        &self,
        contexts: PassContexts<'_>,
        input: &mut StackInput<'_>,
        share: Share<'_>,
        task: MicroBatchTask<'_>,
    ) -> Result<()> {
        let sizes = self.row_sizes();
        let (share, far) = share.halves(sizes);
        if let Some(far) = far {
            debug_assert!(input.is_independent(), "shares of a cache would be written by several threads");
            let (rows, segments) = (input.rows, input.segments);
            let half = |share| {
                let input = &mut StackInput { segments, ..StackInput::of(rows) };
                self.for_each_micro_batch(contexts, input, share, task)
            };
            let (near, far) = contexts.all.join(|| half(share), || half(far));
            return near.and(far);
        }
        let start = share.start();
        let Share { spans, states, layer, caller, .. } = share;
        let LayerBuffers { context, sum, intermediate } = layer;
        for rows in micro_batches(contexts.share, spans) {
            let states = &mut states[(rows.start - start) * sizes.states..(rows.end - start) * sizes.states];
            let ThreadScratch { scratch, spans, .. } = &mut *caller;
            let buffers = BlockBuffers { rows: rows.len(), states, context, sum, intermediate, scratch };
            task(input, &rows, buffers, spans)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
