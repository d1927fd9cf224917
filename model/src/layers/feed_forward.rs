//! The feed-forward block: two dense layers with an activation between them, which a third layer may gate.

use rachis_kernels::{Activation, Ctx, Elem, MatMut, MatRef, Scratch};

use crate::error::Result;
use crate::layers::Linear;
use crate::layers::linear::{Epilogue, Gate};
use crate::weights::{Scope, Tensors};

/// The names of the weights, below the layer's own name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedForwardNames {
    /// The first dense layer.
    pub(crate) input: &'static str,
    /// The gate, if the block has one.
    pub(crate) gate: Option<&'static str>,
    /// The last dense layer.
    pub(crate) output: &'static str,
}

/// The sizes and choices of a feed-forward block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedForwardConfig {
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) activation: Activation,
    /// Whether the dense layers have biases.
    pub(crate) bias: bool,
}

/// `output(activation(input(x)) * gate(x))`, or without the factor where there is no gate.
#[derive(Debug)]
pub(crate) struct FeedForward {
    input: Linear,
    gate: Option<Linear>,
    output: Linear,
    activation: Activation,
}

impl FeedForward {
    pub(crate) fn load(
        scope: &Scope<'_>,
        names: &FeedForwardNames,
        config: FeedForwardConfig,
    ) -> Result<FeedForward> {
        let FeedForwardConfig { hidden, intermediate, activation, bias } = config;
        let into = |name: &str| Linear::load(&scope.at(name), hidden, intermediate, bias);
        Ok(FeedForward {
            input: into(names.input)?,
            gate: names.gate.map(into).transpose()?,
            output: Linear::load(&scope.at(names.output), intermediate, hidden, bias)?,
            activation,
        })
    }

    /// Adds the tensors to save, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m FeedForward, tensors: &mut Tensors<'m>) {
        self.input.save(&like.input, tensors);
        if let (Some(gate), Some(like)) = (&self.gate, &like.gate) {
            gate.save(like, tensors);
        }
        self.output.save(&like.output, tensors);
    }

    /// `out = activation(input(x)) * gate(x)`, `[rows, intermediate]`
    pub(crate) fn expand<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, f32>,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        let activation = self.activation;
        match &self.gate {
            None => self.input.apply(ctx, scratch, x, Epilogue::activation(activation), out),
            Some(layer) => self.input.apply_gated(ctx, scratch, x, Gate { layer, activation }, out),
        }
    }

    /// `out = residual + output(intermediate)`, `[rows, hidden]`
    pub(crate) fn contract<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        intermediate: MatRef<'_, T>,
        residual: MatRef<'_, f32>,
        out: MatMut<'_, f32>,
    ) -> Result<()> {
        self.output.apply(ctx, scratch, intermediate, Epilogue::residual(residual), out)
    }

    /// Elements of scratch that calls on `rows` rows need.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        let input = match &self.gate {
            None => self.input.scratch_len(ctx, rows, 0),
            Some(_) => self.input.gated_scratch_len(ctx, rows),
        };
        input.max(self.output.scratch_len(ctx, rows, 0))
    }
}
