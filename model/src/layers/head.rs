//! The language-model head: from a decoder's output to logits.

use rachis_kernels::{Ctx, MatMut, MatRef, Scratch};
use rachis_loader::Preset;

use crate::error::{Result, check_len};
use crate::layers::{Embedding, Epilogue, Linear};
use crate::trace;
use crate::weights::{Init, Tensors, Weight, WeightSource};

/// The name of an untied head's weights in a Hugging Face file.
const HEAD: &str = "lm_head.weight";

/// Whether the file holds a head of its own. A file without one ties the head to the token table, whatever its
/// configuration says.
pub(crate) fn has_head(preset: &Preset) -> bool {
    preset.tensor(HEAD).is_some()
}

/// The weights of the logits, `[vocabulary, width]`: the token table where `tied` gives it, otherwise the head's own.
pub(crate) fn head_weight(
    source: &WeightSource<'_>,
    tied: Option<&Embedding>,
    shape: [usize; 2],
) -> Result<Weight> {
    match tied {
        Some(table) => Ok(table.weight()),
        None => source.scope("").named(HEAD, &shape, Init::KERNEL),
    }
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
