//! What a caller may choose for a call.

use crate::sentence_transformers::TextKind;

/// How texts are embedded: by default with the prompt, the dimension and the normalisation of the directory.
///
/// ```
/// use rachis_text::{EmbedMethod, EmbedOptions, Normalization};
///
/// let options = EmbedOptions::new().with_method(EmbedMethod::Query).with_truncate_dim(256);
/// assert_eq!(options.normalization, Normalization::OfModel);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// The method of sentence-transformers that is called.
    pub method: EmbedMethod,
    /// A text that goes before every text. An empty one switches off the model's default prompt.
    pub prompt: Option<String>,
    /// The name of a prompt of the model. [`EmbedOptions::prompt`] wins over it.
    pub prompt_name: Option<String>,
    /// Number of components that are kept of each vector, from the first one (Matryoshka embeddings); more than there
    /// are keeps all. `None` is the directory's choice.
    pub truncate_dim: Option<usize>,
    /// Whether vectors are scaled to length 1, after they were truncated.
    pub normalization: Normalization,
}

/// The method of `SentenceTransformer` that is called. They differ in the prompt that they use where none is asked for,
/// and in the limit of the length where the directory has one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EmbedMethod {
    /// `encode`: with the default prompt, if the model has one.
    #[default]
    Encode,
    /// `encode_query`: with the prompt called `query`.
    Query,
    /// `encode_document`: with the prompt called `document`.
    Document,
}

/// Whether vectors are scaled to length 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Normalization {
    /// If the directory says so.
    #[default]
    OfModel,
    /// Always: `normalize_embeddings=True`.
    Always,
}

impl EmbedOptions {
    /// The directory's choices.
    pub fn new() -> EmbedOptions {
        EmbedOptions::default()
    }

    /// Sets [`EmbedOptions::method`].
    #[must_use]
    pub fn with_method(self, method: EmbedMethod) -> EmbedOptions {
        EmbedOptions { method, ..self }
    }

    /// Sets [`EmbedOptions::prompt`].
    #[must_use]
    pub fn with_prompt(self, prompt: impl Into<String>) -> EmbedOptions {
        EmbedOptions { prompt: Some(prompt.into()), ..self }
    }

    /// Sets [`EmbedOptions::prompt_name`].
    #[must_use]
    pub fn with_prompt_name(self, name: impl Into<String>) -> EmbedOptions {
        EmbedOptions { prompt_name: Some(name.into()), ..self }
    }

    /// Sets [`EmbedOptions::truncate_dim`].
    #[must_use]
    pub fn with_truncate_dim(self, dim: usize) -> EmbedOptions {
        EmbedOptions { truncate_dim: Some(dim), ..self }
    }

    /// Sets [`EmbedOptions::normalization`].
    #[must_use]
    pub fn with_normalization(self, normalization: Normalization) -> EmbedOptions {
        EmbedOptions { normalization, ..self }
    }
}

impl EmbedMethod {
    /// The name of the prompt where the caller asks for none.
    pub(super) fn prompt_name(self) -> Option<&'static str> {
        match self {
            EmbedMethod::Encode => None,
            EmbedMethod::Query => Some("query"),
            EmbedMethod::Document => Some("document"),
        }
    }

    pub(super) fn kind(self) -> TextKind {
        match self {
            EmbedMethod::Encode => TextKind::Any,
            EmbedMethod::Query => TextKind::Query,
            EmbedMethod::Document => TextKind::Document,
        }
    }
}
