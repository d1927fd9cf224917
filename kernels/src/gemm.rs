//! Matrix products with weights in place.
//!
//! `out = activation(a * w + bias) + residual`, with `w` in either of the two layouts that files use, with any row stride, any
//! of the three storage types, and no alignment beyond the element's. One call may multiply the same activations by several
//! weight matrices and put the results side by side ([`Combine::Columns`]) or multiply them element by element
//! ([`Combine::Product`], a gated feed-forward).
//!
//! # How
//!
//! A micro-kernel multiplies rows of a *broadcast* operand X by *vectors* of a packed operand V,
//! `tile[r][lane] += x[r][k] * v[k][lane]`. The layout decides which operand plays which part:
//!
//! | layout | X (rows contiguous in k) | V (lanes, packed) | the tile is |
//! |---|---|---|---|
//! | [`Layout::Nk`] | weights, in place | activations, transposed | transposed, and transposed back on store |
//! | [`Layout::Kn`] | activations | weights, KC values of k by NC columns at a time | row-major |
//!
//! So no weight matrix is ever copied as a whole, and all layouts, storage types and levels share the loops. AMX has loops of
//! its own, which pack activations in both layouts. A table of plans lists the routines: the register tile of multiply-adds
//! (`micro_kernel`, in the loops of `macro_kernel`), a routine for few rows of activations (`small_m`), AMX tiles, and a
//! routine for few rows by `[K, N]` weights in the summation order of AMX tiles, as interleaving such weights into pairs would
//! cost more than the products. The first two multiply packs (`gemm/kpack.rs`) of one f32 or, where the processor has
//! an instruction for it, of two bf16.
//!
//! # Numeric contract
//!
//! [`Precision::Strict`] multiplies the stored values, widened to f32. [`Precision::Bf16`] first rounds both operands to bf16
//! (to nearest, ties to even). [`Precision::Bf16x6`] splits them into three bf16 terms on AMX and is `Strict` elsewhere.
//! Products are accumulated in f32:
//!
//! - [`SummationOrder::Ascending`]: by fused multiply-add in ascending k, in blocks of [`K_BLOCK`]; block sums are added in
//!   ascending order. An output element has the same bits whatever M, N, its position, the layout, the storage type of the
//!   weights (for equal values), the thread count and the level (except `Scalar`, which rounds products).
//! - [`SummationOrder::Pairs`] ([`Level::Avx512Bf16`](crate::Level::Avx512Bf16), [`Precision::Bf16`] only): as `vdpbf16ps`
//!   defines it, pairs of k ascending, in each the odd k before the even one, in blocks of [`K_BLOCK`] pairs. Subnormal
//!   operands and sums count as zero. The same bits whatever M, N, position, layout and threads.
//! - [`SummationOrder::Tiles`] (AMX, [`Precision::Bf16`] only): as `tdpbf16ps` defines it, 32 values of k at a time: the even
//!   and the odd k are summed apart, then together, then added to the running sum, each rounded to nearest. Subnormal
//!   operands (as stored, before rounding) and sums count as zero. The same bits whatever M, N, position, layout and threads.
//! - [`SummationOrder::SplitTiles`] (AMX, [`Precision::Bf16x6`] only): an operand is split into the nearest bf16, the bf16
//!   nearest to what that leaves, and the rest. For 32 values of k at a time, the products of terms `(0, 0)`, `(0, 1)`,
//!   `(1, 1)`, `(1, 0)`, `(2, 0)` and `(0, 2)` of weights and activations are added to the running sum, each as in
//!   [`SummationOrder::Tiles`]. An operand stored as bf16 has one term.
//!
//! The error against the exact product of the (rounded) operands is at most `gamma * sum_k |a_k| |w_k|` with
//! `gamma = (min(K, K_BLOCK) + K / K_BLOCK + 1) * 2^-24`; with `2 K_BLOCK` in place of `K_BLOCK` for pairs; and for pairs and
//! tiles plus `K * 2^-126 * (|a| + |w| + 1)` for values that count as zero. For split tiles `gamma` is
//! `(6 ceil(K / 32) + 24) * 2^-24`. NaN and infinity propagate (infinity as NaN in split tiles); which NaN is not promised.
//! Bias is added, the activation applied, factors multiplied and the residual added in f32; the result is rounded once on
//! store.

