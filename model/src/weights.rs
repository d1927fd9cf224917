//! A model's weights: where they come from, and how they are written.

mod init;
mod random;
mod save;
mod source;
mod tied;
mod weight;

pub(crate) use init::Init;
pub(crate) use random::Random;
pub(crate) use save::{RowBlock, Tensors};
pub(crate) use source::{Naming, Role, Scope, WeightSource};
pub(crate) use tied::first_held;
pub(crate) use weight::Weight;
