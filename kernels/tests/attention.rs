//! Attention over ragged batches against the f64 oracle at every level, for every storage type.

mod common;

use common::{Element, at_every_level, bits, for_each_type, view, view_mut};
use rachis_kernels::{
    Attention, Bias, Ctx, Error, Heads, Level, MatMut, MatRef, Precision, Scratch, Span, attention,
    attention_scratch_len, bf16, f16,
};
use rachis_testkit::tolerance::Bound;
use rachis_testkit::{Grid, Kind, Rng, Storage};

/// Heads of 1, of a vector, of whole register tiles and of odd widths, one wider than a block of the product, and
/// sequences around the tile's lanes and the keys that are taken at a time.
const HEADS: [(usize, usize); 6] = [(1, 519), (2, 16), (3, 20), (2, 33), (1, 48), (1, 1)];
const LENGTHS: [&[usize]; 6] = [&[1, 17], &[5, 1, 2], &[47, 48, 49], &[80, 2], &[127, 129], &[257]];
const PRECISIONS: [Precision; 2] = [Precision::Strict, Precision::Bf16];

/// Sequences behind one another.
fn spans(lengths: &[usize]) -> Vec<Span> {
    let mut start = 0;
    lengths
        .iter()
        .map(|len| {
            start += len;
            Span { queries: start - len..start, keys: start - len..start }
        })
        .collect()
}

struct Case<T, K = T> {
    q: Grid<T>,
    k: Grid<K>,
    v: Grid<K>,
    heads: usize,
    kv_heads: usize,
    scale: f32,
    bias: Added,
    causal: bool,
    spans: Vec<Span>,
    /// The position of every row of q, and of k.
    positions: [Vec<u32>; 2],
}

/// A bias, described.
#[derive(Debug, Clone)]
enum Added {
    Nothing,
    Linear { slopes: Vec<f32>, round: bool },
    Distance { table: Grid<f32>, zero: usize },
}

impl<T: Element, K: Element> Case<T, K> {
    fn random(rng: &mut Rng, (heads, width): (usize, usize), lengths: &[usize]) -> Case<T, K> {
        Case::sharing(rng, (heads, heads, width), lengths)
    }

    fn sharing(
        rng: &mut Rng,
        (heads, kv_heads, width): (usize, usize, usize),
        lengths: &[usize],
    ) -> Case<T, K> {
        let rows = lengths.iter().sum();
        let q = Grid::random(rng, Kind::Uniform, (rows, heads * width), 0);
        let mut grid = |gap| Grid::random(rng, Kind::Uniform, (rows, kv_heads * width), gap);
        let (k, v) = (grid(3), grid(1));
        let positions: Vec<u32> = lengths.iter().flat_map(|len| 0..*len as u32).collect();
        let scale = 1.0 / (width as f32).sqrt();
        let (bias, causal, spans) = (Added::Nothing, false, spans(lengths));
        Case {
            q,
            k,
            v,
            heads,
            kv_heads,
            scale,
            bias,
            causal,
            spans,
            positions: [positions.clone(), positions],
        }
    }

    fn op<'a>(&'a self, out: MatMut<'a, T>) -> Attention<'a, T> {
        let bias = match &self.bias {
            Added::Nothing => Bias::None,
            Added::Linear { slopes, round } => Bias::Linear { slopes, round: *round },
            Added::Distance { table, zero } => {
                let [queries, keys] = &self.positions;
                Bias::Distance { table: view(table), zero: *zero, queries, keys }
            }
        };
        let Case { q, k, v, heads, kv_heads, scale, causal, spans, .. } = self;
        Attention {
            q: view(q),
            k: view(k).into(),
            v: view(v).into(),
            heads: Heads::dense(*heads, *kv_heads, q.cols() / heads),
            scale: *scale,
            bias,
            causal: *causal,
            spans,
            out,
        }
    }

