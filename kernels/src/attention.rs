//! Scaled dot-product attention over a ragged batch, without a matrix of scores.
//!
//! For every sequence and head: `softmax((q k^T + bias) * scale) v` (Vaswani et al., arXiv:1706.03762), a few queries and
//! [`KEYS`] keys at a time with a running maximum and a running sum (Dao et al., arXiv:2205.14135). So working
//! memory does not grow with the sequence.
//!
//! # How
//!
//! Queries are lanes throughout: the register tile of the matrix product multiplies rows of keys by packed queries,
//! maxima and sums of scores run down the lanes, and the weights come to lie as the same tile needs them to multiply
//! columns of values. Nothing is turned or packed in between, and no lanes are added up.
//!
//! # Numeric contract
//!
//! Scores and mixtures are summed in ascending order of the head's width and of the keys, those of each [`KEYS`] keys
//! apart. Weights are `e^(score - maximum)` in f32, relative to the largest score so far; what has been summed is
//! scaled down when that grows. The division by the sum of weights comes last. In [`Precision::Bf16`] queries, keys,
//! values and weights are rounded to bf16 before they are multiplied; sums of weights are of those not rounded.
//!
//! An output row depends on its query and on its sequence's keys and values, not on the batch, its position or the
//! threads. Levels that fuse agree, but for [`Level::Avx512Bf16`](crate::Level::Avx512Bf16) in [`Precision::Bf16`].
//!
//! Sequences lie behind one another in the rows of q, k and v; a [`Span`] says which rows are whose. Padding is
//! simply not there. A span without keys gives rows of zeros. A NaN or an infinite score makes a row NaN, except
//! for negative infinity beside finite scores, which has no weight.

use core::ops::Range;

use crate::ctx::{Ctx, Precision};
use crate::elem::Elem;
use crate::elem::private::Storage;
use crate::error::{Error, Result, check};
use crate::gemm::epilogue::{Orientation, Sums, store_turned};
use crate::gemm::pack::{Operand, pack_rows, pack_turned};
use crate::gemm::task::{Engine, Strip};
use crate::gemm::tile::{Columns, Tile, stage_len};
use crate::gemm::word::{Single, Word};
#[cfg(target_arch = "x86_64")]
use crate::isa::{Isa, KernelAt, avx512::Avx512, avx512_bf16::Bf16Pairs};
use crate::isa::{Kernel, LANES, Simd};
use crate::math::exp_lanes;
use crate::mem;
use crate::scratch::Scratch;
use crate::view::{MatMut, MatRef};

/// Keys whose scores are computed before their values are mixed. Part of the numeric contract.
pub const KEYS: usize = 128;

/// The rows of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its rows of q and of the output.
    pub queries: Range<usize>,
    /// Its rows of k and v.
    pub keys: Range<usize>,
}

/// What is added to the scores before they are scaled.
#[derive(Debug, Clone, Copy, Default)]
pub enum Bias<'a> {
    /// Nothing.
    #[default]
    None,
    /// The head's slope times the number of the key in its sequence (ALiBi, Press et al., arXiv:2108.12409).
    Linear {
        /// One for each head.
        slopes: &'a [f32],
        /// Whether the product is rounded to bf16, as transformers does.
        round: bool,
    },
    /// A value for each head and distance, `table[head][zero + query position - key position]` (T5, Raffel et al.,
    /// arXiv:1910.10683).
    Distance {
        /// `[heads, distances]`
        table: MatRef<'a, f32>,
        /// The column of distance 0.
        zero: usize,
        /// The position of every row of q.
        queries: &'a [u32],
        /// The position of every row of k.
        keys: &'a [u32],
    },
}

/// Operands of [`attention`]: queries and results stored as `T`, keys and values as `K`.
#[derive(Debug)]
pub struct Attention<'a, T, K = T> {
    /// `[queries, heads * head_dim]`
    pub q: MatRef<'a, T>,
    /// `[keys, kv_heads * head_dim]`
    pub k: MatRef<'a, K>,
    /// `[keys, kv_heads * head_dim]`
    pub v: MatRef<'a, K>,
    /// Number of heads.
    pub heads: usize,
    /// Number of heads of keys and values, each shared by as many heads of queries in a row: all, or fewer (Shazeer,
    /// arXiv:1911.02150; Ainslie et al., arXiv:2305.13245).
    pub kv_heads: usize,
    /// Multiplies the scores, after the bias is added.
    pub scale: f32,
    /// Added to the scores.
    pub bias: Bias<'a>,
    /// Whether queries see no later keys: the last query of a span is at its last key.
    pub causal: bool,
    /// The sequences, whose query rows must ascend without overlap. Rows of no span are left as they are.
    pub spans: &'a [Span],
    /// `[queries, heads * head_dim]`
    pub out: MatMut<'a, T>,
}

