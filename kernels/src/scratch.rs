//! Working memory that a caller keeps between calls, so that a repeated call allocates nothing.

use crate::error::{Error, Result};

/// A cache line of f32.
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A 64-byte aligned buffer of f32 that grows when a call needs more, and never shrinks.
#[derive(Debug, Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Grows to at least `len` elements, so that later calls that need no more do not allocate. Growing loses the contents.
    /// The system provides a page when it is first written.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the allocation fails.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        let lines = len.div_ceil(16);
        if self.lines.len() < lines {
            self.lines = bytemuck::try_zeroed_vec(lines)
                .map_err(|()| Error::OutOfMemory { bytes: len.saturating_mul(4) })?;
        }
        Ok(())
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// The first `len` elements, growing first if needed. Contents are unspecified.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the allocation fails.
    pub fn take(&mut self, len: usize) -> Result<&mut [f32]> {
        self.reserve(len)?;
        Ok(&mut bytemuck::cast_slice_mut(&mut self.lines)[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_kept() {
        let mut scratch = Scratch::new();
        let at = scratch.take(100).unwrap().as_ptr();
        assert_eq!(at.align_offset(64), 0);
        assert_eq!(scratch.bytes(), 7 * 64);
        assert_eq!(scratch.take(112).unwrap().as_ptr(), at);
        assert_eq!(scratch.take(3).unwrap().len(), 3);
        assert!(matches!(scratch.take(usize::MAX / 8), Err(Error::OutOfMemory { .. })));
    }
}
