//! The KV cache of a session: keys and values of the tokens that sequences have so far, and of the sources they attend to.

use core::ops::Range;

use rachis_kernels::{AnyMatMut, AnyMatRef, MatMut, MatRef, Precision, Scratch, Span, bf16, f16, reuse};

use crate::error::{Result, request, try_reserve};
use crate::session::{RowLayout, Start};

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheDtype {
    /// 4 bytes each.
    #[default]
    Float32,
    /// 2 bytes each, rounded to 8 bits of precision.
    Bfloat16,
    /// 2 bytes each, rounded to 11 bits of precision; values beyond 65504 become infinite.
    Float16,
}

/// What a session makes room for before it decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheOptions {
    /// Number of sequences, which are then called 0, 1, and so on.
    pub sequences: usize,
    /// The most tokens of each.
    pub capacity: usize,
    /// How keys and values are stored; by default what the forward pass computes them in, so that decoding token by
    /// token gives the bits of a forward pass.
    pub dtype: Option<CacheDtype>,
}

/// The sizes of a model's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CacheLayout {
    pub(crate) layers: usize,
    /// Columns of all heads' keys, and of their values.
    pub(crate) width: usize,
    /// Whether layers attend to another sequence as well.
    pub(crate) cross: bool,
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct KvCache {
    layout: CacheLayout,
    dtype: CacheDtype,
    capacity: usize,
    memory: Scratch,
    cross: Scratch,
    sequences: Vec<Sequence>,
    /// Of every row of the cache.
    positions: Vec<u32>,
    /// RowLayout of each source.
    sources: Vec<Range<usize>>,
    /// Of the call under way: new rows with all of their sequence's, and with those of its source.
    spans: Vec<Span>,
    cross_spans: Vec<Span>,
}

/// What is kept of a sequence.
#[derive(Debug, Clone, Copy, Default)]
struct Sequence {
    so_far: Start,
    /// With the tokens of the call under way.
    then: Start,
}

/// The cache as a stack uses it.
pub(crate) struct KeptKeys<'a> {
    pub(crate) store: LayerKeys<'a>,
    pub(crate) spans: &'a [Span],
    pub(crate) positions: &'a [u32],
}

/// Keys, or values, or both: a matrix of rows.
pub(crate) struct Kept<'a> {
    memory: &'a mut [f32],
    dtype: CacheDtype,
    shape: [usize; 2],
}

/// Keys and values of the layers.
pub(crate) struct LayerKeys<'a> {
    memory: &'a mut [f32],
    dtype: CacheDtype,
    shape: [usize; 2],
}

/// Keys and values of sources, and which of them each sequence attends to.
type CrossKept<'a> = (CrossKeys<'a>, &'a [Span]);

/// Keys and values, side by side, of the sequences that layers attend to beside their own.
pub(crate) struct CrossKeys<'a> {
    memory: &'a mut [f32],
    dtype: CacheDtype,
    shape: [usize; 2],
    /// Layers with memory of their own; with one, all use the same.
    layers: usize,
}

/// RowLayout from one sequence to the next: a multiple of 16, so that each begins at a whole cache line.
fn stride(capacity: usize) -> usize {
    capacity.next_multiple_of(16)
}

/// The most tokens of a sequence.
const LARGEST_CAPACITY: usize = 1 << 20;

impl CacheDtype {
    /// What a forward pass stores keys and values in.
    pub(crate) fn of(precision: Precision) -> CacheDtype {
        match precision {
            Precision::Strict | Precision::Bf16x6 => CacheDtype::Float32,
            Precision::Bf16 => CacheDtype::Bfloat16,
        }
    }

    /// Elements of f32 that take as much memory as `len` of these.
    fn room(self, len: usize) -> usize {
        match self {
            CacheDtype::Float32 => len,
            CacheDtype::Bfloat16 | CacheDtype::Float16 => len.div_ceil(2),
        }
    }
}

impl<'a> Kept<'a> {
    /// The matrix, to be written.
    pub(crate) fn matrix(&mut self) -> Result<AnyMatMut<'_>> {
        let Kept { memory, dtype, shape: [rows, cols] } = self;
        let (rows, cols) = (*rows, *cols);
        let len = rows * cols;
        Ok(match dtype {
            CacheDtype::Float32 => AnyMatMut::F32(MatMut::new(&mut memory[..len], rows, cols)?),
            CacheDtype::Bfloat16 => {
                AnyMatMut::Bf16(MatMut::new(&mut reuse::<bf16>(memory)[..len], rows, cols)?)
            }
            CacheDtype::Float16 => AnyMatMut::F16(MatMut::new(&mut reuse::<f16>(memory)[..len], rows, cols)?),
        })
    }

    /// The matrix, to be read.
    pub(crate) fn into_ref(self) -> Result<AnyMatRef<'a>> {
        let Kept { memory, dtype, shape: [rows, cols] } = self;
        let len = rows * cols;
        Ok(match dtype {
            CacheDtype::Float32 => AnyMatRef::F32(MatRef::new(&memory[..len], rows, cols)?),
            CacheDtype::Bfloat16 => AnyMatRef::Bf16(MatRef::new(&reuse::<bf16>(memory)[..len], rows, cols)?),
            CacheDtype::Float16 => AnyMatRef::F16(MatRef::new(&reuse::<f16>(memory)[..len], rows, cols)?),
        })
    }

    /// The left and the right half of the columns, to be read.
    pub(crate) fn into_halves(self) -> Result<[AnyMatRef<'a>; 2]> {
        let half = self.shape[1] / 2;
        let matrix = self.into_ref()?;
        Ok([matrix.columns(0, half)?, matrix.columns(half, half)?])
    }
}

