//! Decoding with a KV cache gives the bits of a forward pass, for any split of a sequence into calls, any other
//! sequences in the session and any number of threads.

mod common;

use common::models::Sizes;
use rachis::falcon::{AlibiRounding, FalconPositions};
use rachis::kernels::{Ctx, Level, MatRef, Precision};
use rachis::{
    BartBackbone, CacheOptions, Decoder, Dtype, FalconBackbone, OptBackbone, Seq2SeqInputs, Session,
    T5Backbone, Tokens,
};
use rachis_testkit::{CountingAllocator, for_each_level};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A decoder, and its forward pass over whole sequences.
struct Subject {
    name: &'static str,
    model: Box<dyn Decoder + Send + Sync>,
    /// The bits of the decoder's output for one sequence, given its source.
    forward: Box<Forward>,
}

type Forward = dyn Fn(&mut Session<'_>, &[u32], &[u32]) -> Vec<Vec<u32>> + Send + Sync;

const VOCABULARY: usize = 211;

macro_rules! causal {
    ($name:expr, $class:ty, $config:expr) => {{
        let make = || <$class>::random($config, 5).unwrap();
        let other = make();
        Subject {
            name: $name,
            model: Box::new(make()),
            forward: Box::new(move |session, _, ids| {
                rows(other.forward(session, Tokens::padded(ids, 1, ids.len())).unwrap().sequence(0))
            }),
        }
    }};
}

macro_rules! seq2seq {
    ($name:expr, $class:ty, $config:expr) => {{
        let make = || <$class>::random($config, 5).unwrap();
        let other = make();
        Subject {
            name: $name,
            model: Box::new(make()),
            forward: Box::new(move |session, source, ids| {
                let encoder = Tokens::padded(source, 1, source.len());
                let inputs = Seq2SeqInputs { encoder, decoder: Tokens::padded(ids, 1, ids.len()) };
                rows(other.forward(session, inputs).unwrap().decoder_sequence_output.sequence(0))
            }),
        }
    }};
}

/// All architectures, with sizes that are not multiples of a tile.
fn subjects() -> Vec<Subject> {
    let sizes = Sizes { vocabulary: VOCABULARY, layers: 2, heads: 3, hidden: 51, inner: 70, positions: 200 };
    let opt = sizes.opt();
    let bart = {
        let mut config = Sizes { layers: 1, heads: 2, hidden: 36, inner: 50, ..sizes }.bart();
        config.decoder_num_layers = 2;
        config.decoder_num_heads = 3;
        config.decoder_intermediate_dim = 66;
        config
    };
    let t5 = {
        let mut config = Sizes { layers: 1, hidden: 40, inner: 50, ..sizes }.t5();
        config.key_value_dim = 17;
        config.decoder_num_layers = 3;
        config.use_gated_activation = true;
        config
    };
    let alibi = {
        let mut config = Sizes { hidden: 48, inner: 50, ..sizes }.falcon();
        config.positions = FalconPositions::Alibi { rounding: AlibiRounding::Bf16 };
        config
    };
    let rotary = Sizes { heads: 6, hidden: 60, inner: 50, ..sizes }.rotary_falcon(2);
    vec![
        causal!("opt", OptBackbone, opt.clone()),
        causal!("falcon, alibi", FalconBackbone, alibi.clone()),
        causal!("falcon, rotary", FalconBackbone, rotary.clone()),
        seq2seq!("bart", BartBackbone, bart.clone()),
        seq2seq!("t5", T5Backbone, t5.clone()),
    ]
}

/// Models large enough that a product of two rows is split between threads.
fn large_subjects() -> Vec<Subject> {
    let sizes =
        Sizes { vocabulary: VOCABULARY, layers: 1, heads: 4, hidden: 256, inner: 2080, positions: 200 };
    vec![
        causal!("large opt", OptBackbone, sizes.opt()),
        causal!("large falcon", FalconBackbone, sizes.rotary_falcon(2)),
        seq2seq!("large bart", BartBackbone, sizes.bart()),
        seq2seq!("large t5", T5Backbone, sizes.t5()),
    ]
}

fn rows(matrix: MatRef<'_, f32>) -> Vec<Vec<u32>> {
    (0..matrix.rows()).map(|i| matrix.row(i).iter().map(|x| x.to_bits()).collect()).collect()
}

fn ids(count: usize, seed: u32) -> Vec<u32> {
    let mut next = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let mut id = || {
        next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (next >> 8) % VOCABULARY as u32
    };
    (0..count).map(|_| id()).collect()
}

/// Starts a session with one source per sequence.
fn start<'p>(
    subject: &Subject,
    ctx: Ctx<'p>,
    (sources, capacity): (&[Vec<u32>], usize),
    dtype: Option<Dtype>,
) -> Session<'p> {
    let mut session = Session::new(ctx);
    let options = {
        let mut options = CacheOptions::new(sources.len(), capacity);
        options.dtype = dtype;
        options
    };
    session.start(&*subject.model, options).unwrap();
    if subject.model.has_encoder() {
        let lengths: Vec<usize> = sources.iter().map(Vec::len).collect();
        subject.model.encode(&mut session, Tokens::ragged(&sources.concat(), &lengths)).unwrap();
    }
    session
}

