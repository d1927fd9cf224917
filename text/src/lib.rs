//! Text in, text out: embeddings, scores, labels and generated text from a model directory of Hugging Face or KerasHub.
//!
//! ```no_run
//! use rachis_text::{TextEmbedder, rachis::{Ctx, Session}};
//!
//! # fn main() -> rachis_text::Result<()> {
//! let embedder = TextEmbedder::from_preset("models/all-MiniLM-L6-v2")?;
//! let mut session = Session::new(Ctx::detect());
//! let vectors = embedder.embed(&mut session, &["The gulls sit on the pier.", "Birds rest by the sea."])?;
//! println!("{}", vectors.cosine(0, 1));
//! # Ok(())
//! # }
//! ```
//!
//! # Goals
//!
//! - **The numbers of the reference**, by all the files of a directory that the reference library reads. A setting that would
//!   change the numbers and is not implemented is an error that names it.
//! - **Shared and bounded.** A task is `Send + Sync`, read only, and used by reference with the [`Session`] of the caller. It
//!   starts no thread and keeps nothing that grows.
//! - **The same bits in any batch.** Texts are put into ragged batches by a budget of tokens, and results come in the order
//!   of the texts.
//! - **Untrusted files and texts** give one typed [`Error`] of one line.
//!
//! # Which class equals which
//!
//! | type | Hugging Face directory | Keras directory (keras-hub 0.32) |
//! |---|---|---|
//! | [`Tokenizer`] | `AutoTokenizer` of transformers 5.24 | the tokenizers of BERT, BART, OPT, Falcon and T5 |
//! | [`TextEmbedder`] | `SentenceTransformer` of sentence-transformers 6.2 | `BertTextEmbedder` |
//! | [`Reranker`] | `CrossEncoder` of sentence-transformers 6.2 | |
//! | [`TextClassifier`] | `pipeline("text-classification")`, `("zero-shot-classification")` | `BertTextClassifier` |
//! | [`TokenClassifier`] | `pipeline("token-classification")` | |
//! | [`QuestionAnswerer`] | `pipeline("question-answering")` of transformers 4.44 | |
//! | [`FillMask`] | `pipeline("fill-mask")` | `BertMaskedLM` (logits) |
//! | [`TextGenerator`] | `generate`, `pipeline("text-generation")` | `BartSeq2SeqLM`, `OPTCausalLM`, `FalconCausalLM`, T5 |
//!
//! Tokenizers are those of the classes `BertTokenizer`, `BertJapaneseTokenizer` (words by `basic`, or none),
//! `DistilBertTokenizer`, `MPNetTokenizer`, `HerbertTokenizer`, `RobertaTokenizer`, `BartTokenizer`, `GPT2Tokenizer`,
//! `T5Tokenizer`, `XLMRobertaTokenizer`, `ByT5Tokenizer` and `PreTrainedTokenizerFast`. Another class is refused by its
//! name, and so are words of Japanese by MeCab, watermarks, assisted and constrained generation, and a module of
//! sentence-transformers other than Transformer, Pooling, Dense, LayerNorm, Normalize and Dropout.
//!
//! Where versions of a library disagree, the newest counts, but for what it lost by mistake; the modules say which.
//!
//! # Features
//!
//! - `hub`: downloads of `hf://` presets, when [`PresetOptions`](rachis::PresetOptions) or the caller ask for them.
//!
//! [`Session`]: rachis::Session

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

/// The README's examples, compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
