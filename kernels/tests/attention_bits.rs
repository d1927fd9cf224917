//! The bits of attention: a row depends on its query and on its sequence's keys and values, and not on the batch, the threads,
//! the other queries, the columns where heads lie, or the storage type of equal keys and values.

mod common;

use common::attention_case::{Case, CaseBias};
use common::{Element, at_every_level, bits, for_each_type, view, view_mut};
use rachis_kernels::{
    AlibiRounding, Attention, AttentionMask, Ctx, Heads, Level, MatRef, Precision, Scratch, Span, attention,
    bf16, f16,
};
use rachis_testkit::{Grid, Kind, Rng};

#[test]
fn a_sequence_does_not_depend_on_batch_or_threads() {
    let mut rng = Rng::new(32);
    let case = Case::<f32>::random(&mut rng, (3, 20), &[40, 1, 70, 129]);
    let pools = [2, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for precision in Precision::ALL {
        let mut fused = None;
        at_every_level(|ctx| {
            let ctx = &ctx.with_precision(precision);
            let together = case.run(ctx);
            for pool in &pools {
                assert_eq!(bits(&case.run(&ctx.with_pool(Some(pool))).values()), bits(&together.values()));
            }
            // Each sequence in a call of its own, with all its queries and with the second half of them.
            for span in &case.spans {
                let second_half = Span {
                    queries: span.queries.start + span.queries.len() / 2..span.queries.end,
                    ..span.clone()
                };
                for span in [span.clone(), second_half] {
                    let (q, k, v) = (case.q.clone(), case.k.clone(), case.v.clone());
                    let (bias, positions) = (case.bias.clone(), case.positions.clone());
                    let alone = Case { q, k, v, bias, positions, spans: vec![span.clone()], ..case }.run(ctx);
                    for query in span.queries {
                        let (alone, together) = (bits(alone.row(query)), bits(together.row(query)));
                        assert_eq!(alone, together, "{} {precision:?} query {query}", ctx.level());
                    }
                }
            }
            // Levels whose instructions for bf16 sum in an order of their own.
            let has_own_order =
                matches!(ctx.level(), Level::Avx512Bf16 | Level::Amx) && precision == Precision::Bf16;
            if ctx.level() != Level::Scalar && !has_own_order {
                let expected = fused.get_or_insert_with(|| bits(&together.values())).clone();
                let level = ctx.level();
                assert!(
                    bits(&together.values()) == expected,
                    "{level} differs from the first level that fuses"
                );
            }
        });
    }
}

/// The last queries in a call of their own, as in a decoding step on cached keys, have the bits that they have among all.
#[test]
fn a_decoding_step_has_the_bits_of_the_whole_sequence() {
    let mut rng = Rng::new(39);
    let mut case = Case::<f32, bf16>::sharing(&mut rng, (4, 2, 24), &[200]);
    case.mask = AttentionMask::Causal;
    // With gaps, so that distances are not consecutive.
    case.positions = [0, 1].map(|_| (0..200).map(|i| i + i / 7).collect());
    let table = Grid::random(&mut rng, Kind::Uniform, (4, 2 * 240), 0);
    for bias in [
        CaseBias::None,
        CaseBias::Linear { slopes: vec![0.5; 4], rounding: AlibiRounding::Bf16 },
        CaseBias::Distance { table, zero: 240 },
    ] {
        case.bias = bias;
        for precision in Precision::ALL {
            at_every_level(|ctx| {
                let ctx = &ctx.with_precision(precision);
                case.spans = vec![Span { queries: 0..200, keys: 0..200 }];
                let all = case.run(ctx);
                case.check(ctx, &all);
                for (first, count) in [(199, 1), (0, 1), (100, 3), (57, 64), (128, 1)] {
                    let queries = first..first + count;
                    case.spans = vec![Span { queries: queries.clone(), keys: 0..queries.end }];
                    let some = case.run(ctx);
                    for query in queries {
                        assert_eq!(
                            bits(some.row(query)),
                            bits(all.row(query)),
                            "{} query {query}",
                            ctx.level()
                        );
                    }
                }
            });
        }
    }
}

/// Heads of queries, keys and values in one matrix, as a fused projection gives them, have the bits of separate matrices.
#[test]
fn fused_projections_give_the_bits_of_separate_projections() {
    fn check<T: Element>(ctx: &Ctx) {
        let mut rng = Rng::new(40);
        for (count, kv_heads, dim) in [(3, 3, 20), (4, 1, 16), (6, 2, 9), (1, 1, 64)] {
            let mut case = Case::<T>::sharing(&mut rng, (count, kv_heads, dim), &[33, 1, 5]);
            case.mask = AttentionMask::Causal;
            let shared = count / kv_heads;
            let mut fused = Vec::new();
            for row in 0..case.q.rows() {
                for kv_head in 0..kv_heads {
                    let (queries, keys) = (kv_head * shared * dim, kv_head * dim..(kv_head + 1) * dim);
                    fused.extend_from_slice(&case.q.row(row)[queries..queries + shared * dim]);
                    fused.extend_from_slice(&case.k.row(row)[keys.clone()]);
                    fused.extend_from_slice(&case.v.row(row)[keys]);
                }
            }
            let width = (count + 2 * kv_heads) * dim;
            let fused = Grid::new(&fused, (case.q.rows(), width), 3);
            let from = |columns: usize| view(&fused).columns(columns, width - columns).unwrap();
            let mut out = Grid::new(&vec![T::from_f32(7.0); case.q.values().len()], (39, count * dim), 1);
            let op = Attention {
                q: from(0),
                k: from(shared * dim).into(),
                v: from((shared + 1) * dim).into(),
                heads: Heads::fused(count, kv_heads, dim),
                ..case.op(view_mut(&mut out))
            };
            attention(ctx, &mut Scratch::new(), op).unwrap();
            out.assert_guards();
            let expected = case.run(ctx);
            assert_eq!(bits(&out.values()), bits(&expected.values()), "{} {count} {kv_heads}", ctx.level());
        }
    }
    at_every_level(|ctx| {
        for precision in Precision::ALL {
            for_each_type!(check(&ctx.with_precision(precision)));
        }
    });
}

#[test]
fn keys_and_values_of_other_types_give_the_bits_of_their_widened_values() {
    let mut rng = Rng::new(41);
    let case = Case::<f32>::random(&mut rng, (2, 16), &[40]);
    let keys: Vec<bf16> = case.k.values().into_iter().map(bf16::from_f32).collect();
    let values: Vec<f16> = case.v.values().into_iter().map(f16::from_f32).collect();
    let (keys, values) = (Grid::new(&keys, (40, 32), 1), Grid::new(&values, (40, 32), 2));
    let widened = |exact: Vec<f64>| exact.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    at_every_level(|ctx| {
        let (mut from_stored, mut from_widened) = (case.q.clone(), case.q.clone());
        let op = Attention {
            k: view(&keys).into(),
            v: view(&values).into(),
            ..case.op(view_mut(&mut from_stored))
        };
        attention(ctx, &mut Scratch::new(), op).unwrap();
        let (k, v) = (widened(keys.exact()), widened(values.exact()));
        let op = Attention {
            k: MatRef::new(&k, 40, 32).unwrap().into(),
            v: MatRef::new(&v, 40, 32).unwrap().into(),
            ..case.op(view_mut(&mut from_widened))
        };
        attention(ctx, &mut Scratch::new(), op).unwrap();
        assert_eq!(bits(&from_stored.values()), bits(&from_widened.values()), "{}", ctx.level());
    });
}