/// Attention of every sequence's queries over its own keys, head by head.
///
/// # Errors
/// [`Error::Shape`] when shapes disagree or a span reaches outside its matrix; nothing is written then.
pub fn attention<T: Elem, K: Elem>(ctx: &Ctx, scratch: &mut Scratch, op: Attention<'_, T, K>) -> Result<()> {
    validate(&op)?;
    let pairs = op.spans.len() * op.heads;
    if pairs == 0 || op.q.cols() == 0 {
        return Ok(());
    }
    let head_dim = op.q.cols() / op.heads;
    let tasks = ctx.threads().min(pairs);
    let piece = ctx.run(RoomLen { head_dim });
    let round = ctx.precision() == Precision::Bf16;
    ctx.for_each_piece(scratch.take(tasks * piece), piece, |task, scratch| {
        for pair in (task..pairs).step_by(tasks) {
            let (Span { queries, keys }, head) = (&op.spans[pair / op.heads], pair % op.heads);
            let columns = head * head_dim..(head + 1) * head_dim;
            // SAFETY: spans ascend without overlap (`validate`), columns of heads are disjoint, and each pair
            // belongs to one task: no two blocks in use overlap.
            let mut out = unsafe { op.out.block(queries.clone(), columns.clone()) };
            if keys.is_empty() {
                for i in 0..out.rows() {
                    out.row_mut(i).fill(T::default());
                }
                continue;
            }
            let q = op.q.block(queries.clone(), columns);
            let shared = head / (op.heads / op.kv_heads);
            let columns = shared * head_dim..(shared + 1) * head_dim;
            let k = op.k.block(keys.clone(), columns.clone());
            let v = op.v.block(keys.clone(), columns);
            let bias = HeadBias::of(op.bias, head, queries, keys);
            let before = op.causal.then(|| keys.len() - queries.len());
            let head = Head { q, k, v, scale: op.scale, bias, before, round, out };
            match ctx.isa() {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16(s, word) if round => s.run(Run { word, head, scratch }),
                _ => ctx.run(Run { word: Single, head, scratch }),
            }
        }
    });
    Ok(())
}

/// Elements of scratch that [`attention`] needs for heads of `head_dim`, when there are at least as many sequences
/// times heads as threads.
pub fn attention_scratch_len(ctx: &Ctx, head_dim: usize) -> usize {
    ctx.threads() * ctx.run(RoomLen { head_dim })
}

/// Elements of scratch for one head.
struct RoomLen {
    head_dim: usize,
}

impl Kernel for RoomLen {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        let lanes = S::TILE_VECTORS * LANES;
        let width = padded::<S>(self.head_dim);
        (self.head_dim + 2 + rows_of_scores::<S>() + width) * lanes + stage_len::<S>() + KEYS * width
    }
}

/// Keys up to whole register tiles.
const fn rows_of_scores<S: Simd>() -> usize {
    KEYS.next_multiple_of(S::TILE_ROWS)
}

/// The width of a head up to whole register tiles, and to whole vectors.
fn padded<S: Simd>(head_dim: usize) -> usize {
    head_dim.next_multiple_of(S::TILE_ROWS).next_multiple_of(LANES)
}

/// One sequence's part of one head.
struct Head<'a, T, K> {
    /// `[queries, head_dim]`
    q: MatRef<'a, T>,
    /// `[keys, head_dim]`
    k: MatRef<'a, K>,
    /// `[keys, head_dim]`
    v: MatRef<'a, K>,
    scale: f32,
    bias: HeadBias<'a>,
    /// Keys before that of the first query, if later ones are hidden.
    before: Option<usize>,
    /// Whether operands are rounded to bf16.
    round: bool,
    /// `[queries, head_dim]`
    out: MatMut<'a, T>,
}

/// The part of a [`Bias`] for one head of one sequence.
#[derive(Clone, Copy)]
enum HeadBias<'a> {
    None,
    Linear { slope: f32, round: bool },
    Distance { table: &'a [f32], zero: usize, queries: &'a [u32], keys: &'a [u32] },
}

