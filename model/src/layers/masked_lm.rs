//! The head of masked language models: from vectors to logits of tokens.

use rachis_kernels::{Activation, Dtype, MatMut, MatRef};

use crate::error::Result;
use crate::layers::{Embedding, Epilogue, Linear, LogitsHead, Norm, NormConfig};
use crate::session::Session;
use crate::weights::{Scope, Weight};

/// Logits of tokens from vectors: `LayerNorm(f(x W + b)) E^T + c`, where `E` is the token table or a matrix of the
/// head's own.
#[derive(Debug)]
pub struct MaskedLmHead {
    transform: Linear,
    activation: Activation,
    norm: Norm,
    decoder: LogitsHead,
    inputs: usize,
    /// The backbone's.
    dtype: Dtype,
}

/// Where the parts of a [`MaskedLmHead`] are, and what the model's configuration says about them.
pub(crate) struct MaskedLmParts<'s> {
    pub(crate) transform: Scope<'s>,
    pub(crate) activation: Activation,
    pub(crate) norm: (Scope<'s>, NormConfig),
    /// The matrix of the logits.
    pub(crate) matrix: Weight,
    pub(crate) bias: Weight,
}

impl MaskedLmHead {
    /// The head of a backbone with this token table and dtype.
    pub(crate) fn load(parts: MaskedLmParts<'_>, table: &Embedding, dtype: Dtype) -> Result<MaskedLmHead> {
        let inputs = table.width();
        let (norm, config) = parts.norm;
        let decoder = Linear::from_output_rows(parts.matrix, Some(parts.bias));
        Ok(MaskedLmHead {
            transform: Linear::load(&parts.transform, inputs, inputs, true)?,
            activation: parts.activation,
            norm: Norm::load(&norm, inputs, config)?,
            decoder: LogitsHead::new(decoder, 1.0),
            inputs,
            dtype,
        })
    }

    /// Number of logits of a position.
    pub fn vocabulary_size(&self) -> usize {
        self.decoder.vocabulary_size()
    }

    /// Writes the logits `[rows, vocabulary_size]` of rows of the sequence output: of all of them, or of those of the
    /// masks alone. Copy the rows out of the session first.
    ///
    /// # Errors
    /// When the shapes disagree.
    pub fn logits(&self, session: &mut Session<'_>, rows: MatRef<'_, f32>, logits: &mut [f32]) -> Result<()> {
        let (count, width) = (rows.rows(), self.inputs);
        let ctx = &session.ctx_for(self.dtype);
        let work = &mut session.work;
        let (transformed, normed) = work.activations.take(2 * count * width)?.split_at_mut(count * width);
        let scratch = &mut work.threads.caller.scratch;
        let activation = Epilogue::activation(self.activation);
        self.transform.apply(ctx, scratch, rows, activation, MatMut::new(transformed, count, width)?)?;
        let transformed = MatRef::new(transformed, count, width)?;
        self.norm.apply(ctx, transformed, MatMut::new(normed, count, width)?)?;
        self.decoder.apply(ctx, scratch, MatRef::new(normed, count, width)?, logits)
    }
}
