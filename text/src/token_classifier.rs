//! Classification of the tokens of texts: named entities, parts of speech.

mod aggregate;

use core::ops::Range;
use std::ffi::OsStr;

use rachis::heads::Classifier;
use rachis::loader::Preset;
use rachis::{Backbone, Heads, PresetOptions, Session};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::scores::softmax;
use crate::tokenizer::{EncodeOptions, Encoding, SpecialToken, Tokenizer, Truncation};
use aggregate::{Token, join_windows};

/// Entities of texts: transformers' token-classification pipeline on a `BertForTokenClassification`.
///
/// A text is cut at the tokenizer's `model_max_length`, where the directory has one, unless the options ask for windows.
#[derive(Debug)]
pub struct TokenClassifier {
    backbone: Backbone,
    head: Classifier,
    tokenizer: Tokenizer,
    labels: Labels,
}

/// A token or several of one entity.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Entity {
    /// The label: of a token as the directory spells it, of several without the prefix `B-` or `I-`.
    pub label: String,
    /// The probability of the label: that of the token, or the mean over tokens or words.
    pub score: f32,
    /// The number of the token in its text, special tokens included; `None` for several.
    pub index: Option<usize>,
    /// The token as the vocabulary spells it, or the text that the tokens make.
    pub word: String,
    /// Where it stands in the text, in bytes; `None` with a tokenizer that does not say.
    pub span: Option<Range<usize>>,
}

/// How tokens become entities: the pipeline's `aggregation_strategy`. A word is a token and those that continue it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Aggregation {
    /// Each token is an entity.
    #[default]
    None,
    /// Tokens behind one another that have the same label are an entity; one whose label begins with `B-` starts
    /// another.
    Simple,
    /// Words in place of tokens, each with the label of its first token.
    First,
    /// Words in place of tokens, each with the largest mean probability.
    Average,
    /// Words in place of tokens, each with the label of the token whose probability is largest.
    Max,
}

/// How to classify tokens: each by itself, without those that are labelled `O`, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenClassifyOptions<'o> {
    /// How tokens become entities.
    pub aggregation: Aggregation,
    /// Labels that are left out.
    pub ignore_labels: &'o [&'o str],
    /// Tokens that two windows of a long text have in common; `None` cuts the text instead.
    pub stride: Option<usize>,
}

impl Default for TokenClassifyOptions<'_> {
    fn default() -> Self {
        TokenClassifyOptions { aggregation: Aggregation::None, ignore_labels: &["O"], stride: None }
    }
}

impl<'o> TokenClassifyOptions<'o> {
    /// Each token by itself, without those that are labelled `O`.
    pub fn new() -> TokenClassifyOptions<'o> {
        TokenClassifyOptions::default()
    }

    /// Sets [`TokenClassifyOptions::aggregation`].
    pub fn with_aggregation(self, aggregation: Aggregation) -> TokenClassifyOptions<'o> {
        TokenClassifyOptions { aggregation, ..self }
    }

    /// Sets [`TokenClassifyOptions::ignore_labels`].
    pub fn with_ignore_labels(self, ignore_labels: &'o [&'o str]) -> TokenClassifyOptions<'o> {
        TokenClassifyOptions { ignore_labels, ..self }
    }

    /// Sets [`TokenClassifyOptions::stride`].
    pub fn with_stride(self, stride: usize) -> TokenClassifyOptions<'o> {
        TokenClassifyOptions { stride: Some(stride), ..self }
    }
}

