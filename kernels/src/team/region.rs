//! Parallel regions: pieces of a task, each of which is run once by the thread that claims it.
//!
//! A region lies on the stack of the thread that opened it. Other threads find it through a [`Slot`], which outlives the
//! region: it counts its visitors, and a region is closed only when none is left. This is the only unsafe code of the
//! module; the crate in `loom/` checks the protocol for every order of its operations.

use core::any::Any;
use core::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use super::sync::{AtomicBool, AtomicPtr, AtomicUsize, Lifetime, Ordering, fence, yield_now};

/// Pieces `0..len` of a task.
struct Region<'t> {
    task: &'t (dyn Fn(usize) + Sync),
    len: usize,
    /// The next piece that no thread has claimed.
    next: AtomicUsize,
    /// What the first piece that panicked threw.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    lifetime: Lifetime,
}

impl Region<'_> {
    /// Claims pieces and runs them until none is left; returns whether there was any. After a panic no more are begun.
    fn work(&self) -> bool {
        self.lifetime.touch();
        let mut worked = false;
        while self.next.load(Ordering::Relaxed) < self.len {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.len {
                break;
            }
            worked = true;
            if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| (self.task)(piece))) {
                self.next.store(self.len, Ordering::Relaxed);
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(thrown);
            }
        }
        worked
    }
}

/// The place where other threads find an open region.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Slot {
    /// Whether a region has this slot, from before it is opened until after it is closed.
    taken: AtomicBool,
    /// The region while it is open, else null.
    region: AtomicPtr<Region<'static>>,
    /// Threads that may be using the region.
    visitors: AtomicUsize,
}

impl Slot {
    pub(super) fn new() -> Slot {
        Slot {
            taken: AtomicBool::new(false),
            region: AtomicPtr::new(core::ptr::null_mut()),
            visitors: AtomicUsize::new(0),
        }
    }

    /// Runs `task` on each of `0..len`, on this thread and on those that [visit](Slot::visit) meanwhile. Returns false, and
    /// does nothing, if another region has the slot.
    ///
    /// # Panics
    /// With the payload of a piece that panicked, after the pieces that had begun have ended.
    pub(super) fn run(&self, len: usize, task: &(dyn Fn(usize) + Sync)) -> bool {
        if self.taken.swap(true, Ordering::Acquire) {
            return false;
        }
        let (next, panic) = (AtomicUsize::new(0), Mutex::new(None));
        let region = Region { task, len, next, panic, lifetime: Lifetime::new() };
        let pointer = (&raw const region).cast::<Region<'static>>().cast_mut();
        self.region.store(pointer, Ordering::Release);
        // Neither this nor what follows unwinds before the region is closed.
        region.work();
        // A visitor counts itself before it reads the pointer. The fence here and the one there see to it that a visitor
        // that is not counted below reads null.
        self.region.store(core::ptr::null_mut(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while self.visitors.load(Ordering::Acquire) > 0 {
            (0..SPINS).for_each(|_| spin_loop());
            yield_now();
        }
        region.lifetime.end();
        self.taken.store(false, Ordering::Release);
        if let Some(thrown) = region.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(thrown);
        }
        true
    }

    /// Runs pieces of the region that is open here, if any; returns whether there was one to run.
    pub(super) fn visit(&self) -> bool {
        if self.region.load(Ordering::Relaxed).is_null() {
            return false;
        }
        self.visitors.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let region = self.region.load(Ordering::Acquire);
        // SAFETY: a region that is not null here is closed, and its memory given up, only after this visitor is gone. Its
        // task is `Sync`, and its lifetime is at least that of the region.
        let worked = !region.is_null() && unsafe { (*region).work() };
        self.visitors.fetch_sub(1, Ordering::Release);
        worked
    }
}

/// Spin-loop hints before a waiting thread yields to the system's scheduler.
const SPINS: usize = 4;
