//! The working memory of one stream of requests.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rachis_kernels::{Ctx, MatRef, Scratch, Span};

use crate::cache::KvCache;
use crate::config::DtypePolicy;
use crate::error::{Result, request, try_reserve};
use crate::layers::{Own, Stack, Threads, matrix, matrix_len};
use crate::stop::Stop;
use crate::tokens::Rows;

/// What a forward pass keeps between calls: the context it runs in, its working memory, and the KV cache of the
/// sequences that are being decoded. Products are in the precision of the model's dtype policy, unless the context was
/// given another ([`Ctx::with_precision`]).
///
/// A model is shared and read only; each thread that runs it has a session of its own. Memory grows to what the
/// largest request needs and is then reused: after [`Session::reserve`] for a size, requests up to that size
/// allocate nothing.
#[derive(Debug)]
pub struct Session<'p> {
    ctx: Ctx<'p>,
    /// The context as the model of a call takes it.
    pub(crate) call: Ctx<'p>,
    pub(crate) work: Workspace,
    pub(crate) cache: KvCache,
    pub(crate) stop: Stop,
}

/// The buffers of a session.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Activations between kernels.
    pub(crate) hidden: Scratch,
    /// What kernels need within a call, and the sequences in a layer now.
    pub(crate) threads: Threads,
    pub(crate) rows: Rows,
    /// Of the sequences that a decoder attends to, with the rows of both.
    pub(crate) source: Rows,
    pub(crate) cross: Vec<Span>,
    /// The rows' segments.
    pub(crate) segments: Vec<u32>,
}

impl Workspace {
    /// What a stack has left at the start of the activations for the rows of the call.
    pub(crate) fn output(&mut self, stack: &Stack) -> Result<SequenceOutput<'_>> {
        let shape = [self.rows.len(), stack.output_dim()];
        let x = self.hidden.take(matrix_len(shape))?;
        Ok(SequenceOutput { data: matrix(x, shape)?, rows: &self.rows })
    }
}

/// The working memory that a model needs for requests up to some size, in elements of f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Activations between kernels.
    pub(crate) hidden: usize,
    /// Scratch within kernels.
    pub(crate) scratch: usize,
    /// The same for each of so many other threads, where they take sequences through layers by themselves.
    pub(crate) apart: (usize, usize),
}

impl Plan {
    /// For a stack and so many rows, at positions less than `end`.
    pub(crate) fn of(stack: &Stack, ctx: &Ctx, (rows, end): (usize, usize)) -> Plan {
        let hidden = stack.sizes(ctx, (rows, end)).iter().sum();
        Plan { hidden, scratch: stack.scratch_len(ctx, rows), apart: stack.apart(ctx, (rows, end)) }
    }

    /// Bytes of activations and kernel scratch.
    pub fn bytes(&self) -> usize {
        let line = |len: usize| len.div_ceil(16).saturating_mul(64);
        let (others, apart) = self.apart;
        let threads = line(self.scratch).saturating_add(line(apart).saturating_mul(others));
        line(self.hidden).saturating_add(threads)
    }
}

/// A model that runs in a [`Session`].
pub trait Model {
    /// What it computes in, unless a session's context was given a precision.
    fn dtype(&self) -> DtypePolicy;

    /// The working memory for `batch` sequences of up to `seq` tokens in the given context.
    ///
    /// # Errors
    /// When the size is beyond the model's limits.
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan>;
}

impl<'p> Session<'p> {
    /// A session without working memory yet.
    pub fn new(ctx: Ctx<'p>) -> Session<'p> {
        let mut work = Workspace::default();
        work.threads.others.resize_with(ctx.threads() - 1, Own::default);
        Session { ctx, call: ctx, work, cache: KvCache::default(), stop: Stop::default() }
    }

    /// The context that requests run in.
    pub fn ctx(&self) -> &Ctx<'p> {
        &self.ctx
    }

    /// Calls from now on are of a model with this policy.
    pub(crate) fn compute_in(&mut self, dtype: DtypePolicy) {
        self.call = self.ctx.with_default_precision(dtype.precision());
    }

