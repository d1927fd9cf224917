//! The language-model head: from a decoder's output to logits.

use rachis_kernels::{Ctx, MatMut, MatRef, Scratch};

use crate::error::{Result, check_len};
use crate::layers::{Epilogue, Linear};
use crate::trace;
use crate::weights::Tensors;

/// A language-model head, tied to the token table or not.
#[derive(Debug)]
pub struct LogitsHead {
    linear: Linear,
    /// Multiplies the logits.
    scale: f32,
}

impl LogitsHead {
    pub(crate) fn new(linear: Linear, scale: f32) -> LogitsHead {
        LogitsHead { linear, scale }
    }

    /// Adds the tensors to save, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m LogitsHead, tensors: &mut Tensors<'m>) {
        self.linear.save(&like.linear, tensors);
    }

    pub(crate) fn vocabulary_size(&self) -> usize {
        self.linear.outputs()
    }

    /// Elements of scratch that a call on `rows` rows needs.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        self.linear.scratch_len(ctx, rows, 0)
    }

    /// `logits = scale (x w + b)`, `[rows, vocabulary]`
    pub(crate) fn apply(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, f32>,
        logits: &mut [f32],
    ) -> Result<()> {
        let (count, outputs) = (x.rows(), self.linear.outputs());
        let _span = trace::logits(count);
        check_len("the logits", logits.len(), count.saturating_mul(outputs))?;
        let out = MatMut::new(logits, count, outputs)?;
        self.linear.apply(ctx, scratch, x, Epilogue::none(), out)?;
        if self.scale != 1.0 {
            for logit in logits {
                *logit *= self.scale;
            }
        }
        Ok(())
    }
}
