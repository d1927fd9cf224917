//! Text generation: prompts in, sequences of tokens out ([`generate()`]).
//!
//! A [`GenerationConfig`] has transformers' arguments. At every step logits processors first change the scores of the
//! next token (`processors`): they penalise repetition, and suppress and force tokens. Then a sampler chooses one token
//! (`sample`), or a beam search extends its best hypotheses (`beam`).
//!
//! # Whose results
//! Selection follows transformers 5.23 `generate`, and KerasHub 0.32 where one of its samplers is chosen. Random
//! numbers are this crate's own: the libraries' already differ between their own backends. Lengths and repetitions
//! are counted on a sequence's own tokens. transformers also counts the padding to the left of shorter prompts, so
//! its result for a prompt may differ in a batch; here it does not.
//!
//! # Invariants
//! Sequences share no state, and each has its own stream of random numbers: what is generated for a prompt does not
//! depend on the other prompts of the batch.
//!
//! Scores are f32. NaN is never chosen while any other score exists, and no score makes a search panic or run forever.

mod beam;
mod config;
mod contrastive;
mod generate;
mod keras_sampler;
mod processors;
mod sample;
mod scores;
mod strategy;

pub use config::GenerationConfig;
pub use generate::{Generated, GenerationInputs, Progress, Watcher, generate};
pub use keras_sampler::KerasSampler;
pub use strategy::{
    BeamRule, BeamSearch, ContrastiveSearch, EarlyStopping, Sampler, SamplingMethod, Strategy,
};
