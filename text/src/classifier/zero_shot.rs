//! Zero-shot classification: each label is the end of a hypothesis, and a model that was trained for natural language
//! inference says whether the text entails it.

use rachis::Session;

use super::TextClassifier;
use crate::error::{Error, Result};
use crate::scores::softmax;
use crate::tokenizer::{EncodeOptions, Encoding, TextInput, TruncateWhich, Truncation};

/// How to classify by labels that the model was not trained for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZeroShotOptions<'o> {
    /// The hypothesis about a text; `{}` stands for the label. A brace is written twice.
    pub hypothesis_template: &'o str,
    /// Whether labels exclude each other.
    pub labels: ZeroShotLabels,
}

/// Whether the labels of a text exclude each other: transformers' `multi_label`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ZeroShotLabels {
    /// One label is right: their scores have the sum 1.
    #[default]
    Exclusive,
    /// Any number of labels are right: each score is that of entailment against contradiction.
    Independent,
}

/// The labels of a text with their scores, the largest first.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ZeroShotScores {
    /// The labels.
    pub labels: Vec<String>,
    /// The score of each label.
    pub scores: Vec<f32>,
}

impl Default for ZeroShotOptions<'_> {
    /// One label is right, and the template is transformers' `This example is {}.`
    fn default() -> Self {
        let labels = ZeroShotLabels::default();
        ZeroShotOptions { hypothesis_template: "This example is {}.", labels }
    }
}

impl<'o> ZeroShotOptions<'o> {
    /// One label is right, and the template is transformers'.
    pub fn new() -> ZeroShotOptions<'o> {
        ZeroShotOptions::default()
    }

    /// Sets [`ZeroShotOptions::hypothesis_template`].
    pub fn with_hypothesis_template(self, hypothesis_template: &'o str) -> ZeroShotOptions<'o> {
        ZeroShotOptions { hypothesis_template, ..self }
    }

    /// Sets [`ZeroShotOptions::labels`].
    pub fn with_labels(self, labels: ZeroShotLabels) -> ZeroShotOptions<'o> {
        ZeroShotOptions { labels, ..self }
    }
}

impl TextClassifier {
    /// Scores of labels for each text, by a model with a label for entailment. A text is cut where it and the hypothesis
    /// are longer than the tokenizer's `model_max_length`.
    ///
    /// # Errors
    /// When there is no label or a text is empty, the template has no place for a label, or the model cannot take a
    /// text.
    pub fn classify_zero_shot(
        &self,
        session: &mut Session<'_>,
        texts: &[impl AsRef<str>],
        labels: &[impl AsRef<str>],
        options: &ZeroShotOptions<'_>,
    ) -> Result<Vec<ZeroShotScores>> {
        let template = Template::parse(options.hypothesis_template)?;
        if labels.is_empty() {
            return Err(refused("candidate_labels", "empty", "at least one label"));
        }
        if texts.iter().any(|text| text.as_ref().is_empty()) {
            return Err(refused("inputs", "an empty text", "a text"));
        }
        let hypotheses: Vec<String> = labels.iter().map(|label| template.fill(label.as_ref())).collect();
        let pairs = texts
            .iter()
            .flat_map(|text| hypotheses.iter().map(|hypothesis| self.encode_pair(text.as_ref(), hypothesis)));
        let logits = self.logits(session, pairs)?;
        let classes = self.head.classes();
        let of_text = logits.chunks_exact(classes * labels.len());
        Ok(of_text.map(|logits| self.rank(logits, labels, options.labels)).collect())
    }

    /// A text and a hypothesis about it. Only the text is cut; when it is too short for that, nothing is, and the model
    /// refuses what it cannot take.
    fn encode_pair(&self, text: &str, hypothesis: &str) -> Result<Encoding> {
        let pair = TextInput::Pair(text, hypothesis);
        let Some(limit) = self.tokenizer.model_max_length() else { return self.encode(pair, None) };
        let truncation = Truncation::new(limit).with_strategy(TruncateWhich::OnlyFirst);
        match self.tokenizer.encode_with(pair, EncodeOptions::new().with_truncation(truncation)) {
            Err(Error::Request { what: "max_length", .. }) => self.encode(pair, None),
            other => other,
        }
    }

    /// The labels of a text by their scores, from `[labels, classes]` logits.
    fn rank(&self, logits: &[f32], labels: &[impl AsRef<str>], choice: ZeroShotLabels) -> ZeroShotScores {
        let (classes, entailment) = (self.head.classes(), self.labels.entailment());
        let rows = logits.chunks_exact(classes);
        let scores: Vec<f32> = if choice == ZeroShotLabels::Independent || labels.len() == 1 {
            let contradiction = if entailment == 0 { classes - 1 } else { 0 };
            rows.map(|row| softmax(&[row[contradiction], row[entailment]]).last().unwrap_or(0.0) as f32)
                .collect()
        } else {
            let entailments: Vec<f32> = rows.map(|row| row[entailment]).collect();
            softmax(&entailments).map(|score| score as f32).collect()
        };
        let mut order: Vec<usize> = (0..labels.len()).collect();
        // Of equal scores the last label comes first, as in the pipeline, which reverses an ascending order.
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(b.cmp(a)));
        ZeroShotScores {
            labels: order.iter().map(|i| labels[*i].as_ref().to_owned()).collect(),
            scores: order.iter().map(|i| scores[*i]).collect(),
        }
    }
}

/// A text with places for a label, in the syntax of Python's `str.format`: `{}` or `{0}`, and `{{` for a brace.
struct Template {
    /// The texts before, between and behind the places.
    parts: Vec<String>,
}

impl Template {
    fn parse(template: &str) -> Result<Template> {
        let wrong = || {
            refused("hypothesis_template", &format!("{template:.60?}"), "a text with one {} for the label")
        };
        let mut parts = vec![String::new()];
        let mut automatic = 0;
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            let last = parts.len() - 1;
            parts[last].push_str(before);
            rest = if let Some(after) = from.strip_prefix("{{") {
                parts[last].push('{');
                after
            } else if let Some(after) = from.strip_prefix("}}") {
                parts[last].push('}');
                after
            } else if let Some(after) = from.strip_prefix("{}") {
                automatic += 1;
                parts.push(String::new());
                after
            } else if let Some(after) = from.strip_prefix("{0}") {
                parts.push(String::new());
                after
            } else {
                return Err(wrong());
            };
        }
        if let Some(last) = parts.last_mut() {
            last.push_str(rest);
        }
        // Each {} takes the next argument, and there is one.
        let mixed = automatic > 0 && automatic != parts.len() - 1;
        if parts.len() == 1 || automatic > 1 || mixed { Err(wrong()) } else { Ok(Template { parts }) }
    }

    fn fill(&self, label: &str) -> String {
        self.parts.join(label)
    }
}

fn refused(what: &'static str, found: &str, expected: &str) -> Error {
    Error::Request { what, found: found.to_owned(), expected: expected.to_owned() }
}
