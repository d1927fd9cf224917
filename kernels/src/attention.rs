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

mod bias;
mod head;
mod softmax;

pub use bias::Bias;

use core::ops::Range;

use crate::ctx::{Ctx, Precision};
use crate::elem::Elem;
use crate::error::{Error, Result, check};
use crate::gemm::word::Single;
#[cfg(target_arch = "x86_64")]
use crate::isa::Isa;
use crate::scratch::Scratch;
use crate::view::{MatMut, MatRef};

use bias::HeadBias;
use head::{Head, RoomLen, Run};

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
    let precision = ctx.precision();
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
            let head = Head { q, k, v, scale: op.scale, bias, before, precision, out };
            match ctx.isa() {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16(s, word) if precision == Precision::Bf16 => {
                    s.run(Run { word, head, scratch })
                }
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
    op.bias.validate(NAME, [op.heads, op.q.rows(), op.k.rows()])?;
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
