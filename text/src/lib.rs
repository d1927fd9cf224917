//! Text in, text out: embeddings, scores, labels and generated text from a model directory.

#![forbid(unsafe_code)]

mod embedder;
mod error;
mod tokenizer;

pub use embedder::TextEmbedder;
#[doc(hidden)]
pub use error::visible;
pub use error::{Error, Result};
pub use tokenizer::{
    EncodeOptions, Encoding, Prompting, SpecialToken, SpecialTokens, TextInput, Tokenizer, TruncateWhich,
    Truncation,
};

pub use rachis;
