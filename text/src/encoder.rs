//! One forward pass of any backbone over a batch of texts, as transformers' `AutoModel` runs it.

use rachis::kernels::MatRef;
use rachis::loader::{ConfigSource, Preset};
use rachis::{
    Backbone, BackboneInputs, BackboneOutput, BertInputs, Ctx, PresetOptions, Seq2SeqInputs, SequenceOutput,
    Session, T5Encoder, Tokens,
};

use crate::batches::Batch;
use crate::error::{Error, Result};
use crate::pipeline::Start;
use crate::sentence_transformers::Output;

/// A backbone whose output is a vector for every token of a text.
#[derive(Debug)]
pub(crate) struct Encoder {
    model: Backbone,
    /// The token before the text in a decoder that reads the text, too: BART's.
    decoder_start: u32,
    /// The task, for messages.
    task: &'static str,
}

/// The output for a batch, in the session's memory.
struct Encoded<'s> {
    /// A vector for every token.
    tokens: SequenceOutput<'s>,
    /// BERT's pooled vector of every text, where the model has one.
    pooled: Option<MatRef<'s, f32>>,
}

impl Encoder {
    /// The model, if `task` can use it.
    pub(crate) fn new(preset: &Preset, model: Backbone, task: &'static str) -> Result<Encoder> {
        let keras = matches!(preset.config().source(), ConfigSource::Keras { .. });
        let model = match model {
            Backbone::Bert(_) => model,
            Backbone::Bart(_) | Backbone::Falcon(_) | Backbone::Opt(_) | Backbone::T5Encoder(_) if !keras => {
                model
            }
            // The library reads texts with the encoder, and leaves the decoder out.
            Backbone::T5(_) if !keras => {
                let options = PresetOptions::new().with_dtype(model.dtype());
                Backbone::T5Encoder(T5Encoder::load_with(preset, options)?)
            }
            _ => {
                let expected = if keras { "a BertBackbone" } else { "a model with vectors for tokens" };
                let found = model.name().to_owned();
                return Err(Error::Task { task, expected: expected.to_owned(), found });
            }
        };
        let start = preset.config().opt_usize("decoder_start_token_id")?;
        let decoder_start = start.and_then(|start| u32::try_from(start).ok()).unwrap_or(2);
        Ok(Encoder { model, decoder_start, task })
    }

    pub(crate) fn model(&self) -> &Backbone {
        &self.model
    }

    /// Width of a vector.
    pub(crate) fn width(&self) -> usize {
        self.model.token_embedding().table().cols()
    }

    /// The context of the modules after the model: the session's, in the model's precision unless it has one.
    pub(crate) fn ctx<'p>(&self, session: &Session<'p>) -> Ctx<'p> {
        session.ctx().with_default_precision(self.model.dtype().into())
    }

    /// What the modules after the model start with: one of its outputs for a batch.
    pub(crate) fn start<'s>(
        &self,
        session: &'s mut Session<'_>,
        batch: &Batch<'_>,
        output: Output,
    ) -> Result<Start<'s>> {
        let encoded = self.forward(session, batch)?;
        match (output, encoded.pooled) {
            (Output::Pooled, Some(pooled)) => {
                Ok(Start::Texts((0..pooled.rows()).flat_map(|r| pooled.row(r).to_vec()).collect()))
            }
            (Output::Pooled, None) => {
                let found = format!("{} without one", self.model.name());
                Err(Error::Task { task: self.task, expected: "a pooler".to_owned(), found })
            }
            (Output::Tokens | Output::Scores, _) => Ok(Start::Tokens(encoded.tokens)),
        }
    }

    fn forward<'s>(&self, session: &'s mut Session<'_>, batch: &Batch<'_>) -> Result<Encoded<'s>> {
        let tokens = batch.tokens;
        let shifted: Vec<u32>;
        let inputs = match &self.model {
            Backbone::Bert(_) => {
                BackboneInputs::Bert(BertInputs { tokens, segment_ids: Some(batch.segments) })
            }
            Backbone::Bart(_) => {
                shifted = self.shifted(batch);
                let decoder = Tokens::ragged(&shifted, batch.lengths);
                BackboneInputs::Seq2Seq(Seq2SeqInputs { encoder: tokens, decoder })
            }
            _ => BackboneInputs::Tokens(tokens),
        };
        let output = self.model.forward(session, inputs)?;
        let pooled = match &output {
            BackboneOutput::Bert(output) => output.pooled_output,
            _ => None,
        };
        Ok(Encoded { tokens: output.sequence_output(), pooled })
    }

    /// The decoder's input that transformers makes of the encoder's: the start token, and all tokens but the last.
    fn shifted(&self, batch: &Batch<'_>) -> Vec<u32> {
        let mut ids = batch.tokens.ids();
        let mut shifted = Vec::with_capacity(ids.len());
        for len in batch.lengths {
            let (text, rest) = ids.split_at((*len).min(ids.len()));
            ids = rest;
            let kept = text.len().saturating_sub(1);
            shifted.extend((!text.is_empty()).then_some(self.decoder_start));
            shifted.extend_from_slice(&text[..kept]);
        }
        shifted
    }
}
