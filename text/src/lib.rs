//! Text in, text out: embeddings, scores, labels and generated text from a model directory.

#![forbid(unsafe_code)]

mod batch;
mod classifier;
mod embedder;
mod error;
mod fill_mask;
mod labels;
mod question_answerer;
mod scores;
mod token_classifier;
mod tokenizer;

pub use classifier::{
    ClassifyOptions, LabelScore, TextClassifier, ZeroShotLabels, ZeroShotOptions, ZeroShotScores,
};
pub use embedder::TextEmbedder;
#[doc(hidden)]
pub use error::visible;
pub use error::{Error, Result};
pub use fill_mask::{FillMask, FillMaskOptions, MaskFill};
pub use question_answerer::{Align, Answer, AnswerOptions, Impossible, QuestionAnswerer};
pub use scores::ScoreFunction;
pub use token_classifier::{Aggregation, Entity, TokenClassifier, TokenClassifyOptions};
pub use tokenizer::{
    CleanUpSpaces, DecodeOptions, DecodeStream, EncodeOptions, Encoding, Prompting, Side, SpecialToken,
    SpecialTokens, TextInput, Tokenizer, TruncateWhich, Truncation,
};

pub use rachis;
