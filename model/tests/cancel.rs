//! Calls that are cancelled: they end within a layer, and the session goes on as if they had not been.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::models::Sizes;
use rachis::generation::{GenerationConfig, GenerationInputs, generate};
use rachis::kernels::Ctx;
use rachis::{
    BertBackbone, BertInputs, CacheOptions, Decoder, Error, OptBackbone, SequenceOutput, Session, T5Backbone,
    Tokens,
};

const SIZES: Sizes = Sizes { vocabulary: 31, layers: 5, heads: 2, hidden: 24, inner: 40, positions: 20 };
const IDS: [u32; 6] = [3, 1, 4, 1, 5, 9];

fn session() -> Session<'static> {
    Session::new(Ctx::detect())
}

fn bits(output: SequenceOutput<'_>, sequence: usize) -> Vec<u32> {
    let rows = output.sequence(sequence);
    (0..rows.rows()).flat_map(|i| rows.row(i).iter().map(|x| x.to_bits())).collect()
}

#[test]
fn a_forward_pass_ends_within_a_layer_and_the_next_is_as_ever() {
    let model = BertBackbone::random(SIZES.bert(), 1).unwrap();
    let inputs = BertInputs { tokens: Tokens::padded(&IDS, 1, 6), segment_ids: None };
    let mut session = session();
    let expected = bits(model.forward(&mut session, inputs).unwrap().sequence_output, 0);
    let cancel = Arc::new(AtomicBool::new(false));
    session.set_cancel(Some(Arc::clone(&cancel)));
    for last in 0..SIZES.layers {
        let mut seen = Vec::new();
        let mut observe = |layer: usize, _: SequenceOutput<'_>| {
            seen.push(layer);
            if layer == last {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        let result = model.forward_observed(&mut session, inputs, &mut observe);
        assert!(matches!(result, Err(Error::Cancelled)), "after layer {last}");
        assert_eq!(seen, (0..=last).collect::<Vec<_>>());
        cancel.store(false, Ordering::Relaxed);
        let output = model.forward(&mut session, inputs).unwrap();
        assert_eq!(bits(output.sequence_output, 0), expected);
    }
}

/// The same of a batch whose sequences two threads share.
#[test]
fn a_shared_batch_ends_within_a_layer_and_the_next_is_as_ever() {
    let model = BertBackbone::random(SIZES.bert(), 1).unwrap();
    let ids: Vec<u32> = (0..160).map(|i| i % 31).collect();
    let inputs = BertInputs { tokens: Tokens::padded(&ids, 8, 20), segment_ids: None };
    let all = |output: SequenceOutput<'_>| (0..8).map(|i| bits(output, i)).collect::<Vec<_>>();
    let expected = all(model.forward(&mut session(), inputs).unwrap().sequence_output);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let mut session = Session::new(Ctx::detect().with_pool(Some(&pool)));
    let cancel = Arc::new(AtomicBool::new(false));
    session.set_cancel(Some(Arc::clone(&cancel)));
    let mut observe = |layer: usize, _: SequenceOutput<'_>| cancel.store(layer == 1, Ordering::Relaxed);
    let result = model.forward_observed(&mut session, inputs, &mut observe);
    assert!(matches!(result, Err(Error::Cancelled)));
    cancel.store(false, Ordering::Relaxed);
    assert_eq!(all(model.forward(&mut session, inputs).unwrap().sequence_output), expected);
    session.set_deadline(Some(Instant::now()));
    assert!(matches!(model.forward(&mut session, inputs), Err(Error::DeadlineExceeded)));
    session.set_deadline(None);
    assert_eq!(all(model.forward(&mut session, inputs).unwrap().sequence_output), expected);
}

#[test]
fn a_deadline_that_has_passed_computes_nothing_and_one_to_come_all() {
    let model = OptBackbone::random(SIZES.opt(), 1).unwrap();
    let tokens = Tokens::padded(&IDS, 1, 6);
    let mut session = session();
    session.set_deadline(Some(Instant::now()));
    let mut seen = 0;
    let mut observe = |_: usize, _: SequenceOutput<'_>| seen += 1;
    let result = model.forward_observed(&mut session, tokens, &mut observe);
    assert!(matches!(result, Err(Error::DeadlineExceeded)));
    assert_eq!(seen, 0);
    session.set_deadline(Some(Instant::now() + Duration::from_secs(3600)));
    assert!(model.forward(&mut session, tokens).is_ok());
    session.set_deadline(None);
    assert!(model.forward(&mut session, tokens).is_ok());
}

#[test]
fn sequences_keep_what_they_had() {
    let model = T5Backbone::random(SIZES.t5(), 1).unwrap();
    let (source, cancel) = (Tokens::padded(&IDS, 1, 6), Arc::new(AtomicBool::new(false)));
    let run = |cancelled: bool| {
        let mut session = session();
        session.set_cancel(Some(Arc::clone(&cancel)));
        session.start(&model, CacheOptions::new(1, 6)).unwrap();
        let tokens = |ids: &'static [u32]| Tokens::padded(ids, 1, ids.len());
        if cancelled {
            cancel.store(true, Ordering::Relaxed);
            assert!(matches!(model.encode(&mut session, source), Err(Error::Cancelled)));
            cancel.store(false, Ordering::Relaxed);
            let none = model.decode(&mut session, &[0], tokens(&[7, 8]));
            assert!(matches!(none, Err(Error::Request(_))), "a source that was not read to its end");
        }
        model.encode(&mut session, source).unwrap();
        model.decode(&mut session, &[0], tokens(&[7, 8])).unwrap();
        if cancelled {
            cancel.store(true, Ordering::Relaxed);
            let result = model.decode(&mut session, &[0], tokens(&[11, 12]));
            assert!(matches!(result, Err(Error::Cancelled)));
            cancel.store(false, Ordering::Relaxed);
        }
        bits(model.decode(&mut session, &[0], tokens(&[9])).unwrap(), 0)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn generation_ends() {
    let model = OptBackbone::random(SIZES.opt(), 1).unwrap();
    let mut session = session();
    let cancel = Arc::new(AtomicBool::new(false));
    session.set_cancel(Some(Arc::clone(&cancel)));
    let inputs = GenerationInputs { tokens: Tokens::padded(&IDS, 1, 6), decoder_prompt: None };
    let mut config = GenerationConfig::default();
    config.max_new_tokens = Some(10);
    let mut tokens = 0;
    let mut watch = |_| {
        tokens += 1;
        cancel.store(tokens == 3, Ordering::Relaxed);
        core::ops::ControlFlow::Continue(())
    };
    let result = generate(&model, &mut session, inputs, &config, Some(&mut watch));
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(tokens, 3);
}
