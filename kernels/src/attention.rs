//! Scaled dot-product attention over a ragged batch, without a matrix of scores.
//!
//! For every sequence and head: `softmax((q k^T + bias) * scale) v` (Vaswani et al., arXiv:1706.03762), a few queries and
//! [`KEYS`] keys at a time with a running maximum and a running sum (Dao et al., arXiv:2205.14135). So working
//! memory does not grow with the sequence.
//!
//! # How
//!
//! Queries are lanes throughout: the register tile of the matrix product, or the tile unit of AMX, multiplies rows of
//! keys by packed queries, maxima and sums of scores run down the lanes, and the weights come to lie as the same tile
//! needs them to multiply columns of values. No scores are turned or packed in between, and no lanes are added up.
//!
//! # Numeric contract
//!
//! Scores and mixtures are summed in ascending order of the head's width and of the keys, those of each [`KEYS`] keys
//! apart. Weights are `e^(score - maximum)` in f32, relative to the largest score so far; what has been summed is
//! scaled down when that grows. The division by the sum of weights comes last. In [bf16](crate::Precision::Bf16)
//! queries, keys, values and weights are rounded before they are multiplied; sums of weights are of those not rounded.
//! There, levels with instructions for bf16 sum as [their products](crate::gemm()) do; on AMX a mixture goes on from that
//! of the keys before, and is not added to it.
//!
//! An output row depends on its query and on its sequence's keys and values, not on the batch, its position or the
//! threads. Levels that fuse agree, but for [`Level::Avx512Bf16`](crate::Level::Avx512Bf16) and
//! [`Level::Amx`](crate::Level::Amx) in bf16.
//!
//! Sequences lie behind one another in the rows of q, k and v; a [`Span`] says which rows are whose. Padding is
//! simply not there. A span without keys gives rows of zeros. A NaN or an infinite score makes a row NaN, except
//! for negative infinity beside finite scores, which has no weight.

#[cfg(target_arch = "x86_64")]
mod amx;
mod bias;
mod head;
mod one;
mod products;
mod softmax;
mod tile;

pub use bias::Bias;

use core::ops::Range;

use crate::ctx::Ctx;
#[cfg(target_arch = "x86_64")]
use crate::ctx::Precision;
use crate::elem::Elem;
use crate::error::{Error, Result, check};
use crate::gemm::tile::Tile;
use crate::gemm::word::Single;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Isa, avx512::Avx512};
use crate::scratch::Scratch;
use crate::view::{AnyMatMut, AnyMatRef, MatMut, MatRef, any};

#[cfg(target_arch = "x86_64")]
use amx::OnTiles;
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

/// How heads lie in the columns of queries, keys and values.
///
/// Heads of queries may share keys and values, in groups of as many in a row: all heads (Shazeer, arXiv:1911.02150)
/// or some (Ainslie et al., arXiv:2305.13245).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Number of heads of queries.
    pub count: usize,
    /// Number of groups: heads of keys and values, each shared by `count / groups` heads of queries in a row.
    pub groups: usize,
    /// Columns of a head.
    pub dim: usize,
    /// Columns from the first head of queries of a group to that of the next.
    pub query_step: usize,
    /// Columns from the head of keys (and of values) of a group to that of the next.
    pub key_step: usize,
}

impl Heads {
    /// Heads side by side: `[count * dim]` columns of queries, `[groups * dim]` of keys and of values.
    pub fn dense(count: usize, groups: usize, dim: usize) -> Heads {
        let query_step = per_group(count, groups).saturating_mul(dim);
        Heads { count, groups, dim, query_step, key_step: dim }
    }

    /// The same, of queries, keys and values that lie in one matrix, group by group: the group's queries, its key, its
    /// value (what fused projections such as Falcon's compute).
    pub fn fused(count: usize, groups: usize, dim: usize) -> Heads {
        let step = per_group(count, groups).saturating_add(2).saturating_mul(dim);
        Heads { count, groups, dim, query_step: step, key_step: step }
    }

    /// The columns of a head of queries, and those of its keys and values.
    fn columns(&self, head: usize) -> [Range<usize>; 2] {
        let shared = per_group(self.count, self.groups);
        let (group, within) = (head / shared, head % shared);
        let starts = [group * self.query_step + within * self.dim, group * self.key_step];
        starts.map(|start| start..start + self.dim)
    }

    /// Where the last head of queries ends, and the last of keys and values; [`usize::MAX`] stands for all beyond.
    fn ends(&self) -> [usize; 2] {
        let shared = per_group(self.count, self.groups);
        let last = self.groups.saturating_sub(1);
        let end = |step: usize, heads: usize| {
            last.saturating_mul(step).saturating_add(heads.saturating_mul(self.dim))
        };
        [end(self.query_step, shared), end(self.key_step, 1)]
    }
}

/// Heads of queries that share a head of keys.
fn per_group(count: usize, groups: usize) -> usize {
    count.checked_div(groups).unwrap_or(0)
}

/// Operands of [`attention`]. Matrices of queries, keys and values may be wider than their heads.
#[derive(Debug)]
pub struct Attention<'a, T> {
    /// A row for each query; its first head starts at the first column.
    pub q: MatRef<'a, T>,
    /// A row for each key; its first head starts at the first column.
    pub k: AnyMatRef<'a>,
    /// As `k`, in any storage type.
    pub v: AnyMatRef<'a>,
    /// Where the heads are.
    pub heads: Heads,
    /// Multiplies the scores, after the bias is added.
    pub scale: f32,
    /// Added to the scores.
    pub bias: Bias<'a>,
    /// Whether queries see no later keys: the last query of a span is at its last key.
    pub causal: bool,
    /// The sequences, whose query rows must ascend without overlap. Rows of no span are left as they are.
    pub spans: &'a [Span],
    /// `[queries, heads.count * heads.dim]`, heads side by side.
    pub out: MatMut<'a, T>,
}

