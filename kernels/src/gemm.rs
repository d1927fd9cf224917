//! Matrix products with weights that stay where they lie.
//!
//! `out = activation(a * w + bias) + residual`, with `w` in either of the two layouts that files use, any row
//! stride, any of the three storage types, no alignment beyond the element's.
//!
//! # How
//!
//! One register tile does all the work: `R` rows of a *broadcast* operand X times `V` vectors of 16 lanes of a
//! *vector* operand, `tile[r][lane] += x[r][k] * v[k][lane]`. The vector operand is packed, a panel of lanes
//! for every k; the broadcast operand is staged a few rows at a time in a buffer of the first-level cache,
//! which also widens, undoes odd strides and hides misalignment. The layouts differ in who plays which part:
//!
//! | layout | X (broadcast, staged) | V (lanes, packed) | the tile comes out |
//! |---|---|---|---|
//! | [`Layout::Nk`] | weights: rows contiguous in k | activations, transposed | transposed: turned when stored |
//! | [`Layout::Kn`] | activations: rows contiguous in k | weights: rows contiguous in n | as it is |
//!
//! So no weight is ever copied as a whole, and the two layouts, all storage types and all levels share the
//! micro-kernel.
//!
//! # Numeric contract
//!
//! Products are accumulated in f32 by fused multiply-add in ascending k, in blocks of [`K_BLOCK`]; block sums
//! are added in ascending order. The order depends on K alone: an output element has the same bits whatever M,
//! N, its position, the layout, the storage type of the weights (for equal values), the thread count and the
//! level (except `Scalar`, which rounds products). The error against the exact product of the operands as
//! stored is at most `gamma * sum_k |a_k| |w_k|` with `gamma = (min(K, K_BLOCK) + K / K_BLOCK + 1) * 2^-24`;
//! in [`Precision::Bf16`] the operands are first rounded to bf16. NaN and infinity propagate.
//! Bias is added, the activation applied and the residual added in f32; the result is rounded once on store.

mod blocking;
mod epilogue;
mod pack;
mod tile;

pub use blocking::K_BLOCK;

use crate::activation::Activation;
use crate::ctx::{Ctx, Precision};
use crate::elem::Elem;
use crate::error::{Result, check};
use crate::isa::{Kernel, Simd};
use crate::scratch::Scratch;
use crate::view::{AnyMatMut, AnyMatRef, AnySlice, MatMut, MatRef};

use blocking::Blocking;

/// How a weight matrix lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[N, K]`, a row for each output: Hugging Face's `[out, in]`.
    Nk,
    /// `[K, N]`, a row for each input: Keras's `[in, out]`.
    Kn,
}

/// A weight matrix in place.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// The stored matrix.
    pub matrix: AnyMatRef<'a>,
    /// What its rows mean.
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

/// Operands of [`gemm`]: activations stored as `A`, results stored as `C`.
#[derive(Debug)]
pub struct Gemm<'a, A, C> {
    /// `[M, K]`
    pub a: MatRef<'a, A>,
    /// `[N, K]` or `[K, N]`
    pub weights: Weights<'a>,
    /// `[N]`, added to every row.
    pub bias: Option<AnySlice<'a>>,
    /// Applied after the bias.
    pub activation: Activation,
    /// `[M, N]`, added last.
    pub residual: Option<MatRef<'a, C>>,
    /// `[M, N]`
    pub out: MatMut<'a, C>,
}

impl<'a, A, C> Gemm<'a, A, C> {
    /// The plain product `out = a * w`; the other fields are set by struct update or assignment.
    pub fn product(a: MatRef<'a, A>, weights: Weights<'a>, out: MatMut<'a, C>) -> Self {
        Gemm { a, weights, bias: None, activation: Activation::Identity, residual: None, out }
    }
}

