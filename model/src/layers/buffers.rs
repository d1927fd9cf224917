//! The activation buffers of a stack of layers: their lengths, and how they are cut out of a session's memory.
//!
//! A forward pass keeps one buffer for all rows, the states, and for the rows that are in a layer at once three more.
//! Each holds a [`matrix`](crate::layers::matrix()) at its start.

use rachis_kernels::Scratch;

use crate::layers::Threads;
use crate::session::{Stop, take_front};

/// Lengths of the [`StackBuffers`] of a call, in elements of f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StackSizes {
    pub(crate) states: usize,
    pub(crate) context: usize,
    pub(crate) sum: usize,
    pub(crate) intermediate: usize,
    pub(crate) positions: usize,
}

/// The activation buffers of a stack.
pub(crate) struct StackBuffers<'w> {
    /// The input and output of every layer, for all rows. At the end it holds the stack's output.
    pub(crate) states: &'w mut [f32],
    /// The buffers for the rows that are in a layer at once.
    pub(crate) layer: LayerBuffers<'w>,
    /// Angles of rotation, or biases of distances.
    pub(crate) positions: &'w mut [f32],
}

/// The buffers for the rows that are in a layer at once.
pub(crate) struct LayerBuffers<'w> {
    /// The norm of a sub-layer's input, and the concatenated outputs of attention heads.
    pub(crate) context: &'w mut [f32],
    /// A sub-layer's output with its residual added.
    pub(crate) sum: &'w mut [f32],
    /// Queries, keys and values, or the activations between the two dense layers of a feed-forward block: the widest
    /// products of a layer.
    pub(crate) intermediate: &'w mut [f32],
}

/// What a stack works with beside its input.
pub(crate) struct StackWorkspace<'w> {
    pub(crate) buffers: StackBuffers<'w>,
    pub(crate) threads: &'w mut Threads,
    pub(crate) stop: &'w Stop,
}

/// Elements that one row takes in each buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSizes {
    pub(crate) states: usize,
    pub(crate) context: usize,
    pub(crate) sum: usize,
    pub(crate) intermediate: usize,
}

/// The buffers of one micro-batch in one layer.
pub(crate) struct BlockBuffers<'w> {
    /// Number of rows.
    pub(crate) rows: usize,
    /// The layer's input and output.
    pub(crate) states: &'w mut [f32],
    /// See [`LayerBuffers`].
    pub(crate) context: &'w mut [f32],
    pub(crate) sum: &'w mut [f32],
    pub(crate) intermediate: &'w mut [f32],
    /// Scratch of the kernels.
    pub(crate) scratch: &'w mut Scratch,
}

impl StackSizes {
    /// The length of all buffers together.
    pub(crate) fn total(&self) -> usize {
        let StackSizes { states, context, sum, intermediate, positions } = *self;
        [states, context, sum, intermediate, positions].into_iter().fold(0, usize::saturating_add)
    }

    /// For each buffer the larger of the two lengths.
    pub(crate) fn max(&self, other: &StackSizes) -> StackSizes {
        StackSizes {
            states: self.states.max(other.states),
            context: self.context.max(other.context),
            sum: self.sum.max(other.sum),
            intermediate: self.intermediate.max(other.intermediate),
            positions: self.positions.max(other.positions),
        }
    }

    /// The buffers, one after another, at the front of `memory`, which has at least [`StackSizes::total`] elements.
    pub(crate) fn carve<'w>(&self, mut memory: &'w mut [f32]) -> StackBuffers<'w> {
        self.take(&mut memory)
    }

    /// Takes the buffers from the front of `memory`.
    pub(crate) fn take<'w>(&self, memory: &mut &'w mut [f32]) -> StackBuffers<'w> {
        StackBuffers {
            states: take_front(memory, self.states),
            layer: LayerBuffers {
                context: take_front(memory, self.context),
                sum: take_front(memory, self.sum),
                intermediate: take_front(memory, self.intermediate),
            },
            positions: take_front(memory, self.positions),
        }
    }
}

impl<'w> StackBuffers<'w> {
    /// The same buffers for a shorter lifetime.
    pub(crate) fn reborrow(&mut self) -> StackBuffers<'_> {
        let StackBuffers { states, layer, positions } = self;
        StackBuffers { states, layer: layer.reborrow(), positions }
    }

    /// The same buffers with other states, for another stack.
    pub(crate) fn with_states<'s>(&'s mut self, states: &'s mut [f32]) -> StackBuffers<'s> {
        StackBuffers { states, layer: self.layer.reborrow(), positions: &mut *self.positions }
    }
}

impl<'w> LayerBuffers<'w> {
    /// The same buffers for a shorter lifetime.
    pub(crate) fn reborrow(&mut self) -> LayerBuffers<'_> {
        let LayerBuffers { context, sum, intermediate } = self;
        LayerBuffers { context, sum, intermediate }
    }

    /// Keeps the memory of the first `rows` rows and returns the memory behind it.
    pub(crate) fn split_off(&mut self, rows: usize, sizes: RowSizes) -> LayerBuffers<'w> {
        LayerBuffers {
            context: split_off(&mut self.context, rows * sizes.context),
            sum: split_off(&mut self.sum, rows * sizes.sum),
            intermediate: split_off(&mut self.intermediate, rows * sizes.intermediate),
        }
    }
}

/// Keeps the first `len` elements and returns the others.
pub(crate) fn split_off<'w>(memory: &mut &'w mut [f32], len: usize) -> &'w mut [f32] {
    let (front, rest) = std::mem::take(memory).split_at_mut(len);
    *memory = front;
    rest
}
