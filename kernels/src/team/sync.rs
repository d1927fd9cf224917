//! What the protocol of [`region`](super::region) is written with. The crate in `loom/` compiles it with its own versions,
//! which try every order of the operations.

pub(super) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
pub(super) use std::thread::yield_now;

/// Marks the memory of a region for the checker: each use must come before its end. Nothing here.
#[derive(Debug)]
pub(super) struct Lifetime;

impl Lifetime {
    pub(super) fn new() -> Lifetime {
        Lifetime
    }

    pub(super) fn touch(&self) {}

    pub(super) fn end(&self) {}
}
