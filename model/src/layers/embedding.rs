//! Tables of vectors, selected by ids.

use rachis_kernels::{Accumulate, AnyMatRef, Ctx, Elem, EmbedRows, MatMut, embed_rows};

use crate::error::Result;
use crate::weights::{Init, Scope, Weight};

/// An embedding table `[vocabulary, hidden]`.
#[derive(Debug)]
pub struct Embedding {
    table: Weight,
}

impl Embedding {
    /// The table at `scope`: `weight` of this shape.
    pub(crate) fn load(scope: &Scope<'_>, vocabulary: usize, hidden: usize) -> Result<Embedding> {
        Ok(Embedding { table: scope.weight("weight", &[vocabulary, hidden], Init::KERNEL)? })
    }

    /// The table as stored.
    pub fn table(&self) -> AnyMatRef<'_> {
        self.table.matrix()
    }

    /// `out[i] = table[ids[i]]`
    ///
    /// # Errors
    /// An id outside the table, or an output of another shape.
    pub fn lookup<T: Elem>(&self, ctx: &Ctx, ids: &[u32], out: MatMut<'_, T>) -> Result<()> {
        self.gather(ctx, ids, Accumulate::Replace, out)
    }

    /// `out[i] += table[ids[i]]`
    pub(crate) fn add<T: Elem>(&self, ctx: &Ctx, ids: &[u32], out: MatMut<'_, T>) -> Result<()> {
        self.gather(ctx, ids, Accumulate::Add, out)
    }

    /// The table as a weight of a tied head.
    pub(crate) fn weight(&self) -> Weight {
        self.table.clone()
    }

    fn gather<T: Elem>(
        &self,
        ctx: &Ctx,
        ids: &[u32],
        accumulate: Accumulate,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        Ok(embed_rows(ctx, EmbedRows { ids, table: self.table(), scale: 1.0, accumulate, out })?)
    }
}
