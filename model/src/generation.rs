//! Text generation: prompts in, sequences of tokens out ([`generate()`]).
//!
//! A [`GenerationConfig`] has transformers' arguments; [`GenerationFields`] are the same as a directory and a caller
//! state them. At every step logits processors first change the scores of the next token (`processors`): they penalise
//! repetition, and suppress and force tokens. Then a sampler chooses one token (`sample`), from those that its filters
//! keep (`filters`), or a beam search extends its best hypotheses (`beam`).
//!
//! # Whose results
//! Selection follows transformers 5.24 `generate`, and KerasHub 0.32 where one of its samplers is chosen. Diverse beams
//! and contrastive search follow transformers 4.44, the last versions that have them. Random
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
mod filters;
mod generate;
mod keras_sampler;
mod processors;
mod sample;
mod scores;
mod stop;
mod strategy;

pub use config::{GenerationConfig, GenerationFields, LogProbabilities};
pub use filters::Filters;
pub use generate::{Generated, Generation, GenerationInputs, Progress, Watcher, generate};
pub use keras_sampler::KerasSampler;
pub use stop::StoppingCriterion;
pub use strategy::{
    BeamRule, BeamSearch, Continuations, ContrastiveSearch, EarlyStopping, Sampler, SamplingMethod, Strategy,
};
