//! Classification of texts.

mod keras;
mod zero_shot;

use std::ffi::OsStr;

use rachis::heads::SequenceHead;
use rachis::loader::{ConfigSource, Preset};
use rachis::{Backbone, Heads, PresetOptions, Session};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::labels::{Labels, Problem};
use crate::scores::ScoreFunction;
use crate::tokenizer::{EncodeOptions, Encoding, TextInput, Tokenizer, Truncation};
use keras::Packer;

pub use zero_shot::{ZeroShotLabels, ZeroShotOptions, ZeroShotScores};

/// Labels of texts with scores: transformers' text-classification and zero-shot-classification pipelines, and KerasHub's
/// `BertTextClassifier`.
///
/// The model is a BERT or a BART with a classifier of sequences. A text is not cut unless the options say so: one that
/// is too long for the model is refused. KerasHub's preprocessor cuts every text at its `sequence_length`.
#[derive(Debug)]
pub struct TextClassifier {
    backbone: Backbone,
    head: SequenceHead,
    tokenizer: Tokenizer,
    labels: Labels,
    /// What the directory applies to logits.
    function: ScoreFunction,
    packer: Option<Packer>,
}

/// A label and its score.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LabelScore {
    /// The label, as the directory spells it.
    pub label: String,
    /// What the [`ScoreFunction`] makes of its logit.
    pub score: f32,
}

/// How to classify: every label, with the scores of the directory, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClassifyOptions {
    /// Number of labels that are returned; `None` returns all.
    pub top_k: Option<usize>,
    /// What turns logits into scores. `None` is what the directory says: for transformers nothing for regression, a
    /// sigmoid for one label or for several that may be right together, else a softmax; for KerasHub the task's
    /// `activation`.
    pub function: Option<ScoreFunction>,
    /// How a text that is too long is cut. It has no effect on a KerasHub preset.
    pub truncation: Option<Truncation>,
}

impl ClassifyOptions {
    /// All labels, with the scores of the directory.
    pub fn new() -> ClassifyOptions {
        ClassifyOptions::default()
    }

    /// Sets [`ClassifyOptions::top_k`].
    pub fn with_top_k(self, top_k: usize) -> ClassifyOptions {
        ClassifyOptions { top_k: Some(top_k), ..self }
    }

    /// Sets [`ClassifyOptions::function`].
    pub fn with_function(self, function: ScoreFunction) -> ClassifyOptions {
        ClassifyOptions { function: Some(function), ..self }
    }

    /// Sets [`ClassifyOptions::truncation`].
    pub fn with_truncation(self, truncation: Truncation) -> ClassifyOptions {
        ClassifyOptions { truncation: Some(truncation), ..self }
    }
}

impl TextClassifier {
    /// The classifier of a preset: a directory, or a name as [`Preset::named`] takes it.
    ///
    /// # Errors
    /// When a file is missing, malformed or not implemented, or the model has no classifier of sequences.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<TextClassifier> {
        TextClassifier::from_preset_with(name, PresetOptions::default())
    }

    /// The classifier of a preset, whose model is loaded as `options` say.
    ///
    /// # Errors
    /// As [`TextClassifier::from_preset`].
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<TextClassifier> {
        let preset = options.open(name)?;
        TextClassifier::load(&preset, Backbone::load_with(&preset, options)?)
    }

    /// The classifier of an open preset and its model.
    ///
    /// # Errors
    /// As [`TextClassifier::from_preset`].
    pub fn load(preset: &Preset, backbone: Backbone) -> Result<TextClassifier> {
        let head = Heads::load(preset, &backbone)?.sequence.ok_or_else(|| Error::Task {
            task: "classify",
            expected: "a BERT or a BART with a classifier of sequences".to_owned(),
            found: format!("{} without one", backbone.name()),
        })?;
        let tokenizer = Tokenizer::load(preset)?;
        let classes = head.classes();
        let (labels, function, packer) = match preset.config().source() {
            ConfigSource::HuggingFace { .. } => {
                let function = match Problem::read(preset, classes)? {
                    Problem::SingleLabel => ScoreFunction::Softmax,
                    Problem::MultiLabel => ScoreFunction::Sigmoid,
                    Problem::Regression => ScoreFunction::Identity,
                };
                (Labels::read(preset, classes)?, function, None)
            }
            ConfigSource::Keras { .. } => {
                let (function, packer) = keras::read(preset)?;
                (Labels::numbered(classes), function, Some(packer))
            }
        };
        Ok(TextClassifier { backbone, head, tokenizer, labels, function, packer })
    }

    /// The labels, in the order of the model's outputs. KerasHub's presets have none: theirs are called `LABEL_0` and so
    /// on, as transformers calls labels without names.
    pub fn labels(&self) -> &[String] {
        self.labels.names()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The labels of each text or pair of texts, with the largest score first. A result does not depend on the texts
    /// beside it.
    ///
    /// # Errors
    /// When the tokenizer fails on a text, or a text is too long for the model or for what may be cut of it.
    pub fn classify<'t, I: Into<TextInput<'t>> + Copy>(
        &self,
        session: &mut Session<'_>,
        inputs: &[I],
        options: ClassifyOptions,
    ) -> Result<Vec<Vec<LabelScore>>> {
        let function = options.function.unwrap_or(self.function);
        let encode = |input: &I| self.encode((*input).into(), options.truncation);
        let logits = self.logits(session, inputs.iter().map(encode))?;
        Ok(logits
            .chunks_exact(self.head.classes())
            .map(|row| self.ranked(row, function, options.top_k))
            .collect())
    }

    fn ranked(&self, logits: &[f32], function: ScoreFunction, top_k: Option<usize>) -> Vec<LabelScore> {
        let scores = function.apply(logits).into_iter().enumerate();
        let mut labels: Vec<LabelScore> = scores
            .map(|(class, score)| LabelScore { label: self.labels.name(class).to_owned(), score })
            .collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        labels.truncate(top_k.unwrap_or(usize::MAX));
        labels
    }

    fn encode(&self, input: TextInput<'_>, truncation: Option<Truncation>) -> Result<Encoding> {
        let mut options = EncodeOptions::new();
        options.truncation = truncation.filter(|_| self.packer.is_none());
        let encoding = self.tokenizer.encode_with(input, options)?;
        match &self.packer {
            Some(packer) => packer.pack(encoding),
            None => Ok(encoding),
        }
    }

    /// The logits of sequences, `[sequences, classes]`.
    fn logits(
        &self,
        session: &mut Session<'_>,
        encodings: impl Iterator<Item = Result<Encoding>>,
    ) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        let mut batch = Batch::default();
        let mut run = |batch: &mut Batch| -> Result<()> {
            let done = logits.len();
            logits.resize(done + batch.len() * self.head.classes(), 0.0);
            self.head.logits(session, &self.backbone, batch.inputs(), &mut logits[done..])?;
            batch.clear();
            Ok(())
        };
        for encoding in encodings {
            batch.push(&encoding?);
            if batch.is_full() {
                run(&mut batch)?;
            }
        }
        if !batch.is_empty() {
            run(&mut batch)?;
        }
        Ok(logits)
    }
}
