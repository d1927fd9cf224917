//! Scaled dot-product attention over a ragged batch, without a matrix of scores.
//!
//! For every sequence and head: `softmax((q k^T + bias) * scale) v` (Vaswani et al., arXiv:1706.03762), for a block of
//! queries and [`KV_BLOCK`] keys at a time with a running maximum and a running sum (Dao et al., arXiv:2205.14135). So
//! working memory does not grow with the sequence.
//!
//! # How
//!
//! Queries are lanes throughout. The micro-kernel of the matrix product, or AMX tiles, multiply rows of keys by packed
//! queries; maxima and sums of scores run down the lanes; and the attention weights lie as the same micro-kernel needs them
//! to multiply columns of values. No scores are transposed or packed in between, and no lanes are added up. Turning two
//! products with a softmax between them into this took 0.7 of the time.
//!
//! # Numeric contract
//!
//! Scores are summed in ascending order of the head's width. Weighted sums are summed in ascending order of the keys, for
//! each [`KV_BLOCK`] keys apart. Attention weights are `e^(score - maximum)` in f32, relative to the largest score so far;
//! when that grows, what has been summed is scaled down. The division by the sum of the weights comes last. In
//! [bf16](crate::Precision::Bf16) queries, keys, values and attention weights are rounded before they are multiplied; the
//! sum of the weights is of the unrounded ones. There, levels with instructions for bf16 sum as [their products](crate::gemm())
//! do; on AMX a weighted sum continues from that of the keys before, and is not added to it.
//!
//! An output row depends on its query and on its sequence's keys and values, not on the batch, its position or the threads.
//! All levels with fused multiply-add give the same bits, except for [`Level::Avx512Bf16`](crate::Level::Avx512Bf16) and
//! [`Level::Amx`](crate::Level::Amx) in bf16.
//!
//! Sequences follow one another in the rows of q, k and v; a [`Span`] gives the rows of each. There is no padding. A span
//! without keys gives rows of zeros. A NaN or an infinite score makes a row NaN, except for negative infinity beside finite
//! scores, which has no weight.

mod bias;
pub(crate) mod head;
mod online_softmax;
pub(crate) mod products;
mod register_tile;
mod single_query;

pub use bias::{AlibiRounding, Bias};
pub(crate) use head::{Head, RunHead};

use core::ops::Range;

use crate::arch::Extensions;
use crate::ctx::{Ctx, Precision};
use crate::elem::Elem;
use crate::error::{Expected, Result, check, outside};
use crate::gemm::RegisterTile;
use crate::gemm::kpack::F32Pack;
use crate::scratch::Scratch;
use crate::view::{AnyMatMut, AnyMatRef, MatMut, MatRef, any};

use bias::HeadBias;
use head::HeadScratchLen;

/// Keys in a block: their scores are computed before their values are summed. Part of the numeric contract.
pub const KV_BLOCK: usize = 128;

/// The rows of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its rows of q and of the output.
    pub queries: Range<usize>,
    /// Its rows of k and v.
    pub keys: Range<usize>,
}

/// Which keys a query attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AttentionMask {
    /// All keys of its sequence.
    #[default]
    None,
    /// No later keys than its own. The last query of a span is at its last key.
    Causal,
}

/// Where the heads lie in the columns of queries, keys and values.
///
/// Heads of queries may share a head of keys and values: all of them (multi-query attention, Shazeer, arXiv:1911.02150) or
/// consecutive groups of them (grouped-query attention, Ainslie et al., arXiv:2305.13245).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Number of heads of queries.
    pub count: usize,
    /// Number of heads of keys and values, each shared by `count / kv_heads` consecutive heads of queries.
    pub kv_heads: usize,
    /// Columns of a head.
    pub dim: usize,
    /// Columns from the first query head of one key-value head to the first query head of the next.
    pub query_stride: usize,
    /// Columns from one head of keys (and of values) to the next.
    pub kv_stride: usize,
}

impl Heads {
    /// Heads side by side: `[count * dim]` columns of queries, `[kv_heads * dim]` of keys and of values.
    pub fn dense(count: usize, kv_heads: usize, dim: usize) -> Heads {
        let query_stride = queries_per_kv_head(count, kv_heads).saturating_mul(dim);
        Heads { count, kv_heads, dim, query_stride, kv_stride: dim }
    }

    /// Heads of a fused projection such as Falcon's: one matrix with, for each key-value head, its queries, its key and its
    /// value.
    pub fn fused(count: usize, kv_heads: usize, dim: usize) -> Heads {
        let stride = queries_per_kv_head(count, kv_heads).saturating_add(2).saturating_mul(dim);
        Heads { count, kv_heads, dim, query_stride: stride, kv_stride: stride }
    }

