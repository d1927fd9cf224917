//! BERT's pretraining heads: functions of the backbone's outputs.

use rachis_kernels::{Activation, Dtype, MatMut, MatRef};
use rachis_loader::Preset;

use super::BertBackbone;
use crate::error::{Error, Result};
use crate::layers::{Epilogue, Linear, LogitsHead, Norm, NormConfig, NormKind};
use crate::session::Session;
use crate::weights::{Init, Scope, WeightSource};

/// The masked-language-model head, tied to the token table, and the next-sentence head: both, or one of them.
#[derive(Debug)]
pub struct BertPretrainingHeads {
    mlm: Option<MaskedHead>,
    next_sentence: Option<LogitsHead>,
    /// The backbone's.
    dtype: Dtype,
}

/// `logits = LayerNorm(activation(x W + b)) E_token^T + bias`
#[derive(Debug)]
struct MaskedHead {
    transform: Linear,
    norm: Norm,
    decoder: LogitsHead,
    activation: Activation,
    hidden_dim: usize,
}

/// Weights that only presets with the head have.
const MLM: &str = "cls.predictions.bias";
const NEXT_SENTENCE: &str = "cls.seq_relationship.weight";

impl BertPretrainingHeads {
    /// The heads of a preset; `None` when its files have none.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn load(preset: &Preset, backbone: &BertBackbone) -> Result<Option<BertPretrainingHeads>> {
        let source = WeightSource::Preset(preset);
        let (root, hidden) = (source.scope("cls."), backbone.config().hidden_dim);
        let next_sentence = || Linear::load(&root.at("seq_relationship"), hidden, 2, true);
        let mlm = source.has(MLM).then(|| MaskedHead::load(&root.at("predictions"), backbone)).transpose()?;
        let next_sentence = source.has(NEXT_SENTENCE).then(next_sentence).transpose()?;
        if mlm.is_none() && next_sentence.is_none() {
            return Ok(None);
        }
        let next_sentence = next_sentence.map(|linear| LogitsHead::new(linear, 1.0));
        Ok(Some(BertPretrainingHeads { mlm, next_sentence, dtype: backbone.dtype() }))
    }

    /// Whether there is a masked-language-model head.
    pub fn has_mlm(&self) -> bool {
        self.mlm.is_some()
    }

    /// Whether there is a next-sentence head.
    pub fn has_nsp(&self) -> bool {
        self.next_sentence.is_some()
    }

    /// Writes the masked-language-model logits `[rows, vocabulary_size]` of rows of the sequence output. Copy the rows
    /// out of the session first.
    ///
    /// # Errors
    /// When the shapes disagree; [`Error::MissingWeight`] without the head.
    pub fn mlm_logits(
        &self,
        session: &mut Session<'_>,
        rows: MatRef<'_, f32>,
        logits: &mut [f32],
    ) -> Result<()> {
        let head = self.mlm.as_ref().ok_or_else(|| Error::MissingWeight { name: MLM.to_owned() })?;
        let (count, hidden) = (rows.rows(), head.hidden_dim);
        let team = session.team();
        let ctx = &session.ctx_for(self.dtype, &team);
        let work = &mut session.work;
        let (transformed, normed) = work.activations.take(2 * count * hidden)?.split_at_mut(count * hidden);
        let scratch = &mut work.threads.caller.scratch;
        let activation = Epilogue::activation(head.activation);
        head.transform.apply(ctx, scratch, rows, activation, MatMut::new(transformed, count, hidden)?)?;
        let transformed = MatRef::new(transformed, count, hidden)?;
        head.norm.apply(ctx, transformed, MatMut::new(normed, count, hidden)?)?;
        head.decoder.apply(ctx, scratch, MatRef::new(normed, count, hidden)?, logits)
    }

    /// Writes the next-sentence logits `[batch, 2]` of the pooled output. Copy the pooled output out of the session
    /// first.
    ///
    /// # Errors
    /// When the shapes disagree; [`Error::MissingWeight`] without the head.
    pub fn nsp_logits(
        &self,
        session: &mut Session<'_>,
        pooled: MatRef<'_, f32>,
        logits: &mut [f32],
    ) -> Result<()> {
        let missing = || Error::MissingWeight { name: NEXT_SENTENCE.to_owned() };
        let head = self.next_sentence.as_ref().ok_or_else(missing)?;
        let team = session.team();
        let ctx = session.ctx_for(self.dtype, &team);
        head.apply(&ctx, &mut session.work.threads.caller.scratch, pooled, logits)
    }
}

impl MaskedHead {
    fn load(scope: &Scope<'_>, backbone: &BertBackbone) -> Result<MaskedHead> {
        let config = backbone.config();
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let transform = scope.at("transform");
        let norm = NormConfig { kind: NormKind::Layer, epsilon: config.layer_norm_epsilon };
        let bias = scope.named("bias", &[vocabulary], Init::Zeros)?;
        let decoder = Linear::from_output_rows(backbone.token_embedding().weight(), Some(bias));
        Ok(MaskedHead {
            transform: Linear::load(&transform.at("dense"), hidden, hidden, true)?,
            norm: Norm::load(&transform.at("LayerNorm"), hidden, norm)?,
            decoder: LogitsHead::new(decoder, 1.0),
            activation: config.activation,
            hidden_dim: hidden,
        })
    }
}
