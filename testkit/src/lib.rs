//! What the tests of this workspace are made of: f64 oracles, tolerances, shapes, data, and golden readers.
//!
//! The crate knows none of the crates it tests, so that it cannot inherit their mistakes: an oracle is the
//! textbook formula in f64, and a level or a view is whatever the test says it is.

pub mod alloc;
pub mod data;
pub mod goldens;
pub mod grid;
pub mod levels;
pub mod oracle;
pub mod shapes;
pub mod storage;
pub mod tolerance;

pub use alloc::CountingAllocator;
pub use data::{Kind, Rng};
pub use grid::Grid;
pub use levels::for_each_level;
pub use storage::Storage;