pub(crate) mod blocking;
mod dispatch;
pub(crate) mod epilogue;
pub(crate) mod kpack;
pub(crate) mod macro_kernel;
pub(crate) mod micro_kernel;
pub(crate) mod pack;
pub(crate) mod plan;
pub(crate) mod prefetch;
pub(crate) mod small_m;

pub(crate) use blocking::MicroTile;
pub(crate) use dispatch::RoutineKind;
pub(crate) use macro_kernel::ThreadSlice;
pub(crate) use micro_kernel::RegisterTile;
pub use plan::{GemmPlan, PLANS, SummationOrder};
pub(crate) use small_m::SmallMSlice;

use core::fmt;

use crate::activation::Activation;
use crate::ctx::{Ctx, Precision};
use crate::elem::Elem;
use crate::error::{Error, Result, check};
use crate::scratch::Scratch;
use crate::view::{AnyMatMut, AnyMatRef, AnySlice, MatMut, MatRef};

use pack::Operand;

/// Products in a block of k: their sum starts from zero and is then added to the sum of the earlier blocks. It bounds the
/// growth of the error, and lets rows of X stay in the first-level cache; 256 doubled the traffic of sums. Part of the
/// numeric contract: it does not depend on the machine.
pub const K_BLOCK: usize = 512;

/// The layout of a weight matrix in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[N, K]`, a row for each output: `[out, in]` of Hugging Face.
    Nk,
    /// `[K, N]`, a row for each input: `[in, out]` of Keras.
    Kn,
}

impl Layout {
    /// Both layouts.
    pub const ALL: [Layout; 2] = [Layout::Nk, Layout::Kn];
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Nk => "[N, K]",
            Layout::Kn => "[K, N]",
        })
    }
}

/// A weight matrix in place.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// The stored matrix.
    pub matrix: AnyMatRef<'a>,
    /// Whether rows are outputs or inputs.
    pub layout: Layout,
}

impl Weights<'_> {
    /// Number of inputs, the dimension summed over.
    pub fn k(&self) -> usize {
        match self.layout {
            Layout::Nk => self.matrix.cols(),
            Layout::Kn => self.matrix.rows(),
        }
    }

    /// Number of outputs.
    pub fn n(&self) -> usize {
        match self.layout {
            Layout::Nk => self.matrix.rows(),
            Layout::Kn => self.matrix.cols(),
        }
    }
}

/// A weight matrix and its epilogue.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// `[N, K]` or `[K, N]`
    pub weights: Weights<'a>,
    /// `[N]`, added to every row.
    pub bias: Option<AnySlice<'a>>,
    /// Applied after the bias.
    pub activation: Activation,
}

impl<'a> Part<'a> {
    /// Weights alone; the other fields are set by struct update or assignment.
    pub fn of(weights: Weights<'a>) -> Part<'a> {
        Part { weights, bias: None, activation: Activation::Identity }
    }
}

/// How the results of several parts are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Combine {
    /// Side by side, as columns of the output.
    #[default]
    Columns,
    /// Multiplied element by element: a gated feed-forward.
    Product,
}

/// Operands of [`gemm`]: activations stored as `A`, results stored as `C`, `L` weight matrices.
#[derive(Debug)]
pub struct Gemm<'a, A, C, const L: usize = 1> {
    /// `[M, K]`
    pub a: MatRef<'a, A>,
    /// One or more, all in the same layout.
    pub parts: [Part<'a>; L],
    /// How their results are combined.
    pub combine: Combine,
    /// `[M, N]`, added last.
    pub residual: Option<MatRef<'a, C>>,
    /// `[M, N]`, where N is the sum of the parts' columns or, for [`Combine::Product`], their common number of columns.
    pub out: MatMut<'a, C>,
}

impl<'a, A, C> Gemm<'a, A, C> {
    /// The plain product `out = a * w`; the other fields are set by struct update or assignment.
    pub fn product(a: MatRef<'a, A>, weights: Weights<'a>, out: MatMut<'a, C>) -> Self {
        Gemm::of(a, Part::of(weights), out)
    }

