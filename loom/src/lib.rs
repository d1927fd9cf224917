//! Checks the protocol of `kernels/src/team/region.rs` for every order of the operations of its threads, as the memory model
//! allows them: `cargo test --manifest-path loom/Cargo.toml`.
//!
//! The source file is the library's own. Its atomics are loom's here, and a region's memory is a cell that loom watches: a
//! visitor that still uses it when its owner ends it is a fault.

#![cfg(test)]

#[path = "../../kernels/src/team/region.rs"]
#[allow(dead_code, clippy::all)]
mod region;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
    pub(super) use loom::thread::yield_now;

    #[derive(Debug)]
    pub(super) struct Lifetime(loom::cell::UnsafeCell<()>);

    impl Lifetime {
        pub(super) fn new() -> Lifetime {
            Lifetime(loom::cell::UnsafeCell::new(()))
        }

        pub(super) fn touch(&self) {
            self.0.with(|_| ());
        }

        pub(super) fn end(&self) {
            self.0.with_mut(|_| ());
        }
    }
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use region::Slot;

/// A cell for each piece, which loom watches: two threads in one piece, or an owner that reads before the piece has ended,
/// are faults.
struct Results([UnsafeCell<u32>; 2]);

// SAFETY: loom reports every unsynchronised use.
unsafe impl Sync for Results {}
unsafe impl Send for Results {}

fn check(regions: u32, visits: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let slot = Arc::new(Slot::new());
        let visitor = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || (0..visits).for_each(|_| _ = slot.visit()))
        };
        for _ in 0..regions {
            let results = Results([UnsafeCell::new(0), UnsafeCell::new(0)]);
            let results = &results;
            // SAFETY: a piece is run once.
            assert!(slot.run(2, &|i| results.0[i].with_mut(|runs| unsafe { *runs += 1 })));
            for runs in &results.0 {
                // SAFETY: the region is closed.
                assert_eq!(runs.with(|runs| unsafe { *runs }), 1);
            }
        }
        visitor.join().unwrap();
    });
}

#[test]
fn a_visitor_leaves_before_the_region_ends() {
    check(1, 1);
}

#[test]
fn a_slot_is_used_again_while_a_visitor_comes_and_goes() {
    check(2, 2);
}
