//! What a session promises: no allocation once reserved, the same bits however requests are batched, padded or
//! spread over threads, and one model for many sessions.

mod common;

use common::Batch;
use common::models::Sizes;
use rachis::kernels::{Activation, Ctx, Level, Precision};
use rachis::{
    Backbone, BartBackbone, BertBackbone, BertConfig, BertInputs, FalconBackbone, Model, OptBackbone,
    Seq2SeqInputs, SequenceOutput, Session, T5Backbone, Tokens,
};
use rachis_testkit::{CountingAllocator, for_each_level};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// An architecture under test.
trait Subject: Model + Send + Sync {
    fn name(&self) -> &'static str;

    /// A forward pass; the bits of every output of each sequence, if they are asked for.
    fn forward(&self, session: &mut Session<'_>, tokens: Tokens<'_>, keep: bool) -> Vec<Vec<u32>>;
}

impl Subject for BertBackbone {
    fn name(&self) -> &'static str {
        "bert"
    }

    fn forward(&self, session: &mut Session<'_>, tokens: Tokens<'_>, keep: bool) -> Vec<Vec<u32>> {
        let output = BertBackbone::forward(self, session, BertInputs { tokens, segment_ids: None }).unwrap();
        let sequences = if keep { tokens.batch() } else { 0 };
        let pooled = output.pooled_output.unwrap();
        let both = |i| [bits(output.sequence_output.sequence(i)), bits(pooled.rows_range(i..i + 1))];
        (0..sequences).map(|i| both(i).concat()).collect()
    }
}

macro_rules! causal_subject {
    ($model:ty) => {
        impl Subject for $model {
            fn name(&self) -> &'static str {
                stringify!($model)
            }

            fn forward(&self, session: &mut Session<'_>, tokens: Tokens<'_>, keep: bool) -> Vec<Vec<u32>> {
                let output = <$model>::forward(self, session, tokens).unwrap();
                let sequences = if keep { tokens.batch() } else { 0 };
                (0..sequences).map(|i| bits(output.sequence(i))).collect()
            }
        }
    };
}

causal_subject!(FalconBackbone);
causal_subject!(OptBackbone);

macro_rules! seq2seq_subject {
    ($model:ty) => {
        impl Subject for $model {
            fn name(&self) -> &'static str {
                stringify!($model)
            }

            fn forward(&self, session: &mut Session<'_>, tokens: Tokens<'_>, keep: bool) -> Vec<Vec<u32>> {
                let inputs = Seq2SeqInputs { encoder: tokens, decoder: tokens };
                let output = <$model>::forward(self, session, inputs).unwrap();
                let sequences = if keep { tokens.batch() } else { 0 };
                let both = [output.encoder_sequence_output, output.decoder_sequence_output];
                (0..sequences).map(|i| both.map(|tower| bits(tower.sequence(i))).concat()).collect()
            }
        }
    };
}

seq2seq_subject!(BartBackbone);
seq2seq_subject!(T5Backbone);

/// Models whose sizes are no multiple of any tile, large enough for several blocks of k.
fn subjects() -> Vec<Box<dyn Subject>> {
    let sizes = Sizes { vocabulary: 501, layers: 2, heads: 3, hidden: 102, inner: 290, positions: 80 };
    let bert = {
        let mut config = sizes.bert();
        config.activation = Activation::GeluErf;
        config
    };
    let opt = sizes.opt();
    let projected = {
        let mut config = sizes.opt();
        config.embedding_dim = 70;
        config.norm_first = false;
        config
    };
    let bart = {
        let mut config = sizes.bart();
        config.decoder_num_layers = 1;
        config.decoder_num_heads = 6;
        config.decoder_intermediate_dim = 330;
        config.scale_embedding = true;
        config
    };
    let t5 = {
        let mut config = sizes.t5();
        config.key_value_dim = 38;
        config.decoder_num_layers = 3;
        config.use_gated_activation = true;
        config.tie_embedding_weights = false;
        config
    };
    let alibi = sizes.falcon();
    let rotary = Sizes { heads: 6, hidden: 108, ..sizes }.rotary_falcon(2);
    vec![
        Box::new(BartBackbone::random(bart, 7).unwrap()),
        Box::new(BertBackbone::random(bert, 7).unwrap()),
        Box::new(FalconBackbone::random(alibi, 7).unwrap()),
        Box::new(FalconBackbone::random(rotary, 7).unwrap()),
        Box::new(OptBackbone::random(opt, 7).unwrap()),
        Box::new(OptBackbone::random(projected, 7).unwrap()),
        Box::new(T5Backbone::random(t5, 7).unwrap()),
    ]
}

/// Sequences of these lengths.
fn sequences(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut next = 17u32;
    let mut id = || {
        next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (next >> 8) % 501
    };
    lengths.iter().map(|len| (0..*len).map(|_| id()).collect()).collect()
}

/// The bits of a sequence's outputs, in a session of its own.
fn alone(model: &dyn Subject, ctx: Ctx<'_>, ids: &[u32]) -> Vec<u32> {
    model.forward(&mut Session::new(ctx), Tokens::padded(ids, 1, ids.len()), true).remove(0)
}