impl TokenClassifier {
    /// The classifier of a preset: a directory, or a name as [`Preset::named`] takes it.
    ///
    /// # Errors
    /// When a file is missing, malformed or not implemented, or the model has no classifier of tokens.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<TokenClassifier> {
        TokenClassifier::from_preset_with(name, PresetOptions::default())
    }

    /// The classifier of a preset, whose model is loaded as `options` say.
    ///
    /// # Errors
    /// As [`TokenClassifier::from_preset`].
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<TokenClassifier> {
        let preset = options.open(name)?;
        TokenClassifier::load(&preset, Backbone::load_with(&preset, options)?)
    }

    /// The classifier of an open preset and its model.
    ///
    /// # Errors
    /// As [`TokenClassifier::from_preset`].
    pub fn load(preset: &Preset, backbone: Backbone) -> Result<TokenClassifier> {
        let head = Heads::load(preset, &backbone)?.token.ok_or_else(|| Error::Task {
            task: "ner",
            expected: "a BERT with a classifier of tokens".to_owned(),
            found: format!("{} without one", backbone.name()),
        })?;
        let (tokenizer, labels) = (Tokenizer::load(preset)?, Labels::read(preset, head.classes())?);
        Ok(TokenClassifier { backbone, head, tokenizer, labels })
    }

    /// The labels, in the order of the model's outputs.
    pub fn labels(&self) -> &[String] {
        self.labels.names()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The entities of each text. A result does not depend on the texts beside it.
    ///
    /// # Errors
    /// When the tokenizer fails on a text, a text is too long for the model, or the stride is not less than the length
    /// of a window.
    pub fn classify(
        &self,
        session: &mut Session<'_>,
        texts: &[impl AsRef<str>],
        options: TokenClassifyOptions<'_>,
    ) -> Result<Vec<Vec<Entity>>> {
        let words =
            matches!(options.aggregation, Aggregation::First | Aggregation::Average | Aggregation::Max);
        if words && !self.tokenizer.has_offsets() {
            return Err(Error::Request {
                what: "aggregation_strategy",
                found: "one of words".to_owned(),
                expected: "none or simple: the tokenizer does not say which tokens are a word".to_owned(),
            });
        }
        let mut all = Vec::with_capacity(texts.len());
        let (mut batch, mut pending) = (Batch::default(), Vec::new());
        for (i, text) in texts.iter().enumerate() {
            all.push(Vec::new());
            for window in self.windows(text.as_ref(), options.stride)? {
                batch.push(&window);
                pending.push((i, window));
                if batch.is_full() {
                    self.run(session, (texts, options), (&mut batch, &mut pending), &mut all)?;
                }
            }
        }
        if !batch.is_empty() {
            self.run(session, (texts, options), (&mut batch, &mut pending), &mut all)?;
        }
        // Windows of a text have tokens in common.
        let texts = texts.iter().map(AsRef::as_ref);
        Ok(texts.zip(all).map(|(text, windows)| join_windows(text, windows)).collect())
    }

    /// The tokens of a text: of its windows with a stride, else of its start.
    fn windows(&self, text: &str, stride: Option<usize>) -> Result<Vec<Encoding>> {
        let limit = self.tokenizer.model_max_length();
        if let (Some(stride), Some(limit)) = (stride, limit)
            && stride >= limit
        {
            let (found, expected) =
                (stride.to_string(), format!("less than {limit}, the length of a window"));
            return Err(Error::Request { what: "stride", found, expected });
        }
        let mut options = EncodeOptions::new();
        options.truncation = limit.map(Truncation::new).map(|truncation| match stride {
            Some(stride) => truncation.with_stride(stride),
            None => truncation,
        });
        let mut first = self.tokenizer.encode_with(text, options)?;
        let rest = std::mem::take(&mut first.overflowing);
        Ok([first].into_iter().chain(rest).collect())
    }

    /// Runs the model on windows, and adds the entities of each to those of the windows of its text.
    fn run(
        &self,
        session: &mut Session<'_>,
        (texts, options): (&[impl AsRef<str>], TokenClassifyOptions<'_>),
        (batch, pending): (&mut Batch, &mut Vec<(usize, Encoding)>),
        all: &mut [Vec<Vec<Entity>>],
    ) -> Result<()> {
        let classes = self.head.classes();
        let mut logits = vec![0.0; batch.tokens() * classes];
        self.head.token_logits(session, &self.backbone, batch.inputs(), &mut logits)?;
        let mut rest = logits.as_slice();
        for (text, window) in pending.drain(..) {
            let (logits, after) = rest.split_at(window.len() * classes);
            rest = after;
            let tokens = self.tokens(texts[text].as_ref(), &window, logits);
            let mut entities =
                aggregate::entities(&self.tokenizer, &self.labels, tokens, options.aggregation)?;
            entities.retain(|entity| !options.ignore_labels.contains(&entity.label.as_str()));
            all[text].push(entities);
        }
        batch.clear();
        Ok(())
    }

    /// The tokens of a window that are of its text, with their probabilities.
    fn tokens(&self, text: &str, window: &Encoding, logits: &[f32]) -> Vec<Token> {
        let has_offsets = self.tokenizer.has_offsets();
        let unknown = self.tokenizer.special_token(SpecialToken::Unknown);
        let marked = self.tokenizer.marks_continuations();
        let rows = logits.chunks_exact(self.head.classes()).enumerate();
        let of_text = rows.filter(|(index, _)| !window.special[*index]);
        let token = |(index, logits): (usize, &[f32])| {
            let (id, span) = (window.ids[index], window.offsets[index].clone());
            let mut word = self.tokenizer.id_to_token(id).unwrap_or_default();
            let shown = text.get(span.clone()).unwrap_or_default();
            let mut continues = has_offsets
                && match marked {
                    // A token whose text is as long as its name is the start of a word.
                    true => word.chars().count() != shown.chars().count(),
                    // A guess of the pipeline: no space here, and none before.
                    false => span.start > 0 && !follows_space(text, span.start),
                };
            if has_offsets && Some(id) == unknown {
                word = shown.to_owned();
                continues = false;
            }
            let scores = softmax(logits).map(|score| score as f32).collect();
            Token { index, word, span: has_offsets.then_some(span), continues, scores }
        };
        of_text.map(token).collect()
    }
}

/// Whether there is a space before or behind this place of a text.
fn follows_space(text: &str, at: usize) -> bool {
    let before = text.get(..at).and_then(|text| text.chars().next_back());
    let behind = text.get(at..).and_then(|text| text.chars().next());
    before == Some(' ') || behind == Some(' ')
}
