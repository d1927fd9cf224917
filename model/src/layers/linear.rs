//! A dense layer on weights in place.

use rachis_kernels::{
    Activation, Combine, Ctx, Dims, Elem, Gemm, Layout, MatMut, MatRef, Part, Scratch, Weights, gemm,
    gemm_scratch_len,
};

use crate::error::Result;
use crate::weights::{Init, Naming, Role, Scope, Weight};

/// `y = activation(x w + b)`, with `w` as the file has it.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Weight>,
    layout: Layout,
}

impl Linear {
    /// The layer at `scope`: its weight and, if there is to be one, its bias.
    pub(crate) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        let (shape, layout) = match scope.naming() {
            Naming::HuggingFace => ([outputs, inputs], Layout::Nk),
            Naming::Keras => ([inputs, outputs], Layout::Kn),
        };
        let weight = scope.weight(Role::Weight, &shape, Init::KERNEL)?;
        let bias = bias.then(|| scope.weight(Role::Bias, &[outputs], Init::Zeros)).transpose()?;
        Ok(Linear { weight, bias, layout })
    }

    /// A layer whose weights come from elsewhere, a row for each output: a tied head.
    pub(crate) fn tied(weight: Weight, bias: Option<Weight>) -> Linear {
        Linear { weight, bias, layout: Layout::Nk }
    }

    /// A layer whose weights are those given, a row for each input.
    pub(crate) fn of_inputs(weight: Weight) -> Linear {
        Linear { weight, bias: None, layout: Layout::Kn }
    }

    fn part(&self, activation: Activation) -> Part<'_> {
        let weights = Weights { matrix: self.weight.matrix(), layout: self.layout };
        Part { weights, bias: self.bias.as_ref().map(Weight::slice), activation }
    }

    /// `out = activation(x w + b) + residual`
    pub(crate) fn apply<A: Elem, C: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, A>,
        epilogue: (Activation, Option<MatRef<'_, C>>),
        out: MatMut<'_, C>,
    ) -> Result<()> {
        let (activation, residual) = epilogue;
        Ok(gemm(ctx, scratch, Gemm { residual, ..Gemm::of(x, self.part(activation), out) })?)
    }

    /// Number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.part(Activation::Identity).weights.n()
    }

    /// Several layers on the same input: their outputs are columns of `out`, in order.
    pub(crate) fn apply_all<A: Elem, C: Elem, const L: usize>(
        layers: [&Linear; L],
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, A>,
        out: MatMut<'_, C>,
    ) -> Result<()> {
        let parts = layers.map(|layer| layer.part(Activation::Identity));
        Ok(gemm(ctx, scratch, Gemm { a: x, parts, combine: Combine::Columns, residual: None, out })?)
    }

    /// `out = activation(x w + b) * gate(x)`
    pub(crate) fn apply_gated<C: Elem>(
        &self,
        gate: &Linear,
        ctx: &Ctx,
        scratch: &mut Scratch,
        (x, activation): (MatRef<'_, f32>, Activation),
        out: MatMut<'_, C>,
    ) -> Result<()> {
        let parts = [self.part(activation), gate.part(Activation::Identity)];
        Ok(gemm(ctx, scratch, Gemm { a: x, parts, combine: Combine::Product, residual: None, out })?)
    }

    /// Elements of scratch that [`Linear::apply_gated`] on `rows` rows needs.
    pub(crate) fn gated_scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        gemm_scratch_len(ctx, &Dims { parts: 2, combine: Combine::Product, ..self.dims(rows) })
    }

    /// Elements of scratch that a call on `rows` rows needs, together with `others` like it.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize, others: usize) -> usize {
        gemm_scratch_len(ctx, &Dims { parts: 1 + others, ..self.dims(rows) })
    }

    fn dims(&self, rows: usize) -> Dims {
        let weights = self.part(Activation::Identity).weights;
        Dims::of_one(self.layout, [rows, weights.n(), weights.k()])
    }
}