fn bits(rows: rachis::kernels::MatRef<'_, f32>) -> Vec<u32> {
    (0..rows.rows()).flat_map(|i| rows.row(i)).map(|x| x.to_bits()).collect()
}

#[test]
fn the_second_forward_allocates_nothing() {
    let ids = sequences(&[3 * 16]).remove(0);
    let mask: Vec<u8> = (0..3 * 16).map(|i| u8::from(i % 16 < 12)).collect();
    let lengths = [16, 32];
    for model in subjects() {
        let model = model.as_ref();
        for_each_level(Level::supported(), |level| {
            let mut session = Session::new(Ctx::new(level).unwrap());
            session.reserve(model, 3, 80).unwrap();
            let plan = model.plan(session.ctx(), 3, 80).unwrap();
            assert_eq!(session.workspace_bytes(), plan.bytes(), "reserving allocates what the plan says");
            for tokens in [
                Tokens::with_mask(&ids, 3, 16, &mask),
                Tokens::ragged(&ids, &lengths),
                Tokens::padded(&ids, 3, 16),
            ] {
                let (_, counts) = CountingAllocator::measure(|| model.forward(&mut session, tokens, false));
                assert_eq!(counts.allocations, 0, "{level} {}: {} bytes", model.name(), counts.bytes);
            }
            assert_eq!(session.workspace_bytes(), plan.bytes(), "{}", model.name());
        });
    }
}

#[test]
fn batches_and_padding_do_not_change_a_bit() {
    let lengths = [5, 80, 1, 32];
    let all = sequences(&lengths);
    let ragged = all.concat();
    let (mut padded, mut mask) = (vec![0u32; 4 * 80], vec![0u8; 4 * 80]);
    for (i, ids) in all.iter().enumerate() {
        padded[i * 80..][..ids.len()].copy_from_slice(ids);
        mask[i * 80..][..ids.len()].fill(1);
    }
    for model in subjects() {
        let model = model.as_ref();
        for_each_level(Level::supported(), |level| {
            for precision in Precision::ALL {
                let ctx = Ctx::new(level).unwrap().with_precision(precision);
                let expected: Vec<_> = all.iter().map(|ids| alone(model, ctx, ids)).collect();
                let mut session = Session::new(ctx);
                let place = format!("{level} {} {precision:?}", model.name());
                let found = model.forward(&mut session, Tokens::ragged(&ragged, &lengths), true);
                assert!(found == expected, "{place} ragged");
                let found = model.forward(&mut session, Tokens::with_mask(&padded, 4, 80, &mask), true);
                assert!(found == expected, "{place} padded");
            }
        });
    }
}

/// More rows than go through a layer together, and sequences for several threads to take by themselves.
#[test]
fn large_batches_do_not_change_a_bit() {
    let lengths: Vec<usize> = (0..24).map(|i| [80, 7, 61, 33, 1, 80][i % 6]).collect();
    let ids = sequences(&lengths);
    let all = ids.concat();
    let sum: usize = lengths.iter().sum();
    assert!(sum > 1000, "{sum} rows are few groups");
    let pools = [2, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for model in subjects() {
        let model = model.as_ref();
        for_each_level(Level::supported(), |level| {
            let ctx = Ctx::new(level).unwrap();
            let expected: Vec<_> = ids.iter().map(|ids| alone(model, ctx, ids)).collect();
            for pool in [None, Some(&pools[0]), Some(&pools[1])] {
                let mut session = Session::new(ctx.with_pool(pool));
                session.reserve(model, 24, 80).unwrap();
                let planned = model.plan(session.ctx(), 24, 80).unwrap().bytes();
                let threads = pool.map_or(1, rayon::ThreadPool::current_num_threads);
                let place = format!("{level} {}, {threads} threads", model.name());
                assert_eq!(session.workspace_bytes(), planned, "{place}");
                let found = model.forward(&mut session, Tokens::ragged(&all, &lengths), true);
                assert!(found == expected, "{place}");
                assert_eq!(session.workspace_bytes(), planned, "{place}");
            }
        });
    }
}

/// What threads of a pool need for shares of their own is reserved. Only the pool allocates: a small job for each helper
/// that is asked for, and queues for them.
#[test]
fn threads_with_sequences_of_their_own_allocate_jobs_only() {
    const JOBS: u64 = 16 << 10;
    let lengths = [80; 24];
    let ids = sequences(&lengths).concat();
    let tokens = Tokens::ragged(&ids, &lengths);
    for model in subjects() {
        let model = model.as_ref();
        for threads in [2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let of_pool = || pool.broadcast(|_| CountingAllocator::thread().bytes).iter().sum::<u64>();
            let mut session = Session::new(Ctx::detect().with_pool(Some(&pool)));
            session.reserve(model, 24, 80).unwrap();
            assert!(session.workspace_bytes() as u64 > 4 * JOBS, "too small a request to tell");
            let before = of_pool();
            let (_, counts) = CountingAllocator::measure(|| model.forward(&mut session, tokens, false));
            let bytes = counts.bytes + of_pool() - before;
            assert!(bytes <= JOBS, "{}, {threads} threads: {bytes} bytes", model.name());
        }
    }
}

#[test]
fn an_observer_sees_the_same_of_any_number_of_threads() {
    let sizes = Sizes { vocabulary: 501, layers: 3, heads: 3, hidden: 102, inner: 290, positions: 80 };
    let model = BertBackbone::random(sizes.bert(), 7).unwrap();
    let lengths = [20, 31, 7, 18, 22, 30];
    let ids = sequences(&lengths).concat();
    let inputs = BertInputs { tokens: Tokens::ragged(&ids, &lengths), segment_ids: None };
    let seen = |ctx: Ctx<'_>| {
        let mut seen = Vec::new();
        let mut observe = |layer: usize, states: SequenceOutput<'_>| {
            seen.push((layer, (0..lengths.len()).map(|i| bits(states.sequence(i))).collect::<Vec<_>>()));
        };
        model.forward_observed(&mut Session::new(ctx), inputs, &mut observe).unwrap();
        seen
    };
    for_each_level(Level::supported(), |level| {
        let ctx = Ctx::new(level).unwrap();
        let expected = seen(ctx);
        assert_eq!(expected.len(), 1 + sizes.layers);
        for threads in [2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(seen(ctx.with_pool(Some(&pool))) == expected, "{level}, {threads} threads");
        }
    });
}

