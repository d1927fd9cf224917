//! What the tests share.

pub mod goldens;
