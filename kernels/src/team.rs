//! Forks of a forward pass: the calling thread does the work, and threads of the caller's pool help.
//!
//! The pass runs on the thread that calls it, whether that is a thread of the pool or not, and no other work of the pool
//! runs beneath it. Threads of the pool are optional: the pass asks for them by jobs in the pool's queue ([`Team::offer`]),
//! and a job that has not begun delays nothing. A helper that has begun claims pieces of the pass's open regions
//! ([`region`]); between them it spins, since waking a thread takes as long as a product of a small model. It leaves when
//! the pass is over, when it has found nothing for [`MAX_POLLS`] polls, when more threads compute than there are
//! processors, or after [`SHIFT`], so that other jobs of the pool get their turn; the pass then asks again.
//!
//! Jobs that have not begun are counted and serve later passes of the team, so a busy pool holds at most one job for each
//! of its threads from one team, however many passes end before they begin.

mod region;
mod sync;

use core::hint::spin_loop;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rayon::ThreadPool;

use region::Slot;

/// Polls without finding work, of about a microsecond each, before a helper leaves.
const MAX_POLLS: usize = 1000;

/// Spin-loop hints between two polls.
const SPINS_PER_POLL: usize = 4;

/// How long a helper stays before it gives other jobs of the pool a turn.
const SHIFT: Duration = Duration::from_millis(5);

/// The pool of a [`Team`]: borrowed, or shared with the caller.
#[derive(Debug, Clone)]
enum Pool<'p> {
    Borrowed(&'p ThreadPool),
    Shared(Arc<ThreadPool>),
}

/// The threads of a pool that may help a stream of forward passes, from one pass to the next.
///
/// A clone is the same team. Passes of several threads may use one team at once.
#[derive(Debug, Clone)]
pub struct Team<'p> {
    pool: Pool<'p>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    slots: Box<[Slot]>,
    /// Passes that are running.
    passes: AtomicUsize,
    /// Regions that are open: a hint for helpers, which look at the slots only if there are any.
    open: AtomicUsize,
    /// Jobs in the pool's queue that have not begun.
    offered: AtomicUsize,
    /// Helpers that have begun and not left.
    present: AtomicUsize,
}

impl<'p> Team<'p> {
    /// The threads of a pool that lives as long as the team.
    pub fn new(pool: &'p ThreadPool) -> Team<'p> {
        Team { state: Arc::new(State::new(pool.current_num_threads())), pool: Pool::Borrowed(pool) }
    }

    /// The threads of a pool that the team shares with the caller.
    pub fn shared(pool: Arc<ThreadPool>) -> Team<'static> {
        Team { state: Arc::new(State::new(pool.current_num_threads())), pool: Pool::Shared(pool) }
    }

    /// Number of threads that may work on a pass, the calling one included.
    pub fn threads(&self) -> usize {
        self.pool().current_num_threads()
    }

    fn pool(&self) -> &ThreadPool {
        match &self.pool {
            Pool::Borrowed(pool) => pool,
            Pool::Shared(pool) => pool,
        }
    }

    /// Runs a pass: helpers are asked for, and leave when it is over.
    pub(crate) fn pass<R>(&self, work: impl FnOnce() -> R) -> R {
        let _computing = Counted::new(&COMPUTING);
        let _pass = Counted::new(&self.state.passes);
        self.offer();
        work()
    }

    /// Runs `task` on each of `0..len`. Must be called within a pass.
    pub(crate) fn for_each(&self, len: usize, task: &(dyn Fn(usize) + Sync)) {
        if len > 1 && self.threads() > 1 {
            self.offer();
            let _open = Counted::new(&self.state.open);
            if self.state.slots.iter().any(|slot| slot.run(len, task)) {
                return;
            }
        }
        (0..len).for_each(task);
    }

    /// Runs `a` and `b`. Must be called within a pass.
    pub(crate) fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        let (a, b) = (Once::new(a), Once::new(b));
        self.for_each(2, &|i| if i == 0 { a.run() } else { b.run() });
        (a.result(), b.result())
    }

    /// Puts a job into the pool's queue for each helper that is missing, as far as there are processors for them.
    fn offer(&self) {
        let state = &self.state;
        let missing = |helpers: usize| {
            (self.threads() - 1)
                .saturating_sub(helpers)
                .min(processors().saturating_sub(COMPUTING.load(Ordering::Relaxed)))
        };
        let offered = state.offered.load(Ordering::Relaxed);
        let present = state.present.load(Ordering::Relaxed);
        for _ in offered..offered.max(missing(present)) {
            state.offered.fetch_add(1, Ordering::Relaxed);
            let state = Arc::clone(state);
            self.pool().spawn(move || state.help());
        }
    }
}

impl State {
    fn new(threads: usize) -> State {
        // A thread that runs a piece may open a region of its own, so as many may be open as there are threads, and some
        // more where regions are nested on one thread. A region that finds no slot is run by its thread alone.
        let slots = (0..2 * threads).map(|_| Slot::new()).collect();
        let zero = || AtomicUsize::new(0);
        State { slots, passes: zero(), open: zero(), offered: zero(), present: zero() }
    }

    /// What a thread of the pool does for the team.
    fn help(&self) {
        let _present = Counted::new(&self.present);
        self.offered.fetch_sub(1, Ordering::Relaxed);
        let _computing = Counted::new(&COMPUTING);
        let begun = Instant::now();
        let mut polls = 0;
        while self.passes.load(Ordering::Relaxed) > 0
            && polls < MAX_POLLS
            && begun.elapsed() < SHIFT
            && COMPUTING.load(Ordering::Relaxed) <= processors()
        {
            if self.open.load(Ordering::Relaxed) > 0 && self.slots.iter().any(Slot::visit) {
                polls = 0;
                continue;
            }
            polls += 1;
            // Yields to the core's other hardware thread, and to other threads that want this one.
            (0..SPINS_PER_POLL).for_each(|_| spin_loop());
            thread::yield_now();
        }
    }
}

/// A function that one thread calls, and its result.
struct Once<F, R>(Mutex<Call<F, R>>);

enum Call<F, R> {
    Waiting(F),
    Running,
    Done(R),
}

impl<R, F: FnOnce() -> R> Once<F, R> {
    fn new(function: F) -> Once<F, R> {
        Once(Mutex::new(Call::Waiting(function)))
    }

    fn run(&self) {
        let mut call = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Call::Waiting(function) = core::mem::replace(&mut *call, Call::Running) {
            *call = Call::Done(function());
        }
    }

    fn result(self) -> R {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Call::Done(result) => result,
            Call::Waiting(_) | Call::Running => unreachable!("a region runs each piece"),
        }
    }
}

/// Threads of this process that run a forward pass or help one. Where there are more than processors, another helper
/// would take its time from a thread that computes. No result depends on it.
static COMPUTING: AtomicUsize = AtomicUsize::new(0);

/// The number of processors that this process may use.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Counts a thread while it lives.
struct Counted<'c>(&'c AtomicUsize);

impl Counted<'_> {
    fn new(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