    /// The columns of a head of queries, and those of its keys and values.
    fn columns(&self, head: usize) -> [Range<usize>; 2] {
        let shared = queries_per_kv_head(self.count, self.kv_heads);
        let (kv_head, within) = (head / shared, head % shared);
        let starts = [kv_head * self.query_stride + within * self.dim, kv_head * self.kv_stride];
        starts.map(|start| start..start + self.dim)
    }

    /// The end of the last head of queries, and of the last head of keys and values; [`usize::MAX`] if it overflows.
    fn ends(&self) -> [usize; 2] {
        let shared = queries_per_kv_head(self.count, self.kv_heads);
        let last = self.kv_heads.saturating_sub(1);
        let end = |stride: usize, heads: usize| {
            last.saturating_mul(stride).saturating_add(heads.saturating_mul(self.dim))
        };
        [end(self.query_stride, shared), end(self.kv_stride, 1)]
    }
}

/// Heads of queries that share a head of keys.
fn queries_per_kv_head(count: usize, kv_heads: usize) -> usize {
    count.checked_div(kv_heads).unwrap_or(0)
}

/// Operands of [`attention`]. Matrices of queries, keys and values may be wider than their heads.
#[derive(Debug)]
pub struct Attention<'a, T> {
    /// A row for each query. Its first head starts at the first column.
    pub q: MatRef<'a, T>,
    /// A row for each key, in any storage type. Its first head starts at the first column.
    pub k: AnyMatRef<'a>,
    /// A row for each value, in any storage type. Its first head starts at the first column.
    pub v: AnyMatRef<'a>,
    /// Where the heads are.
    pub heads: Heads,
    /// Multiplies the scores, after the bias is added.
    pub scale: f32,
    /// Added to the scores.
    pub bias: Bias<'a>,
    /// Which keys a query attends to.
    pub mask: AttentionMask,
    /// The sequences. Their query rows must ascend without overlap. Rows of no span are left unchanged.
    pub spans: &'a [Span],
    /// `[queries, heads.count * heads.dim]`, heads side by side.
    pub out: MatMut<'a, T>,
}

/// Attention of every sequence's queries over its own keys, head by head.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when shapes disagree, [`Error::Range`](crate::Error::Range) when a span reaches
/// outside its matrix, [`Error::OutOfMemory`](crate::Error::OutOfMemory) when `scratch` cannot
/// grow; nothing is written then.
pub fn attention<T: Elem>(ctx: &Ctx, scratch: &mut Scratch, op: Attention<'_, T>) -> Result<()> {
    let Attention { q, k, v, heads, scale, bias, mask, spans, out } = op;
    let (q, out) = (q.into(), out.into());
    let problem = Problem { q, k, v, heads, scale, bias, mask, spans, out };
    problem.validate()?;
    problem.run(ctx, scratch)
}

/// Elements of scratch that [`attention`] needs for heads of width `head_dim`, when sequences times heads are at least as
/// many as threads; `usize::MAX` for heads wider than any memory.
pub fn attention_scratch_len(ctx: &Ctx, head_dim: usize) -> usize {
    if head_dim > LARGEST_HEAD {
        return usize::MAX;
    }
    ctx.threads() * scratch_len(ctx, head_dim)
}

/// No head is wider.
const LARGEST_HEAD: usize = 1 << 40;

/// Elements of scratch for one head of this width.
fn scratch_len(ctx: &Ctx, head_dim: usize) -> usize {
    let native = ctx.isa().native().filter(|_| ctx.precision() == Precision::Bf16);
    let native = native.and_then(|native| native.bf16_attention_scratch_len(head_dim));
    native.unwrap_or_else(|| ctx.run(HeadScratchLen { head_dim }))
}

/// An [`Attention`] with all its storage types as values, so that each level's code exists once and not once for each
/// combination.
struct Problem<'a> {
    q: AnyMatRef<'a>,
    k: AnyMatRef<'a>,
    v: AnyMatRef<'a>,
    heads: Heads,
    scale: f32,
    bias: Bias<'a>,
    mask: AttentionMask,
    spans: &'a [Span],
    out: AnyMatMut<'a>,
}

