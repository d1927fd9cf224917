//! Attention over ragged batches against the f64 oracle at every level, for every storage type.

mod common;

use common::{Element, at_every_level, bits, for_each_type, view, view_mut};
use rachis_kernels::{
    Attention, Ctx, Error, Level, MatMut, MatRef, Scratch, Span, attention, attention_scratch_len,
};
use rachis_testkit::tolerance::Bound;
use rachis_testkit::{Grid, Kind, Rng};

/// Heads of 1, of a vector and of odd widths, and sequences around the block of queries.
const HEADS: [(usize, usize); 4] = [(1, 1), (2, 16), (3, 20), (2, 33)];
const LENGTHS: [&[usize]; 4] = [&[1, 2], &[5, 1, 17], &[63, 64, 65], &[80, 2]];

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

    /// The exact row of one query, and how far off f32 arithmetic may be: an error of a score changes all
    /// weights by that factor, and the mix adds an error for each key.
    fn exact(&self, span: &Span, query: usize) -> Vec<Bound> {
        const EPS: f64 = 1.0 / 16_777_216.0;
        let (width, scale) = (self.q.cols() / self.heads, f64::from(self.scale));
        let mut row = Vec::new();
        for head in 0..self.heads {
            let columns = head * width..(head + 1) * width;
            let (mut scores, mut error) = (Vec::new(), 0.0f64);
            for key in span.keys.clone() {
                let products =
                    columns.clone().map(|c| self.q.at(query, c).to_f64() * self.k.at(key, c).to_f64());
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                scores.push(sum * scale);
                error = error.max((width as f64 + 2.0) * EPS * size * scale);
            }
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for column in columns {
                let values = || span.keys.clone().map(|key| self.v.at(key, column).to_f64());
                let exact = values().zip(&weights).map(|(v, w)| v * w / total).sum();
                let most = values().fold(0.0, |most: f64, v| most.max(v.abs()));
                let allowed = (2.0 * error + (2.0 * span.keys.len() as f64 + 12.0) * EPS) * most;
                row.push(Bound { error: allowed, ..Bound::exactly(exact) });
            }
        }
        row
    }

    #[track_caller]
    fn check(&self, ctx: &Ctx, out: &Grid<T>) {
        for span in &self.spans {
            for query in span.queries.clone() {
                for (column, bound) in self.exact(span, query).iter().enumerate() {
                    bound.check(out.at(query, column), || {
                        let Case { heads, spans, .. } = self;
                        format!("{} {heads} heads {spans:?} query {query} column {column}", ctx.level())
                    });
                }
            }
        }
    }
}

fn matches_the_oracle<T: Element>(ctx: &Ctx) {
    let mut rng = Rng::new(31);
    for (i, lengths) in LENGTHS.into_iter().enumerate() {
        for heads in [HEADS[i], HEADS[(i + 1) % 4]] {
            let case = Case::<T>::random(&mut rng, heads, lengths);
            case.check(ctx, &case.run(ctx));
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
    let mut fused = None;
    at_every_level(|ctx| {
        let together = case.run(ctx);
        for pool in &pools {
            assert_eq!(bits(&case.run(&ctx.with_pool(Some(pool))).values()), bits(&together.values()));
        }
        for span in &case.spans {
            let alone = Case {
                q: case.q.clone(),
                k: case.k.clone(),
                v: case.v.clone(),
                spans: vec![span.clone()],
                ..case
            };
            let alone = alone.run(ctx);
            for query in span.queries.clone() {
                assert_eq!(
                    bits(alone.row(query)),
                    bits(together.row(query)),
                    "{} query {query}",
                    ctx.level()
                );
            }
        }
        if ctx.level() != Level::Scalar {
            let expected = fused.get_or_insert_with(|| bits(&together.values())).clone();
            assert_eq!(bits(&together.values()), expected, "{} against the first fused level", ctx.level());
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
        scratch.reserve(attention_scratch_len(ctx, 16, 80));
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
