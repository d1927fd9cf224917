//! Text in, text out: embeddings, scores, labels and generated text from a model directory.

#![forbid(unsafe_code)]

mod activation;
mod batch;
mod batches;
mod classifier;
mod embedder;
mod encoder;
mod error;
mod fill_mask;
mod generator;
mod labels;
mod pipeline;
mod question_answerer;
mod reranker;
mod scores;
mod sentence_transformers;
mod token_classifier;
mod tokenizer;

pub use activation::Activation;
pub use classifier::{
    ClassifyOptions, LabelScore, TextClassifier, ZeroShotLabels, ZeroShotOptions, ZeroShotScores,
};
pub use embedder::{
    Codes, EmbedMethod, EmbedOptions, Embeddings, Normalization, Quantization, QuantizationRanges,
    QuantizedEmbeddings, Similarity, TextEmbedder,
};
#[doc(hidden)]
pub use error::visible;
pub use error::{Error, Result};
pub use fill_mask::{FillMask, FillMaskOptions, MaskFill};
pub use generator::{GeneratedText, TextGenerator, TextPiece, TextStream};
pub use question_answerer::{Align, Answer, AnswerOptions, Impossible, QuestionAnswerer};
pub use reranker::{LabelScores, PairScores, Ranked, RerankOptions, Reranker};
pub use scores::ScoreFunction;
pub use token_classifier::{Aggregation, Entity, TokenClassifier, TokenClassifyOptions};
pub use tokenizer::{
    CleanUpSpaces, DecodeOptions, DecodeStream, EncodeOptions, Encoding, Side, SpecialToken, SpecialTokens,
    TextInput, Tokenizer, TruncateWhich, Truncation,
};

pub use rachis;