impl Problem<'_> {
    fn run(&self, ctx: &Ctx, scratch: &mut Scratch) -> Result<()> {
        let Heads { count, dim, .. } = self.heads;
        // One item of work for each span and head.
        let items = if self.q.rows() == 0 { 0 } else { self.spans.len() * count };
        if items == 0 {
            return Ok(());
        }
        let tasks = ctx.threads().min(items);
        let piece = scratch_len(ctx, dim);
        ctx.for_each_piece(scratch.take(tasks * piece)?, piece, |task, scratch| {
            for item in (task..items).step_by(tasks) {
                // SAFETY: each item belongs to one task, which computes one at a time.
                unsafe { self.run_head(ctx, &self.spans[item / count], item % count, scratch) };
            }
        });
        Ok(())
    }

    /// Computes one head of one sequence.
    ///
    /// # Safety
    /// Concurrent calls must have different spans or heads.
    unsafe fn run_head(&self, ctx: &Ctx, span: &Span, head: usize, scratch: &mut [f32]) {
        let Span { queries, keys } = span;
        let (dim, precision) = (self.heads.dim, ctx.precision());
        // SAFETY: spans ascend without overlap (`validate`) and columns of heads are disjoint, so by the caller's
        // contract no two blocks in use overlap.
        let mut out = unsafe { self.out.block(queries.clone(), head * dim..(head + 1) * dim) };
        if keys.is_empty() {
            any!(AnyMatMut, &mut out, out => {
                for i in 0..out.rows() {
                    out.row_mut(i).fill(Default::default());
                }
            });
            return;
        }
        let [query_columns, kv_columns] = self.heads.columns(head);
        let q = self.q.block(queries.clone(), query_columns);
        let k = self.k.block(keys.clone(), kv_columns.clone());
        let v = self.v.block(keys.clone(), kv_columns);
        let bias = HeadBias::of(self.bias, head, queries, keys);
        let causal_offset = match self.mask {
            AttentionMask::None => None,
            AttentionMask::Causal => Some(keys.len() - queries.len()),
        };
        let head = Head { q, k, v, scale: self.scale, bias, causal_offset, precision, out };
        let rest = match ctx.isa().native() {
            Some(native) if precision == Precision::Bf16 => native.run_bf16_attention(head, scratch),
            _ => Some((head, scratch)),
        };
        if let Some((head, scratch)) = rest {
            ctx.run(RunHead { products: RegisterTile(F32Pack), head, scratch });
        }
    }

    fn validate(&self) -> Result<()> {
        const NAME: &str = "attention";
        let Heads { count, kv_heads, dim, .. } = self.heads;
        check(NAME, "rows of v", self.k.rows(), self.v.rows())?;
        check(NAME, "rows of the output", self.q.rows(), self.out.rows())?;
        if count == 0 {
            return outside(NAME, "number of heads", Expected::AtLeast(1), 0);
        }
        if kv_heads == 0 || !count.is_multiple_of(kv_heads) {
            return outside(NAME, "number of kv_heads", Expected::DivisorOf(count), kv_heads);
        }
        if dim == 0 {
            return outside(NAME, "columns of a head", Expected::AtLeast(1), 0);
        }
        check(NAME, "columns of the output", count.saturating_mul(dim), self.out.cols())?;
        let [query_end, kv_end] = self.heads.ends();
        for (what, end, matrix) in [
            ("columns of q", query_end, self.q),
            ("columns of k", kv_end, self.k),
            ("columns of v", kv_end, self.v),
        ] {
            if end > matrix.cols() || end == usize::MAX {
                return outside(NAME, what, Expected::AtLeast(end), matrix.cols());
            }
        }
        self.bias.validate(NAME, [count, self.q.rows(), self.k.rows()])?;
        let mut end = 0;
        for Span { queries, keys } in self.spans {
            if queries.start < end || queries.end < queries.start {
                return outside(NAME, "start of a span's queries", Expected::AtLeast(end), queries.start);
            }
            end = queries.end;
            if end > self.q.rows() {
                return outside(NAME, "end of a span's queries", Expected::AtMost(self.q.rows()), end);
            }
            if keys.end < keys.start || keys.end > self.k.rows() {
                return outside(NAME, "end of a span's keys", Expected::AtMost(self.k.rows()), keys.end);
            }
            if let Bias::Distance { queries: positions, .. } = self.bias
                && !positions[queries.clone()].is_sorted_by(|a, b| a < b)
            {
                return outside(NAME, "first query of a span", Expected::AscendingPositions, queries.start);
            }
            if self.mask == AttentionMask::Causal && !keys.is_empty() && keys.len() < queries.len() {
                return outside(NAME, "keys of a causal span", Expected::AtLeast(queries.len()), keys.len());
            }
        }
        Ok(())
    }
}