impl<'a> HeadBias<'a> {
    fn of(bias: Bias<'a>, head: usize, queries: &Range<usize>, keys: &Range<usize>) -> HeadBias<'a> {
        match bias {
            Bias::None => HeadBias::None,
            Bias::Linear { slopes, round } => HeadBias::Linear { slope: slopes[head], round },
            Bias::Distance { table, zero, queries: of_queries, keys: of_keys } => HeadBias::Distance {
                table: table.row(head),
                zero,
                queries: &of_queries[queries.clone()],
                keys: &of_keys[keys.clone()],
            },
        }
    }

    /// What is added to the scores of 16 queries from `query` on with `key`.
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, query: usize, key: usize) -> S::F32 {
        match self {
            HeadBias::None => s.splat(0.0),
            HeadBias::Linear { slope, round } => {
                let product = s.splat(slope * key as f32);
                if round { s.round_to_bf16(product) } else { product }
            }
            HeadBias::Distance { table, zero, queries, keys } => {
                let queries = &queries[query..queries.len().min(query + LANES)];
                let column = |position: u32| zero + position as usize - keys[key] as usize;
                let (first, last) = (queries[0], queries[queries.len() - 1]);
                // Positions ascend, so these are in a row. Lanes past the last query may be anything.
                if (last - first) as usize + 1 == queries.len() {
                    return mem::load(s, table, column(first));
                }
                let mut lanes = [0.0; LANES];
                for (lane, position) in lanes.iter_mut().zip(queries) {
                    *lane = table[column(*position)];
                }
                mem::load(s, &lanes, 0)
            }
        }
    }
}

/// The computation of a head with words of some kind.
struct Run<'a, T, K, W> {
    word: W,
    head: Head<'a, T, K>,
    scratch: &'a mut [f32],
}

impl<T: Elem, K: Elem> Kernel for Run<'_, T, K, Single> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

#[cfg(target_arch = "x86_64")]
impl<T: Elem, K: Elem> KernelAt<Avx512> for Run<'_, T, K, Bf16Pairs> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl<T: Elem, K: Elem, W: Copy> Run<'_, T, K, W> {
    #[inline(always)]
    fn run_with<S: Simd>(self, s: S)
    where
        W: Word<S>,
    {
        let Run { word, head: Head { q, k, v, scale, bias, before, round, out }, scratch } = self;
        let (depth, lanes) = (q.cols(), S::TILE_VECTORS * LANES);
        let width = padded::<S>(depth);
        let (packed, scratch) = scratch.split_at_mut(depth * lanes);
        let (state, scratch) = scratch.split_at_mut(2 * lanes);
        let (scores, scratch) = scratch.split_at_mut(rows_of_scores::<S>() * lanes);
        let (mixed, scratch) = scratch.split_at_mut(width * lanes);
        let (stage, values) = scratch.split_at_mut(stage_len::<S>());
        let queries_of = Operand { matrix: T::any(q), k_in_rows: true, round: round && !T::IS_BF16 };
        let keys_of = Operand { matrix: K::any(k), k_in_rows: true, round: round && !K::IS_BF16 };
        for start in (0..q.rows()).step_by(lanes) {
            let queries = start..q.rows().min(start + lanes);
            let stride = queries.len().next_multiple_of(LANES);
            pack_turned(s, word, queries_of, queries.clone(), lanes, packed);
            let before = before.map(|before| before + start);
            let visible = before.map_or(k.rows(), |before| before + queries.len());
            let scores_as = Scores { scale, bias, query: start, before };
            let mut softmax = Softmax { word, round, stride, state: &mut *state };
            softmax.start(s);
            for keys in (0..visible).step_by(KEYS) {
                let first = keys == 0;
                let keys = keys..visible.min(keys + KEYS);
                let strip = Strip {
                    x: keys_of,
                    rows: keys.clone(),
                    stage: &mut *stage,
                    depth,
                    lanes: 0..queries.len(),
                    of: queries.len(),
                    packed: &mut *packed,
                    unpacked: None,
                    sums: &mut *scores,
                    stride,
                };
                Tile(word).multiply(s, strip, None);
                let sums = &mut mixed[..depth * stride];
                match stride / LANES {
                    3 if lanes >= 3 * LANES => {
                        softmax.weigh::<S, 3>(s, scores_as, scores, keys.clone(), sums)
                    }
                    2 if lanes >= 2 * LANES => {
                        softmax.weigh::<S, 2>(s, scores_as, scores, keys.clone(), sums)
                    }
                    _ => softmax.weigh::<S, 1>(s, scores_as, scores, keys.clone(), sums),
                }
                let words = keys.len().div_ceil(W::VALUES);
                let v = v.block(keys.clone(), 0..depth);
                let values = match as_words::<S, W, K>(v) {
                    Some(v) if !round => v,
                    _ => {
                        let round = round && !K::IS_BF16;
                        pack_rows(s, word, v, 0..keys.len(), 0..width, round, values);
                        MatRef::packed(&values[..words * width], words, width)
                    }
                };
                for row in (0..depth).step_by(S::TILE_ROWS) {
                    let (x, v) = (Columns::of(values, row), (&scores[..words * stride], stride));
                    Tile(word).multiply_columns(s, x, v, &mut mixed[row * stride..], first);
                }
            }
            softmax.finish(s, &mut mixed[..depth * stride]);
            let block = mixed.len();
            let sums = Sums {
                orientation: Orientation::Turned,
                m: queries.clone(),
                n: 0..depth,
                stride,
                data: &mut *mixed,
                block,
            };
            // SAFETY: these rows are used by nobody else while this block of them is.
            let mut out = unsafe { out.block(queries, 0..depth) };
            store_turned(s, &sums, None, None, &mut out);
        }
    }
}

