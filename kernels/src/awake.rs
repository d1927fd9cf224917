//! Fork and join on a rayon pool whose threads do not go to sleep in between.
//!
//! A thread of a pool that finds nothing to do sleeps after some ten microseconds, and takes as long and longer to wake:
//! as long as a product of a small model. So during a forward pass the threads that wait stay awake: those that have no
//! work look whether any is offered, and one that waits for another's half looks whether it is done. Where that comes to
//! nothing for a while, the rest is left to the pool.
//!
//! Others' work in the same pool is not taken up by the way: the forward pass would have to wait for it, too.

use core::hint::spin_loop;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread;

use rayon::Yield;

/// Looks, of about a microsecond each, that may come to nothing.
const LOOKS: usize = 1000;

/// Pauses between two looks.
const PAUSES: usize = 4;

/// Halves of a forward pass that wait for a thread to take them.
#[derive(Debug, Default)]
pub(crate) struct Offers(AtomicUsize);

/// Runs `work` on this thread of a pool, while so many others stay awake for what it offers.
pub(crate) fn while_awake<R: Send>(others: usize, work: impl FnOnce(&Offers) -> R + Send) -> R {
    let awake = Awake::default();
    let work = || {
        let result = {
            let _over = OnDrop(|| awake.over.store(true, Ordering::Release));
            work(&awake.offers)
        };
        wait_while(|| awake.threads.load(Ordering::Acquire) > 0);
        result
    };
    if others == 0 { work() } else { rayon::join(work, || awake.stay(others)).0 }
}

/// A forward pass, to the threads beside it.
#[derive(Default)]
struct Awake {
    offers: Offers,
    /// Those that look for offers.
    threads: AtomicUsize,
    over: AtomicBool,
}

impl Awake {
    /// Keeps so many threads of the pool looking for offers until it is over.
    fn stay(&self, threads: usize) {
        if threads > 1 {
            rayon::join(|| self.look(), || self.stay(threads - 1));
        } else {
            self.look();
        }
    }

    fn look(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
        let _gone = OnDrop(|| _ = self.threads.fetch_sub(1, Ordering::Release));
        let worked =
            || self.offers.0.load(Ordering::Relaxed) > 0 && rayon::yield_now() == Some(Yield::Executed);
        let over = || self.over.load(Ordering::Acquire);
        // Who has worked may look as often again.
        while wait_while(|| !over() && !worked()) && !over() {}
    }
}

/// Runs both, `b` on another thread if one takes it before `a` is done. On a thread of a pool.
pub(crate) fn join<A: Send, B: Send>(
    offers: &Offers,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    const BEGUN: u8 = 1;
    const OVER: u8 = 2;
    let state = AtomicU8::new(0);
    let wait = || {
        let a = a();
        wait_while(|| state.load(Ordering::Acquire) == BEGUN);
        a
    };
    let note = || {
        offers.0.fetch_sub(1, Ordering::Relaxed);
        state.store(BEGUN, Ordering::Release);
        let _over = OnDrop(|| state.store(OVER, Ordering::Release));
        b()
    };
    offers.0.fetch_add(1, Ordering::Relaxed);
    rayon::join(wait, note)
}

/// Runs `task` on each number with its piece of `scratch`, of so many elements. On a thread of a pool.
pub(crate) fn for_each_piece<F>(
    offers: &Offers,
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
            let near = || for_each_piece(offers, start..middle, (near, piece), task);
            join(offers, near, || for_each_piece(offers, middle..end, (far, piece), task));
        }
    }
}

/// Looks until there is nothing to wait for; false if that takes too long.
fn wait_while(waiting: impl Fn() -> bool) -> bool {
    (0..LOOKS).any(|_| {
        let done = !waiting();
        if !done {
            // For the core's other thread, and for others who want this one.
            (0..PAUSES).for_each(|_| spin_loop());
            thread::yield_now();
        }
        done
    })
}

/// Does something when it goes out of scope, by a panic too.
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
    fn every_number_has_its_piece_once() {
        for threads in 1..=4 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for pieces in [0, 1, 2, 3, 7, 64] {
                let mut scratch = vec![0.0; 3 * pieces];
                pool.install(|| {
                    while_awake(threads - 1, |offers| {
                        for_each_piece(offers, 0..pieces, (&mut scratch, 3), &|i, piece| {
                            piece.iter_mut().for_each(|x| *x += 1.0 + i as f32);
                        });
                        assert_eq!(offers.0.load(Ordering::Relaxed), 0, "all are taken");
                    });
                });
                let expected: Vec<_> = (0..3 * pieces).map(|at| 1.0 + (at / 3) as f32).collect();
                assert_eq!(scratch, expected, "{threads} threads");
            }
        }
    }

    #[test]
    fn a_panic_comes_out_and_leaves_the_pool_in_order() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for bad in 0..5 {
            let run = |task: &(dyn Fn(usize) + Sync)| {
                pool.install(|| {
                    while_awake(2, |offers| {
                        for_each_piece(offers, 0..5, (&mut [], 0), &|i, _| task(i));
                        task(5);
                    });
                });
            };
            let panics = |i| assert!(i != bad, "as asked");
            assert!(catch_unwind(AssertUnwindSafe(|| run(&panics))).is_err());
            run(&|_| ());
        }
    }
}
