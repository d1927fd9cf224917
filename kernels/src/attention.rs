//! Scaled dot-product attention over a ragged batch.
//!
//! For every sequence and head: `softmax(q k^T * scale) v` (Vaswani et al., arXiv:1706.03762). A block of
//! queries is taken at a time, so the scores need `Q_BLOCK x keys` elements, never `[heads, queries, keys]`.
//! Products and softmax keep the contracts of [`gemm`](mod@crate::gemm) and [`softmax`](mod@crate::softmax): an output
//! row depends on its query and on its sequence's keys and values, not on the batch, the block or the threads.
//!
//! Sequences lie behind one another in the rows of q, k and v; a [`Span`] says which rows are whose. Padding is
//! simply not there. A span without keys gives rows of zeros.

use core::ops::Range;

use crate::ctx::Ctx;
use crate::elem::Elem;
use crate::error::{Error, Result, check};
use crate::gemm::{Dims, Gemm, Layout, Weights, gemm_scratch_len, multiply};
use crate::scratch::Scratch;
use crate::softmax::{Mask, SoftmaxRows};
use crate::view::{MatMut, MatRef};

/// Queries taken at a time.
const Q_BLOCK: usize = 64;

/// The rows of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its rows of q and of the output.
    pub queries: Range<usize>,
    /// Its rows of k and v.
    pub keys: Range<usize>,
}

/// Operands of [`attention`].
#[derive(Debug)]
pub struct Attention<'a, T> {
    /// `[queries, heads * head_dim]`
    pub q: MatRef<'a, T>,
    /// `[keys, heads * head_dim]`
    pub k: MatRef<'a, T>,
    /// `[keys, heads * head_dim]`
    pub v: MatRef<'a, T>,
    /// Number of heads.
    pub heads: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// The sequences, whose query rows must ascend without overlap. Rows of no span are left as they are.
    pub spans: &'a [Span],
    /// `[queries, heads * head_dim]`
    pub out: MatMut<'a, T>,
}

/// Attention of every sequence's queries over its own keys, head by head.
///
/// # Errors
/// [`Error::Shape`] when shapes disagree or a span reaches outside its matrix; nothing is written then.
pub fn attention<T: Elem>(ctx: &Ctx, scratch: &mut Scratch, op: Attention<'_, T>) -> Result<()> {
    validate(&op)?;
    let longest = op.spans.iter().map(|span| span.keys.len()).max().unwrap_or(0);
    let pairs = op.spans.len() * op.heads;
    if pairs == 0 || op.q.cols() == 0 {
        return Ok(());
    }
    let head_dim = op.q.cols() / op.heads;
    let tasks = ctx.threads().min(pairs);
    let piece = piece_len(ctx, head_dim, longest);
    ctx.for_each_piece(scratch.take(tasks * piece), piece, |task, scratch| {
        for pair in (task..pairs).step_by(tasks) {
            let (span, head) = (&op.spans[pair / op.heads], pair % op.heads);
            let columns = head * head_dim..(head + 1) * head_dim;
            for start in span.queries.clone().step_by(Q_BLOCK) {
                let queries = start..(start + Q_BLOCK).min(span.queries.end);
                // SAFETY: spans ascend without overlap (`validate`), blocks of a span and columns of heads are
                // disjoint, and each pair belongs to one task: no two blocks in use overlap.
                let out = unsafe { op.out.block(queries.clone(), columns.clone()) };
                head_block(
                    ctx,
                    scratch,
                    &op,
                    Block { queries, keys: span.keys.clone(), columns: columns.clone() },
                    out,
                );
            }
        }
    });
    Ok(())
}

/// Elements of scratch that [`attention`] needs for heads of `head_dim` and sequences of up to `keys` keys, when
/// there are at least as many sequences times heads as threads.
pub fn attention_scratch_len(ctx: &Ctx, head_dim: usize, keys: usize) -> usize {
    ctx.threads() * piece_len(ctx, head_dim, keys)
}

/// Scores of one block and what the two products need.
fn piece_len(ctx: &Ctx, head_dim: usize, keys: usize) -> usize {
    let ctx = ctx.with_pool(None);
    let scores = gemm_scratch_len(&ctx, &Dims::of_one(Layout::Nk, [Q_BLOCK, keys, head_dim]));
    let mix = gemm_scratch_len(&ctx, &Dims::of_one(Layout::Kn, [Q_BLOCK, head_dim, keys]));
    (Q_BLOCK * keys + scores.max(mix)).max(1)
}

/// Some queries of one sequence and the columns of one head.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
    columns: Range<usize>,
}

fn head_block<T: Elem>(
    ctx: &Ctx,
    scratch: &mut [f32],
    op: &Attention<'_, T>,
    block: Block,
    mut out: MatMut<'_, T>,
) {
    let ctx = ctx.with_pool(None);
    if block.keys.is_empty() {
        for i in 0..out.rows() {
            out.row_mut(i).fill(T::default());
        }
        return;
    }
    let (rows, keys) = (block.queries.len(), block.keys.len());
    let (scores, scratch) = scratch.split_at_mut(Q_BLOCK * keys);
    let scores = &mut scores[..rows * keys];
    let q = op.q.block(block.queries, block.columns.clone());
    let k = op.k.block(block.keys.clone(), block.columns.clone());
    let v = op.v.block(block.keys, block.columns);
    let (k, v) = (
        Weights { matrix: T::any(k), layout: Layout::Nk },
        Weights { matrix: T::any(v), layout: Layout::Kn },
    );
    multiply(&ctx, scratch, Gemm::product(q, k, MatMut::packed(scores, rows, keys)));
    let x = MatMut::packed(scores, rows, keys);
    ctx.run(SoftmaxRows { x, scale: op.scale, bias: None, mask: Mask::None });
    multiply(&ctx, scratch, Gemm::product(MatRef::packed(scores, rows, keys), v, out));
}

fn validate<T: Elem>(op: &Attention<'_, T>) -> Result<()> {
    const NAME: &str = "attention";
    let width = op.q.cols();
    check(NAME, "columns of k", width, op.k.cols())?;
    check(NAME, "columns of v", width, op.v.cols())?;
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
    }
    Ok(())
}
