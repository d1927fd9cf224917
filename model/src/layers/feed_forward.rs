//! The feed-forward block: two dense layers with an activation in between, which a third may gate.

use rachis_kernels::{Activation, Ctx, Elem, MatMut, MatRef, Scratch};

use crate::error::Result;
use crate::layers::Linear;
use crate::weights::Scope;
use crate::weights::Tensors;

/// What the weights are called, below the layer's own name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedForwardNames {
    /// Into the block.
    pub(crate) input: &'static str,
    /// The gate, where there is one.
    pub(crate) gate: Option<&'static str>,
    /// Out of the block.
    pub(crate) output: &'static str,
}

/// `output(activation(input(x)) * gate(x))`
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
        [hidden, inner]: [usize; 2],
        (activation, bias): (Activation, bool),
    ) -> Result<FeedForward> {
        let into = |name: &str| Linear::load(&scope.at(name), hidden, inner, bias);
        Ok(FeedForward {
            input: into(names.input)?,
            gate: names.gate.map(into).transpose()?,
            output: Linear::load(&scope.at(names.output), inner, hidden, bias)?,
            activation,
        })
    }

    /// What is to be stored, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m FeedForward, tensors: &mut Tensors<'m>) {
        self.input.save(&like.input, tensors);
        if let (Some(gate), Some(like)) = (&self.gate, &like.gate) {
            gate.save(like, tensors);
        }
        self.output.save(&like.output, tensors);
    }

    /// `out = activation(input(x)) * gate(x)`
    pub(crate) fn widen<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, f32>,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        match &self.gate {
            None => self.input.apply(ctx, scratch, x, (self.activation, None), out),
            Some(gate) => self.input.apply_gated(gate, ctx, scratch, (x, self.activation), out),
        }
    }

    /// `out = residual + output(wide)`
    pub(crate) fn narrow<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        wide: MatRef<'_, T>,
        (residual, out): (MatRef<'_, f32>, MatMut<'_, f32>),
    ) -> Result<()> {
        self.output.apply(ctx, scratch, wide, (Activation::Identity, Some(residual)), out)
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
