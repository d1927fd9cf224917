//! An allocator that counts its calls, for tests of code that must not allocate, or not keep what it allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Constant, and without a destructor: reading it allocates nothing.
    static OF_THREAD: Cell<Counts> = const { Cell::new(Counts { allocations: 0, bytes: 0 }) };
}

/// The system's allocator, which also counts. Install it with `#[global_allocator]`.
///
/// A reallocation counts as an allocation of its new size.
#[derive(Debug, Default)]
pub struct CountingAllocator;

/// How often and how much was allocated. Counts never decrease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Number of allocations.
    pub allocations: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl CountingAllocator {
    /// The allocations of all threads since the process started.
    pub fn process() -> Counts {
        Counts { allocations: ALLOCATIONS.load(Relaxed), bytes: BYTES.load(Relaxed) }
    }

    /// Bytes of all threads that are allocated now.
    pub fn live() -> u64 {
        LIVE.load(Relaxed)
    }

    /// Runs `work`; returns its result, and the most bytes that were allocated at once meanwhile, those before included.
    pub fn peak<R>(work: impl FnOnce() -> R) -> (R, u64) {
        PEAK.store(Self::live(), Relaxed);
        let result = work();
        (result, PEAK.load(Relaxed))
    }

    /// The allocations of the calling thread since it started.
    pub fn thread() -> Counts {
        OF_THREAD.get()
    }

    /// Runs `work`; returns its result and its allocations on the calling thread.
    pub fn measure<R>(work: impl FnOnce() -> R) -> (R, Counts) {
        let before = Self::thread();
        let result = work();
        (result, Self::thread() - before)
    }

    fn count(bytes: usize) {
        let live = LIVE.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        PEAK.fetch_max(live, Relaxed);
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes as u64, Relaxed);
        // A thread that is shutting down has no counter any more.
        let _ = OF_THREAD.try_with(|counts| {
            let Counts { allocations, bytes: total } = counts.get();
            counts.set(Counts { allocations: allocations + 1, bytes: total + bytes as u64 });
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
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
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
        let of_other = std::thread::spawn(|| CountingAllocator::measure(|| vec![0u8; 64]).1).join().unwrap();
        assert_eq!(of_other.allocations, 1);
        assert!((CountingAllocator::process() - process).bytes >= 64);
    }

    #[test]
    fn freed_memory_is_not_live() {
        let before = CountingAllocator::live();
        let (kept, peak) = CountingAllocator::peak(|| {
            drop(vec![0u8; 1 << 24]);
            vec![0u8; 1 << 20]
        });
        // Other tests run meanwhile.
        assert!(peak >= before + (1 << 24) - 4096, "{peak} of {before}");
        let live = CountingAllocator::live();
        assert!(live.abs_diff(before + (1 << 20)) < 1 << 16, "{live} of {before}");
        drop(kept);
    }
}
