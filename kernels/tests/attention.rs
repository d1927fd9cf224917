//! Attention over ragged batches against the f64 oracle at every level, for every storage type: shapes, biases, causal masks,
//! and scores that are far apart or not finite.

mod common;

use common::attention_case::{Case, CaseBias};
use common::{Element, at_every_level, for_each_type, view_mut};
use rachis_kernels::{
    AlibiRounding, AttentionMask, Ctx, Precision, Scratch, Span, attention, attention_scratch_len, bf16, f16,
};
use rachis_testkit::{Grid, Kind, Rng};

/// Number of heads and their width: 1, one vector, whole register tiles, odd widths, and more than a block of k.
const HEADS: [(usize, usize); 6] = [(1, 519), (2, 16), (3, 20), (2, 33), (1, 48), (1, 1)];
/// Lengths of sequences around the lanes of the register tile and the keys of a block.
const LENGTHS: [&[usize]; 6] = [&[1, 17], &[5, 1, 2], &[47, 48, 49], &[80, 2], &[127, 129], &[257]];

fn matches_the_oracle<T: Element>(ctx: &Ctx) {
    let mut rng = Rng::new(31);
    for (i, lengths) in LENGTHS.into_iter().enumerate() {
        for heads in [HEADS[i], HEADS[i.max(1) - 1]] {
            let case = Case::<T>::random(&mut rng, heads, lengths);
            for precision in Precision::ALL {
                let ctx = ctx.with_precision(precision);
                case.check(&ctx, &case.run(&ctx));
            }
        }
    }
}

#[test]
fn every_shape_and_type_obeys_the_bound() {
    at_every_level(|ctx| {
        for_each_type!(matches_the_oracle(ctx));
    });
}

/// Scores so far apart that the smaller ones have no weight, in ascending and in descending order.
#[test]
fn a_growing_maximum_scales_the_sums_of_earlier_keys() {
    let (keys, width) = (300, 8);
    for ascending in [false, true] {
        let score = |key: usize| if ascending { key } else { keys - 1 - key } as f32;
        let k: Vec<f32> = (0..keys * width).map(|i| score(i / width)).collect();
        let mut case = Case::<f32>::random(&mut Rng::new(36), (1, width), &[keys]);
        case.k = Grid::new(&k, (keys, width), 0);
        case.q = Grid::new(&vec![1.0; keys * width], (keys, width), 0);
        case.scale = 0.1;
        at_every_level(|ctx| case.check(ctx, &case.run(ctx)));
    }
}

#[test]
fn scores_that_are_not_finite_affect_only_their_rows() {
    let mut case = Case::<f32>::random(&mut Rng::new(37), (1, 4), &[130]);
    let mut q: Vec<f32> = case.q.values().into_iter().map(f32::abs).collect();
    q[..4].fill(f32::NAN);
    q[4..8].fill(f32::MAX);
    case.q = Grid::new(&q, (130, 4), 0);
    let mut k = case.k.values();
    // Products with the largest finite numbers: a score of negative infinity, and one that is infinite for query 1.
    k[..4].fill(-f32::MAX);
    k[129 * 4..].fill(1.0);
    case.k = Grid::new(&k, (130, 4), 0);
    at_every_level(|ctx| {
        let out = case.run(ctx);
        assert!(out.row(0).iter().all(|x| x.is_nan()), "{}", ctx.level());
        assert!(out.row(1).iter().all(|x| x.is_nan()), "{}", ctx.level());
        for query in 2..130 {
            assert!(out.row(query).iter().all(|x| x.is_finite()), "{} query {query}", ctx.level());
        }
    });
}

/// Every bias, with and without the causal mask, with heads that share keys and values, which have a storage type of their
/// own.
#[test]
fn biases_and_causal_masks_obey_the_bound() {
    fn check<T: Element, K: Element>(ctx: &Ctx) {
        let mut rng = Rng::new(38);
        for (heads, lengths) in [((6, 2, 20), &[5, 49][..]), ((4, 1, 16), &[131]), ((3, 3, 9), &[17, 1, 16])]
        {
            let mut case = Case::<T, K>::sharing(&mut rng, heads, lengths);
            let slopes = (0..heads.0).map(|head| 0.7 / (head + 1) as f32).collect();
            let table = Grid::random(&mut rng, Kind::Uniform, (heads.0, 2 * 140), 1);
            for bias in [
                CaseBias::None,
                CaseBias::Linear {
                    slopes,
                    rounding: if heads.0 == 6 { AlibiRounding::Bf16 } else { AlibiRounding::None },
                },
                CaseBias::Distance { table, zero: 140 },
            ] {
                case.bias = bias;
                for mask in [AttentionMask::None, AttentionMask::Causal] {
                    case.mask = mask;
                    case.check(ctx, &case.run(ctx));
                }
            }
        }
    }
    at_every_level(|ctx| {
        for precision in Precision::ALL {
            let ctx = &ctx.with_precision(precision);
            check::<f32, f32>(ctx);
            check::<f32, bf16>(ctx);
            check::<bf16, f32>(ctx);
            check::<bf16, f16>(ctx);
            check::<f32, f16>(ctx);
        }
    });
}

/// From 257 on a distance may not be representable in bf16.
#[test]
fn alibi_rounds_distances_and_products_to_bf16() {
    let mut case = Case::<f32, f32>::sharing(&mut Rng::new(40), (2, 2, 8), &[270]);
    case.bias = CaseBias::Linear { slopes: vec![0.7, 0.1], rounding: AlibiRounding::Bf16 };
    at_every_level(|ctx| case.check(ctx, &case.run(ctx)));
}

#[test]
fn queries_and_keys_may_be_different_rows() {
    // The first row is a query but no key; the last row is neither.
    let mut rng = Rng::new(33);
    let mut case = Case::<f32>::random(&mut rng, (2, 8), &[6]);
    case.spans = vec![Span { queries: 0..5, keys: 1..5 }];
    at_every_level(|ctx| {
        let out = case.run(ctx);
        case.check(ctx, &out);
        assert!(out.row(5).iter().all(|x| *x == 7.0), "a row of no span is unchanged");
    });
}

#[test]
fn a_span_without_keys_gives_rows_of_zeros() {
    let mut rng = Rng::new(34);
    let mut case = Case::<f32>::random(&mut rng, (2, 8), &[3, 2]);
    case.spans[0].keys = 0..0;
    at_every_level(|ctx| {
        let out = case.run(ctx);
        assert!((0..3).flat_map(|i| out.row(i).to_vec()).all(|x| x == 0.0));
        assert!(out.row(3).iter().any(|x| *x != 0.0));
    });
}

#[test]
fn attention_scratch_len_is_what_the_call_needs() {
    let mut rng = Rng::new(35);
    let case = Case::<f32>::random(&mut rng, (2, 16), &[65, 80]);
    at_every_level(|ctx| {
        let mut scratch = Scratch::new();
        scratch.reserve(attention_scratch_len(ctx, 16)).unwrap();
        let bytes = scratch.bytes();
        let mut out = case.q.clone();
        attention(ctx, &mut scratch, case.op(view_mut(&mut out))).unwrap();
        assert_eq!(scratch.bytes(), bytes);
    });
}