/// Attention of every sequence's queries over its own keys, head by head.
///
/// # Errors
/// [`Error::Shape`] when shapes disagree or a span reaches outside its matrix, [`Error::Memory`] when `scratch` cannot
/// grow; nothing is written then.
pub fn attention<T: Elem>(ctx: &Ctx, scratch: &mut Scratch, op: Attention<'_, T>) -> Result<()> {
    let Attention { q, k, v, heads, scale, bias, causal, spans, out } = op;
    let (q, out) = (q.into(), out.into());
    let problem = Problem { q, k, v, heads, scale, bias, causal, spans, out };
    problem.validate()?;
    problem.run(ctx, scratch)
}

/// Elements of scratch that [`attention`] needs for heads of `head_dim`, when there are at least as many sequences
/// times heads as threads.
pub fn attention_scratch_len(ctx: &Ctx, head_dim: usize) -> usize {
    ctx.threads() * room_len(ctx, head_dim)
}

/// Elements of scratch for one head of this width.
fn room_len(ctx: &Ctx, width: usize) -> usize {
    match ctx.isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx(..) if ctx.precision() == Precision::Bf16 => head::room_len::<Avx512, OnTiles>(width),
        _ => ctx.run(RoomLen { width }),
    }
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
    causal: bool,
    spans: &'a [Span],
    out: AnyMatMut<'a>,
}

impl Problem<'_> {
    fn run(&self, ctx: &Ctx, scratch: &mut Scratch) -> Result<()> {
        let Heads { count, dim, .. } = self.heads;
        let pairs = if self.q.rows() == 0 { 0 } else { self.spans.len() * count };
        if pairs == 0 {
            return Ok(());
        }
        let tasks = ctx.threads().min(pairs);
        let piece = room_len(ctx, dim);
        ctx.for_each_piece(scratch.take(tasks * piece)?, piece, |task, scratch| {
            for pair in (task..pairs).step_by(tasks) {
                // SAFETY: each pair belongs to one task, which takes one at a time.
                unsafe { self.run_head(ctx, &self.spans[pair / count], pair % count, scratch) };
            }
        });
        Ok(())
    }

    /// One sequence's part of one head.
    ///
    /// # Safety
    /// Calls at the same time must be of different spans or heads.
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
        let [of_queries, of_keys] = self.heads.columns(head);
        let q = self.q.block(queries.clone(), of_queries);
        let k = self.k.block(keys.clone(), of_keys.clone());
        let v = self.v.block(keys.clone(), of_keys);
        let bias = HeadBias::of(self.bias, head, queries, keys);
        let before = self.causal.then(|| keys.len() - queries.len());
        let head = Head { q, k, v, scale: self.scale, bias, before, precision, out };
        match ctx.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(s, word) if precision == Precision::Bf16 => {
                s.run(Run { products: Tile(word), head, scratch });
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(s, amx) if precision == Precision::Bf16 => {
                s.run(Run { products: OnTiles::new(amx), head, scratch });
            }
            _ => ctx.run(Run { products: Tile(Single), head, scratch }),
        }
    }

    fn validate(&self) -> Result<()> {
        const NAME: &str = "attention";
        let outside = |what, expected, found| Err(Error::Shape { operation: NAME, what, expected, found });
        let Heads { count, groups, dim, .. } = self.heads;
        check(NAME, "rows of v", self.k.rows(), self.v.rows())?;
        check(NAME, "rows of the output", self.q.rows(), self.out.rows())?;
        if count == 0 {
            return outside("number of heads, at least", 1, 0);
        }
        if groups == 0 || !count.is_multiple_of(groups) {
            return outside("number of groups, a divisor of that of heads", count, groups);
        }
        if dim == 0 {
            return outside("columns of a head, at least", 1, 0);
        }
        check(NAME, "columns of the output", count.saturating_mul(dim), self.out.cols())?;
        let [of_queries, of_keys] = self.heads.ends();
        for (what, end, matrix) in [
            ("columns of q, at least", of_queries, self.q),
            ("columns of k, at least", of_keys, self.k),
            ("columns of v, at least", of_keys, self.v),
        ] {
            if end > matrix.cols() || end == usize::MAX {
                return outside(what, end, matrix.cols());
            }
        }
        self.bias.validate(NAME, [count, self.q.rows(), self.k.rows()])?;
        let mut end = 0;
        for Span { queries, keys } in self.spans {
            if queries.start < end || queries.end < queries.start {
                return outside("start of a span's queries, at least", end, queries.start);
            }
            end = queries.end;
            if end > self.q.rows() {
                return outside("end of a span's queries, at most", self.q.rows(), end);
            }
            if keys.end < keys.start || keys.end > self.k.rows() {
                return outside("end of a span's keys, at most", self.k.rows(), keys.end);
            }
            if let Bias::Distance { queries: positions, .. } = self.bias
                && !positions[queries.clone()].is_sorted_by(|a, b| a < b)
            {
                return outside("start of queries whose positions ascend", queries.end, queries.start);
            }
            if self.causal && !keys.is_empty() && keys.len() < queries.len() {
                return outside("keys of a causal span, at least", queries.len(), keys.len());
            }
        }
        Ok(())
    }
}