impl LayerKeys<'_> {
    /// Keys and values of a layer.
    pub(crate) fn layer(&mut self, layer: usize) -> [Kept<'_>; 2] {
        let (dtype, shape) = (self.dtype, self.shape);
        let room = dtype.room(shape.iter().product());
        let (keys, values) = self.memory[2 * layer * room..][..2 * room].split_at_mut(room);
        [keys, values].map(|memory| Kept { memory, dtype, shape })
    }
}

impl<'a> CrossKeys<'a> {
    /// Room that all layers use after one another, for `rows` rows of keys of this width.
    pub(crate) fn shared(memory: &'a mut [f32], precision: Precision, [rows, width]: [usize; 2]) -> Self {
        CrossKeys { memory, dtype: CacheDtype::of(precision), shape: [rows, 2 * width], layers: 1 }
    }

    /// Keys and values of a layer.
    pub(crate) fn layer(&mut self, layer: usize) -> Kept<'_> {
        let (dtype, shape) = (self.dtype, self.shape);
        let room = dtype.room(shape.iter().product());
        Kept { memory: &mut self.memory[layer % self.layers * room..][..room], dtype, shape }
    }
}

impl KvCache {
    /// Forgets everything and makes room.
    pub(crate) fn start(
        &mut self,
        layout: CacheLayout,
        options: CacheOptions,
        precision: Precision,
    ) -> Result<()> {
        let CacheOptions { sequences, capacity, dtype } = options;
        self.sequences.clear();
        self.sources.clear();
        if !(1..=LARGEST_CAPACITY).contains(&capacity) {
            return Err(request("capacity", capacity, format!("1 to {LARGEST_CAPACITY}")));
        }
        if sequences == 0 {
            return Err(request("number of sequences", 0, "at least 1"));
        }
        let dtype = dtype.unwrap_or(CacheDtype::of(precision));
        let rows = stride(capacity).checked_mul(sequences);
        let rows = rows.filter(|rows| u32::try_from(*rows).is_ok());
        let len = rows.and_then(|rows| {
            [layout.width, layout.layers, 2].iter().try_fold(rows, |len, by| len.checked_mul(*by))
        });
        let too_many = || request("number of sequences", sequences, "fewer, at this capacity");
        let (rows, len) = (rows.ok_or_else(too_many)?, len.ok_or_else(too_many)?);
        self.memory.reserve(dtype.room(len))?;
        self.positions.clear();
        try_reserve(&mut self.positions, rows)?;
        try_reserve(&mut self.spans, sequences)?;
        try_reserve(&mut self.cross_spans, sequences)?;
        try_reserve(&mut self.sequences, sequences)?;
        self.positions.resize(rows, 0);
        self.sequences.resize(sequences, Sequence::default());
        (self.layout, self.dtype, self.capacity) = (layout, dtype, capacity);
        Ok(())
    }

    /// Checks that the cache has room for sequences of a model of this layout.
    pub(crate) fn expect(&self, layout: CacheLayout) -> Result<()> {
        if self.sequences.is_empty() || self.layout != layout {
            return Err(request("KV cache", "not started for this model", "Session::start before decoding"));
        }
        Ok(())
    }

    /// What all positions are less than.
    pub(crate) fn end(&self) -> usize {
        self.positions.iter().max().map_or(0, |last| *last as usize + 1).max(self.capacity)
    }

    /// What a sequence has so far.
    pub(crate) fn so_far(&self, sequence: usize) -> Option<Start> {
        self.sequences.get(sequence).map(|sequence| sequence.so_far)
    }