    /// One part, without residual.
    pub fn of(a: MatRef<'a, A>, part: Part<'a>, out: MatMut<'a, C>) -> Self {
        Gemm { a, parts: [part], combine: Combine::Columns, residual: None, out }
    }
}

/// The layout of the weights of all parts.
fn layout(parts: &[Part<'_>]) -> Layout {
    parts.first().map_or(Layout::Nk, |part| part.weights.layout)
}

impl<A, C, const L: usize> Gemm<'_, A, C, L> {
    fn layout(&self) -> Layout {
        layout(&self.parts)
    }
}

/// `out = activation(a * w + bias) + residual`.
///
/// `scratch` holds the packed operand; it grows to [`gemm_scratch_len`] on first need and is reused after.
///
/// # Errors
/// [`Error::Shape`] when shapes disagree, [`Error::Layout`] when the parts' layouts do, [`Error::OutOfMemory`] when `scratch`
/// cannot grow; nothing is written then.
pub fn gemm<A: Elem, C: Elem, const L: usize>(
    ctx: &Ctx,
    scratch: &mut Scratch,
    op: Gemm<'_, A, C, L>,
) -> Result<()> {
    validate(&op)?;
    compute(GemmPlan::pick(ctx, op.layout(), op.a.rows()), ctx, scratch, op)
}

/// [`gemm`] by a plan of the caller's choice, for tests and benchmarks.
///
/// # Errors
/// Those of [`gemm`]; [`Error::GemmPlan`] when the plan is not one of [`PLANS`], or does not fit the context, the layout or the
/// number of rows.
#[doc(hidden)]
pub fn gemm_with<A: Elem, C: Elem, const L: usize>(
    plan: &GemmPlan,
    ctx: &Ctx,
    scratch: &mut Scratch,
    op: Gemm<'_, A, C, L>,
) -> Result<()> {
    validate(&op)?;
    if !PLANS.contains(plan) || !plan.fits(ctx, op.layout(), op.a.rows()) {
        let (level, layout, rows) = (ctx.level(), op.layout(), op.a.rows());
        return Err(Error::GemmPlan { plan: plan.name, level, layout, rows });
    }
    compute(plan, ctx, scratch, op)
}

/// [`gemm`] of valid operands, by a plan that fits.
fn compute<A: Elem, C: Elem, const L: usize>(
    plan: &GemmPlan,
    ctx: &Ctx,
    scratch: &mut Scratch,
    op: Gemm<'_, A, C, L>,
) -> Result<()> {
    with_product(ctx, op, |product| {
        if !product.is_empty() {
            let len = plan.scratch_len(ctx, ctx.threads(), &product.dims());
            plan.run(ctx, scratch.take(len)?, product);
        }
        Ok(())
    })
}

/// The dimensions of a product, for [`gemm_scratch_len`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Layout of the weights.
    pub layout: Layout,
    /// Rows of activations.
    pub m: usize,
    /// Columns of the widest part.
    pub n: usize,
    /// Columns of activations.
    pub k: usize,
    /// Number of parts.
    pub parts: usize,
    /// How their results are combined.
    pub combine: Combine,
}

impl Dims {
    /// A product with one weight matrix.
    pub fn of_one(layout: Layout, [m, n, k]: [usize; 3]) -> Dims {
        Dims { layout, m, n, k, parts: 1, combine: Combine::Columns }
    }

    /// Number of parts that are multiplied into one result.
    pub(crate) fn fused(&self) -> usize {
        match self.combine {
            Combine::Columns => 1,
            Combine::Product => self.parts,
        }
    }

    /// Multiplications, as if all parts were as wide as the widest.
    fn work(&self) -> usize {
        [self.n, self.k, self.parts].iter().fold(self.m, |work, dim| work.saturating_mul(*dim))
    }
}

/// No matrix has more elements.
const LARGEST_MATRIX: usize = 1 << 48;

