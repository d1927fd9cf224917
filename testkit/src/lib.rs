//! Tools for the tests of this workspace: f64 oracles, tolerances, shapes, data, and readers of golden files.
//!
//! The crate depends on none of the crates that it helps to test, so that it cannot share their mistakes: an oracle is the
//! textbook formula in f64, and a level or a view is a parameter of the test.

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