    fn run(&self, ctx: &Ctx) -> Grid<T> {
        let filled = vec![T::from_f32(7.0); self.q.rows() * self.q.cols()];
        let mut out = Grid::new(&filled, (self.q.rows(), self.q.cols()), 2);
        attention(ctx, &mut Scratch::new(), self.op(view_mut(&mut out))).unwrap();
        out.assert_guards();
        out
    }

    /// What is added to the score of a query and a key of its span.
    fn added(&self, span: &Span, head: usize, query: usize, key: usize) -> f64 {
        match &self.bias {
            Added::Nothing => 0.0,
            Added::Linear { slopes, round } => {
                let rounded = |x: f32| if *round { bf16::from_f32(x).to_f32() } else { x };
                f64::from(rounded(slopes[head] * rounded((key - span.keys.start) as f32)))
            }
            Added::Distance { table, zero } => {
                let column = zero + self.positions[0][query] as usize - self.positions[1][key] as usize;
                f64::from(table.at(head, column))
            }
        }
    }

    /// The keys of a span that a query of it sees.
    fn seen(&self, span: &Span, query: usize) -> std::ops::Range<usize> {
        let later = if self.causal { span.queries.end - 1 - query } else { 0 };
        span.keys.start..span.keys.end - later
    }

    /// The exact row of one query from operands as the precision takes them, and how far off f32 arithmetic may be:
    /// an error of a score changes all weights by that factor, rounding a weight changes that weight, and the mix
    /// adds an error for each key.
    fn exact(&self, precision: Precision, span: &Span, query: usize) -> Vec<Bound> {
        const EPS: f64 = 1.0 / 16_777_216.0;
        let taken = |x: f64| match precision {
            Precision::Strict => x,
            Precision::Bf16 => <bf16 as Storage>::nearest(x),
        };
        let rounding = if precision == Precision::Bf16 { 1.0 / 256.0 } else { 0.0 };
        let (width, scale) = (self.q.cols() / self.heads, f64::from(self.scale));
        let mut row = Vec::new();
        for head in 0..self.heads {
            let shared = head / (self.heads / self.kv_heads);
            let (mut scores, mut error) = (Vec::new(), 0.0f64);
            let keys = self.seen(span, query);
            for key in keys.clone() {
                let products = (0..width).map(|c| {
                    let (q, k) = (self.q.at(query, head * width + c), self.k.at(key, shared * width + c));
                    taken(q.to_f64()) * taken(k.to_f64())
                });
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                let added = self.added(span, head, query, key);
                scores.push((sum + added) * scale);
                error = error.max((width as f64 + 4.0) * EPS * (size + added.abs()) * scale);
            }
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for column in shared * width..(shared + 1) * width {
                let values = || keys.clone().map(|key| taken(self.v.at(key, column).to_f64()));
                let exact = values().zip(&weights).map(|(v, w)| v * w / total).sum();
                let most = values().fold(0.0, |most: f64, v| most.max(v.abs()));
                let allowed = (2.0 * error + (2.0 * keys.len() as f64 + 12.0) * EPS + rounding) * most;
                row.push(Bound { error: allowed, ..Bound::exactly(exact) });
            }
        }
        row
    }

    #[track_caller]
    fn check(&self, ctx: &Ctx, out: &Grid<T>) {
        for span in &self.spans {
            for query in span.queries.clone() {
                for (column, bound) in self.exact(ctx.precision(), span, query).iter().enumerate() {
                    bound.check(out.at(query, column), || {
                        let Case { heads, kv_heads, causal, spans, .. } = self;
                        let place = format!("{} {:?}", ctx.level(), ctx.precision());
                        let heads = format!("{heads} heads, {kv_heads} of keys, causal {causal}");
                        format!("{place} {heads} {spans:?} query {query} column {column}")
                    });
                }
            }
        }
    }
}

