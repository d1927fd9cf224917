//! A dense layer on weights in place.

use core::ops::Range;

use rachis_kernels::{
    Activation, Combine, Ctx, Dims, Elem, Gemm, Layout, MatMut, MatRef, Part, Scratch, Weights, gemm,
    gemm_scratch_len,
};

use crate::error::Result;
use crate::weights::{Init, Naming, Role, Scope, Weight};
use crate::weights::{Piece, Tensors};

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
        let bias = if bias {
            Some(scope.weight(Role::Bias, &[outputs], Init::Zeros)?)
        } else {
            scope.expect_no(Role::Bias)?;
            None
        };
        Ok(Linear { weight, bias, layout })
    }

    /// A layer of weights from elsewhere, a row for each output: a head, tied or not.
    pub(crate) fn tied(weight: Weight, bias: Option<Weight>) -> Linear {
        Linear { weight, bias, layout: Layout::Nk }
    }

    /// A layer whose weights are those given, a row for each input.
    pub(crate) fn of_inputs(weight: Weight) -> Linear {
        Linear { weight, bias: None, layout: Layout::Kn }
    }

    /// What is to be stored, a row for each output, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m Linear, tensors: &mut Tensors<'m>) {
        let part = self.part(Activation::Identity);
        let shape = vec![part.weights.n(), part.weights.k()];
        let outputs = 0..part.weights.n();
        tensors.add(like.weight.name(), shape, vec![self.stored(outputs)]);
        match (&self.bias, &like.bias) {
            (Some(bias), Some(like)) => tensors.add_vector(bias, like),
            // A bias that only some files have, and under one name.
            (Some(bias), None) => {
                let row = bias.matrix();
                tensors.add(bias.name(), vec![row.rows(), row.cols()], vec![Piece::Rows(row)]);
            }
            (None, _) => {}
        }
    }

    /// Layers on the same input as one, under the names of `like`: its outputs are these ranges of theirs, in order.
    pub(crate) fn save_fused<'m>(
        ranges: impl Iterator<Item = (&'m Linear, Range<usize>)> + Clone,
        like: &'m Linear,
        tensors: &mut Tensors<'m>,
    ) {
        let outputs = ranges.clone().map(|(_, range)| range.len()).sum();
        let inputs = ranges.clone().map(|(layer, _)| layer.part(Activation::Identity).weights.k()).next();
        let pieces = ranges.clone().map(|(layer, range)| layer.stored(range)).collect();
        tensors.add(like.weight.name(), vec![outputs, inputs.unwrap_or(0)], pieces);
        if let Some(like) = &like.bias {
            let bias = |(layer, range): (&'m Linear, Range<usize>)| {
                layer.bias.as_ref().map(|bias| Piece::Rows(bias.as_column().rows_range(range)))
            };
            tensors.add(like.name(), vec![outputs], ranges.filter_map(bias).collect());
        }
    }

    /// The weights of some outputs, a row for each.
    fn stored(&self, outputs: Range<usize>) -> Piece<'_> {
        let matrix = self.weight.matrix();
        match self.layout {
            Layout::Nk => Piece::Rows(matrix.rows_range(outputs)),
            // The range is inside the matrix.
            Layout::Kn => {
                matrix.columns(outputs.start, outputs.len()).map_or(Piece::Zeros(0), Piece::Columns)
            }
        }
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
