//! The working memory of one stream of requests.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rachis_kernels::Ctx;

use crate::config::DtypePolicy;
use crate::error::{Result, try_reserve};
use crate::layers::{Own, Threads};

mod cache;
mod decoding;
mod output;
mod row_layout;
mod stop;
mod tokens;
mod workspace;

pub use cache::{CacheDtype, CacheOptions};
pub(crate) use cache::{CacheLayout, CrossKeys, Kept, KeptKeys, KvCache};
pub use output::SequenceOutput;
pub(crate) use row_layout::{First, RowLayout, Start};
pub(crate) use stop::Stop;
pub use tokens::Tokens;
pub use workspace::Plan;
pub(crate) use workspace::{Workspace, carve, rows};

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