/// `out = activation(a * w + bias) + residual`.
///
/// `scratch` holds the packed operand; it grows to [`gemm_scratch_len`] on first need and is reused after.
///
/// # Errors
/// [`crate::Error::Shape`] when shapes disagree; nothing is written then.
pub fn gemm<A: Elem, C: Elem>(ctx: &Ctx, scratch: &mut Scratch, op: Gemm<'_, A, C>) -> Result<()> {
    validate(&op)?;
    let len = gemm_scratch_len(ctx, op.weights.layout, op.a.rows(), op.weights.n(), op.a.cols());
    multiply(ctx, scratch.take(len), op);
    Ok(())
}

/// [`gemm`] on operands whose shapes are known to agree, in scratch that is known to suffice.
pub(crate) fn multiply<A: Elem, C: Elem>(ctx: &Ctx, scratch: &mut [f32], op: Gemm<'_, A, C>) {
    let Gemm { a, weights, bias, activation, residual, out } = op;
    let (a, residual, out) = (A::any(a), residual.map(C::any), C::any_mut(out));
    Product { a, weights, bias, activation, residual, out }.run(ctx, scratch);
}

/// A [`Gemm`] with its storage types as values, so that each level's code exists once and not once for each
/// combination of types.
struct Product<'a> {
    a: AnyMatRef<'a>,
    weights: Weights<'a>,
    bias: Option<AnySlice<'a>>,
    activation: Activation,
    residual: Option<AnyMatRef<'a>>,
    out: AnyMatMut<'a>,
}

impl Product<'_> {
    fn run(&self, ctx: &Ctx, scratch: &mut [f32]) {
        let (m, n, k) = (self.a.rows(), self.weights.n(), self.a.cols());
        if m == 0 || n == 0 {
            return;
        }
        let blocking = Blocking::new(ctx, self.weights.layout, m, n, k);
        let scratch = &mut scratch[..blocking.scratch_len()];
        ctx.for_each_piece(scratch, blocking.piece_len(), |i, scratch| {
            let (x, v) = blocking.task(i);
            let (rows, cols) = match self.weights.layout {
                Layout::Nk => (v.clone(), x.clone()),
                Layout::Kn => (x.clone(), v.clone()),
            };
            // SAFETY: `Blocking::task` cuts the output into rectangles that do not overlap, one a task, and
            // nothing else touches `self.out` until all tasks are done.
            let out = unsafe { self.out.block(rows, cols) };
            let precision = ctx.precision();
            ctx.run(tile::Task { op: self, precision, blocking: &blocking, x, v, out, scratch });
        });
    }
}

/// Elements of scratch that [`gemm`] needs for a product of these dimensions.
pub fn gemm_scratch_len(ctx: &Ctx, layout: Layout, m: usize, n: usize, k: usize) -> usize {
    Blocking::new(ctx, layout, m, n, k).scratch_len()
}

fn validate<A, C>(op: &Gemm<'_, A, C>) -> Result<()> {
    const NAME: &str = "gemm";
    let (m, n, k) = (op.a.rows(), op.weights.n(), op.a.cols());
    check(NAME, "k of the weights", k, op.weights.k())?;
    check(NAME, "rows of the output", m, op.out.rows())?;
    check(NAME, "columns of the output", n, op.out.cols())?;
    if let Some(bias) = &op.bias {
        check(NAME, "length of the bias", n, bias.len())?;
    }
    if let Some(residual) = &op.residual {
        check(NAME, "rows of the residual", m, residual.rows())?;
        check(NAME, "columns of the residual", n, residual.cols())?;
    }
    Ok(())
}

/// The register tile of a context's level: rows and lanes.
fn tile_shape(ctx: &Ctx) -> (usize, usize) {
    struct Shape;
    impl Kernel for Shape {
        type Output = (usize, usize);
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> (usize, usize) {
            (S::TILE_ROWS, S::TILE_VECTORS * crate::isa::LANES)
        }
    }
    ctx.run(Shape)
}

/// Whether an operand must be rounded to bf16 before it is multiplied.
fn rounds(precision: Precision, operand: AnyMatRef<'_>) -> bool {
    precision == Precision::Bf16 && !matches!(operand, AnyMatRef::Bf16(_))
}
