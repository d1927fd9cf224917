//! Attention over ragged batches against the f64 oracle at every level, for every storage type.

mod common;

use common::{Element, at_every_level, bits, for_each_type, view, view_mut};
use rachis_kernels::{
    Attention, Ctx, Error, Level, MatMut, MatRef, Precision, Scratch, Span, attention, attention_scratch_len,
    bf16,
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

struct Case<T> {
    q: Grid<T>,
    k: Grid<T>,
    v: Grid<T>,
    heads: usize,
    scale: f32,
    spans: Vec<Span>,
}

impl<T: Element> Case<T> {
    fn random(rng: &mut Rng, (heads, width): (usize, usize), lengths: &[usize]) -> Case<T> {
        let shape = (lengths.iter().sum(), heads * width);
        let mut grid = |gap| Grid::random(rng, Kind::Uniform, shape, gap);
        let (q, k, v) = (grid(0), grid(3), grid(1));
        Case { q, k, v, heads, scale: 1.0 / (width as f32).sqrt(), spans: spans(lengths) }
    }

    fn op<'a>(&'a self, out: MatMut<'a, T>) -> Attention<'a, T> {
        let Case { q, k, v, heads, scale, spans } = self;
        Attention { q: view(q), k: view(k), v: view(v), heads: *heads, scale: *scale, spans, out }
    }

    fn run(&self, ctx: &Ctx) -> Grid<T> {
        let filled = vec![T::from_f32(7.0); self.q.rows() * self.q.cols()];
        let mut out = Grid::new(&filled, (self.q.rows(), self.q.cols()), 2);
        attention(ctx, &mut Scratch::new(), self.op(view_mut(&mut out))).unwrap();
        out.assert_guards();
        out
    }

    /// The exact row of one query from operands as the precision takes them, and how far off f32 arithmetic may be:
    /// an error of a score changes all weights by that factor, rounding a weight changes that weight, and the mix
    /// adds an error for each key.
    fn exact(&self, precision: Precision, span: &Span, query: usize) -> Vec<Bound> {
        const EPS: f64 = 1.0 / 16_777_216.0;
        let taken = |x: T| match precision {
            Precision::Strict => x.to_f64(),
            Precision::Bf16 => <bf16 as Storage>::nearest(x.to_f64()),
        };
        let rounding = if precision == Precision::Bf16 { 1.0 / 256.0 } else { 0.0 };
        let (width, scale) = (self.q.cols() / self.heads, f64::from(self.scale));
        let mut row = Vec::new();
        for head in 0..self.heads {
            let columns = head * width..(head + 1) * width;
            let (mut scores, mut error) = (Vec::new(), 0.0f64);
            for key in span.keys.clone() {
                let products = columns.clone().map(|c| taken(self.q.at(query, c)) * taken(self.k.at(key, c)));
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                scores.push(sum * scale);
                error = error.max((width as f64 + 2.0) * EPS * size * scale);
            }
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for column in columns {
                let values = || span.keys.clone().map(|key| taken(self.v.at(key, column)));
                let exact = values().zip(&weights).map(|(v, w)| v * w / total).sum();
                let most = values().fold(0.0, |most: f64, v| most.max(v.abs()));
                let allowed = (2.0 * error + (2.0 * span.keys.len() as f64 + 12.0) * EPS + rounding) * most;
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
                        let Case { heads, spans, .. } = self;
                        let place = format!("{} {:?}", ctx.level(), ctx.precision());
                        format!("{place} {heads} heads {spans:?} query {query} column {column}")
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
                    let alone = Case { q, k, v, spans: vec![span.clone()], ..case }.run(ctx);
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
            let op = Attention { q: matrix(q), k: matrix(k), v: matrix(v), heads, scale: 1.0, spans, out };
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