/// The matrix, if its elements are words as they are and its columns whole register tiles.
#[inline(always)]
fn as_words<S: Simd, W: Word<S>, T: Elem>(matrix: MatRef<'_, T>) -> Option<MatRef<'_, f32>> {
    let whole = W::VALUES == 1 && matrix.cols().is_multiple_of(S::TILE_ROWS);
    if whole { <f32 as Storage>::typed(T::any(matrix)) } else { None }
}

/// What becomes of products of queries and keys.
#[derive(Clone, Copy)]
struct Scores<'a> {
    scale: f32,
    bias: HeadBias<'a>,
    /// The query in the first lane.
    query: usize,
    /// Keys before that of this query, if later ones are hidden.
    before: Option<usize>,
}

impl Scores<'_> {
    /// The scores of 16 queries, `lane` after the first, from their products with `key`.
    #[inline(always)]
    fn of<S: Simd>(self, s: S, products: S::F32, lane: usize, key: usize) -> S::F32 {
        let mut scores = products;
        if !matches!(self.bias, HeadBias::None) {
            scores = s.add(scores, self.bias.lanes(s, self.query + lane, key));
        }
        scores = s.mul(scores, s.splat(self.scale));
        match self.before {
            Some(before) if key > before + lane => {
                static NUMBERS: [f32; LANES] =
                    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
                let after = s.splat((key - before - lane) as f32);
                let hidden = s.lt(mem::load(s, &NUMBERS, 0), after);
                s.select(hidden, s.splat(f32::NEG_INFINITY), scores)
            }
            _ => scores,
        }
    }
}

/// The running softmax of some queries, which are lanes.
struct Softmax<'a, W> {
    word: W,
    round: bool,
    /// Lanes, in whole vectors: elements between rows of scores.
    stride: usize,
    /// The largest score of each lane so far, and the sums of weights relative to it.
    state: &'a mut [f32],
}

impl<W: Copy> Softmax<'_, W> {
    /// No keys yet.
    fn start<S: Simd>(&mut self, _: S) {
        let (largest, sums) = self.state.split_at_mut(self.stride);
        // Finite, so that negative infinity has no weight beside it.
        largest.fill(f32::MIN);
        sums.fill(0.0);
    }

    /// Replaces the products with `keys`, in V vectors each, by words of weights. What is in `mixed` already, unless
    /// these keys are the first, is scaled to the new maximum.
    #[inline(always)]
    fn weigh<S: Simd, const V: usize>(
        &mut self,
        s: S,
        scores_as: Scores<'_>,
        scores: &mut [f32],
        keys: Range<usize>,
        mixed: &mut [f32],
    ) where
        W: Word<S>,
    {
        let scores = &mut scores.as_chunks_mut::<LANES>().0[..keys.len() * V];
        let state = self.state.as_chunks_mut::<LANES>().0;
        let mut largest = [s.splat(0.0); V];
        for (j, largest) in largest.iter_mut().enumerate() {
            *largest = mem::load(s, &state[j], 0);
        }
        for (key, scores) in keys.clone().zip(scores.chunks_exact_mut(V)) {
            for j in 0..V {
                let score = scores_as.of(s, mem::load(s, &scores[j], 0), j * LANES, key);
                mem::store(s, &mut scores[j], 0, score);
                largest[j] = s.max(score, largest[j]);
            }
        }
        let mut sums = [s.splat(0.0); V];
        for j in 0..V {
            let shrink = exp_lanes(s, s.sub(mem::load(s, &state[j], 0), largest[j]));
            mem::store(s, &mut state[j], 0, largest[j]);
            sums[j] = s.mul(mem::load(s, &state[V + j], 0), shrink);
            if keys.start > 0 {
                for mixed in mixed.as_chunks_mut::<LANES>().0.iter_mut().skip(j).step_by(V) {
                    let scaled = s.mul(mem::load(s, mixed, 0), shrink);
                    mem::store(s, mixed, 0, scaled);
                }
            }
        }
        for word in 0..keys.len().div_ceil(W::VALUES) {
            for j in 0..V {
                let mut weights = [s.splat(0.0); 2];
                for (key, weight) in (word * W::VALUES..keys.len()).zip(&mut weights[..W::VALUES]) {
                    let score = mem::load(s, &scores[key * V + j], 0);
                    *weight = exp_lanes(s, s.sub(score, largest[j]));
                    sums[j] = s.add(sums[j], *weight);
                }
                mem::store(s, &mut scores[word * V + j], 0, self.word.compose(s, weights, self.round));
            }
        }
        for j in 0..V {
            mem::store(s, &mut state[V + j], 0, sums[j]);
        }
    }

    /// Divides the mixture by the sums of the weights.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, mixed: &mut [f32]) {
        let sums = &self.state[self.stride..][..self.stride];
        for row in mixed.chunks_exact_mut(self.stride) {
            for (x, sum) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(sums.as_chunks::<LANES>().0) {
                let divided = s.div(mem::load(s, x, 0), mem::load(s, sum, 0));
                mem::store(s, x, 0, divided);
            }
        }
    }
}

