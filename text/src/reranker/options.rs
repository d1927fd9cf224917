//! What a caller may choose for a call.

use crate::activation::Activation;

/// How pairs are scored: by default with the prompt and the activation of the directory.
///
/// ```
/// use rachis_text::{Activation, RerankOptions};
///
/// let options = RerankOptions::new().with_activation(Activation::Identity).with_top_k(3);
/// assert_eq!(options.top_k, Some(3));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RerankOptions {
    /// The function from logits to scores; `None` is the directory's.
    pub activation: Option<Activation>,
    /// What several scores of a pair are.
    pub labels: LabelScores,
    /// A text that goes before the first text of every pair. An empty one switches off the model's default prompt.
    pub prompt: Option<String>,
    /// The name of a prompt of the model. [`RerankOptions::prompt`] wins over it.
    pub prompt_name: Option<String>,
    /// Number of texts that ranking returns, the best ones; `None` is all.
    pub top_k: Option<usize>,
}

/// What the scores of a pair are in a model with several labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LabelScores {
    /// What the activation gives.
    #[default]
    Independent,
    /// Probabilities with the sum 1, by softmax after the activation: `apply_softmax=True`.
    Softmax,
}

impl RerankOptions {
    /// The directory's choices.
    pub fn new() -> RerankOptions {
        RerankOptions::default()
    }

    /// Sets [`RerankOptions::activation`].
    #[must_use]
    pub fn with_activation(self, activation: Activation) -> RerankOptions {
        RerankOptions { activation: Some(activation), ..self }
    }

    /// Sets [`RerankOptions::labels`].
    #[must_use]
    pub fn with_labels(self, labels: LabelScores) -> RerankOptions {
        RerankOptions { labels, ..self }
    }

    /// Sets [`RerankOptions::prompt`].
    #[must_use]
    pub fn with_prompt(self, prompt: impl Into<String>) -> RerankOptions {
        RerankOptions { prompt: Some(prompt.into()), ..self }
    }

    /// Sets [`RerankOptions::prompt_name`].
    #[must_use]
    pub fn with_prompt_name(self, name: impl Into<String>) -> RerankOptions {
        RerankOptions { prompt_name: Some(name.into()), ..self }
    }

    /// Sets [`RerankOptions::top_k`].
    #[must_use]
    pub fn with_top_k(self, top_k: usize) -> RerankOptions {
        RerankOptions { top_k: Some(top_k), ..self }
    }
}
