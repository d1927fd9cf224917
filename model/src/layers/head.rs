//! From a decoder's output to logits.

use rachis_kernels::{Activation, Ctx, MatMut, MatRef, Scratch};

use crate::error::{Result, request};
use crate::layers::{Embedding, Linear};
use crate::trace;
use crate::weights::Tensors;
use crate::weights::{Init, Source, Weight};

/// The weights of a Hugging Face head that is not tied.
pub(crate) const UNTIED_HEAD: &str = "lm_head.weight";

/// The weights of the logits, `[vocabulary, width]`: the token table, or a head's own.
pub(crate) fn head_weight(
    source: &Source<'_>,
    (tokens, tied): (&Embedding, bool),
    shape: [usize; 2],
) -> Result<Weight> {
    if tied { Ok(tokens.weight()) } else { source.scope("").named(UNTIED_HEAD, &shape, Init::KERNEL) }
}

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

    /// What is to be stored, under the names of `like`.
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

    /// `logits = scale (x w + b)`
    pub(crate) fn apply(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, f32>,
        logits: &mut [f32],
    ) -> Result<()> {
        let (count, outputs) = (x.rows(), self.linear.outputs());
        let _span = trace::logits(count);
        let (found, expected) = (logits.len(), count.saturating_mul(outputs));
        if found != expected {
            return Err(request("length of the logits", found, expected));
        }
        let out = MatMut::new(logits, count, outputs)?;
        self.linear.apply(ctx, scratch, x, (Activation::Identity, None), out)?;
        if self.scale != 1.0 {
            for logit in logits {
                *logit *= self.scale;
            }
        }
        Ok(())
    }
}
