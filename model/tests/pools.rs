//! Forward passes on a thread pool that its host uses for other things, too.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use common::models::Sizes;
use rachis::kernels::{Ctx, ThreadPool};
use rachis::{BertBackbone, BertInputs, Session, Tokens};

/// Large enough that threads share its products.
const SIZES: Sizes = Sizes { vocabulary: 31, layers: 2, heads: 4, hidden: 256, inner: 1024, positions: 32 };

fn model() -> BertBackbone {
    BertBackbone::random(SIZES.bert(), 1).unwrap()
}

fn pool(threads: usize) -> ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

fn pass(model: &BertBackbone, session: &mut Session<'_>) -> Vec<u32> {
    let ids: Vec<u32> = (0..32).map(|i| i % 31).collect();
    let inputs = BertInputs { tokens: Tokens::ragged(&ids, &[32]), segment_ids: None };
    let output = model.forward(session, inputs).unwrap().sequence_output;
    output.sequence(0).row(31).iter().map(|x| x.to_bits()).collect()
}

/// A host that keeps a session behind a lock: who holds it must not take up another job, which would wait for it.
#[test]
fn jobs_of_a_pool_share_a_session_behind_a_lock() {
    let model = model();
    let expected = pass(&model, &mut Session::new(Ctx::detect()));
    for threads in [2, 3, 4] {
        let pool = pool(threads);
        let session = Mutex::new(Session::new(Ctx::detect().with_pool(Some(&pool))));
        pool.scope(|scope| {
            for _ in 0..30 {
                scope.spawn(|_| assert_eq!(pass(&model, &mut session.lock().unwrap()), expected));
            }
        });
    }
}

/// Jobs of one pool that run passes on another: none begins on the stack of one that waits.
#[test]
fn jobs_of_one_pool_run_passes_on_another() {
    let (model, outer, inner) = (model(), pool(2), pool(2));
    let ctx = Ctx::detect().with_pool(Some(&inner));
    let depths = [const { AtomicUsize::new(0) }; 2];
    outer.scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|_| {
                let depth = &depths[outer.current_thread_index().unwrap()];
                assert_eq!(depth.fetch_add(1, Ordering::Relaxed), 0, "a job began inside another");
                pass(&model, &mut Session::new(ctx));
                depth.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

/// All threads of the pool wait for the end of the passes: these are done by their caller, with the same bits.
#[test]
fn a_pool_that_is_blocked_holds_up_no_pass() {
    let model = model();
    let expected = pass(&model, &mut Session::new(Ctx::detect()));
    let pool = pool(2);
    let (begun, end) = (Barrier::new(3), Barrier::new(3));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            pool.broadcast(|_| {
                begun.wait();
                end.wait();
            })
        });
        begun.wait();
        let mut session = Session::new(Ctx::detect().with_pool(Some(&pool)));
        for _ in 0..10 {
            assert_eq!(pass(&model, &mut session), expected);
        }
        end.wait();
    });
}

/// A struct of the host owns its session and shares the pool.
#[test]
fn a_session_with_a_shared_pool_borrows_nothing() {
    struct Service {
        model: Arc<BertBackbone>,
        session: Session<'static>,
    }
    let model = Arc::new(model());
    let expected = pass(&model, &mut Session::new(Ctx::detect()));
    let session = Session::with_shared_pool(Ctx::detect(), Arc::new(pool(2)));
    let mut service = Service { model, session };
    let found = std::thread::spawn(move || pass(&service.model, &mut service.session)).join().unwrap();
    assert_eq!(found, expected);
}
