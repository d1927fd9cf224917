//! The input of the first layer: the sum of a token's vectors, normed or projected where the architecture does so.

use core::ops::Range;

use rachis_kernels::Ctx;

use crate::error::Result;
use crate::layers::buffers::BlockBuffers;
use crate::layers::{Embedding, Epilogue, Linear, Norm, matrix, matrix_mut};
use crate::session::RowLayout;
use crate::weights::Tensors;

/// The embedding tables and what follows them.
#[derive(Debug)]
pub(crate) struct Embeddings {
    pub(crate) tokens: Embedding,
    /// From the width of the token table to that of the layers.
    pub(crate) projection: Option<Linear>,
    pub(crate) positions: Option<PositionEmbedding>,
    pub(crate) segments: Option<Embedding>,
    pub(crate) norm: Option<Norm>,
}

/// A learned vector for each position.
#[derive(Debug)]
pub(crate) struct PositionEmbedding {
    pub(crate) table: Embedding,
    pub(crate) count: PositionCount,
}

/// How positions are counted, for a [`PositionEmbedding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PositionCount {
    /// From the start of the sequence, padding included.
    All,
    /// The real tokens before this one.
    RealTokens,
}

impl Embeddings {
    /// Token vectors alone.
    pub(crate) fn of(tokens: Embedding) -> Embeddings {
        Embeddings { tokens, projection: None, positions: None, segments: None, norm: None }
    }

    /// Adds the tensors to save, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m Embeddings, tensors: &mut Tensors<'m>) {
        self.tokens.save(&like.tokens, tensors);
        if let (Some(projection), Some(like)) = (&self.projection, &like.projection) {
            projection.save(like, tensors);
        }
        if let (Some(positions), Some(like)) = (&self.positions, &like.positions) {
            positions.table.save(&like.table, tensors);
        }
        if let (Some(segments), Some(like)) = (&self.segments, &like.segments) {
            segments.save(like, tensors);
        }
        if let (Some(norm), Some(like)) = (&self.norm, &like.norm) {
            norm.save(like, tensors);
        }
    }

    /// Width of the token table.
    pub(crate) fn width(&self) -> usize {
        self.tokens.width()
    }

    /// Writes the input of the first layer for a micro-batch of the rows to the states. The context and intermediate
    /// buffers are used on the way. `segments` has an id for each row where the model has segments.
    pub(crate) fn apply(
        &self,
        ctx: &Ctx,
        rows: &RowLayout,
        micro_batch: Range<usize>,
        segments: &[u32],
        buffers: BlockBuffers<'_>,
    ) -> Result<()> {
        let BlockBuffers { rows: count, states, context, intermediate, scratch, .. } = buffers;
        let hidden = self.projection.as_ref().map_or(self.width(), Linear::outputs);
        let shape = [count, hidden];
        let ids = &rows.ids[micro_batch.clone()];
        let (sum, normed) = match &self.norm {
            Some(norm) => (context, Some((norm, states))),
            None => (states, None),
        };
        if let Some(projection) = &self.projection {
            let token_shape = [count, self.width()];
            self.tokens.lookup(ctx, ids, matrix_mut::<f32>(intermediate, token_shape)?)?;
            let tokens = matrix(intermediate, token_shape)?;
            projection.apply(ctx, scratch, tokens, Epilogue::none(), matrix_mut::<f32>(sum, shape)?)?;
        } else {
            self.tokens.lookup(ctx, ids, matrix_mut::<f32>(sum, shape)?)?;
        }
        if let Some(PositionEmbedding { table, count }) = &self.positions {
            let positions = match count {
                PositionCount::All => &rows.positions,
                PositionCount::RealTokens => &rows.real_before,
            };
            table.add(ctx, &positions[micro_batch.clone()], matrix_mut::<f32>(sum, shape)?)?;
        }
        if let Some(table) = &self.segments {
            table.add(ctx, &segments[micro_batch], matrix_mut::<f32>(sum, shape)?)?;
        }
        if let Some((norm, states)) = normed {
            norm.apply(ctx, matrix(sum, shape)?, matrix_mut(states, shape)?)?;
        }
        Ok(())
    }
}
