//! Text in, text out: embeddings, scores, labels and generated text from a model directory.

#![forbid(unsafe_code)]

mod activation;
mod batches;
mod embedder;
mod encoder;
mod error;
mod generator;
mod pipeline;
mod reranker;
mod sentence_transformers;
mod tokenizer;

pub use activation::Activation;
pub use embedder::{
    Codes, EmbedMethod, EmbedOptions, Embeddings, Normalization, Quantization, QuantizationRanges,
    QuantizedEmbeddings, Similarity, TextEmbedder,
};
#[doc(hidden)]
pub use error::visible;
pub use error::{Error, Result};
pub use generator::{GeneratedText, TextGenerator, TextPiece, TextStream};
pub use reranker::{LabelScores, PairScores, Ranked, RerankOptions, Reranker};
pub use tokenizer::{
    CleanUpSpaces, DecodeOptions, DecodeStream, EncodeOptions, Encoding, Side, SpecialToken, SpecialTokens,
    TextInput, Tokenizer, TruncateWhich, Truncation,
};

pub use rachis;
