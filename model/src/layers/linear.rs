//! A dense layer, whose weights are used where they lie in the file.

use core::ops::Range;

use rachis_kernels::{
    Activation, Combine, Ctx, Dims, Elem, Gemm, Layout, MatMut, MatRef, Part, Scratch, Weights, gemm,
    gemm_scratch_len,
};

use crate::error::Result;
use crate::weights::{Init, Naming, Role, RowBlock, Scope, Tensors, Weight};

/// `y = activation(x w + b)`, with `w` in the file's layout.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Weight>,
    layout: Layout,
}

/// What follows a product: `activation(x w + b) + residual`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epilogue<'a, C> {
    pub(crate) activation: Activation,
    pub(crate) residual: Option<MatRef<'a, C>>,
}

impl<'a, C> Epilogue<'a, C> {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Epilogue { activation: Activation::Identity, residual: None }
    }

    /// An activation.
    pub(crate) fn activation(activation: Activation) -> Self {
        Epilogue { activation, residual: None }
    }

    /// The addition of a residual.
    pub(crate) fn residual(residual: MatRef<'a, C>) -> Self {
        Epilogue { activation: Activation::Identity, residual: Some(residual) }
    }
}

/// A second dense layer that multiplies the first one's output.
pub(crate) struct Gate<'l> {
    pub(crate) layer: &'l Linear,
    /// Applied to the first layer's output.
    pub(crate) activation: Activation,
}

impl Linear {
    /// The layer at `scope`: its weight and, with `bias`, its bias. A bias that the configuration excludes is an error.
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

    /// A layer with this `[outputs, inputs]` weight: a logits head, tied to a table or not.
    pub(crate) fn from_output_rows(weight: Weight, bias: Option<Weight>) -> Linear {
        Linear { weight, bias, layout: Layout::Nk }
    }

    /// A layer with this `[inputs, outputs]` weight.
    pub(crate) fn from_input_rows(weight: Weight) -> Linear {
        Linear { weight, bias: None, layout: Layout::Kn }
    }

    /// Adds the tensors to save, `[outputs, inputs]`, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m Linear, tensors: &mut Tensors<'m>) {
        let weights = self.weights();
        let shape = vec![weights.n(), weights.k()];
        tensors.add(like.weight.name(), shape, vec![self.output_rows(0..weights.n())]);
        match (&self.bias, &like.bias) {
            (Some(bias), Some(like)) => tensors.add_vector(bias, like),
            // A bias that only some files have: it has the same name in all of them.
            (Some(bias), None) => {
                let row = bias.matrix();
                tensors.add(bias.name(), vec![row.rows(), row.cols()], vec![RowBlock::Matrix(row)]);
            }
            (None, _) => {}
        }
    }

    /// Adds layers on the same input as one tensor, under the names of `like`: its outputs are these ranges of theirs,
    /// in order.
    pub(crate) fn save_fused<'m>(
        ranges: impl Iterator<Item = (&'m Linear, Range<usize>)> + Clone,
        like: &'m Linear,
        tensors: &mut Tensors<'m>,
    ) {
        let outputs = ranges.clone().map(|(_, range)| range.len()).sum();
        let inputs = ranges.clone().map(|(layer, _)| layer.weights().k()).next();
        let blocks = ranges.clone().map(|(layer, range)| layer.output_rows(range)).collect();
        tensors.add(like.weight.name(), vec![outputs, inputs.unwrap_or(0)], blocks);
        if let Some(like) = &like.bias {
            let bias = |(layer, range): (&'m Linear, Range<usize>)| {
                layer.bias.as_ref().map(|bias| RowBlock::Matrix(bias.as_column().rows_range(range)))
            };
            tensors.add(like.name(), vec![outputs], ranges.filter_map(bias).collect());
        }
    }

    /// The weights of some outputs, one row for each output.
    fn output_rows(&self, outputs: Range<usize>) -> RowBlock<'_> {
        let matrix = self.weight.matrix();
        match self.layout {
            Layout::Nk => RowBlock::Matrix(matrix.rows_range(outputs)),
            // The range is inside the matrix.
            Layout::Kn => {
                matrix.columns(outputs.start, outputs.len()).map_or(RowBlock::Zeros(0), RowBlock::Transposed)
            }
        }
    }

    fn weights(&self) -> Weights<'_> {
        Weights { matrix: self.weight.matrix(), layout: self.layout }
    }

    fn part(&self, activation: Activation) -> Part<'_> {
        Part { weights: self.weights(), bias: self.bias.as_ref().map(Weight::slice), activation }
    }

    /// `out = activation(x w + b) + residual`
    pub(crate) fn apply<A: Elem, C: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, A>,
        epilogue: Epilogue<'_, C>,
        out: MatMut<'_, C>,
    ) -> Result<()> {
        let Epilogue { activation, residual } = epilogue;
        Ok(gemm(ctx, scratch, Gemm { residual, ..Gemm::of(x, self.part(activation), out) })?)
    }

    /// Number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.weights().n()
    }

    /// Applies several layers to the same input: their outputs are columns of `out`, in order.
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
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, f32>,
        gate: Gate<'_>,
        out: MatMut<'_, C>,
    ) -> Result<()> {
        let parts = [self.part(gate.activation), gate.layer.part(Activation::Identity)];
        Ok(gemm(ctx, scratch, Gemm { a: x, parts, combine: Combine::Product, residual: None, out })?)
    }

    /// Elements of scratch that [`Linear::apply_gated`] on `rows` rows needs.
    pub(crate) fn gated_scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        gemm_scratch_len(ctx, &Dims { parts: 2, combine: Combine::Product, ..self.dims(rows) })
    }

    /// Elements of scratch that [`Linear::apply`] on `rows` rows needs, or [`Linear::apply_all`] with `others` more
    /// layers like this one.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize, others: usize) -> usize {
        gemm_scratch_len(ctx, &Dims { parts: 1 + others, ..self.dims(rows) })
    }

    fn dims(&self, rows: usize) -> Dims {
        let weights = self.weights();
        Dims::of_one(self.layout, [rows, weights.n(), weights.k()])
    }
}