    /// Lets every call from now on return [`Error::Cancelled`](crate::Error::Cancelled) once the time has come. It is
    /// looked at before each layer, and in large batches within it: a call ends at most one layer later. What sequences
    /// had before the call they have still.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.stop.deadline = deadline;
    }

    /// The same once the flag is set, by whichever thread.
    pub fn set_cancel(&mut self, cancel: Option<Arc<AtomicBool>>) {
        self.stop.cancel = cancel;
    }

    /// Allocates what requests of up to `batch` sequences of up to `seq` tokens need.
    ///
    /// # Errors
    /// When the size is beyond the model's limits, or memory cannot be had.
    pub fn reserve(&mut self, model: &(impl Model + ?Sized), batch: usize, seq: usize) -> Result<()> {
        let plan = model.plan(&self.ctx, batch, seq)?;
        self.reserve_plan(plan, (batch, seq))
    }

    pub(crate) fn reserve_plan(&mut self, plan: Plan, (batch, seq): (usize, usize)) -> Result<()> {
        let Workspace { hidden, threads, rows, source, cross, segments } = &mut self.work;
        hidden.reserve(plan.hidden)?;
        threads.caller.scratch.reserve(plan.scratch)?;
        let (others, apart) = plan.apart;
        for own in threads.others.iter_mut().take(others) {
            own.scratch.reserve(apart)?;
            own.spans.try_reserve(batch)?;
        }
        threads.caller.spans.try_reserve(batch)?;
        rows.try_reserve(batch, seq)?;
        source.try_reserve(batch, seq)?;
        try_reserve(cross, batch)?;
        try_reserve(segments, batch.saturating_mul(seq))
    }

    /// Bytes of keys and values held now.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Bytes of activations and kernel scratch held now.
    pub fn workspace_bytes(&self) -> usize {
        let Threads { caller, others } = &self.work.threads;
        let scratch = others.iter().chain([caller]).map(|own| own.scratch.bytes()).sum::<usize>();
        self.work.hidden.bytes() + scratch
    }
}

/// The most rows of a request of `batch` sequences of up to `seq` tokens, of which a model takes `most`.
pub(crate) fn rows(batch: usize, (seq, most): (usize, usize)) -> Result<usize> {
    if seq > most {
        return Err(request("sequence length", seq, format!("at most {most}")));
    }
    // Empty sequences count, too: there is something to keep for each.
    let rows = batch.checked_mul(seq.max(1)).filter(|rows| u32::try_from(*rows).is_ok());
    rows.map(|_| batch * seq).ok_or_else(|| request("batch", batch, "at most 2^32 - 1 tokens in all"))
}

/// Called with the number of a layer and its output; 0 is the input of the first layer.
pub type Observer<'o> = &'o mut (dyn FnMut(usize, SequenceOutput<'_>) + Send);

/// One of the two stacks of layers of an encoder-decoder model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tower {
    /// Reads the source.
    Encoder,
    /// Writes, attending to the encoder's output.
    Decoder,
}

/// An [`Observer`] of both towers.
pub type TowerObserver<'o> = &'o mut (dyn FnMut(Tower, usize, SequenceOutput<'_>) + Send);

/// Pieces of the given lengths, behind one another in `memory`, which grows if need be.
pub(crate) fn carve<const N: usize>(memory: &mut Scratch, lengths: [usize; N]) -> Result<[&mut [f32]; N]> {
    let all = lengths.iter().fold(0usize, |all, len| all.saturating_add(*len));
    let mut rest = memory.take(all)?;
    Ok(lengths.map(|len| {
        let piece;
        (piece, rest) = std::mem::take(&mut rest).split_at_mut(len);
        piece
    }))
}

/// A vector for every real token of a batch, as rows behind one another.
#[derive(Debug, Clone, Copy)]
pub struct SequenceOutput<'s> {
    pub(crate) data: MatRef<'s, f32>,
    pub(crate) rows: &'s Rows,
}

impl<'s> SequenceOutput<'s> {
    /// Number of sequences.
    pub fn batch(&self) -> usize {
        self.rows.spans.len()
    }

    /// Width of a vector.
    pub fn hidden_dim(&self) -> usize {
        self.data.cols()
    }

    /// The vectors of sequence `i`, one row for each real token in order.
    ///
    /// # Panics
    /// When `i >= batch`.
    pub fn sequence(&self, i: usize) -> MatRef<'s, f32> {
        let span = &self.rows.spans[i];
        self.data.rows_range(span.keys.clone())
    }

    /// The positions in their sequence of the tokens of sequence `i`.
    ///
    /// # Panics
    /// When `i >= batch`.
    pub fn positions(&self, i: usize) -> &'s [u32] {
        &self.rows.positions[self.rows.spans[i].keys.clone()]
    }

    /// Scatters the vectors to where their tokens stand in the caller's ids: `out` is `[ids, width]`, which for
    /// a padded batch is `[batch, seq, width]`. Rows of padding become zero.
    ///
    /// # Errors
    /// When `out` has another length than ids times width.
    pub fn write_padded(&self, out: &mut [f32]) -> Result<()> {
        let width = self.hidden_dim();
        let expected = self.rows.total.saturating_mul(width);
        if out.len() != expected {
            return Err(request("length of the output", out.len(), expected));
        }
        out.fill(0.0);
        for span in &self.rows.spans {
            for row in span.keys.clone() {
                let at = self.rows.source[row] as usize * width;
                out[at..at + width].copy_from_slice(self.data.row(row));
            }
        }
        Ok(())
    }
}
