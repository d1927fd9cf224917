//! Layer normalisation, with a learned scale and shift or without.

use rachis_kernels::{Ctx, Elem, MatMut, MatRef, NormRows, layer_norm_rows};

use crate::error::Result;
use crate::weights::{Init, Scope, Weight};

/// Normalises rows; always in f32, whatever the precision of products.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    /// Scale and shift, where there are any.
    affine: Option<(Weight, Weight)>,
    epsilon: f32,
}

impl LayerNorm {
    /// The norm at `scope`: `weight` and `bias`, or `gamma` and `beta` in older files, if it is to be affine.
    pub(crate) fn load(scope: &Scope<'_>, width: usize, epsilon: f32, affine: bool) -> Result<LayerNorm> {
        let load = || -> Result<(Weight, Weight)> {
            let gamma = scope.any_of(&["weight", "gamma"], &[width], Init::Ones)?;
            Ok((gamma, scope.any_of(&["bias", "beta"], &[width], Init::Zeros)?))
        };
        Ok(LayerNorm { affine: affine.then(load).transpose()?, epsilon })
    }

    /// `out = norm(x)`
    pub(crate) fn apply<T: Elem>(&self, ctx: &Ctx, x: MatRef<'_, T>, out: MatMut<'_, T>) -> Result<()> {
        let (gamma, beta) = self.affine.as_ref().map(|(gamma, beta)| (gamma.slice(), beta.slice())).unzip();
        Ok(layer_norm_rows(ctx, NormRows { x, residual: None, gamma, beta, epsilon: self.epsilon, out })?)
    }
}