/// Appends tokens to sequences and returns the bits of the new rows of each.
fn append(subject: &Subject, session: &mut Session<'_>, new: &[(usize, &[u32])]) -> Vec<Vec<Vec<u32>>> {
    let sequences: Vec<usize> = new.iter().map(|(sequence, _)| *sequence).collect();
    let lengths: Vec<usize> = new.iter().map(|(_, ids)| ids.len()).collect();
    let ids: Vec<u32> = new.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
    let output = subject.model.decode(session, &sequences, Tokens::ragged(&ids, &lengths)).unwrap();
    (0..new.len()).map(|i| rows(output.sequence(i))).collect()
}

#[test]
fn decode_steps_equal_rows_of_a_forward_pass() {
    let (sequence, source) = (ids(140, 1), ids(9, 2));
    for subject in subjects() {
        for_each_level(Level::supported(), |level| {
            for precision in Precision::ALL {
                let ctx = Ctx::new(level).unwrap().with_precision(precision);
                let place = format!("{level} {} {precision:?}", subject.name);
                let expected = (subject.forward)(&mut Session::new(ctx), &source, &sequence);
                let mut session = start(&subject, ctx, (std::slice::from_ref(&source), 140), None);
                // Prefill, single steps across the end of a block of keys, and several tokens again.
                let mut at = 0;
                for piece in [124, 1, 1, 1, 1, 1, 1, 10] {
                    let found = append(&subject, &mut session, &[(0, &sequence[at..at + piece])]).remove(0);
                    assert!(found == expected[at..at + piece], "{place}: rows {at} and {piece} on");
                    at += piece;
                }
                assert_eq!(at, 140);
            }
        });
    }
}

#[test]
fn results_do_not_depend_on_other_sequences() {
    let sources = [ids(9, 2), ids(3, 3), ids(30, 4), ids(1, 5), ids(12, 6)];
    let sequences = [ids(5, 11), ids(30, 12), ids(1, 13), ids(17, 14), ids(24, 15)];
    for subject in subjects() {
        for_each_level(Level::supported(), |level| {
            let ctx = Ctx::new(level).unwrap();
            let alone: Vec<_> = (0..5)
                .map(|i| (subject.forward)(&mut Session::new(ctx), &sources[i], &sequences[i]))
                .collect();
            let mut session = start(&subject, ctx, (&sources, 30), None);
            // First some tokens of two sequences, out of order; then one token per step of every sequence that has
            // any left.
            let first: Vec<(usize, &[u32])> = vec![(3, &sequences[3][..4]), (0, &sequences[0][..2])];
            let mut found: Vec<Vec<Vec<u32>>> = vec![Vec::new(); 5];
            for ((i, _), rows) in first.iter().zip(append(&subject, &mut session, &first)) {
                found[*i].extend(rows);
            }
            while found.iter().zip(&sequences).any(|(found, ids)| found.len() < ids.len()) {
                let new: Vec<(usize, &[u32])> = (0..5)
                    .filter(|i| found[*i].len() < sequences[*i].len())
                    .map(|i| (i, &sequences[i][found[i].len()..][..1]))
                    .collect();
                for ((i, _), rows) in new.iter().zip(append(&subject, &mut session, &new)) {
                    found[*i].extend(rows);
                }
            }
            for i in 0..5 {
                assert!(found[i] == alone[i], "{level} {}: sequence {i}", subject.name);
            }
        });
    }
}

