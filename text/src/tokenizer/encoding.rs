//! What a tokenizer makes of a text, and how it is asked to.

use core::ops::Range;

/// The tokens of a text, or of a pair of texts. All lists have one entry a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The segment of each token: BERT's `token_type_ids`.
    pub type_ids: Vec<u32>,
    /// Where the token stands in its text, in bytes; empty for tokens that the tokenizer added, and for all of a
    /// tokenizer without offsets ([`Tokenizer::has_offsets`](super::Tokenizer::has_offsets)). Both ends are at boundaries
    /// of characters.
    pub offsets: Vec<Range<usize>>,
    /// Which of the two texts the token is of; `None` for tokens that the tokenizer added.
    pub sequences: Vec<Option<usize>>,
    /// The word of its text that the token is of, as the tokenizer splits words; `None` for tokens that it added.
    pub words: Vec<Option<u32>>,
    /// Whether the tokenizer added the token.
    pub special: Vec<bool>,
    /// The windows of the text after this one, when it was cut and the truncation has a stride.
    pub overflowing: Vec<Encoding>,
}

impl Encoding {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether the last token is this one, and of a text.
    pub(super) fn ends_in_text_with(&self, id: u32) -> bool {
        self.ids.last() == Some(&id) && self.special.last() == Some(&false)
    }

    /// Appends a token, which the tokenizer added if it is of no text.
    pub(super) fn push(
        &mut self,
        id: u32,
        segment: u32,
        offsets: Range<usize>,
        sequence: Option<usize>,
        word: Option<u32>,
    ) {
        self.ids.push(id);
        self.type_ids.push(segment);
        self.offsets.push(offsets);
        self.sequences.push(sequence);
        self.words.push(word);
        self.special.push(sequence.is_none());
    }
}

/// A text, or a pair of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextInput<'t> {
    /// One text.
    Single(&'t str),
    /// Two texts in one sequence, such as a query and a document.
    Pair(&'t str, &'t str),
}

impl<'t> From<&'t str> for TextInput<'t> {
    fn from(text: &'t str) -> Self {
        TextInput::Single(text)
    }
}

impl<'t> From<&'t String> for TextInput<'t> {
    fn from(text: &'t String) -> Self {
        TextInput::Single(text)
    }
}

impl<'t> From<(&'t str, &'t str)> for TextInput<'t> {
    fn from((first, second): (&'t str, &'t str)) -> Self {
        TextInput::Pair(first, second)
    }
}

/// How to encode: with the special tokens of the directory and without a limit of the length by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// Whether to add the special tokens.
    pub special_tokens: SpecialTokens,
    /// How a text that is too long is cut.
    pub truncation: Option<Truncation>,
}

/// Whether encoding adds special tokens, or decoding keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SpecialTokens {
    /// They are added, or kept.
    #[default]
    With,
    /// They are not added, or left out.
    Without,
}

impl EncodeOptions {
    /// With special tokens, without a limit of the length.
    pub fn new() -> EncodeOptions {
        EncodeOptions::default()
    }

    /// Sets [`EncodeOptions::special_tokens`].
    pub fn with_special_tokens(self, special_tokens: SpecialTokens) -> EncodeOptions {
        EncodeOptions { special_tokens, ..self }
    }

    /// Sets [`EncodeOptions::truncation`].
    pub fn with_truncation(self, truncation: Truncation) -> EncodeOptions {
        EncodeOptions { truncation: Some(truncation), ..self }
    }
}

/// How a text that is too long is cut: by transformers' rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Truncation {
    /// Maximum number of tokens, special tokens included.
    pub max_length: usize,
    /// Which text of a pair is cut.
    pub strategy: TruncateWhich,
    /// Tokens that a window of [`Encoding::overflowing`] has in common with the one before it; `None` makes no
    /// windows.
    pub stride: Option<usize>,
    /// The side that is cut; that of the directory by default.
    pub side: Option<Side>,
}

/// A side of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Side {
    /// Its end.
    #[default]
    Right,
    /// Its start.
    Left,
}

/// Which text of a pair is cut: transformers' `truncation` argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TruncateWhich {
    /// `longest_first`: tokens are taken from the longer one.
    #[default]
    LongestFirst,
    /// `only_first`.
    OnlyFirst,
    /// `only_second`.
    OnlySecond,
}

impl Truncation {
    /// At most `max_length` tokens, by `longest_first`, without windows.
    pub fn new(max_length: usize) -> Truncation {
        Truncation { max_length, strategy: TruncateWhich::default(), stride: None, side: None }
    }

    /// Sets [`Truncation::strategy`].
    pub fn with_strategy(self, strategy: TruncateWhich) -> Truncation {
        Truncation { strategy, ..self }
    }

    /// Sets [`Truncation::stride`].
    pub fn with_stride(self, stride: usize) -> Truncation {
        Truncation { stride: Some(stride), ..self }
    }

    /// Sets [`Truncation::side`].
    pub fn with_side(self, side: Side) -> Truncation {
        Truncation { side: Some(side), ..self }
    }
}
