//! Sessions: what one stream of requests needs between and during calls.
//!
//! [`Tokens`] become the rows of a [`RowLayout`]; a stack computes them in a [`Workspace`]; a decoder keeps keys and
//! values in the [`KvCache`]; the caller reads a [`SequenceOutput`].

mod cache;
mod decoding;
mod identity;
mod output;
mod row_layout;
mod stop;
mod tokens;
mod workspace;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rachis_kernels::{Ctx, Dtype, Team, ThreadPool};

pub use cache::CacheOptions;
pub(crate) use cache::{CacheLayout, CachedKv, CrossCache, CrossKv, KvCache, SelfCache};
pub use identity::Identity;
pub use output::{Observer, SequenceOutput, Tower, TowerObserver};
pub(crate) use row_layout::{First, Limits, Prefix, RowLayout};
pub(crate) use stop::Stop;
pub use tokens::Tokens;
pub use workspace::WorkspacePlan;
pub(crate) use workspace::{Extent, WorkerPlan, Workspace, take_front};

use crate::backbone::private::Sealed;
use crate::error::{Result, try_reserve};
use crate::layers::{ThreadScratch, Threads};

/// The state of one stream of requests: the context that they run in, working memory, and the KV cache of the
/// sequences that are being decoded.
///
/// Matrix products run in the precision of the model's dtype, unless the context was given a precision with
/// [`Ctx::with_precision`].
///
/// A model is shared and read only; each thread that runs it has its own session. Working memory grows to the size of
/// the largest request and is then reused: after [`Session::reserve`] for a size, requests up to that size allocate
/// nothing.
#[derive(Debug)]
pub struct Session<'p> {
    ctx: Ctx<'p>,
    /// The helpers of the context's pool, kept from call to call.
    team: Option<Team<'p>>,
    pub(crate) work: Workspace,
    pub(crate) cache: KvCache,
    pub(crate) stop: Stop,
}

/// A model that runs in a [`Session`]: one of the backbones of this crate.
pub trait Model: Sealed {
    /// The dtype of computation. A precision of the session's context overrides it.
    fn dtype(&self) -> Dtype;

    /// The working memory for `batch` sequences of up to `seq` tokens in this context.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) when the size is beyond the model's limits.
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<WorkspacePlan>;
}

impl<'p> Session<'p> {
    /// A session without working memory.
    pub fn new(ctx: Ctx<'p>) -> Session<'p> {
        Session::with_team(ctx, ctx.team())
    }

    /// A session that shares its thread pool with the caller: it borrows nothing, so a struct may own both.
    pub fn with_shared_pool(ctx: Ctx<'static>, pool: Arc<ThreadPool>) -> Session<'static> {
        Session::with_team(ctx, Some(Team::shared(pool)))
    }

    fn with_team(ctx: Ctx<'p>, team: Option<Team<'p>>) -> Session<'p> {
        let mut work = Workspace::default();
        let workers = team.as_ref().map_or(0, |team| team.threads() - 1);
        work.threads.workers.resize_with(workers, ThreadScratch::default);
        Session { ctx, team, work, cache: KvCache::default(), stop: Stop::default() }
    }

    /// The context that requests run in.
    pub fn ctx(&self) -> &Ctx<'p> {
        &self.ctx
    }

    /// The helpers of the session, for [`Session::ctx_for`].
    pub(crate) fn team(&self) -> Option<Team<'p>> {
        self.team.clone()
    }

    /// The context for a model of this dtype: the session's, in the dtype's precision unless it has one already, with the
    /// session's helpers.
    pub(crate) fn ctx_for<'t>(&self, dtype: Dtype, team: &'t Option<Team<'_>>) -> Ctx<'t>
    where
        'p: 't,
    {
        self.ctx.with_default_precision(dtype.into()).with_team(team.as_ref())
    }

    /// Sets the time after which calls return [`Error::DeadlineExceeded`](crate::Error::DeadlineExceeded); `None` is
    /// no limit.
    ///
    /// The clock is read before each layer, and in large batches within a layer: a call ends at most one layer after
    /// the deadline. Sequences in the KV cache stay as they were before the call.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.stop.deadline = deadline;
    }

    /// Sets a flag that any thread may raise: calls then return [`Error::Cancelled`](crate::Error::Cancelled).
    ///
    /// The flag is read as often as the clock is for [`Session::set_deadline`], and sequences stay as they were, too.
    pub fn set_cancel(&mut self, cancel: Option<Arc<AtomicBool>>) {
        self.stop.cancel = cancel;
    }

    /// Allocates the working memory for requests of up to `batch` sequences of up to `seq` tokens.
    ///
    /// # Errors
    /// When the size is beyond the model's limits, or the memory could not be allocated.
    pub fn reserve(&mut self, model: &(impl Model + ?Sized), batch: usize, seq: usize) -> Result<()> {
        let plan = model.plan(&self.ctx.with_team(self.team.as_ref()), batch, seq)?;
        self.reserve_plan(plan, batch, seq)
    }

    pub(crate) fn reserve_plan(&mut self, plan: WorkspacePlan, batch: usize, seq: usize) -> Result<()> {
        let Workspace { activations, threads, rows, source, cross_spans, segments } = &mut self.work;
        activations.reserve(plan.activations)?;
        threads.caller.scratch.reserve(plan.scratch)?;
        for worker in threads.workers.iter_mut().take(plan.workers.count) {
            worker.scratch.reserve(plan.workers.scratch)?;
            worker.spans.try_reserve(batch)?;
        }
        threads.caller.spans.try_reserve(batch)?;
        rows.try_reserve(batch, seq)?;
        source.try_reserve(batch, seq)?;
        try_reserve(cross_spans, batch)?;
        try_reserve(segments, batch.saturating_mul(seq))
    }

    /// Bytes of memory that the KV cache holds.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Bytes of activations and kernel scratch that the session holds.
    pub fn workspace_bytes(&self) -> usize {
        let Threads { caller, workers } = &self.work.threads;
        let scratch = workers.iter().chain([caller]).map(|thread| thread.scratch.bytes()).sum::<usize>();
        self.work.activations.bytes() + scratch
    }
}
