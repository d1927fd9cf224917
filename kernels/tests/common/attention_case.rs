//! A call of attention: operands, the call, and the comparison with the oracle's bounds. The tests of bounds and of bits
//! share it.

use core::ops::Range;

use rachis_kernels::{
    AlibiRounding, Attention, AttentionMask, Bias, Ctx, Heads, MatMut, Precision, Scratch, Span, attention,
    bf16,
};
use rachis_testkit::tolerance::{self, AttentionRow, BF16_U, Bound};
use rachis_testkit::{Grid, Kind, Rng, Storage};

use super::{Element, view, view_mut};

/// The operands of a call.
pub struct Case<T, K = T> {
    pub q: Grid<T>,
    pub k: Grid<K>,
    pub v: Grid<K>,
    pub heads: usize,
    pub kv_heads: usize,
    pub scale: f32,
    pub bias: CaseBias,
    pub mask: AttentionMask,
    pub spans: Vec<Span>,
    /// The position of every row of q, and of k.
    pub positions: [Vec<u32>; 2],
}

/// An owned [`Bias`]; positions are in the [`Case`].
#[derive(Debug, Clone)]
pub enum CaseBias {
    None,
    Linear { slopes: Vec<f32>, rounding: AlibiRounding },
    Distance { table: Grid<f32>, zero: usize },
}

impl<T: Element, K: Element> Case<T, K> {
    /// Random operands: number of heads and their width, and the lengths of sequences that attend to themselves.
    pub fn random(rng: &mut Rng, (heads, width): (usize, usize), lengths: &[usize]) -> Case<T, K> {
        Case::sharing(rng, (heads, heads, width), lengths)
    }

    /// [`Case::random`] with fewer heads of keys and values, which heads of queries share.
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
        let (bias, mask, spans) = (CaseBias::None, AttentionMask::None, spans(lengths));
        Case { q, k, v, heads, kv_heads, scale, bias, mask, spans, positions: [positions.clone(), positions] }
    }

    /// The call.
    pub fn op<'a>(&'a self, out: MatMut<'a, T>) -> Attention<'a, T> {
        let bias = match &self.bias {
            CaseBias::None => Bias::None,
            CaseBias::Linear { slopes, rounding } => Bias::Linear { slopes, rounding: *rounding },
            CaseBias::Distance { table, zero } => {
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

    /// The output. Nothing but its elements was written.
    pub fn run(&self, ctx: &Ctx) -> Grid<T> {
        let filled = vec![T::from_f32(7.0); self.q.rows() * self.q.cols()];
        let mut out = Grid::new(&filled, (self.q.rows(), self.q.cols()), 2);
        attention(ctx, &mut Scratch::new(), self.op(view_mut(&mut out))).unwrap();
        out.assert_guards();
        out
    }

    /// The bias of a query and a key of its span.
    fn bias_of(&self, span: &Span, head: usize, query: usize, key: usize) -> f64 {
        match &self.bias {
            CaseBias::None => 0.0,
            CaseBias::Linear { slopes, rounding } => {
                let rounded =
                    |x: f32| if *rounding == AlibiRounding::Bf16 { bf16::from_f32(x).to_f32() } else { x };
                f64::from(rounded(slopes[head] * rounded((key - span.keys.start) as f32)))
            }
            CaseBias::Distance { table, zero } => {
                let column = zero + self.positions[0][query] as usize - self.positions[1][key] as usize;
                f64::from(table.at(head, column))
            }
        }
    }

    /// The keys of a span that a query of it sees.
    fn visible(&self, span: &Span, query: usize) -> Range<usize> {
        let later = if self.mask == AttentionMask::Causal { span.queries.end - 1 - query } else { 0 };
        span.keys.start..span.keys.end - later
    }

    /// Queries, keys and values as the precision multiplies them, row after row.
    fn operands(&self, precision: Precision) -> [Vec<f64>; 3] {
        [self.q.exact(), self.k.exact(), self.v.exact()].map(|values| match precision {
            Precision::Strict | Precision::Bf16x6 => values,
            Precision::Bf16 => values.into_iter().map(<bf16 as Storage>::nearest).collect(),
        })
    }

    /// The bounds of one query's row of the output, head after head, from operands as [`Case::operands`].
    fn bounds(
        &self,
        [q, k, v]: &[Vec<f64>; 3],
        weight_rounding: f64,
        span: &Span,
        query: usize,
    ) -> Vec<Bound> {
        let (width, keys) = (self.q.cols() / self.heads, self.visible(span, query));
        let heads = (0..self.heads).flat_map(|head| {
            let kv_head = head / (self.heads / self.kv_heads);
            let columns = |cols: usize, row: usize, head: usize| {
                row * cols + head * width..row * cols + (head + 1) * width
            };
            tolerance::attention(&AttentionRow {
                query: &q[columns(self.q.cols(), query, head)],
                keys: keys.clone().map(|key| &k[columns(self.k.cols(), key, kv_head)]).collect(),
                values: keys.clone().map(|key| &v[columns(self.v.cols(), key, kv_head)]).collect(),
                bias: keys.clone().map(|key| self.bias_of(span, head, query, key)).collect(),
                scale: f64::from(self.scale),
                weight_rounding,
            })
        });
        heads.collect()
    }

    /// Compares every element of every span with its bound.
    #[track_caller]
    pub fn check(&self, ctx: &Ctx, out: &Grid<T>) {
        let operands = self.operands(ctx.precision());
        let rounding = if ctx.precision() == Precision::Bf16 { BF16_U } else { 0.0 };
        for span in &self.spans {
            for query in span.queries.clone() {
                for (column, bound) in self.bounds(&operands, rounding, span, query).iter().enumerate() {
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

/// The spans of sequences that follow one another.
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
