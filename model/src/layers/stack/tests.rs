use std::sync::Mutex;

use rachis_kernels::Level;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::*;
use crate::architectures::seq2seq::{Seq2SeqInputs, Seq2SeqNetwork};
use crate::architectures::t5::T5Config;
use crate::backbone::private::{Architecture, Network};
use crate::error::Error;
use crate::session::{First, Limits, RowLayout, Session, Tokens};
use crate::weights::WeightSource;

const HIDDEN: usize = 24;

fn model() -> Seq2SeqNetwork {
    let config = T5Config {
        vocabulary_size: 9,
        num_layers: 2,
        num_heads: 2,
        hidden_dim: HIDDEN,
        intermediate_dim: 40,
        ..T5Config::default()
    };
    WeightSource::random(1, |source| config.build(source)).unwrap()
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

#[test]
fn threads_take_shares_where_there_are_enough_sequences() {
    let (model, ids) = (model(), [3u32; 60]);
    for threads in [2, 3] {
        let pool = pool(threads);
        for (lengths, divided) in [(&[10usize; 6][..], true), (&[60], false), (&[1, 1, 1], false)] {
            let ctx = Ctx::new(Level::Scalar).unwrap().with_pool(Some(&pool));
            let mut session = Session::new(ctx);
            let tokens = Tokens::ragged(&ids[..lengths.iter().sum()], lengths);
            let inputs = Seq2SeqInputs { encoder: tokens, decoder: tokens };
            model.run(&ctx, &mut session, inputs, None).map(drop).unwrap();
            let workers = &session.work.threads.workers;
            assert_eq!(workers.len(), threads - 1);
            // Scratch is allocated when a thread first needs it.
            workers.iter().for_each(|worker| assert_eq!(worker.scratch.bytes() > 0, divided, "{lengths:?}"));
        }
    }
}

#[test]
fn every_share_is_done_and_an_error_of_any_share_is_returned() {
    let (model, pool) = (model(), pool(3));
    let ctx = Ctx::new(Level::Scalar).unwrap().with_pool(Some(&pool));
    let mut rows = RowLayout::default();
    let limits = Limits { vocabulary: 9, positions: 100 };
    rows.fill(Tokens::ragged(&[3; 60], &[10; 6]), limits, First::IfReal).unwrap();
    let sizes = model.encoder.sizes(&ctx, Extent { rows: 60, positions: 10 });
    for fails in [None, Some(0), Some(20), Some(40)] {
        let mut memory = vec![0.0f32; sizes.total()];
        let mut threads = Threads::default();
        threads.workers.resize_with(2, ThreadScratch::default);
        assert!(divide(&rows.spans, HIDDEN, &mut threads.workers));
        let StackBuffers { states, layer, .. } = sizes.carve(&mut memory);
        let Threads { caller, workers } = &mut threads;
        let share = Share { spans: &rows.spans, longest: 10, states, layer, caller, workers };
        let done = Mutex::new(Vec::new());
        let task: MicroBatchTask<'_> = &|_, rows, buffers, _| {
            assert_eq!(buffers.rows, rows.len());
            done.lock().unwrap().push(rows.clone());
            if Some(rows.start) == fails { Err(Error::Cancelled) } else { Ok(()) }
        };
        let contexts = PassContexts { all: &ctx, share: &ctx.with_pool(None) };
        let result = model.encoder.for_each_micro_batch(contexts, &mut StackInput::of(&rows), share, task);
        assert_eq!(result.is_err(), fails.is_some(), "{fails:?}");
        let mut done = done.into_inner().unwrap();
        done.sort_unstable_by_key(|rows| rows.start);
        assert_eq!(done, [0..20, 20..40, 40..60]);
    }
}