/// Elements of scratch that [`gemm`] needs for a product of these dimensions, or of fewer rows; `usize::MAX` for matrices
/// larger than any memory.
pub fn gemm_scratch_len(ctx: &Ctx, dims: &Dims) -> usize {
    if dims.m == 0 || dims.n == 0 {
        return 0;
    }
    let Dims { m, n, k, parts, .. } = *dims;
    let elements = [(m, n), (m, k), (n, k)].map(|(rows, cols)| rows.saturating_mul(cols.max(1)));
    if elements.iter().any(|elements| elements.saturating_mul(parts) > LARGEST_MATRIX) {
        return usize::MAX;
    }
    let fitting = PLANS.iter().filter(|plan| plan.fits(ctx, dims.layout, dims.m.min(plan.max_rows)));
    let most = |plan: &GemmPlan| {
        let dims = Dims { m: dims.m.min(plan.max_rows), ..*dims };
        // Products with fewer rows may use fewer threads, with larger pieces for each.
        (1..=ctx.threads()).map(|threads| plan.scratch_len(ctx, threads, &dims)).max()
    };
    fitting.filter_map(most).max().unwrap_or(0)
}

/// A [`Gemm`] with its storage types and the number of its parts as values, so that each level's code exists once
/// and not once for each combination.
pub(crate) struct Product<'a> {
    pub(crate) a: AnyMatRef<'a>,
    parts: &'a [Part<'a>],
    combine: Combine,
    pub(crate) residual: Option<AnyMatRef<'a>>,
    pub(crate) out: AnyMatMut<'a>,
    precision: Precision,
}

fn with_product<A: Elem, C: Elem, const L: usize>(
    ctx: &Ctx,
    op: Gemm<'_, A, C, L>,
    run: impl FnOnce(&Product<'_>) -> Result<()>,
) -> Result<()> {
    let Gemm { a, parts, combine, residual, out } = op;
    let (a, residual, out) = (A::any(a), residual.map(C::any), C::any_mut(out));
    run(&Product { a, parts: &parts, combine, residual, out, precision: ctx.precision() })
}

impl Product<'_> {
    /// Whether there is nothing to compute.
    fn is_empty(&self) -> bool {
        self.out.rows() == 0 || self.out.cols() == 0
    }

    pub(crate) fn layout(&self) -> Layout {
        layout(self.parts)
    }

    pub(crate) fn dims(&self) -> Dims {
        let n = self.parts.iter().map(|part| part.weights.n()).max().unwrap_or(0);
        let (m, k, parts) = (self.a.rows(), self.a.cols(), self.parts.len());
        Dims { layout: self.layout(), m, n, k, parts, combine: self.combine }
    }

    /// For each result, the parts that are multiplied into it and its first column in the output.
    pub(crate) fn fused_parts(&self) -> impl Iterator<Item = (&[Part<'_>], usize)> {
        let mut end = 0;
        self.parts.chunks(self.dims().fused().max(1)).map(move |parts| {
            let start = end;
            end += parts[0].weights.n();
            (parts, start)
        })
    }

    pub(crate) fn activations(&self) -> Operand<'_> {
        Operand::of(self.a, true, self.precision)
    }

    pub(crate) fn weights<'p>(&self, part: &Part<'p>) -> Operand<'p> {
        Operand::of(part.weights.matrix, part.weights.layout == Layout::Nk, self.precision)
    }
}

fn validate<A, C, const L: usize>(op: &Gemm<'_, A, C, L>) -> Result<()> {
    const NAME: &str = "gemm";
    let (m, k) = (op.a.rows(), op.a.cols());
    let columns = op.parts.iter().map(|part| part.weights.n());
    let n = match op.combine {
        Combine::Columns => columns.fold(0, usize::saturating_add),
        Combine::Product => columns.max().unwrap_or(0),
    };
    for part in &op.parts {
        check(NAME, "k of the weights", k, part.weights.k())?;
        if let Some(bias) = &part.bias {
            check(NAME, "length of the bias", part.weights.n(), bias.len())?;
        }
        if op.combine == Combine::Product {
            check(NAME, "columns of a factor", n, part.weights.n())?;
        }
        if part.weights.layout != op.parts[0].weights.layout {
            return Err(Error::Layout { operation: NAME });
        }
    }
    check(NAME, "rows of the output", m, op.out.rows())?;
    check(NAME, "columns of the output", n, op.out.cols())?;
    if let Some(residual) = &op.residual {
        check(NAME, "rows of the residual", m, residual.rows())?;
        check(NAME, "columns of the residual", n, residual.cols())?;
    }
    Ok(())
}