/// Prompts of more rows than one micro-batch, and sources that several sequences share.
#[test]
fn results_do_not_depend_on_the_size_of_a_prefill() {
    let sources = [ids(9, 2), ids(30, 3), ids(4, 4)];
    let prompts: Vec<Vec<u32>> = (0..12).map(|i| ids(50 + 7 * (i % 3), 20 + i as u32)).collect();
    let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let capacity = 70;
    for subject in subjects() {
        for_each_level(Level::supported(), |level| {
            let ctx = Ctx::new(level).unwrap();
            let mut session = Session::new(ctx);
            let options = CacheOptions::new(12, capacity);
            session.start(&*subject.model, options).unwrap();
            if subject.model.has_encoder() {
                let lengths: Vec<usize> = sources.iter().map(Vec::len).collect();
                subject.model.encode(&mut session, Tokens::ragged(&sources.concat(), &lengths)).unwrap();
            }
            let all: Vec<(usize, &[u32])> =
                prompts.iter().enumerate().map(|(i, ids)| (i, &ids[..])).collect();
            let first = append(&subject, &mut session, &all);
            let step: Vec<(usize, &[u32])> = (0..12).map(|i| (i, &[5u32][..])).collect();
            let second = append(&subject, &mut session, &step);
            for (i, prompt) in prompts.iter().enumerate() {
                let whole = [&prompt[..], &[5]].concat();
                let expected = (subject.forward)(&mut Session::new(ctx), &sources[i / 4], &whole);
                let place = format!("{level} {}: sequence {i}", subject.name);
                assert!(first[i] == expected[..lengths[i]], "{place}");
                assert!(second[i] == expected[lengths[i]..], "{place}, the next token");
            }
        });
    }
}

