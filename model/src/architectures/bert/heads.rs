//! BERT's pretraining heads: functions of the backbone's outputs.

use rachis_kernels::{Activation, MatMut, MatRef};
use rachis_loader::Preset;

use super::BertBackbone;
use crate::config::DtypePolicy;
use crate::error::{Error, Result};
use crate::layers::{Linear, LogitsHead, Norm, NormKind};
use crate::session::Session;
use crate::weights::{Init, Scope, Source};

/// The masked-language-model head, tied to the token table, and the next-sentence head: both or one of them.
#[derive(Debug)]
pub struct BertPretrainingHeads {
    mlm: Option<MaskedHead>,
    next_sentence: Option<LogitsHead>,
    /// The backbone's.
    dtype: DtypePolicy,
}

#[derive(Debug)]
struct MaskedHead {
    transform: Linear,
    norm: Norm,
    decoder: LogitsHead,
    activation: Activation,
    hidden_dim: usize,
}

/// Weights that say that there is a head.
const MLM: &str = "cls.predictions.bias";
const NEXT_SENTENCE: &str = "cls.seq_relationship.weight";

impl BertPretrainingHeads {
    /// The heads of a preset; `None` when its files have none.
    ///
    /// # Errors
    /// A weight that is missing or misshapen.
    pub fn load(preset: &Preset, backbone: &BertBackbone) -> Result<Option<BertPretrainingHeads>> {
        let source = Source::Preset(preset);
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

    /// Masked-language-model logits `[rows, vocabulary_size]` of rows of the sequence output, copied out of the
    /// session first.
    ///
    /// # Errors
    /// Shapes that disagree; [`Error::MissingWeight`] without the head.
    pub fn mlm_logits(
        &self,
        session: &mut Session<'_>,
        rows: MatRef<'_, f32>,
        logits: &mut [f32],
    ) -> Result<()> {
        let head = self.mlm.as_ref().ok_or_else(|| Error::MissingWeight { name: MLM.to_owned() })?;
        let (count, hidden) = (rows.rows(), head.hidden_dim);
        session.compute_in(self.dtype);
        let Session { call: ctx, work, .. } = session;
        let (a, b) = work.hidden.take(2 * count * hidden)?.split_at_mut(count * hidden);
        let scratch = &mut work.threads.caller.scratch;
        head.transform.apply(ctx, scratch, rows, (head.activation, None), MatMut::new(a, count, hidden)?)?;
        head.norm.apply(ctx, MatRef::new(a, count, hidden)?, MatMut::new(b, count, hidden)?)?;
        head.decoder.apply(ctx, scratch, MatRef::new(b, count, hidden)?, logits)
    }

    /// Next-sentence logits `[batch, 2]` of the pooled output, copied out of the session first.
    ///
    /// # Errors
    /// Shapes that disagree; [`Error::MissingWeight`] without the head.
    pub fn nsp_logits(
        &self,
        session: &mut Session<'_>,
        pooled: MatRef<'_, f32>,
        logits: &mut [f32],
    ) -> Result<()> {
        let missing = || Error::MissingWeight { name: NEXT_SENTENCE.to_owned() };
        let head = self.next_sentence.as_ref().ok_or_else(missing)?;
        session.compute_in(self.dtype);
        let Session { call: ctx, work, .. } = session;
        head.apply(ctx, &mut work.threads.caller.scratch, pooled, logits)
    }
}

impl MaskedHead {
    fn load(scope: &Scope<'_>, backbone: &BertBackbone) -> Result<MaskedHead> {
        let config = backbone.config();
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let transform = scope.at("transform");
        let norm = (NormKind::Layer, config.layer_norm_epsilon);
        let bias = scope.named("bias", &[vocabulary], Init::Zeros)?;
        Ok(MaskedHead {
            transform: Linear::load(&transform.at("dense"), hidden, hidden, true)?,
            norm: Norm::load(&transform.at("LayerNorm"), hidden, norm)?,
            decoder: LogitsHead::new(Linear::tied(backbone.token_embedding().weight(), Some(bias)), 1.0),
            activation: config.activation,
            hidden_dim: hidden,
        })
    }
}