    /// Lays out where the new rows of some sequences go and what they see.
    pub(crate) fn extend(&mut self, sequences: &[usize], rows: &RowLayout) -> Result<()> {
        self.spans.clear();
        self.cross_spans.clear();
        for sequence in &mut self.sequences {
            sequence.then = sequence.so_far;
        }
        let stride = stride(self.capacity);
        let per_source = self.per_source();
        for (number, span) in sequences.iter().zip(&rows.spans) {
            let Some(sequence) = self.sequences.get_mut(*number) else {
                return Err(request("sequence", number, format!("less than {}", self.sequences.len())));
            };
            if sequence.then.count != sequence.so_far.count {
                return Err(request("sequence", number, "each at most once"));
            }
            let (first, Range { start, end }) = (number * stride, span.queries.clone());
            let count = sequence.so_far.count + (end - start);
            if count > self.capacity {
                return Err(request(
                    format!("number of tokens of sequence {number}"),
                    count,
                    format!("at most the cache's capacity {}", self.capacity),
                ));
            }
            let new = first + sequence.so_far.count..first + count;
            self.positions[new].copy_from_slice(&rows.positions[start..end]);
            let position = rows.positions[end - 1] as usize + 1;
            sequence.then = Start { position, count };
            self.spans.push(Span { queries: start..end, keys: first..first + count });
            let Some(source) = self.sources.get(number / per_source) else { continue };
            match self.cross_spans.last_mut() {
                // Sequences that attend to the same source do so together: its keys are read once.
                Some(last) if last.keys == *source && last.queries.end == start => last.queries.end = end,
                _ => self.cross_spans.push(Span { queries: start..end, keys: source.clone() }),
            }
        }
        if self.layout.cross && self.sources.is_empty() {
            return Err(request("sources", 0, "Decoder::encode before decoding"));
        }
        Ok(())
    }

    /// The cache for the call that was laid out.
    pub(crate) fn kept(&mut self) -> Result<(KeptKeys<'_>, Option<CrossKept<'_>>)> {
        let CacheLayout { layers, width, cross } = self.layout;
        let dtype = self.dtype;
        let shape = [self.positions.len(), width];
        let room = 2 * layers * dtype.room(self.positions.len() * width);
        let store = LayerKeys { memory: self.memory.take(room)?, dtype, shape };
        let kept = KeptKeys { store, spans: &self.spans, positions: &self.positions };
        let rows = self.sources.last().map_or(0, |last| last.end);
        let shape = [rows, 2 * width];
        let memory = self.cross.take(layers * dtype.room(rows * 2 * width))?;
        Ok((kept, cross.then_some((CrossKeys { memory, dtype, shape, layers }, &self.cross_spans))))
    }

    /// Counts the tokens of the call that was laid out.
    pub(crate) fn commit(&mut self) {
        for sequence in &mut self.sequences {
            sequence.so_far = sequence.then;
        }
    }

    /// Room for the keys and values of sources, whose rows are these, in the place of earlier ones.
    pub(crate) fn sources(&mut self, spans: &[Span]) -> Result<CrossKeys<'_>> {
        let (sequences, sources) = (self.sequences.len(), spans.len());
        if sources == 0 || !sequences.is_multiple_of(sources) {
            return Err(request("number of sources", sources, format!("a divisor of {sequences} sequences")));
        }
        self.sources.clear();
        let rows = spans.last().map_or(0, |span| span.keys.end);
        let (dtype, layers) = (self.dtype, self.layout.layers);
        let shape = [rows, 2 * self.layout.width];
        let room = layers * dtype.room(shape.iter().product());
        try_reserve(&mut self.sources, sources)?;
        Ok(CrossKeys { memory: self.cross.take(room)?, dtype, shape, layers })
    }

    /// Counts the sources whose keys and values are there by now.
    pub(crate) fn commit_sources(&mut self, spans: &[Span]) {
        self.sources.extend(spans.iter().map(|span| span.keys.clone()));
    }

    /// Forgets the tokens of a sequence.
    pub(crate) fn clear(&mut self, sequence: usize) -> Result<()> {
        *self.sequence(sequence)? = Sequence::default();
        Ok(())
    }

    /// Makes `to` a copy of `from`.
    pub(crate) fn copy(&mut self, from: usize, to: usize) -> Result<()> {
        let sequence = *self.sequence(from)?;
        self.sequence(to)?;
        if self.source(from) != self.source(to) {
            return Err(request("sequence to copy to", to, format!("one with the source of {from}")));
        }
        *self.sequence(to)? = sequence;
        let (stride, rows) = (stride(self.capacity), sequence.so_far.count);
        self.positions.copy_within(from * stride..from * stride + rows, to * stride);
        let (dtype, width) = (self.dtype, self.layout.width);
        let layer = dtype.room(self.positions.len() * width);
        let memory = self.memory.take(2 * self.layout.layers * layer)?;
        // Strides are even, so these are whole.
        let [from, to, len] = [from * stride, to * stride, rows].map(|rows| dtype.room(rows * width));
        for keys in memory.chunks_exact_mut(layer.max(1)) {
            keys.copy_within(from..from + len, to);
        }
        Ok(())
    }

    /// How many sequences in a row have the same source.
    fn per_source(&self) -> usize {
        (self.sequences.len() / self.sources.len().max(1)).max(1)
    }

    /// The rows of a sequence's source, where it has one.
    fn source(&self, number: usize) -> Option<&Range<usize>> {
        self.sources.get(number / self.per_source())
    }

    fn sequence(&mut self, number: usize) -> Result<&mut Sequence> {
        let count = self.sequences.len();
        self.sequences
            .get_mut(number)
            .ok_or_else(|| request("sequence", number, format!("less than {count}")))
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.bytes() + self.cross.bytes()
    }
}