#[test]
fn results_do_not_depend_on_threads_or_copies() {
    let (prompt, source) = (ids(20, 1), ids(9, 2));
    let next = [ids(4, 7), ids(4, 8)];
    let both =
        |precision| subjects().into_iter().chain(large_subjects()).map(move |subject| (subject, precision));
    for (subject, precision) in both(Precision::Strict).chain(both(Precision::Bf16)) {
        let ctx = Ctx::detect().with_precision(precision);
        let expected: Vec<_> = next
            .iter()
            .map(|next| {
                (subject.forward)(&mut Session::new(ctx), &source, &[&prompt[..], next].concat())
                    .split_off(20)
            })
            .collect();
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for dtype in [None, Some(Dtype::Float32)] {
                let mut session = Session::new(ctx.with_pool(Some(&pool)));
                let options = {
                    let mut options = CacheOptions::new(2, 24);
                    options.dtype = dtype;
                    options
                };
                session.start(&*subject.model, options).unwrap();
                if subject.model.has_encoder() {
                    // One source for both sequences.
                    let source = Tokens::padded(&source, 1, source.len());
                    subject.model.encode(&mut session, source).unwrap();
                }
                append(&subject, &mut session, &[(1, &prompt)]);
                session.copy_sequence(1, 0).unwrap();
                for i in 0..4 {
                    let new = [(0, &next[0][i..=i]), (1, &next[1][i..=i])];
                    for (found, expected) in append(&subject, &mut session, &new).iter().zip(&expected) {
                        assert!(
                            found[0] == expected[i],
                            "{} {precision:?} {threads} threads, step {i}",
                            subject.name
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn sixteen_bit_caches_have_small_errors() {
    let (sequence, source) = (ids(40, 1), ids(9, 2));
    let ctx = Ctx::detect();
    for subject in subjects() {
        let full = (subject.forward)(&mut Session::new(ctx), &source, &sequence);
        let mut bytes = Vec::new();
        for (dtype, bound) in [(Dtype::Float16, 4e-3), (Dtype::Bfloat16, 3e-2)] {
            let sources = std::slice::from_ref(&source);
            let mut session = start(&subject, ctx, (sources, 40), Some(dtype));
            let mut found = append(&subject, &mut session, &[(0, &sequence[..20])]).remove(0);
            for i in 20..40 {
                found.extend(append(&subject, &mut session, &[(0, &sequence[i..=i])]).remove(0));
            }
            let value = |bits: &Vec<Vec<u32>>| -> Vec<f32> {
                bits.iter().flatten().map(|x| f32::from_bits(*x)).collect()
            };
            let (full, found) = (value(&full), value(&found));
            let largest = full.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let error =
                full.iter().zip(&found).fold(0f32, |error, (a, b)| error.max((a - b).abs())) / largest;
            assert!(error > 0.0, "{} {dtype:?}: the cache is not 16-bit", subject.name);
            assert!(error < bound, "{} {dtype:?}: {error:e}", subject.name);
            // The split of a sequence into calls changes no bits here either.
            let again = start(&subject, ctx, (sources, 40), Some(dtype));
            let again = append(&subject, &mut { again }, &[(0, &sequence)]).remove(0);
            assert!(value(&again) == found, "{} {dtype:?}: pieces", subject.name);
            bytes.push(session.cache_bytes());
        }
        let full = start(&subject, ctx, (std::slice::from_ref(&source), 40), None).cache_bytes();
        assert!(bytes.iter().all(|bytes| *bytes <= full / 2 + 64), "{bytes:?} of {full}");
    }
}

#[test]
fn steps_allocate_nothing() {
    let sources = [ids(9, 2), ids(5, 3)];
    for subject in subjects() {
        for precision in Precision::ALL {
            let ctx = Ctx::detect().with_precision(precision);
            let mut session = start(&subject, ctx, (&sources, 60), None);
            for i in 0..60u32 {
                let (_, counts) = CountingAllocator::measure(|| {
                    let tokens = Tokens::padded(&[3, 4], 2, 1);
                    subject.model.decode(&mut session, &[0, 1], tokens).unwrap().batch()
                });
                assert_eq!(counts.allocations, 0, "{} step {i}: {} bytes", subject.name, counts.bytes);
            }
        }
    }
}

/// A cache is one model's: another of the same sizes would attend to keys that are not its own.
#[test]
fn the_cache_of_another_model_is_refused() {
    let source = ids(9, 2);
    for (subject, other) in subjects().into_iter().zip(subjects()) {
        let mut session = start(&subject, Ctx::detect(), (std::slice::from_ref(&source), 40), None);
        let step = Tokens::padded(&[3], 1, 1);
        subject.model.decode(&mut session, &[0], step).unwrap();
        let error = other.model.decode(&mut session, &[0], step).unwrap_err().to_string();
        assert!(error.contains("not started for this model"), "{}: {error}", subject.name);
        subject.model.decode(&mut session, &[0], step).unwrap();
    }
}

#[test]
fn invalid_requests_are_errors_and_change_nothing() {
    let source = ids(9, 2);
    for subject in subjects() {
        let ctx = Ctx::detect();
        let model = &*subject.model;
        let mut session = Session::new(ctx);
        let one = Tokens::padded(&[3], 1, 1);
        let error = |result: rachis::Result<rachis::SequenceOutput<'_>>| result.unwrap_err().to_string();
        assert!(error(model.decode(&mut session, &[0], one)).contains("KV cache"), "not started");
        let options = CacheOptions::new(2, 4);
        session.start(model, options).unwrap();
        if model.has_encoder() {
            assert!(error(model.decode(&mut session, &[0], one)).contains("sources"), "{}", subject.name);
            let three = Tokens::padded(&[3, 4, 5], 3, 1);
            assert!(error(model.encode(&mut session, three)).contains("divisor"), "{}", subject.name);
            model.encode(&mut session, Tokens::padded(&source, 1, 9)).unwrap();
        } else {
            assert!(error(model.encode(&mut session, one)).contains("no encoder"), "{}", subject.name);
        }
        let first = rows(model.decode(&mut session, &[0], one).unwrap().sequence(0));
        let many = ids(5, 3);
        let two = Tokens::padded(&[3, 4], 2, 1);
        assert!(error(model.decode(&mut session, &[0], Tokens::padded(&many, 1, 5))).contains("capacity 4"));
        assert!(error(model.decode(&mut session, &[2], one)).contains("less than 2"));
        assert!(error(model.decode(&mut session, &[0, 0], two)).contains("at most once"));
        assert!(error(model.decode(&mut session, &[0], two)).contains("number of sequences"));
        let unknown = Tokens::padded(&[VOCABULARY as u32], 1, 1);
        assert!(error(model.decode(&mut session, &[0], unknown)).contains("token id"));
        let masked = Tokens::with_mask(&[3], 1, 1, &[0]);
        assert!(error(model.decode(&mut session, &[0], masked)).contains("real tokens"));
        // Sequence 1, which is empty, gives the same row, and then both have the same positions: nothing was appended
        // to sequence 0 by the calls that failed.
        assert!(rows(model.decode(&mut session, &[1], one).unwrap().sequence(0)) == first);
        let both = model.decode(&mut session, &[0, 1], two).unwrap();
        assert_eq!(both.positions(0), both.positions(1));
        session.clear_sequence(0).unwrap();
        assert!(rows(model.decode(&mut session, &[0], one).unwrap().sequence(0)) == first);
        assert!(session.copy_sequence(0, 2).is_err() && session.clear_sequence(2).is_err());
        for (sequences, capacity) in [(usize::MAX, 100), (1, usize::MAX), (usize::MAX, 0), (1, 0), (0, 4)] {
            let options = CacheOptions::new(sequences, capacity);
            assert!(session.start(model, options).is_err(), "{options:?}");
            assert!(model.decode(&mut session, &[0], one).is_err(), "{options:?}");
        }
    }
}

#[test]
fn copies_need_the_same_source() {
    for subject in subjects() {
        let mut session = Session::new(Ctx::detect());
        session.start(&*subject.model, CacheOptions::new(4, 4)).unwrap();
        if subject.model.has_encoder() {
            subject.model.encode(&mut session, Tokens::ragged(&[3, 4, 5], &[1, 2])).unwrap();
            let error = session.copy_sequence(0, 2).unwrap_err().to_string();
            assert_eq!(error, "sequence to copy to is 2, expected one with the source of 0");
        } else {
            session.copy_sequence(0, 2).unwrap();
        }
        session.copy_sequence(2, 3).unwrap();
    }
}
