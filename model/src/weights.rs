//! A model's weights: where they come from, and how they are written.

mod random;
mod save;
mod source;

pub(crate) use random::Random;
pub use save::Storage;
pub(crate) use save::{Piece, Tensors};
pub(crate) use source::{Init, Naming, Role, Scope, Source, Weight};
