//! The architectures: a file each with its formula, weight names and wiring, and a folder with its configuration.
//! [`causal`], [`seq2seq`] and [`encoder`] are the forward passes that several of them share.

pub mod bart;
pub mod bert;
pub(crate) mod causal;
pub(crate) mod encoder;
pub mod falcon;
pub mod opt;
pub(crate) mod seq2seq;
pub mod t5;
