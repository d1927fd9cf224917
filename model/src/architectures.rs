//! The architectures: each file has the weight names and the wiring of one, its folder the configuration.

pub mod bart;
pub mod bert;
pub(crate) mod causal;
pub mod falcon;
pub mod opt;
pub(crate) mod seq2seq;
pub mod t5;
