//! BERT's pretraining heads: functions of the backbone's outputs.

use rachis_kernels::{Activation, MatMut, MatRef};
use rachis_loader::Preset;

use super::BertBackbone;
use crate::error::Result;
use crate::layers::{Linear, LogitsHead, Norm, NormKind};
use crate::session::Session;
use crate::weights::{Init, Source};

/// The masked-language-model head, tied to the token table, and the next-sentence head.
#[derive(Debug)]
pub struct BertPretrainingHeads {
    transform: Linear,
    norm: Norm,
    decoder: LogitsHead,
    next_sentence: LogitsHead,
    activation: Activation,
    hidden_dim: usize,
}

impl BertPretrainingHeads {
    /// The heads of a preset; `None` when its files have none.
    ///
    /// # Errors
    /// A weight that is missing or misshapen.
    pub fn load(preset: &Preset, backbone: &BertBackbone) -> Result<Option<BertPretrainingHeads>> {
        let source = Source::Preset(preset);
        let root = source.scope("cls.");
        if !root.has("predictions.bias") || !root.has("seq_relationship.weight") {
            return Ok(None);
        }
        let config = backbone.config();
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let transform = root.at("predictions.transform");
        let norm = (NormKind::Layer, config.layer_norm_epsilon);
        let bias = root.at("predictions").named("bias", &[vocabulary], Init::Zeros)?;
        Ok(Some(BertPretrainingHeads {
            transform: Linear::load(&transform.at("dense"), hidden, hidden, true)?,
            norm: Norm::load(&transform.at("LayerNorm"), hidden, norm)?,
            decoder: LogitsHead::new(Linear::tied(backbone.token_embedding().weight(), Some(bias)), 1.0),
            next_sentence: LogitsHead::new(Linear::load(&root.at("seq_relationship"), hidden, 2, true)?, 1.0),
            activation: config.activation,
            hidden_dim: hidden,
        }))
    }

    /// Masked-language-model logits `[rows, vocabulary_size]` of rows of the sequence output, copied out of the
    /// session first.
    ///
    /// # Errors
    /// Shapes that disagree.
    pub fn mlm_logits(
        &self,
        session: &mut Session<'_>,
        rows: MatRef<'_, f32>,
        logits: &mut [f32],
    ) -> Result<()> {
        let (count, hidden) = (rows.rows(), self.hidden_dim);
        let Session { call: ctx, work, .. } = session;
        let (a, b) = work.hidden.take(2 * count * hidden)?.split_at_mut(count * hidden);
        let scratch = &mut work.scratch;
        self.transform.apply(ctx, scratch, rows, (self.activation, None), MatMut::new(a, count, hidden)?)?;
        self.norm.apply(ctx, MatRef::new(a, count, hidden)?, MatMut::new(b, count, hidden)?)?;
        self.decoder.apply(ctx, scratch, MatRef::new(b, count, hidden)?, logits)
    }

    /// Next-sentence logits `[batch, 2]` of the pooled output, copied out of the session first.
    ///
    /// # Errors
    /// Shapes that disagree.
    pub fn nsp_logits(
        &self,
        session: &mut Session<'_>,
        pooled: MatRef<'_, f32>,
        logits: &mut [f32],
    ) -> Result<()> {
        let Session { call: ctx, work, .. } = session;
        self.next_sentence.apply(ctx, &mut work.scratch, pooled, logits)
    }
}
