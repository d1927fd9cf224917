//! A dense layer on weights in place.

use rachis_kernels::{
    Activation, Ctx, Dims, Elem, Gemm, Layout, MatMut, MatRef, Part, Scratch, Weights, gemm, gemm_scratch_len,
};

use crate::error::Result;
use crate::weights::{Init, Scope, Weight};

/// `y = activation(x w + b)`, with `w` as the file has it.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Weight>,
    layout: Layout,
}

impl Linear {
    /// The layer at `scope`: `weight` `[outputs, inputs]` and `bias`.
    pub(crate) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize) -> Result<Linear> {
        let weight = scope.weight("weight", &[outputs, inputs], Init::KERNEL)?;
        let bias = Some(scope.weight("bias", &[outputs], Init::Zeros)?);
        Ok(Linear { weight, bias, layout: Layout::Nk })
    }

    /// A layer whose weights come from elsewhere: a tied head.
    pub(crate) fn tied(weight: Weight, bias: Option<Weight>) -> Linear {
        Linear { weight, bias, layout: Layout::Nk }
    }

    fn weights(&self) -> Weights<'_> {
        Weights { matrix: self.weight.matrix(), layout: self.layout }
    }

    /// `out = activation(x w + b) + residual`
    pub(crate) fn apply<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, T>,
        epilogue: (Activation, Option<MatRef<'_, T>>),
        out: MatMut<'_, T>,
    ) -> Result<()> {
        let (activation, residual) = epilogue;
        let bias = self.bias.as_ref().map(Weight::slice);
        let part = Part { weights: self.weights(), bias, activation };
        Ok(gemm(ctx, scratch, Gemm { residual, ..Gemm::of(x, part, out) })?)
    }

    /// Elements of scratch that a call on `rows` rows needs.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        let weights = self.weights();
        gemm_scratch_len(ctx, &Dims::of_one(self.layout, [rows, weights.n(), weights.k()]))
    }
}