#[test]
fn threads_do_not_change_a_bit() {
    let sizes = Sizes { vocabulary: 501, layers: 1, heads: 4, hidden: 256, inner: 1024, positions: 512 };
    let models: [Box<dyn Subject>; 5] = [
        Box::new(FalconBackbone::random(sizes.rotary_falcon(1), 3).unwrap()),
        Box::new(T5Backbone::random(sizes.t5(), 3).unwrap()),
        Box::new(BartBackbone::random(sizes.bart(), 3).unwrap()),
        Box::new(BertBackbone::random(sizes.bert(), 3).unwrap()),
        Box::new(OptBackbone::random(sizes.opt(), 3).unwrap()),
    ];
    // 60 rows by 256 by 256 are work for three; two take sequences of their own.
    let lengths = [23, 7, 30];
    let ids = sequences(&lengths).concat();
    let tokens = Tokens::ragged(&ids, &lengths);
    for model in models {
        for_each_level(Level::supported(), |level| {
            for precision in Precision::ALL {
                let ctx = Ctx::new(level).unwrap().with_precision(precision);
                let expected = model.forward(&mut Session::new(ctx), tokens, true);
                for threads in [2, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let found = model.forward(&mut Session::new(ctx.with_pool(Some(&pool))), tokens, true);
                    assert!(found == expected, "{level} {} {precision:?}, {threads} threads", model.name());
                }
            }
        });
    }
}

#[test]
fn one_model_serves_sessions_on_many_threads() {
    let all = sequences(&[20, 70, 3]);
    let ctx = Ctx::detect();
    for model in subjects() {
        let model = model.as_ref();
        let expected: Vec<_> = all.iter().map(|ids| alone(model, ctx, ids)).collect();
        std::thread::scope(|scope| {
            for start in 0..3 {
                let (all, expected) = (&all, &expected);
                scope.spawn(move || {
                    for i in 0..all.len() {
                        let i = (start + i) % all.len();
                        assert_eq!(alone(model, ctx, &all[i]), expected[i]);
                    }
                });
            }
        });
    }
}

#[test]
fn the_class_is_inferred_from_the_configuration() {
    let dir = rachis_testkit::goldens::fixture("bert_tanh/hf");
    let Backbone::Bert(model) = Backbone::from_preset(&dir).unwrap() else { panic!("not a BERT") };
    let goldens = rachis_testkit::goldens::Goldens::read("bert_tanh/goldens.safetensors");
    let batch = Batch::of(&goldens, "one_s1");
    let mut session = Session::new(Ctx::new(Level::Scalar).unwrap());
    assert!(BertBackbone::forward(&model, &mut session, batch.inputs()).is_ok());
    let dir = rachis_testkit::goldens::fixture("opt_pre/hf");
    assert!(matches!(Backbone::from_preset(&dir), Ok(Backbone::Opt(_))));
    let error = BertBackbone::from_preset(&dir).unwrap_err().to_string();
    assert!(error.contains("opt") && error.contains("BertBackbone"), "{error}");
}

#[test]
fn a_seed_is_a_model() {
    let config = || {
        let (vocabulary_size, num_layers, num_heads) = (30, 1, 2);
        let (hidden_dim, intermediate_dim) = (24, 8);
        BertConfig {
            vocabulary_size,
            num_layers,
            num_heads,
            hidden_dim,
            intermediate_dim,
            ..BertConfig::default()
        }
    };
    let ctx = Ctx::new(Level::Scalar).unwrap();
    let run = |seed| alone(&BertBackbone::random(config(), seed).unwrap(), ctx, &[1, 2, 3]);
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
