//! Micro-batches, and the division of a batch among threads.
//!
//! A batch goes through a layer one micro-batch at a time: as many whole sequences as fit in [`ROWS_PER_THREAD`] rows
//! for each thread. So what one product writes is still in the core's own cache when the next product reads it.
//!
//! Where a batch has enough sequences for all threads, each thread takes its own share of them through a layer by
//! itself, and meets the others only at the end of the layer. Otherwise the threads share every product. Neither
//! choice changes a bit of any result.

use core::ops::Range;

use rachis_kernels::{Ctx, Scratch, Span};

use crate::error::{Result, try_reserve};
use crate::layers::buffers::{LayerBuffers, RowSizes, split_off};
use crate::session::Extent;

/// Rows of a micro-batch for each thread, unless a single sequence has more. Measured with layers 384 and 768 wide,
/// from 128 rows to all of 2048: with fewer rows the weights are read more often than that saves, and with more than
/// 512 the results leave the cache.
const ROWS_PER_THREAD: usize = 384;

/// The smallest number of rows of this width for which a thread takes a share of its own. With fewer, it takes a thread
/// longer to read all weights than to wait for another thread that reads half of them. Measured on two threads with two
/// sequences of 16 to 128 rows: at width 384 a share pays with 32 rows and costs as much with 16; at width 768 it pays
/// from about 48 rows in f32 and from 64 in bf16.
fn min_rows(width: usize) -> usize {
    width.div_ceil(12).max(1)
}

/// Number of threads beside the calling one that may take shares of their own, for rows of this width.
pub(crate) fn worker_count(ctx: &Ctx, extent: Extent, width: usize) -> usize {
    let Extent { rows, positions: longest } = extent;
    let threads = ctx.threads();
    if rows > longest && rows / threads >= min_rows(width) { threads - 1 } else { 0 }
}

/// The longest share may take this many times as long as the average: sharing each product costs as much.
const MAX_IMBALANCE: f64 = 1.2;

/// What a thread needs for itself during a call.
#[derive(Debug, Default)]
pub(crate) struct ThreadScratch {
    /// Scratch of the kernels. The calling thread's is also used by products that all threads share.
    pub(crate) scratch: Scratch,
    /// The spans of the thread's micro-batch.
    pub(crate) spans: MicroBatchSpans,
    /// The first row of the thread's share.
    start: usize,
}

/// The scratch of all threads of a call.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    pub(crate) caller: ThreadScratch,
    pub(crate) workers: Vec<ThreadScratch>,
}

/// Consecutive sequences, the memory of their rows, and the threads that take them through a layer.
pub(crate) struct Share<'w> {
    pub(crate) spans: &'w [Span],
    /// Rows of the longest sequence of the batch.
    pub(crate) longest: usize,
    /// The states of the share's rows.
    pub(crate) states: &'w mut [f32],
    pub(crate) layer: LayerBuffers<'w>,
    pub(crate) caller: &'w mut ThreadScratch,
    /// The other threads, each with its own part of the sequences; empty when all threads share every product.
    pub(crate) workers: &'w mut [ThreadScratch],
}

impl<'w> Share<'w> {
    /// The same share for a shorter lifetime.
    pub(crate) fn reborrow(&mut self) -> Share<'_> {
        let Share { spans, longest, states, layer, caller, workers } = self;
        Share { spans, longest: *longest, states, layer: layer.reborrow(), caller, workers }
    }

    /// The first row.
    pub(crate) fn start(&self) -> usize {
        self.spans.first().map_or(0, |span| span.queries.start)
    }

    /// Two shares of half of the threads each; the whole share and `None` when there is one thread.
    pub(crate) fn halves(mut self, sizes: RowSizes) -> (Share<'w>, Option<Share<'w>>) {
        let near = self.workers.len().div_ceil(2);
        let workers = std::mem::take(&mut self.workers);
        let Some((own, [first, workers @ ..])) = near.checked_sub(1).map(|own| workers.split_at_mut(own))
        else {
            return (self, None);
        };
        self.workers = own;
        let rows = first.start - self.start();
        let (before, spans) =
            self.spans.split_at(self.spans.partition_point(|span| span.queries.start < first.start));
        self.spans = before;
        let states = split_off(&mut self.states, rows * sizes.states);
        let layer = self.layer.split_off(rows_in_flight(near, rows, self.longest), sizes);
        let far = Share { spans, longest: self.longest, states, layer, caller: first, workers };
        (self, Some(far))
    }
}

