//! `Dense`: `activation(x W^T + b)`, and with `use_residual` plus x, or plus `x R^T` where the widths differ.

use rachis::kernels::{Activation as Epilogue, Ctx, Gemm, Layout, MatMut, MatRef, Part, Scratch, gemm};
use rachis::loader::Tensor;

use super::Feature;
use super::weights::{Weights, elements, matrix};
use crate::activation::Activation;
use crate::error::{Result, in_file};
use crate::sentence_transformers::Fields;

/// A dense layer.
#[derive(Debug)]
pub(super) struct Dense {
    /// What it reads and writes.
    pub(super) features: (Feature, Feature),
    file: String,
    inputs: usize,
    outputs: usize,
    /// `[outputs, inputs]`
    weight: Tensor,
    bias: Option<Tensor>,
    activation: Activation,
    residual: Residual,
}

/// What is added to the result.
#[derive(Debug)]
enum Residual {
    None,
    Input,
    /// The input by a matrix `[outputs, inputs]`.
    Projected(Tensor),
}

impl Dense {
    pub(super) fn open(config: &Fields, mut weights: Weights) -> Result<Dense> {
        // The library ignores other fields.
        let features = Feature::of_module(config)?;
        let (inputs, outputs) = (config.count("in_features")?, config.count("out_features")?);
        let has_bias = config.opt_bool("bias")?.unwrap_or(true);
        let activation = match config.opt_str("activation_function")? {
            None if config.has("activation_function") => {
                return Err(config.wrong("activation_function", "the name of a class"));
            }
            None => None,
            Some(class) => Activation::of_class(&config.file, class)?,
        };
        let weight = weights.take("linear.weight", &[outputs, inputs])?;
        let bias = has_bias.then(|| weights.take("linear.bias", &[outputs])).transpose()?;
        let residual = match config.opt_bool("use_residual")?.unwrap_or(false) {
            false => Residual::None,
            true if inputs == outputs => Residual::Input,
            true => Residual::Projected(weights.take("residual.weight", &[outputs, inputs])?),
        };
        weights.finish()?;
        let (file, activation) = (config.file.clone(), activation.unwrap_or(Activation::Tanh));
        Ok(Dense { features, file, inputs, outputs, weight, bias, activation, residual })
    }

    /// The width of the output for an input of this width.
    pub(super) fn width(&self, input: usize) -> Result<usize> {
        let (found, expected) = (self.inputs, input);
        let wrong = || {
            in_file(
                &self.file,
                format_args!("in_features is {found}, expected {expected}, the input's width"),
            )
        };
        if found == expected { Ok(self.outputs) } else { Err(wrong()) }
    }

    /// `[rows, outputs]` from `[rows, inputs]`.
    pub(super) fn run(
        &self,
        ctx: &Ctx<'_>,
        scratch: &mut Scratch,
        x: &[f32],
        inputs: usize,
    ) -> Result<Vec<f32>> {
        let rows = x.len() / inputs.max(1);
        let mut product =
            |weight: &Tensor, bias: Option<&Tensor>| -> Result<Vec<f32>, rachis::kernels::Error> {
                let mut out = vec![0.0; rows * self.outputs];
                let weights = rachis::kernels::Weights { matrix: matrix(weight), layout: Layout::Nk };
                let part = Part { weights, bias: bias.map(elements), activation: Epilogue::Identity };
                let (x, to) = (MatRef::new(x, rows, inputs)?, MatMut::new(&mut out, rows, self.outputs)?);
                gemm(ctx, scratch, Gemm::of(x, part, to))?;
                Ok(out)
            };
        let mut out = product(&self.weight, self.bias.as_ref()).map_err(rachis::Error::from)?;
        out.chunks_exact_mut(self.outputs).for_each(|row| self.activation.apply(ctx, row));
        let mut add = |residual: &[f32]| out.iter_mut().zip(residual).for_each(|(out, x)| *out += x);
        match &self.residual {
            Residual::None => {}
            Residual::Input => add(x),
            Residual::Projected(weight) => add(&product(weight, None).map_err(rachis::Error::from)?),
        }
        Ok(out)
    }
}
