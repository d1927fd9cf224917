//! An allocator that counts, for tests that promise not to allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Constant, and without a destructor: reading it allocates nothing.
    static HERE: Cell<Counts> = const { Cell::new(Counts { allocations: 0, bytes: 0 }) };
}

/// The system's allocator, counting. Install it with `#[global_allocator]`.
///
/// A reallocation counts as an allocation of its new size.
#[derive(Debug, Default)]
pub struct CountingAllocator;

/// How often and how much was allocated; never decreases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Number of allocations.
    pub allocations: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl CountingAllocator {
    /// What all threads have allocated so far.
    pub fn process() -> Counts {
        Counts { allocations: ALLOCATIONS.load(Relaxed), bytes: BYTES.load(Relaxed) }
    }

    /// What the calling thread has allocated so far.
    pub fn thread() -> Counts {
        HERE.get()
    }

    /// What `work` allocates on the calling thread, and its result.
    pub fn measure<R>(work: impl FnOnce() -> R) -> (R, Counts) {
        let before = Self::thread();
        let result = work();
        (result, Self::thread() - before)
    }

    fn count(bytes: usize) {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes as u64, Relaxed);
        // A thread that is shutting down has no counter any more.
        let _ = HERE.try_with(|here| {
            let Counts { allocations, bytes: total } = here.get();
            here.set(Counts { allocations: allocations + 1, bytes: total + bytes as u64 });
        });
    }
}

impl core::ops::Sub for Counts {
    type Output = Counts;

    fn sub(self, before: Counts) -> Counts {
        Counts { allocations: self.allocations - before.allocations, bytes: self.bytes - before.bytes }
    }
}

// SAFETY: every call is the system allocator's, with the caller's own arguments and obligations; counting
// touches no memory of the allocation and does not unwind.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count(size);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: CountingAllocator = CountingAllocator;

    #[test]
    fn allocations_of_this_thread_are_counted() {
        let (v, counts) = CountingAllocator::measure(|| Vec::<u8>::with_capacity(1000));
        assert_eq!(counts, Counts { allocations: 1, bytes: 1000 });
        let process = CountingAllocator::process();
        let (_, none) = CountingAllocator::measure(|| v.len());
        assert_eq!(none, Counts::default());
        let elsewhere = std::thread::spawn(|| CountingAllocator::measure(|| vec![0u8; 64]).1).join().unwrap();
        assert_eq!(elsewhere.allocations, 1);
        assert!((CountingAllocator::process() - process).bytes >= 64);
    }
}