/// Divides sequences into shares that take about as long: one for the calling thread and one for each worker. Returns
/// false where sharing each product is better.
pub(crate) fn divide(spans: &[Span], hidden: usize, workers: &mut [ThreadScratch]) -> bool {
    // A row meets 12 hidden^2 weights, and 2 hidden numbers of each key, which take several times as long.
    let cost = |span: &Span| span.queries.len() as f64 * (2 * hidden + span.keys.len()) as f64;
    let threads = 1 + workers.len();
    let average = spans.iter().map(cost).sum::<f64>() / threads as f64;
    let (mut rest, mut before) = (spans, 0.0);
    for i in 0..threads {
        let mut load = 0.0;
        let taken = |span: &&Span| {
            let cost = cost(span);
            let inside = i + 1 == threads || before + load + cost / 2.0 < average * (i + 1) as f64;
            load += if inside { cost } else { 0.0 };
            inside
        };
        let count = rest.iter().take_while(taken).count();
        let (share, behind) = rest.split_at(count);
        let rows = share.iter().map(|span| span.queries.len()).sum::<usize>();
        if rows < min_rows(hidden) || load > MAX_IMBALANCE * average {
            return false;
        }
        let worker = i.checked_sub(1).and_then(|i| workers.get_mut(i));
        if let (Some(worker), Some(first)) = (worker, share.first()) {
            worker.start = first.queries.start;
        }
        (rest, before) = (behind, before + load);
    }
    true
}

/// The spans of a micro-batch, whose queries are numbered from its first row.
#[derive(Debug, Default)]
pub(crate) struct MicroBatchSpans {
    /// With the keys of self-attention.
    pub(crate) own: Vec<Span>,
    /// With the keys of the sources.
    pub(crate) cross: Vec<Span>,
}

impl MicroBatchSpans {
    /// Allocates for this many sequences.
    pub(crate) fn try_reserve(&mut self, sequences: usize) -> Result<()> {
        try_reserve(&mut self.own, sequences)?;
        try_reserve(&mut self.cross, sequences)
    }
}

/// The largest number of rows that are in a layer at once, of `rows` rows in sequences of at most `longest`: a
/// micro-batch for each thread.
pub(crate) fn rows_in_flight(threads: usize, rows: usize, longest: usize) -> usize {
    rows.min(longest.max(ROWS_PER_THREAD).saturating_mul(threads))
}

/// The rows of each micro-batch of these consecutive sequences.
pub(crate) fn micro_batches<'a>(
    ctx: &Ctx,
    spans: &'a [Span],
) -> impl Iterator<Item = Range<usize>> + use<'a> {
    let max_rows = ROWS_PER_THREAD * ctx.threads();
    let mut rest = spans;
    std::iter::from_fn(move || {
        let (first, others) = rest.split_first()?;
        let start = first.queries.start;
        let joined = others.iter().take_while(|span| span.queries.end - start <= max_rows).count();
        rest = &others[joined..];
        let last = others[..joined].last().unwrap_or(first);
        Some(start..last.queries.end)
    })
}

/// Writes to `out` the parts of `spans` inside `rows`: queries numbered from the first of `rows`, keys from
/// `first_key`.
pub(crate) fn clip_spans(spans: &[Span], rows: &Range<usize>, first_key: usize, out: &mut Vec<Span>) {
    out.clear();
    let first = spans.partition_point(|span| span.queries.end <= rows.start);
    let inside = spans[first..].iter().take_while(|span| span.queries.start < rows.end);
    out.extend(inside.map(|span| {
        let (start, end) = (span.queries.start.max(rows.start), span.queries.end.min(rows.end));
        Span {
            queries: start - rows.start..end - rows.start,
            keys: span.keys.start - first_key..span.keys.end - first_key,
        }
    }));
}

#[cfg(test)]
mod tests;