fn validate<T: Elem, K: Elem>(op: &Attention<'_, T, K>) -> Result<()> {
    const NAME: &str = "attention";
    let width = op.q.cols();
    check(NAME, "rows of v", op.k.rows(), op.v.rows())?;
    check(NAME, "rows of the output", op.q.rows(), op.out.rows())?;
    check(NAME, "columns of the output", width, op.out.cols())?;
    if op.heads == 0 || !width.is_multiple_of(op.heads) {
        return Err(Error::Shape {
            operation: NAME,
            what: "number of heads",
            expected: width,
            found: op.heads,
        });
    }
    if op.kv_heads == 0 || !op.heads.is_multiple_of(op.kv_heads) {
        return Err(Error::Shape {
            operation: NAME,
            what: "number of heads of keys and values, a divisor of that of queries",
            expected: op.heads,
            found: op.kv_heads,
        });
    }
    check(NAME, "columns of k", width / op.heads * op.kv_heads, op.k.cols())?;
    check(NAME, "columns of v", op.k.cols(), op.v.cols())?;
    validate_bias(NAME, op.bias, [op.heads, op.q.rows(), op.k.rows()])?;
    let mut end = 0;
    for Span { queries, keys } in op.spans {
        let outside = |what, expected, found| Err(Error::Shape { operation: NAME, what, expected, found });
        if queries.start < end || queries.end < queries.start {
            return outside("start of a span's queries, at least", end, queries.start);
        }
        end = queries.end;
        if end > op.q.rows() {
            return outside("end of a span's queries, at most", op.q.rows(), end);
        }
        if keys.end < keys.start || keys.end > op.k.rows() {
            return outside("end of a span's keys, at most", op.k.rows(), keys.end);
        }
        if let Bias::Distance { queries: positions, .. } = op.bias
            && !positions[queries.clone()].is_sorted_by(|a, b| a < b)
        {
            return outside("start of queries whose positions ascend", queries.end, queries.start);
        }
        if op.causal && !keys.is_empty() && keys.len() < queries.len() {
            return outside("keys of a causal span, at least", queries.len(), keys.len());
        }
    }
    Ok(())
}

fn validate_bias(name: &'static str, bias: Bias<'_>, [heads, rows, keys]: [usize; 3]) -> Result<()> {
    match bias {
        Bias::None => Ok(()),
        Bias::Linear { slopes, .. } => check(name, "number of slopes", heads, slopes.len()),
        Bias::Distance { table, zero, queries: of_queries, keys: of_keys } => {
            check(name, "rows of the table of distances", heads, table.rows())?;
            check(name, "number of positions of queries", rows, of_queries.len())?;
            check(name, "number of positions of keys", keys, of_keys.len())?;
            let outside =
                |what, expected, found| Err(Error::Shape { operation: name, what, expected, found });
            let largest = |positions: &[u32]| positions.iter().max().map_or(0, |largest| *largest as usize);
            if largest(of_keys) > zero {
                return outside("position of a key, at most", zero, largest(of_keys));
            }
            let last = zero.saturating_add(largest(of_queries));
            if rows > 0 && last >= table.cols() {
                return outside("columns of the table of distances, more than", last, table.cols());
            }
            Ok(())
        }
    }
}
