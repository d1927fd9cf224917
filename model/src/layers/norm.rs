//! Layer normalisation with learned scale and shift.

use rachis_kernels::{Ctx, Elem, MatMut, MatRef, NormRows, layer_norm_rows};

use crate::error::Result;
use crate::weights::{Init, Scope, Weight};

/// Normalises rows; always in f32, whatever the precision of products.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    gamma: Weight,
    beta: Weight,
    epsilon: f32,
}

impl LayerNorm {
    /// The norm at `scope`: `weight` and `bias`, or `gamma` and `beta` in older files.
    pub(crate) fn load(scope: &Scope<'_>, width: usize, epsilon: f32) -> Result<LayerNorm> {
        let gamma = scope.any_of(&["weight", "gamma"], &[width], Init::Ones)?;
        let beta = scope.any_of(&["bias", "beta"], &[width], Init::Zeros)?;
        Ok(LayerNorm { gamma, beta, epsilon })
    }

    /// `out = norm(x)`
    pub(crate) fn apply<T: Elem>(&self, ctx: &Ctx, x: MatRef<'_, T>, out: MatMut<'_, T>) -> Result<()> {
        let (gamma, beta) = (Some(self.gamma.slice()), Some(self.beta.slice()));
        Ok(layer_norm_rows(ctx, NormRows { x, residual: None, gamma, beta, epsilon: self.epsilon, out })?)
    }
}
