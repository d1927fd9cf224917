//! One call of attention, from its description to the comparison with the oracle. The tests of bounds and of bits
//! share it.
//!
//! The oracle is the definition in f64: all scores of a query, their softmax, the mixture. With every element it gives
//! how far off f32 arithmetic may be.

use core::ops::Range;

use rachis_kernels::{
    AlibiRounding, Attention, AttentionMask, Bias, Ctx, Heads, MatMut, Precision, Scratch, Span, attention,
    bf16,
};
use rachis_testkit::tolerance::Bound;
use rachis_testkit::{Grid, Kind, Rng, Storage};

use super::{Element, view, view_mut};

/// Operands with what is asked of them.
pub struct Case<T, K = T> {
    pub q: Grid<T>,
    pub k: Grid<K>,
    pub v: Grid<K>,
    pub heads: usize,
    pub kv_heads: usize,
    pub scale: f32,
    pub bias: Added,
    pub mask: AttentionMask,
    pub spans: Vec<Span>,
    /// The position of every row of q, and of k.
    pub positions: [Vec<u32>; 2],
}

/// A bias, described.
#[derive(Debug, Clone)]
pub enum Added {
    Nothing,
    Linear { slopes: Vec<f32>, rounding: AlibiRounding },
    Distance { table: Grid<f32>, zero: usize },
}

impl<T: Element, K: Element> Case<T, K> {
    /// Random operands: heads, their width, the lengths of sequences that attend to themselves.
    pub fn random(rng: &mut Rng, (heads, width): (usize, usize), lengths: &[usize]) -> Case<T, K> {
        Case::sharing(rng, (heads, heads, width), lengths)
    }

    /// The same with heads of queries, heads of keys and values that those share, and their width.
    pub fn sharing(
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
        let (bias, mask, spans) = (Added::Nothing, AttentionMask::None, spans(lengths));
        Case { q, k, v, heads, kv_heads, scale, bias, mask, spans, positions: [positions.clone(), positions] }
    }

    /// The call.
    pub fn op<'a>(&'a self, out: MatMut<'a, T>) -> Attention<'a, T> {
        let bias = match &self.bias {
            Added::Nothing => Bias::None,
            Added::Linear { slopes, rounding } => Bias::Linear { slopes, rounding: *rounding },
            Added::Distance { table, zero } => {
                let [queries, keys] = &self.positions;
                Bias::Distance { table: view(table), zero: *zero, queries, keys }
            }
        };
        let Case { q, k, v, heads, kv_heads, scale, mask, spans, .. } = self;
        Attention {
            q: view(q),
            k: view(k).into(),
            v: view(v).into(),
            heads: Heads::dense(*heads, *kv_heads, q.cols() / heads),
            scale: *scale,
            bias,
            mask: *mask,
            spans,
            out,
        }
    }

    /// The result, which has written nothing but its elements.
    pub fn run(&self, ctx: &Ctx) -> Grid<T> {
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
            Added::Linear { slopes, rounding } => {
                let rounded =
                    |x: f32| if *rounding == AlibiRounding::Bf16 { bf16::from_f32(x).to_f32() } else { x };
                f64::from(rounded(slopes[head] * rounded((key - span.keys.start) as f32)))
            }
            Added::Distance { table, zero } => {
                let column = zero + self.positions[0][query] as usize - self.positions[1][key] as usize;
                f64::from(table.at(head, column))
            }
        }
    }

    /// The keys of a span that a query of it sees.
    fn seen(&self, span: &Span, query: usize) -> Range<usize> {
        let later = if self.mask == AttentionMask::Causal { span.queries.end - 1 - query } else { 0 };
        span.keys.start..span.keys.end - later
    }

    /// Queries, keys and values as the precision takes them, row after row.
    fn taken(&self, precision: Precision) -> [Vec<f64>; 3] {
        [self.q.exact(), self.k.exact(), self.v.exact()].map(|values| match precision {
            Precision::Strict | Precision::Bf16x6 => values,
            Precision::Bf16 => values.into_iter().map(<bf16 as Storage>::nearest).collect(),
        })
    }

    /// The exact row of one query from operands as [`Case::taken`], and how far off f32 arithmetic may be: an error
    /// of a score changes all weights by that factor, rounding a weight (by at most `rounding`) changes that weight,
    /// and the mix adds an error for each key.
    fn exact(&self, [q, k, v]: &[Vec<f64>; 3], rounding: f64, span: &Span, query: usize) -> Vec<Bound> {
        const EPS: f64 = 1.0 / 16_777_216.0;
        let (width, scale) = (self.q.cols() / self.heads, f64::from(self.scale));
        let shared_cols = self.k.cols();
        let mut row = Vec::new();
        for head in 0..self.heads {
            let shared = head / (self.heads / self.kv_heads);
            let (mut scores, mut error) = (Vec::new(), 0.0f64);
            let keys = self.seen(span, query);
            for key in keys.clone() {
                let q = &q[query * self.q.cols() + head * width..][..width];
                let k = &k[key * shared_cols + shared * width..][..width];
                let products = q.iter().zip(k).map(|(q, k)| q * k);
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                let added = self.added(span, head, query, key);
                scores.push((sum + added) * scale);
                error = error.max((width as f64 + 4.0) * EPS * (size + added.abs()) * scale);
            }
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for column in shared * width..(shared + 1) * width {
                let values = || keys.clone().map(|key| v[key * shared_cols + column]);
                let exact = values().zip(&weights).map(|(v, w)| v * w / total).sum();
                let most = values().fold(0.0, |most: f64, v| most.max(v.abs()));
                let allowed = (2.0 * error + (2.0 * keys.len() as f64 + 12.0) * EPS + rounding) * most;
                row.push(Bound { error: allowed, ..Bound::exactly(exact) });
            }
        }
        row
    }

    /// Compares every row of every span with the oracle.
    #[track_caller]
    pub fn check(&self, ctx: &Ctx, out: &Grid<T>) {
        let operands = self.taken(ctx.precision());
        let rounding = if ctx.precision() == Precision::Bf16 { 1.0 / 256.0 } else { 0.0 };
        for span in &self.spans {
            for query in span.queries.clone() {
                for (column, bound) in self.exact(&operands, rounding, span, query).iter().enumerate() {
                    bound.check(out.at(query, column), || {
                        let Case { heads, kv_heads, mask, spans, .. } = self;
                        let place = format!("{} {:?}", ctx.level(), ctx.precision());
                        let heads = format!("{heads} heads, {kv_heads} of keys, mask {mask:?}");
                        format!("{place} {heads} {spans:?} query {query} column {column}")
                    });
                }
            }
        }
    }
}

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
