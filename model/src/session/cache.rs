//! The KV cache of a session: keys and values of the tokens that its sequences have, and of the sources that they
//! attend to.
//!
//! A sequence is a slot: a fixed range of rows in every layer's keys and values. A call first lays out its new rows as
//! *pending*; when its last layer is done, the pending state is *committed*. A call that fails or is cancelled in
//! between leaves the committed state as it was.

mod kv;
mod options;

use core::ops::Range;

use rachis_kernels::{Dtype, Precision, Scratch, Span};

pub(crate) use kv::{CachedKv, CrossKv, SelfKv};
pub(crate) use options::CacheLayout;
pub use options::CacheOptions;

use super::{Identity, Prefix, RowLayout};
use crate::error::{RequestError, Result, try_reserve};

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct KvCache {
    /// The model whose keys and values these are.
    model: Option<Identity>,
    layout: CacheLayout,
    dtype: Dtype,
    capacity: usize,
    /// Keys and values of sequences.
    self_memory: Scratch,
    /// Keys and values of sources.
    cross_memory: Scratch,
    sequences: Vec<Sequence>,
    /// The position of every row of the cache.
    positions: Vec<u32>,
    /// The rows of each source.
    sources: Vec<Range<usize>>,
    /// For each sequence of the call: its new rows, and all rows that it will have.
    self_spans: Vec<Span>,
    /// For each run of sequences of one source: their new rows, and the rows of the source.
    cross_spans: Vec<Span>,
}

/// The state of a sequence.
#[derive(Debug, Clone, Copy, Default)]
struct Sequence {
    committed: Prefix,
    /// With the tokens of the call that is running.
    pending: Prefix,
}

/// Keys and values of sequences, as a stack uses them.
pub(crate) struct SelfCache<'a> {
    pub(crate) kv: SelfKv<'a>,
    /// New rows, and the rows of the cache that they attend to.
    pub(crate) spans: &'a [Span],
    /// The position of every row of the cache.
    pub(crate) positions: &'a [u32],
}

/// Keys and values of sources, as a stack uses them.
pub(crate) struct CrossCache<'a> {
    pub(crate) kv: CrossKv<'a>,
    /// New rows, and the rows of the sources that they attend to.
    pub(crate) spans: &'a [Span],
}

/// Rows from the start of one slot to the start of the next: a multiple of 16, so that each slot begins at a whole
/// cache line.
fn slot_stride(capacity: usize) -> usize {
    capacity.next_multiple_of(16)
}

/// The largest capacity of a sequence.
const MAX_CAPACITY: usize = 1 << 20;

