//! Of regions, and of teams on idle, busy and blocked pools.

use core::sync::atomic::{AtomicBool, AtomicU8};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;

use rayon::ThreadPoolBuilder;

use super::*;

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// A pass of a few regions; returns how many pieces ran on another thread than the calling one.
fn pass(team: &Team<'_>) -> usize {
    let (caller, elsewhere) = (thread::current().id(), AtomicUsize::new(0));
    team.pass(|| {
        for len in [1, 2, 7, 64] {
            let runs: Vec<AtomicU8> = (0..len).map(|_| AtomicU8::new(0)).collect();
            team.for_each(len, &|i| {
                runs[i].fetch_add(1, Ordering::Relaxed);
                if thread::current().id() != caller {
                    elsewhere.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{len} pieces");
        }
    });
    elsewhere.into_inner()
}

#[test]
fn every_piece_is_run_once_whoever_visits() {
    let slot = Slot::new();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    slot.visit();
                    thread::yield_now();
                }
            });
        }
        for len in 0..if cfg!(miri) { 8 } else { 300 } {
            let runs: Vec<AtomicU8> = (0..len).map(|_| AtomicU8::new(0)).collect();
            assert!(slot.run(len, &|i| _ = runs[i].fetch_add(1, Ordering::Relaxed)));
            assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{len} pieces");
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_taken_slot_refuses_a_second_region() {
    let slot = Slot::new();
    assert!(slot.run(1, &|_| assert!(!slot.run(1, &|_| unreachable!("the slot is taken")))));
    assert!(slot.run(1, &|_| ()));
}

#[test]
fn regions_nest_and_those_without_a_slot_run_alone() {
    let pool = pool(2);
    let team = Team::new(&pool);
    let runs = AtomicUsize::new(0);
    fn nest(team: &Team<'_>, depth: usize, runs: &AtomicUsize) {
        match depth {
            0 => _ = runs.fetch_add(1, Ordering::Relaxed),
            _ => team.for_each(2, &|_| nest(team, depth - 1, runs)),
        }
    }
    team.pass(|| nest(&team, 8, &runs));
    assert_eq!(runs.into_inner(), 1 << 8);
}

#[test]
fn both_functions_of_a_join_give_their_results() {
    let pool = pool(2);
    let team = Team::new(&pool);
    for i in 0..100 {
        assert_eq!(team.pass(|| team.join(|| i, || i.to_string())), (i, i.to_string()));
    }
}

#[test]
fn threads_of_an_idle_pool_help() {
    let pool = pool(4);
    let team = Team::new(&pool);
    if processors() > 1 {
        // Other tests of this process may keep all processors busy for a while.
        while pass(&team) == 0 {
            thread::yield_now();
        }
    }
}

#[test]
fn a_panic_reaches_the_caller_and_leaves_team_and_pool_usable() {
    let pool = pool(3);
    let team = Team::new(&pool);
    for bad in 0..5 {
        let task = |i| assert!(i != bad, "this piece panics on purpose");
        assert!(catch_unwind(AssertUnwindSafe(|| team.pass(|| team.for_each(5, &task)))).is_err());
        pass(&team);
    }
    pool.install(|| ());
}

/// Passes end though no thread of the pool ever begins to help, and the jobs that they leave do not pile up.
#[test]
fn a_blocked_pool_delays_nothing_and_fills_up_with_nothing() {
    let pool = pool(3);
    let (begun, end) = (Barrier::new(4), Barrier::new(4));
    thread::scope(|threads| {
        threads.spawn(|| {
            pool.scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|_| {
                        begun.wait();
                        end.wait();
                    });
                }
            });
        });
        begun.wait();
        let team = Team::new(&pool);
        for _ in 0..100 {
            assert_eq!(pass(&team), 0);
            assert!(team.state.offered.load(Ordering::Relaxed) <= 2);
        }
        end.wait();
    });
}

/// Jobs of a pool that wait for one another, each with a pass on the same pool, as a host has them that keeps a session
/// behind a lock; and no job begins on the stack of another.
#[test]
fn a_pass_in_a_job_takes_up_no_other_job() {
    for threads in 1..=4 {
        let pool = pool(threads);
        let team = Team::new(&pool);
        let lock = Mutex::new(());
        let depths: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        pool.scope(|scope| {
            for _ in 0..if cfg!(miri) { 4 } else { 100 } {
                scope.spawn(|_| {
                    let depth = &depths[pool.current_thread_index().unwrap()];
                    assert_eq!(depth.fetch_add(1, Ordering::Relaxed), 0);
                    let _held = lock.lock().unwrap();
                    pass(&team);
                    depth.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
    }
}

#[test]
fn a_shared_pool_lives_as_long_as_its_team() {
    let pool = Arc::new(pool(2));
    let team = Team::shared(Arc::clone(&pool));
    drop(pool);
    pass(&team);
    assert_eq!(team.threads(), 2);
}
