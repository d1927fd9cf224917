//! The working memory of a session, and how much of it a model needs.

use rachis_kernels::{Ctx, Scratch, Span};

use super::{RowLayout, SequenceOutput};
use crate::error::{RequestError, Result};
use crate::layers::{Stack, Threads, matrix, matrix_len};

/// The buffers of a session. Their contents are unspecified between calls.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Activations between kernels.
    pub(crate) activations: Scratch,
    /// The scratch memory of each thread.
    pub(crate) threads: Threads,
    /// The rows of the sequences that are computed.
    pub(crate) rows: RowLayout,
    /// The rows of the source sequences that a decoder attends to.
    pub(crate) source: RowLayout,
    /// For each sequence, its rows and the rows of its source.
    pub(crate) cross_spans: Vec<Span>,
    /// The segment id of each row.
    pub(crate) segments: Vec<u32>,
}

impl Workspace {
    /// The output that a stack left at the start of the activations for the rows of the call.
    pub(crate) fn output(&mut self, stack: &Stack) -> Result<SequenceOutput<'_>> {
        let shape = [self.rows.len(), stack.output_dim()];
        let states = self.activations.take(matrix_len(shape))?;
        Ok(SequenceOutput { data: matrix(states, shape)?, rows: &self.rows })
    }
}

/// The rows of a call, and a bound on their positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) rows: usize,
    /// All positions, of queries and of keys, are less than this.
    pub(crate) positions: usize,
}

impl Extent {
    /// The extent of `batch` sequences of up to `seq` tokens, for a model of `max_positions` positions.
    pub(crate) fn of_batch(batch: usize, seq: usize, max_positions: usize) -> Result<Extent> {
        if seq > max_positions {
            return Err(RequestError::PlannedLength { found: seq, max: max_positions }.into());
        }
        // Empty sequences count as one row each: a span is kept for each of them.
        let rows = batch.checked_mul(seq.max(1)).filter(|rows| u32::try_from(*rows).is_ok());
        match rows {
            Some(_) => Ok(Extent { rows: batch * seq, positions: seq }),
            None => Err(RequestError::BatchSize { found: batch }.into()),
        }
    }
}

/// The working memory that a model needs for requests up to some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkspacePlan {
    /// Elements of f32 for activations between kernels.
    pub(crate) activations: usize,
    /// Elements of f32 for scratch within kernels, on the calling thread.
    pub(crate) scratch: usize,
    /// Scratch of the other threads.
    pub(crate) workers: WorkerPlan,
}

/// The scratch memory of threads that take sequences through layers beside the calling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerPlan {
    /// Number of threads.
    pub(crate) count: usize,
    /// Elements of f32 of each.
    pub(crate) scratch: usize,
}

impl WorkerPlan {
    /// No threads beside the calling one.
    pub(crate) const NONE: WorkerPlan = WorkerPlan { count: 0, scratch: 0 };
}

impl WorkspacePlan {
    /// The plan of a stack for calls of this extent.
    pub(crate) fn of(stack: &Stack, ctx: &Ctx, extent: Extent) -> WorkspacePlan {
        WorkspacePlan {
            activations: stack.sizes(ctx, extent).total(),
            scratch: stack.scratch_len(ctx, extent.rows),
            workers: stack.worker_plan(ctx, extent),
        }
    }

    /// Bytes of activations and kernel scratch.
    pub fn bytes(&self) -> usize {
        let bytes = |len: usize| len.div_ceil(16).saturating_mul(64);
        let workers = bytes(self.workers.scratch).saturating_mul(self.workers.count);
        bytes(self.activations).saturating_add(bytes(self.scratch).saturating_add(workers))
    }
}

/// Takes the first `len` elements from the front of `memory`.
///
/// # Panics
/// When `memory` is shorter: callers take it at the sum of all lengths.
pub(crate) fn take_front<'w>(memory: &mut &'w mut [f32], len: usize) -> &'w mut [f32] {
    let (front, rest) = std::mem::take(memory).split_at_mut(len);
    *memory = rest;
    front
}
