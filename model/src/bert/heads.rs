//! BERT's pretraining heads: functions of the backbone's outputs.

use rachis_kernels::{Activation, MatMut, MatRef};
use rachis_loader::Preset;

use super::BertBackbone;
use crate::error::{Result, request};
use crate::layers::{LayerNorm, Linear};
use crate::session::Session;
use crate::weights::{Init, Source};

/// The masked-language-model head, tied to the token table, and the next-sentence head.
#[derive(Debug)]
pub struct BertPretrainingHeads {
    transform: Linear,
    norm: LayerNorm,
    decoder: Linear,
    next_sentence: Linear,
    activation: Activation,
    hidden_dim: usize,
    vocabulary_size: usize,
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
        let bias = root.at("predictions").weight("bias", &[vocabulary], Init::Zeros)?;
        Ok(Some(BertPretrainingHeads {
            transform: Linear::load(&transform.at("dense"), hidden, hidden, true)?,
            norm: LayerNorm::load(&transform.at("LayerNorm"), hidden, config.layer_norm_epsilon, true)?,
            decoder: Linear::tied(backbone.token_embedding().weight(), Some(bias)),
            next_sentence: Linear::load(&root.at("seq_relationship"), hidden, 2, true)?,
            activation: config.activation,
            hidden_dim: hidden,
            vocabulary_size: vocabulary,
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
        let (count, hidden, vocabulary) = (rows.rows(), self.hidden_dim, self.vocabulary_size);
        let out = out_matrix(logits, count, vocabulary)?;
        let Session { ctx, work } = session;
        let (a, b) = work.hidden.take(2 * count * hidden).split_at_mut(count * hidden);
        let scratch = &mut work.scratch;
        self.transform.apply(ctx, scratch, rows, (self.activation, None), MatMut::new(a, count, hidden)?)?;
        self.norm.apply(ctx, MatRef::new(a, count, hidden)?, MatMut::new(b, count, hidden)?)?;
        self.decoder.apply(ctx, scratch, MatRef::new(b, count, hidden)?, (Activation::Identity, None), out)
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
        self.next_sentence.logits(session, pooled, logits)
    }
}

fn out_matrix(logits: &mut [f32], rows: usize, cols: usize) -> Result<MatMut<'_, f32>> {
    let (found, expected) = (logits.len(), rows.saturating_mul(cols));
    if found != expected {
        return Err(request("length of the logits", found, expected));
    }
    Ok(MatMut::new(logits, rows, cols)?)
}
