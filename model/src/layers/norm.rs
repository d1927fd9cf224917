//! Normalisation of rows: always in f32, whatever the precision of products.

use rachis_kernels::{Ctx, Elem, MatMut, MatRef, NormRows, layer_norm_rows, rms_norm_rows};

use crate::error::Result;
use crate::weights::{Init, Role, Scope, Tensors, Weight};

/// The kind of a norm and its constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NormConfig {
    pub(crate) kind: NormKind,
    /// Added to the variance, or to the mean square.
    pub(crate) epsilon: f32,
}

/// The kind of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// Layer normalisation: mean 0 and variance 1, then a learned scale and shift.
    Layer,
    /// Layer normalisation without scale and shift.
    PlainLayer,
    /// RMS normalisation: mean square 1, then a learned scale.
    Rms,
}

/// A norm with its weights.
#[derive(Debug)]
pub(crate) struct Norm {
    config: NormConfig,
    gamma: Option<Weight>,
    beta: Option<Weight>,
}

impl Norm {
    /// The norm at `scope`, with the scale and the shift that its kind has.
    pub(crate) fn load(scope: &Scope<'_>, width: usize, config: NormConfig) -> Result<Norm> {
        let gamma = || scope.weight(Role::Weight, &[width], Init::Ones);
        let beta = || scope.weight(Role::Bias, &[width], Init::Zeros);
        Ok(Norm {
            gamma: (config.kind != NormKind::PlainLayer).then(gamma).transpose()?,
            beta: (config.kind == NormKind::Layer).then(beta).transpose()?,
            config,
        })
    }

    /// Adds the tensors to save, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m Norm, tensors: &mut Tensors<'m>) {
        for (weight, like) in [(&self.gamma, &like.gamma), (&self.beta, &like.beta)] {
            if let (Some(weight), Some(like)) = (weight, like) {
                tensors.add_vector(weight, like);
            }
        }
    }

    /// `out = norm(x)`
    pub(crate) fn apply<T: Elem>(&self, ctx: &Ctx, x: MatRef<'_, T>, out: MatMut<'_, T>) -> Result<()> {
        let (gamma, beta) = (self.gamma.as_ref().map(Weight::slice), self.beta.as_ref().map(Weight::slice));
        let op = NormRows { x, gamma, beta, epsilon: self.config.epsilon, out };
        match self.config.kind {
            NormKind::Layer | NormKind::PlainLayer => layer_norm_rows(ctx, op)?,
            NormKind::Rms => rms_norm_rows(ctx, op)?,
        }
        Ok(())
    }
}
