//! When a call ends early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};

/// What ends the calls of a session early. Checked before every micro-batch of every layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Option<Arc<AtomicBool>>,
}

impl Stop {
    /// Whether the call may go on: [`Error::Cancelled`] once the flag is set, which is looked at first, and
    /// [`Error::DeadlineExceeded`] once the deadline has passed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::DeadlineExceeded);
        }
        Ok(())
    }
}