impl KvCache {
    /// Forgets everything and allocates. `precision` decides the type of keys and values unless the options do.
    pub(crate) fn start(
        &mut self,
        model: &Identity,
        layout: CacheLayout,
        options: CacheOptions,
        precision: Precision,
    ) -> Result<()> {
        let CacheOptions { sequences, capacity, dtype } = options;
        self.sequences.clear();
        self.sources.clear();
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            return Err(RequestError::CapacityRange { found: capacity, max: MAX_CAPACITY }.into());
        }
        if sequences == 0 {
            return Err(RequestError::NoSequences.into());
        }
        let dtype = dtype.unwrap_or(precision.operand_dtype());
        let rows = slot_stride(capacity).checked_mul(sequences);
        let rows = rows.filter(|rows| u32::try_from(*rows).is_ok());
        let len = rows.and_then(|rows| {
            [layout.width, layout.layers, 2].iter().try_fold(rows, |len, by| len.checked_mul(*by))
        });
        let (Some(rows), Some(len)) = (rows, len) else {
            return Err(RequestError::CacheSize { sequences, capacity }.into());
        };
        self.self_memory.reserve(kv::f32_len(dtype, len))?;
        self.positions.clear();
        try_reserve(&mut self.positions, rows)?;
        try_reserve(&mut self.self_spans, sequences)?;
        try_reserve(&mut self.cross_spans, sequences)?;
        try_reserve(&mut self.sequences, sequences)?;
        self.positions.resize(rows, 0);
        self.sequences.resize(sequences, Sequence::default());
        (self.layout, self.dtype, self.capacity) = (layout, dtype, capacity);
        self.model = Some(model.clone());
        Ok(())
    }

    /// Checks that the cache was started for this model.
    pub(crate) fn expect(&self, model: &Identity) -> Result<()> {
        if self.sequences.is_empty() || self.model.as_ref() != Some(model) {
            return Err(RequestError::CacheNotStarted.into());
        }
        Ok(())
    }

    /// A bound that all positions in the cache are less than.
    pub(crate) fn positions_end(&self) -> usize {
        self.positions.iter().max().map_or(0, |last| *last as usize + 1).max(self.capacity)
    }

    /// The committed tokens of a sequence.
    pub(crate) fn committed(&self, sequence: usize) -> Option<Prefix> {
        self.sequences.get(sequence).map(|sequence| sequence.committed)
    }

    /// Lays out where the new rows of some sequences go and what they attend to: the pending state.
    pub(crate) fn extend(&mut self, sequences: &[usize], rows: &RowLayout) -> Result<()> {
        self.self_spans.clear();
        self.cross_spans.clear();
        for sequence in &mut self.sequences {
            sequence.pending = sequence.committed;
        }
        let stride = slot_stride(self.capacity);
        let per_source = self.sequences_per_source();
        for (number, span) in sequences.iter().zip(&rows.spans) {
            let count = self.sequences.len();
            let Some(sequence) = self.sequences.get_mut(*number) else {
                return Err(RequestError::UnknownSequence { sequence: *number, count }.into());
            };
            if sequence.pending.tokens != sequence.committed.tokens {
                return Err(RequestError::RepeatedSequence { sequence: *number }.into());
            }
            let (first, Range { start, end }) = (number * stride, span.queries.clone());
            let tokens = sequence.committed.tokens + (end - start);
            if tokens > self.capacity {
                let capacity = self.capacity;
                return Err(
                    RequestError::CapacityExceeded { sequence: *number, found: tokens, capacity }.into()
                );
            }
            let new = first + sequence.committed.tokens..first + tokens;
            self.positions[new].copy_from_slice(&rows.positions[start..end]);
            let positions = rows.positions[end - 1] as usize + 1;
            sequence.pending = Prefix { positions, tokens };
            self.self_spans.push(Span { queries: start..end, keys: first..first + tokens });
            let Some(source) = self.sources.get(number / per_source) else { continue };
            match self.cross_spans.last_mut() {
                // Consecutive sequences of one source share a span, so that the source's keys are read once.
                Some(last) if last.keys == *source && last.queries.end == start => last.queries.end = end,
                _ => self.cross_spans.push(Span { queries: start..end, keys: source.clone() }),
            }
        }
        if self.layout.cross && self.sources.is_empty() {
            return Err(RequestError::NoSources.into());
        }
        Ok(())
    }

    /// The cache for the pending call: of sequences, and of sources where the model attends to any.
    pub(crate) fn pending(&mut self) -> Result<(SelfCache<'_>, Option<CrossCache<'_>>)> {
        let CacheLayout { layers, width, cross } = self.layout;
        let dtype = self.dtype;
        let shape = [self.positions.len(), width];
        let len = 2 * layers * kv::f32_len(dtype, self.positions.len() * width);
        let kv = SelfKv::new(self.self_memory.take(len)?, dtype, shape);
        let own = SelfCache { kv, spans: &self.self_spans, positions: &self.positions };
        let rows = self.sources.last().map_or(0, |last| last.end);
        let shape = [rows, 2 * width];
        let memory = self.cross_memory.take(layers * kv::f32_len(dtype, rows * 2 * width))?;
        let cross = cross
            .then(|| CrossCache { kv: CrossKv::new(memory, dtype, shape, layers), spans: &self.cross_spans });
        Ok((own, cross))
    }

    /// Commits the pending call.
    pub(crate) fn commit(&mut self) {
        for sequence in &mut self.sequences {
            sequence.committed = sequence.pending;
        }
    }

    /// Forgets the sources and gives memory for the keys and values of new ones with these spans.
    pub(crate) fn replace_sources(&mut self, spans: &[Span]) -> Result<CrossKv<'_>> {
        let (sequences, sources) = (self.sequences.len(), spans.len());
        if sources == 0 || !sequences.is_multiple_of(sources) {
            return Err(RequestError::SourceCount { sources, sequences }.into());
        }
        self.sources.clear();
        let rows = spans.last().map_or(0, |span| span.keys.end);
        let (dtype, layers) = (self.dtype, self.layout.layers);
        let shape = [rows, 2 * self.layout.width];
        let len = layers * kv::f32_len(dtype, shape.iter().product());
        try_reserve(&mut self.sources, sources)?;
        Ok(CrossKv::new(self.cross_memory.take(len)?, dtype, shape, layers))
    }

    /// Commits sources whose keys and values are complete.
    pub(crate) fn commit_sources(&mut self, spans: &[Span]) {
        self.sources.extend(spans.iter().map(|span| span.keys.clone()));
    }

    /// Forgets the tokens of a sequence.
    pub(crate) fn clear(&mut self, sequence: usize) -> Result<()> {
        *self.sequence(sequence)? = Sequence::default();
        Ok(())
    }

    /// Makes sequence `to` a copy of sequence `from`.
    pub(crate) fn copy(&mut self, from: usize, to: usize) -> Result<()> {
        let sequence = *self.sequence(from)?;
        self.sequence(to)?;
        if self.source(from) != self.source(to) {
            return Err(RequestError::DifferentSources { from, to }.into());
        }
        *self.sequence(to)? = sequence;
        let (stride, rows) = (slot_stride(self.capacity), sequence.committed.tokens);
        self.positions.copy_within(from * stride..from * stride + rows, to * stride);
        let (dtype, width) = (self.dtype, self.layout.width);
        let matrix = kv::f32_len(dtype, self.positions.len() * width);
        let memory = self.self_memory.take(2 * self.layout.layers * matrix)?;
        // Slot strides are even, so that 16-bit elements fill whole elements of f32.
        let [from, to, len] = [from * stride, to * stride, rows].map(|rows| kv::f32_len(dtype, rows * width));
        for matrix in memory.chunks_exact_mut(matrix.max(1)) {
            matrix.copy_within(from..from + len, to);
        }
        Ok(())
    }

    /// How many consecutive sequences share a source.
    fn sequences_per_source(&self) -> usize {
        (self.sequences.len() / self.sources.len().max(1)).max(1)
    }

    /// The rows of a sequence's source, if it has one.
    fn source(&self, number: usize) -> Option<&Range<usize>> {
        self.sources.get(number / self.sequences_per_source())
    }

    fn sequence(&mut self, sequence: usize) -> Result<&mut Sequence> {
        let count = self.sequences.len();
        let unknown = RequestError::UnknownSequence { sequence, count };
        Ok(self.sequences.get_mut(sequence).ok_or(unknown)?)
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.self_memory.bytes() + self.cross_memory.bytes()
    }
}
