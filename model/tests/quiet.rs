//! What a host process sees of the library: no threads but those of the caller's pool, and no processor time between calls.
//! One test, in a process of its own, so that nothing else is counted.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use common::models::Sizes;
use rachis::kernels::Ctx;
use rachis::{
    BartBackbone, BertBackbone, BertInputs, FalconBackbone, OptBackbone, Seq2SeqInputs, Session, T5Backbone,
    Tokens,
};

/// The threads of this process, with the nanoseconds that each has run.
fn threads() -> Vec<(String, u64)> {
    let tasks = fs::read_dir("/proc/self/task").expect("threads are listed");
    tasks
        .flatten()
        .map(|task| {
            let ran = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let ran = ran.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            (task.file_name().to_string_lossy().into_owned(), ran)
        })
        .collect()
}

fn names() -> Vec<String> {
    let mut names: Vec<_> = threads().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

#[test]
fn no_thread_is_started_and_none_runs_between_calls() {
    let sizes = Sizes { vocabulary: 31, layers: 2, heads: 4, hidden: 256, inner: 1024, positions: 128 };
    // The smallest product, of 40 by 256 by 256, is work for two.
    let ids = [7; 40];
    let tokens = Tokens::padded(&ids, 1, 40);
    let pair = Seq2SeqInputs { encoder: tokens, decoder: tokens };
    let bart = BartBackbone::random(sizes.bart(), 1).unwrap();
    let bert = BertBackbone::random(sizes.bert(), 1).unwrap();
    let falcon = FalconBackbone::random(sizes.falcon(), 1).unwrap();
    let opt = OptBackbone::random(sizes.opt(), 1).unwrap();
    let t5 = T5Backbone::random(sizes.t5(), 1).unwrap();
    let forward_all = |session: &mut Session<'_>| {
        bart.forward(session, pair).unwrap();
        bert.forward(session, BertInputs { tokens, segment_ids: None }).unwrap();
        falcon.forward(session, tokens).unwrap();
        opt.forward(session, tokens).unwrap();
        t5.forward(session, pair).unwrap();
    };
    let ctx = Ctx::detect();

    let before = names();
    forward_all(&mut Session::new(ctx));
    assert_eq!(names(), before, "without a pool");

    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let before = names();
    forward_all(&mut Session::new(ctx.with_pool(Some(&pool))));
    assert_eq!(names(), before, "with a pool");

    assert!(threads().iter().any(|(_, ran)| *ran > 0), "processor time is counted");
    assert!(other_threads_come_to_rest(), "threads run between calls");
}

/// Whether within a minute there is a tenth of a second in which no other thread of this process runs at all. A pool's
/// threads look for work for a while before they sleep, and a busy machine may run them late: that only takes longer. A
/// thread that polls never rests.
fn other_threads_come_to_rest() -> bool {
    let own = fs::read_link("/proc/thread-self").expect("this thread is listed");
    let own = own.file_name().expect("a path to a thread").to_string_lossy().into_owned();
    let others = || threads().into_iter().filter(|(name, _)| *name != own).collect::<Vec<_>>();
    (0..600).any(|_| {
        let before = others();
        sleep(Duration::from_millis(100));
        before.len() > 1 && others() == before
    })
}
