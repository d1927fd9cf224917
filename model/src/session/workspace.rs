//! The working memory of a session, and how much of it a model needs.

use rachis_kernels::{Ctx, Scratch, Span};

use super::{RowLayout, SequenceOutput};
use crate::error::{Result, request};
use crate::layers::{Stack, Threads, matrix, matrix_len};

/// The buffers of a session.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Activations between kernels.
    pub(crate) hidden: Scratch,
    /// What kernels need within a call, and the sequences in a layer now.
    pub(crate) threads: Threads,
    pub(crate) rows: RowLayout,
    /// Of the sequences that a decoder attends to, with the rows of both.
    pub(crate) source: RowLayout,
    pub(crate) cross: Vec<Span>,
    /// The rows' segments.
    pub(crate) segments: Vec<u32>,
}

impl Workspace {
    /// What a stack has left at the start of the activations for the rows of the call.
    pub(crate) fn output(&mut self, stack: &Stack) -> Result<SequenceOutput<'_>> {
        let shape = [self.rows.len(), stack.output_dim()];
        let x = self.hidden.take(matrix_len(shape))?;
        Ok(SequenceOutput { data: matrix(x, shape)?, rows: &self.rows })
    }
}

/// The working memory that a model needs for requests up to some size, in elements of f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Activations between kernels.
    pub(crate) hidden: usize,
    /// Scratch within kernels.
    pub(crate) scratch: usize,
    /// The same for each of so many other threads, where they take sequences through layers by themselves.
    pub(crate) apart: (usize, usize),
}

impl Plan {
    /// For a stack and so many rows, at positions less than `end`.
    pub(crate) fn of(stack: &Stack, ctx: &Ctx, (rows, end): (usize, usize)) -> Plan {
        let hidden = stack.sizes(ctx, (rows, end)).iter().sum();
        Plan { hidden, scratch: stack.scratch_len(ctx, rows), apart: stack.apart(ctx, (rows, end)) }
    }

    /// Bytes of activations and kernel scratch.
    pub fn bytes(&self) -> usize {
        let line = |len: usize| len.div_ceil(16).saturating_mul(64);
        let (others, apart) = self.apart;
        let threads = line(self.scratch).saturating_add(line(apart).saturating_mul(others));
        line(self.hidden).saturating_add(threads)
    }
}

/// The most rows of a request of `batch` sequences of up to `seq` tokens, of which a model takes `most`.
pub(crate) fn rows(batch: usize, (seq, most): (usize, usize)) -> Result<usize> {
    if seq > most {
        return Err(request("sequence length", seq, format!("at most {most}")));
    }
    // Empty sequences count, too: there is something to keep for each.
    let rows = batch.checked_mul(seq.max(1)).filter(|rows| u32::try_from(*rows).is_ok());
    rows.map(|_| batch * seq).ok_or_else(|| request("batch", batch, "at most 2^32 - 1 tokens in all"))
}

/// Pieces of the given lengths, behind one another in `memory`, which grows if need be.
pub(crate) fn carve<const N: usize>(memory: &mut Scratch, lengths: [usize; N]) -> Result<[&mut [f32]; N]> {
    let all = lengths.iter().fold(0usize, |all, len| all.saturating_add(*len));
    let mut rest = memory.take(all)?;
    Ok(lengths.map(|len| {
        let piece;
        (piece, rest) = std::mem::take(&mut rest).split_at_mut(len);
        piece
    }))
}
