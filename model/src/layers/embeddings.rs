//! What goes into the first layer: the sum of a token's vectors, normalised or projected where the architecture does.

use core::ops::Range;

use rachis_kernels::{Activation, Ctx};

use crate::error::Result;
use crate::layers::block::Buffers;
use crate::layers::{Embedding, Linear, Norm, matrix, matrix_mut};
use crate::session::RowLayout;
use crate::weights::Tensors;

/// The tables and what follows them.
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
    pub(crate) counting: Counting,
}

/// What the position of a token is, for a [`PositionEmbedding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// Its place in the sequence, padding included.
    Absolute,
    /// The number of real tokens before it.
    Real,
}

impl Embeddings {
    /// The tokens alone.
    pub(crate) fn of(tokens: Embedding) -> Embeddings {
        Embeddings { tokens, projection: None, positions: None, segments: None, norm: None }
    }

    /// What is to be stored, under the names of `like`.
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

    /// The input of the first layer for a group of the rows, in x; y and the wide buffer are used on the way.
    /// `segments` has an id for each row, if any.
    pub(crate) fn apply(
        &self,
        ctx: &Ctx,
        (rows, group): (&RowLayout, Range<usize>),
        segments: &[u32],
        buffers: &mut Buffers<'_>,
    ) -> Result<()> {
        let Buffers { rows: count, x, y, wide, scratch, .. } = buffers;
        let hidden = self.projection.as_ref().map_or(self.width(), Linear::outputs);
        let shape = [*count, hidden];
        let ids = &rows.ids[group.clone()];
        let (sum, normed) = match &self.norm {
            Some(norm) => (&mut **y, Some((norm, &mut **x))),
            None => (&mut **x, None),
        };
        if let Some(projection) = &self.projection {
            let narrow = [*count, self.width()];
            self.tokens.lookup(ctx, ids, matrix_mut::<f32>(wide, narrow)?)?;
            let (narrow, out) = (matrix(wide, narrow)?, matrix_mut::<f32>(sum, shape)?);
            projection.apply(ctx, scratch, narrow, (Activation::Identity, None), out)?;
        } else {
            self.tokens.lookup(ctx, ids, matrix_mut::<f32>(sum, shape)?)?;
        }
        if let Some(PositionEmbedding { table, counting }) = &self.positions {
            let positions = match counting {
                Counting::Absolute => &rows.positions,
                Counting::Real => &rows.counts,
            };
            table.add(ctx, &positions[group.clone()], matrix_mut::<f32>(sum, shape)?)?;
        }
        if let Some(table) = &self.segments {
            table.add(ctx, &segments[group], matrix_mut::<f32>(sum, shape)?)?;
        }
        if let Some((norm, x)) = normed {
            norm.apply(ctx, matrix(sum, shape)?, matrix_mut(x, shape)?)?;
        }
        Ok(())
    }
}
