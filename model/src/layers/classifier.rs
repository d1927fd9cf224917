//! The layer from vectors to the logits of classes.

use rachis_kernels::{Activation, Dtype, MatMut, MatRef};

use crate::error::{Result, check_len};
use crate::layers::{Epilogue, Linear};
use crate::session::Session;
use crate::weights::Scope;

/// Logits of classes from vectors: `x W + b`, or in some models `f(x V + c) W + b`.
#[derive(Debug)]
pub struct Classifier {
    /// The layer before the last, and its activation.
    hidden: Option<(Linear, Activation)>,
    last: Linear,
    inputs: usize,
    /// The backbone's.
    dtype: Dtype,
}

impl Classifier {
    /// The classifier of a backbone of this width and dtype whose only layer is at `last`. The files decide the number
    /// of classes.
    pub(crate) fn load(last: &Scope<'_>, inputs: usize, dtype: Dtype) -> Result<Classifier> {
        // A layer without outputs is refused as one of another shape.
        let classes = last.outputs().unwrap_or(1).max(1);
        Ok(Classifier { hidden: None, last: Linear::load(last, inputs, classes, true)?, inputs, dtype })
    }

    /// The same classifier with the layer at `scope`, as wide as its input, before the last one.
    pub(crate) fn after(self, scope: &Scope<'_>, activation: Activation) -> Result<Classifier> {
        let layer = Linear::load(scope, self.inputs, self.inputs, true)?;
        Ok(Classifier { hidden: Some((layer, activation)), ..self })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.last.outputs()
    }

    /// Writes the logits `[rows, classes]` of vectors. Copy the vectors out of the session first.
    ///
    /// # Errors
    /// When the shapes disagree.
    pub fn logits(&self, session: &mut Session<'_>, rows: MatRef<'_, f32>, logits: &mut [f32]) -> Result<()> {
        let (count, width) = (rows.rows(), self.inputs);
        check_len("the logits", logits.len(), count.saturating_mul(self.classes()))?;
        let ctx = &session.ctx_for(self.dtype);
        let out = MatMut::new(logits, count, self.classes())?;
        let work = &mut session.work;
        let scratch = &mut work.threads.caller.scratch;
        let Some((layer, activation)) = &self.hidden else {
            return self.last.apply(ctx, scratch, rows, Epilogue::none(), out);
        };
        let hidden = work.activations.take(count * width)?;
        let to = MatMut::new(hidden, count, width)?;
        layer.apply(ctx, scratch, rows, Epilogue::activation(*activation), to)?;
        self.last.apply(ctx, scratch, MatRef::new(hidden, count, width)?, Epilogue::none(), out)
    }
}