fn matches_the_oracle<T: Element>(ctx: &Ctx) {
    let mut rng = Rng::new(31);
    for (i, lengths) in LENGTHS.into_iter().enumerate() {
        for heads in [HEADS[i], HEADS[i.max(1) - 1]] {
            let case = Case::<T>::random(&mut rng, heads, lengths);
            for precision in PRECISIONS {
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

#[test]
fn a_sequence_does_not_depend_on_batch_or_threads() {
    let mut rng = Rng::new(32);
    let case = Case::<f32>::random(&mut rng, (3, 20), &[40, 1, 70, 129]);
    let pools = [2, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for precision in PRECISIONS {
        let mut fused = None;
        at_every_level(|ctx| {
            let ctx = &ctx.with_precision(precision);
            let together = case.run(ctx);
            for pool in &pools {
                assert_eq!(bits(&case.run(&ctx.with_pool(Some(pool))).values()), bits(&together.values()));
            }
            // Alone, and its last queries alone: where they start does not show.
            for span in &case.spans {
                let late = Span {
                    queries: span.queries.start + span.queries.len() / 2..span.queries.end,
                    ..span.clone()
                };
                for span in [span.clone(), late] {
                    let (q, k, v) = (case.q.clone(), case.k.clone(), case.v.clone());
                    let (bias, positions) = (case.bias.clone(), case.positions.clone());
                    let alone = Case { q, k, v, bias, positions, spans: vec![span.clone()], ..case }.run(ctx);
                    for query in span.queries {
                        let (alone, together) = (bits(alone.row(query)), bits(together.row(query)));
                        assert_eq!(alone, together, "{} {precision:?} query {query}", ctx.level());
                    }
                }
            }
            let pairs = (ctx.level(), precision) == (Level::Avx512Bf16, Precision::Bf16);
            if ctx.level() != Level::Scalar && !pairs {
                let expected = fused.get_or_insert_with(|| bits(&together.values())).clone();
                assert_eq!(
                    bits(&together.values()),
                    expected,
                    "{} against the first fused level",
                    ctx.level()
                );
            }
        });
    }
}

/// Scores so far apart that those before a larger one vanish, in either order.
#[test]
fn a_growing_maximum_scales_what_came_before() {
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
fn special_scores_stay_in_their_rows() {
    let mut case = Case::<f32>::random(&mut Rng::new(37), (1, 4), &[130]);
    let mut q: Vec<f32> = case.q.values().into_iter().map(f32::abs).collect();
    q[..4].fill(f32::NAN);
    q[4..8].fill(f32::MAX);
    case.q = Grid::new(&q, (130, 4), 0);
    let mut k = case.k.values();
    // Beside the largest finite numbers: one score of negative infinity, one that is infinite for query 1.
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

/// Every bias, causal or not, with keys and values shared by heads, in their own storage type.
#[test]
fn biases_and_hidden_keys_obey_the_bound() {
    fn check<T: Element, K: Element>(ctx: &Ctx) {
        let mut rng = Rng::new(38);
        for (heads, lengths) in [((6, 2, 20), &[5, 49][..]), ((4, 1, 16), &[131]), ((3, 3, 9), &[17, 1, 16])]
        {
            let mut case = Case::<T, K>::sharing(&mut rng, heads, lengths);
            let slopes = (0..heads.0).map(|head| 0.7 / (head + 1) as f32).collect();
            let table = Grid::random(&mut rng, Kind::Uniform, (heads.0, 2 * 140), 1);
            for bias in [
                Added::Nothing,
                Added::Linear { slopes, round: heads.0 == 6 },
                Added::Distance { table, zero: 140 },
            ] {
                case.bias = bias;
                for causal in [false, true] {
                    case.causal = causal;
                    case.check(ctx, &case.run(ctx));
                }
            }
        }
    }
    at_every_level(|ctx| {
        for precision in PRECISIONS {
            let ctx = &ctx.with_precision(precision);
            check::<f32, f32>(ctx);
            check::<f32, bf16>(ctx);
            check::<bf16, f32>(ctx);
            check::<bf16, f16>(ctx);
            check::<f32, f16>(ctx);
        }
    });
}

/// From 257 on a number may not be one of bf16.
#[test]
fn numbers_of_keys_are_rounded_with_their_products() {
    let mut case = Case::<f32, f32>::sharing(&mut Rng::new(40), (2, 2, 8), &[270]);
    case.bias = Added::Linear { slopes: vec![0.7, 0.1], round: true };
    at_every_level(|ctx| case.check(ctx, &case.run(ctx)));
}

/// The last queries alone, as a step on cached keys has them, have the bits that they have among all.
#[test]
fn a_causal_step_has_the_bits_of_the_whole() {
    let mut rng = Rng::new(39);
    let mut case = Case::<f32, bf16>::sharing(&mut rng, (4, 2, 24), &[200]);
    case.causal = true;
    // With holes, so that distances are not in a row.
    case.positions = [0, 1].map(|_| (0..200).map(|i| i + i / 7).collect());
    let table = Grid::random(&mut rng, Kind::Uniform, (4, 2 * 240), 0);
    for bias in [
        Added::Nothing,
        Added::Linear { slopes: vec![0.5; 4], round: true },
        Added::Distance { table, zero: 240 },
    ] {
        case.bias = bias;
        for precision in PRECISIONS {
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

/// Where the heads of queries, keys and values lie does not show: in one matrix, group by group, as apart.
#[test]
fn fused_projections_give_the_bits_of_separate_ones() {
    fn check<T: Element>(ctx: &Ctx) {
        let mut rng = Rng::new(40);
        for (count, groups, dim) in [(3, 3, 20), (4, 1, 16), (6, 2, 9), (1, 1, 64)] {
            let mut case = Case::<T>::sharing(&mut rng, (count, groups, dim), &[33, 1, 5]);
            case.causal = true;
            let shared = count / groups;
            let mut fused = Vec::new();
            for row in 0..case.q.rows() {
                for group in 0..groups {
                    let (queries, keys) = (group * shared * dim, group * dim..(group + 1) * dim);
                    fused.extend_from_slice(&case.q.row(row)[queries..queries + shared * dim]);
                    fused.extend_from_slice(&case.k.row(row)[keys.clone()]);
                    fused.extend_from_slice(&case.v.row(row)[keys]);
                }
            }
            let width = (count + 2 * groups) * dim;
            let fused = Grid::new(&fused, (case.q.rows(), width), 3);
            let from = |columns: usize| view(&fused).columns(columns, width - columns).unwrap();
            let mut out = Grid::new(&vec![T::from_f32(7.0); case.q.values().len()], (39, count * dim), 1);
            let op = Attention {
                q: from(0),
                k: from(shared * dim).into(),
                v: from((shared + 1) * dim).into(),
                heads: Heads::fused(count, groups, dim),
                ..case.op(view_mut(&mut out))
            };
            attention(ctx, &mut Scratch::new(), op).unwrap();
            out.assert_guards();
            let expected = case.run(ctx);
            assert_eq!(bits(&out.values()), bits(&expected.values()), "{} {count} {groups}", ctx.level());
        }
    }
    at_every_level(|ctx| {
        for precision in PRECISIONS {
            for_each_type!(check(&ctx.with_precision(precision)));
        }
    });
}

#[test]
fn keys_and_values_may_be_stored_apart() {
    let mut rng = Rng::new(41);
    let case = Case::<f32>::random(&mut rng, (2, 16), &[40]);
    let keys: Vec<bf16> = case.k.values().into_iter().map(bf16::from_f32).collect();
    let values: Vec<f16> = case.v.values().into_iter().map(f16::from_f32).collect();
    let (keys, values) = (Grid::new(&keys, (40, 32), 1), Grid::new(&values, (40, 32), 2));
    let widened = |exact: Vec<f64>| exact.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    at_every_level(|ctx| {
        let (mut stored, mut wide) = (case.q.clone(), case.q.clone());
        let op =
            Attention { k: view(&keys).into(), v: view(&values).into(), ..case.op(view_mut(&mut stored)) };
        attention(ctx, &mut Scratch::new(), op).unwrap();
        let (k, v) = (widened(keys.exact()), widened(values.exact()));
        let op = Attention {
            k: MatRef::new(&k, 40, 32).unwrap().into(),
            v: MatRef::new(&v, 40, 32).unwrap().into(),
            ..case.op(view_mut(&mut wide))
        };
        attention(ctx, &mut Scratch::new(), op).unwrap();
        assert_eq!(bits(&stored.values()), bits(&wide.values()), "{}", ctx.level());
    });
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let ctx = Ctx::new(Level::Scalar).unwrap();
    let data = [1.0f32; 24];
    let accepted = |heads: Heads| {
        let mut written = [7.0f32; 16];
        let matrix = || MatRef::new(&data, 4, 6).unwrap();
        let op = Attention {
            q: matrix(),
            k: matrix().into(),
            v: matrix().columns(1, 5).unwrap().into(),
            heads,
            scale: 1.0,
            bias: Bias::None,
            causal: false,
            spans: &[Span { queries: 0..4, keys: 0..4 }],
            out: MatMut::new(&mut written, 4, 4).unwrap(),
        };
        let result = attention(&ctx, &mut Scratch::new(), op);
        let refused = matches!(result, Err(Error::Shape { operation: "attention", .. }));
        assert!(refused == (written == [7.0; 16]) && refused == result.is_err(), "{result:?}");
        !refused
    };
    let heads = Heads { count: 4, groups: 2, dim: 1, query_step: 4, key_step: 4 };
    assert!(accepted(heads));
    assert!(accepted(Heads { query_step: 2, ..heads }));
    assert!(accepted(Heads::dense(2, 1, 2)));
    assert!(!accepted(Heads { query_step: 5, ..heads }));
    assert!(!accepted(Heads { key_step: 5, ..heads }));
    assert!(!accepted(Heads { groups: 0, ..heads }));
    assert!(!accepted(Heads { groups: 3, ..heads }));
    assert!(!accepted(Heads { dim: 0, ..heads }));
    assert!(!accepted(Heads { count: 0, ..heads }));
    assert!(!accepted(Heads { query_step: usize::MAX, ..heads }));
    assert!(!accepted(Heads { key_step: usize::MAX, ..heads }));
    for (count, groups) in [(usize::MAX, usize::MAX), (usize::MAX, 1), (4, 0), (0, 4)] {
        for dim in [0, 1, usize::MAX] {
            assert!(!accepted(Heads::dense(count, groups, dim)));
            assert!(!accepted(Heads::fused(count, groups, dim)));
        }
    }
}

#[test]
fn queries_may_be_other_rows_than_keys() {
    // The first row asks but is nobody's key; the last is neither.
    let mut rng = Rng::new(33);
    let mut case = Case::<f32>::random(&mut rng, (2, 8), &[6]);
    case.spans = vec![Span { queries: 0..5, keys: 1..5 }];
    at_every_level(|ctx| {
        let out = case.run(ctx);
        case.check(ctx, &out);
        assert!(out.row(5).iter().all(|x| *x == 7.0), "a row of no span is left as it is");
    });
}

#[test]
fn without_keys_the_result_is_zero() {
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
fn scratch_is_known_before_the_call() {
    let mut rng = Rng::new(35);
    let case = Case::<f32>::random(&mut rng, (2, 16), &[65, 80]);
    at_every_level(|ctx| {
        let mut scratch = Scratch::new();
        scratch.reserve(attention_scratch_len(ctx, 16));
        let bytes = scratch.bytes();
        let mut out = case.q.clone();
        attention(ctx, &mut scratch, case.op(view_mut(&mut out))).unwrap();
        assert_eq!(scratch.bytes(), bytes);
    });
}

#[test]
fn operands_that_disagree_are_refused_and_nothing_is_written() {
    let ctx = Ctx::new(Level::Scalar).unwrap();
    let data = [1.0f32; 24];
    let refused =
        |spans: &[Span], heads: usize, (q, k, v): ((usize, usize), (usize, usize), (usize, usize))| {
            let mut written = [7.0f32; 24];
            let matrix = |(rows, cols)| MatRef::new(&data, rows, cols).unwrap();
            let out = MatMut::new(&mut written, 4, 6).unwrap();
            let op = Attention {
                q: matrix(q),
                k: matrix(k).into(),
                v: matrix(v).into(),
                heads: Heads::dense(heads, heads, 6 / heads.max(1)),
                scale: 1.0,
                bias: Bias::None,
                causal: false,
                spans,
                out,
            };
            let error = attention(&ctx, &mut Scratch::new(), op).unwrap_err();
            assert!(matches!(error, Error::Shape { operation: "attention", .. }), "{error}");
            assert_eq!(written, [7.0; 24]);
        };
    let all = (4, 6);
    let span = |queries, keys| Span { queries, keys };
    let good = || span(0..4, 0..4);
    refused(&[good()], 0, (all, all, all));
    refused(&[good()], 4, (all, all, all));
    refused(&[good()], 2, ((3, 6), all, all));
    refused(&[good()], 2, ((4, 4), all, all));
    refused(&[good()], 2, (all, (4, 4), all));
    refused(&[good()], 2, (all, all, (3, 6)));
    refused(&[span(0..5, 0..4)], 2, (all, all, all));
    refused(&[span(0..4, 0..5)], 2, (all, all, all));
    refused(&[span(0..2, 0..2), span(1..4, 1..4)], 2, (all, all, all));
    refused(&[span(0..2, 0..usize::MAX)], 2, (all, all, all));
    #[allow(clippy::reversed_empty_ranges, reason = "a hostile range")]
    refused(&[span(3..1, 0..2)], 2, (all, all, all));
}

#[test]
fn a_bias_or_a_mask_that_does_not_fit_is_refused() {
    let ctx = Ctx::new(Level::Scalar).unwrap();
    let data = [1.0f32; 24];
    let good = [0, 1, 2, 3];
    let refused = |groups: usize, bias: Bias<'_>, causal: bool, keys: std::ops::Range<usize>| {
        let mut written = [7.0f32; 24];
        let matrix = || MatRef::new(&data, 4, 6).unwrap();
        let out = MatMut::new(&mut written, 4, 6).unwrap();
        let spans = &[Span { queries: 0..4, keys }];
        let op = Attention {
            q: matrix(),
            k: matrix().into(),
            v: matrix().into(),
            heads: Heads::dense(2, groups, 3),
            scale: 1.0,
            bias,
            causal,
            spans,
            out,
        };
        let result = attention(&ctx, &mut Scratch::new(), op);
        let refused = matches!(result, Err(Error::Shape { operation: "attention", .. }));
        assert!(refused == (written == [7.0; 24]), "{result:?}");
        refused
    };
    let table = |rows, cols| MatRef::new(&data, rows, cols).unwrap();
    let distance = |table, zero, queries, keys| Bias::Distance { table, zero, queries, keys };
    assert!(!refused(2, Bias::None, true, 0..4));
    assert!(refused(0, Bias::None, false, 0..4));
    assert!(!refused(1, Bias::None, false, 0..4));
    assert!(refused(3, Bias::None, false, 0..4));
    assert!(refused(2, Bias::None, true, 0..3));
    assert!(refused(2, Bias::Linear { slopes: &[1.0], round: false }, false, 0..4));
    assert!(!refused(2, distance(table(2, 7), 3, &good, &good), false, 0..4));
    assert!(refused(2, distance(table(3, 7), 3, &good, &good), false, 0..4));
    assert!(refused(2, distance(table(2, 6), 3, &good, &good), false, 0..4));
    assert!(refused(2, distance(table(2, 7), 2, &good, &good), false, 0..4));
    assert!(refused(2, distance(table(2, 7), 3, &good[..3], &good), false, 0..4));
    assert!(refused(2, distance(table(2, 7), 3, &good, &good[..3]), false, 0..4));
    assert!(refused(2, distance(table(2, 7), 3, &[0, 2, 1, 3], &good), false, 0..4));
    assert!(refused(2, distance(table(2, 7), usize::MAX, &good, &good), false, 0..4));
}
