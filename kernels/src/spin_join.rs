//! Fork and join on a rayon pool whose threads spin between forks instead of going to sleep.
//!
//! A thread of a pool that finds nothing to do goes to sleep after some ten microseconds, and waking it takes at least as
//! long: as long as a product of a small model. So during a forward pass waiting threads spin: those without work poll for
//! forks of the pass, and a thread that waits for the other half of its fork polls for its end. After [`MAX_POLLS`] polls
//! without success the rest is left to the pool.
//!
//! Spinning threads do not take up other work that is queued in the same pool, for which the forward pass would have to
//! wait.

use core::hint::spin_loop;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread;

use rayon::Yield;

/// Polls, of about a microsecond each, before a thread stops spinning.
const MAX_POLLS: usize = 1000;

/// Spin-loop hints between two polls.
const SPINS_PER_POLL: usize = 4;

/// The number of forks of a forward pass whose second half no thread has taken yet.
#[derive(Debug, Default)]
pub(crate) struct PendingJoins(AtomicUsize);

/// Runs `work` on this thread of a pool, while `helpers` other threads of the pool poll for its forks.
pub(crate) fn with_spinning_helpers<R: Send>(
    helpers: usize,
    work: impl FnOnce(&PendingJoins) -> R + Send,
) -> R {
    let pass = ForwardPass::default();
    let work = || {
        let result = {
            let _over = OnDrop(|| pass.over.store(true, Ordering::Release));
            work(&pass.pending)
        };
        poll_while(|| pass.polling.load(Ordering::Acquire) > 0);
        result
    };
    if helpers == 0 { work() } else { rayon::join(work, || pass.help(helpers)).0 }
}

/// A forward pass as its helpers see it.
#[derive(Default)]
struct ForwardPass {
    pending: PendingJoins,
    /// Threads that poll.
    polling: AtomicUsize,
    over: AtomicBool,
}

impl ForwardPass {
    /// Lets `threads` threads of the pool poll for forks until the pass is over.
    fn help(&self, threads: usize) {
        if threads > 1 {
            rayon::join(|| self.poll(), || self.help(threads - 1));
        } else {
            self.poll();
        }
    }

    fn poll(&self) {
        self.polling.fetch_add(1, Ordering::Relaxed);
        let _gone = OnDrop(|| _ = self.polling.fetch_sub(1, Ordering::Release));
        let worked =
            || self.pending.0.load(Ordering::Relaxed) > 0 && rayon::yield_now() == Some(Yield::Executed);
        let over = || self.over.load(Ordering::Acquire);
        // The count of polls starts again after each piece of work.
        while poll_while(|| !over() && !worked()) && !over() {}
    }
}

/// Runs `a` and `b`; `b` on another thread, if one takes it before `a` ends. Must be called on a thread of a pool.
pub(crate) fn join<A: Send, B: Send>(
    pending: &PendingJoins,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    const BEGUN: u8 = 1;
    const OVER: u8 = 2;
    let state = AtomicU8::new(0);
    let run_a = || {
        let a = a();
        poll_while(|| state.load(Ordering::Acquire) == BEGUN);
        a
    };
    let run_b = || {
        pending.0.fetch_sub(1, Ordering::Relaxed);
        state.store(BEGUN, Ordering::Release);
        let _over = OnDrop(|| state.store(OVER, Ordering::Release));
        b()
    };
    pending.0.fetch_add(1, Ordering::Relaxed);
    rayon::join(run_a, run_b)
}

/// Runs `task` on each number with its piece of `scratch`, `piece` elements each. Must be called on a thread of a pool.
pub(crate) fn for_each_piece<F>(
    pending: &PendingJoins,
    numbers: Range<usize>,
    (scratch, piece): (&mut [f32], usize),
    task: &F,
) where
    F: Fn(usize, &mut [f32]) + Sync,
{
    let Range { start, end } = numbers;
    match numbers.len() {
        0 => (),
        1 => task(start, &mut scratch[..piece]),
        len => {
            let middle = start + len.div_ceil(2);
            let (near, far) = scratch.split_at_mut((middle - start) * piece);
            let near = || for_each_piece(pending, start..middle, (near, piece), task);
            join(pending, near, || for_each_piece(pending, middle..end, (far, piece), task));
        }
    }
}

/// Polls until `waiting` is false; returns false after [`MAX_POLLS`] polls.
fn poll_while(waiting: impl Fn() -> bool) -> bool {
    (0..MAX_POLLS).any(|_| {
        let done = !waiting();
        if !done {
            // Yields to the core's other hardware thread, and to other threads that want this one.
            (0..SPINS_PER_POLL).for_each(|_| spin_loop());
            thread::yield_now();
        }
        done
    })
}

/// Calls the function when it is dropped, also while unwinding.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn every_number_gets_its_piece_exactly_once() {
        for threads in 1..=4 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for pieces in [0, 1, 2, 3, 7, 64] {
                let mut scratch = vec![0.0; 3 * pieces];
                pool.install(|| {
                    with_spinning_helpers(threads - 1, |pending| {
                        for_each_piece(pending, 0..pieces, (&mut scratch, 3), &|i, piece| {
                            piece.iter_mut().for_each(|x| *x += 1.0 + i as f32);
                        });
                        assert_eq!(pending.0.load(Ordering::Relaxed), 0, "every fork was taken");
                    });
                });
                let expected: Vec<_> = (0..3 * pieces).map(|at| 1.0 + (at / 3) as f32).collect();
                assert_eq!(scratch, expected, "{threads} threads");
            }
        }
    }

    #[test]
    fn a_panic_propagates_and_leaves_the_pool_usable() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for bad in 0..5 {
            let run = |task: &(dyn Fn(usize) + Sync)| {
                pool.install(|| {
                    with_spinning_helpers(2, |pending| {
                        for_each_piece(pending, 0..5, (&mut [], 0), &|i, _| task(i));
                        task(5);
                    });
                });
            };
            let panics = |i| assert!(i != bad, "this task panics on purpose");
            assert!(catch_unwind(AssertUnwindSafe(|| run(&panics))).is_err());
            run(&|_| ());
        }
    }
}
