//! Normalisation of rows: always in f32, whatever the precision of products.

use rachis_kernels::{Ctx, Elem, MatMut, MatRef, NormRows, layer_norm_rows, rms_norm_rows};

use crate::error::Result;
use crate::weights::Tensors;
use crate::weights::{Init, Role, Scope, Weight};

/// What a norm computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// Mean 0 and variance 1, then a learned scale and shift.
    Layer,
    /// The same without scale and shift.
    PlainLayer,
    /// Mean square 1, then a learned scale.
    Rms,
}

/// A norm with its weights.
#[derive(Debug)]
pub(crate) struct Norm {
    kind: NormKind,
    gamma: Option<Weight>,
    beta: Option<Weight>,
    epsilon: f32,
}

impl Norm {
    /// The norm at `scope`: scale and shift, as far as the kind has them.
    pub(crate) fn load(scope: &Scope<'_>, width: usize, (kind, epsilon): (NormKind, f32)) -> Result<Norm> {
        let gamma = || scope.weight(Role::Weight, &[width], Init::Ones);
        let beta = || scope.weight(Role::Bias, &[width], Init::Zeros);
        Ok(Norm {
            gamma: (kind != NormKind::PlainLayer).then(gamma).transpose()?,
            beta: (kind == NormKind::Layer).then(beta).transpose()?,
            kind,
            epsilon,
        })
    }

    /// What is to be stored, under the names of `like`.
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
        let op = NormRows { x, residual: None, gamma, beta, epsilon: self.epsilon, out };
        match self.kind {
            NormKind::Layer | NormKind::PlainLayer => layer_norm_rows(ctx, op)?,
            NormKind::Rms => rms_norm_rows(ctx, op)?,
        }
        Ok(())
    }
}
