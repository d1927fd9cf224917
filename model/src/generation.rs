//! Generation: prompts in, sequences of tokens out ([`generate()`]).
//!
//! A [`GenerationConfig`] says what is asked for. Of every row of scores, processors first forbid and force tokens
//! (`processors`); then a sampler picks one (`sample`), or a beam search extends its best sequences (`beam`).
//! Rows share nothing, and random numbers belong to a sequence: what is generated for a prompt does not depend on
//! the prompts beside it.
//!
//! The rules are those of transformers 5.23 `generate`, and where a sampler of KerasHub 0.32 is asked for, its own.
//! Both are followed in what they select; random numbers are this crate's (the libraries' differ between their own
//! backends). Lengths and repetitions are counted on a sequence's own tokens: transformers counts the padding on
//! the left of shorter prompts, too, and so gives another answer in a batch than alone.
//!
//! Scores are f32. A NaN is never chosen while there is anything else, and no score makes a search panic or run on.

mod beam;
mod config;
mod contrastive;
mod generate;
mod processors;
mod sample;
mod scores;
mod strategy;

pub use config::GenerationConfig;
pub use generate::{Generated, GenerationInputs, Progress, Watcher, generate};
pub use strategy::{BeamRule, BeamSearch, Choice, Contrastive, EarlyStopping, Sampler, Strategy};
