//! `LayerNorm` over the vector of a text, with torch's default epsilon.

use rachis::kernels::{Ctx, MatMut, MatRef, NormRows, layer_norm_rows};
use rachis::loader::Tensor;

use super::weights::{Weights, elements};
use crate::error::{Result, in_file};
use crate::sentence_transformers::Fields;

const EPSILON: f32 = 1e-5;

/// A layer norm.
#[derive(Debug)]
pub(super) struct LayerNorm {
    file: String,
    dimension: usize,
    gamma: Tensor,
    beta: Tensor,
}

impl LayerNorm {
    pub(super) fn open(config: &Fields, mut weights: Weights) -> Result<LayerNorm> {
        config.only(&["dimension"])?;
        let dimension = config.count("dimension")?;
        let gamma = weights.take("norm.weight", &[dimension])?;
        let beta = weights.take("norm.bias", &[dimension])?;
        weights.finish()?;
        Ok(LayerNorm { file: config.file.clone(), dimension, gamma, beta })
    }

    /// The width of the output for an input of this width.
    pub(super) fn width(&self, input: usize) -> Result<usize> {
        let found = self.dimension;
        let wrong =
            || in_file(&self.file, format_args!("dimension is {found}, expected {input}, the input's width"));
        if found == input { Ok(input) } else { Err(wrong()) }
    }

    /// `[rows, dimension]` from the same.
    pub(super) fn run(&self, ctx: &Ctx<'_>, x: &[f32]) -> Result<Vec<f32>> {
        let norm = |out: &mut [f32]| -> Result<(), rachis::kernels::Error> {
            let rows = x.len() / self.dimension;
            let (x, out) = (MatRef::new(x, rows, self.dimension)?, MatMut::new(out, rows, self.dimension)?);
            let (gamma, beta) = (Some(elements(&self.gamma)), Some(elements(&self.beta)));
            layer_norm_rows(ctx, NormRows { x, gamma, beta, epsilon: EPSILON, out })
        };
        let mut out = vec![0.0; x.len()];
        norm(&mut out).map_err(rachis::Error::from)?;
        Ok(out)
    }
}
