//! Tables of vectors that ids select.

use rachis_kernels::{Accumulate, AnyMatRef, Ctx, Elem, EmbedRows, MatMut, embed_rows};

use crate::error::Result;
use crate::weights::{Init, Role, RowBlock, Scope, Tensors, Weight};

/// An embedding table `[vocabulary, hidden]`.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Weight,
    /// Rows at the front of the stored table that no id selects.
    unused: usize,
    scale: f32,
}

impl Embedding {
    /// The table of this shape at `scope`.
    pub(crate) fn load(scope: &Scope<'_>, vocabulary: usize, hidden: usize) -> Result<Embedding> {
        Embedding::load_after(scope, 0, vocabulary, hidden)
    }

    /// The table of this shape at `scope`, stored behind `unused` rows that no id selects.
    pub(crate) fn load_after(
        scope: &Scope<'_>,
        unused: usize,
        vocabulary: usize,
        hidden: usize,
    ) -> Result<Embedding> {
        let table = scope.weight(Role::Weight, &[unused + vocabulary, hidden], Init::KERNEL)?;
        Ok(Embedding { table, unused, scale: 1.0 })
    }

    /// The table with vectors that are multiplied by `scale` when they are looked up.
    pub(crate) fn scaled(self, scale: f32) -> Embedding {
        Embedding { scale, ..self }
    }

    /// Adds the tensor to save, under the name of `like` and behind as many unused rows.
    pub(crate) fn save<'m>(&'m self, like: &'m Embedding, tensors: &mut Tensors<'m>) {
        let table = self.table.matrix();
        let missing = like.unused.saturating_sub(self.unused);
        let shape = vec![missing + table.rows(), table.cols()];
        tensors.add(like.table.name(), shape, vec![RowBlock::Zeros(missing), RowBlock::Matrix(table)]);
    }

    /// Width of a vector.
    pub(crate) fn width(&self) -> usize {
        self.table.matrix().cols()
    }

    /// The vectors as they are stored, `[vocabulary, hidden]`.
    pub fn table(&self) -> AnyMatRef<'_> {
        let table = self.table.matrix();
        table.rows_range(self.unused..table.rows())
    }

    /// `out[i] = table[ids[i]]`, multiplied by the model's scale of embeddings if it has one. `out` is `[ids, hidden]`.
    ///
    /// # Errors
    /// When an id is outside the table, or `out` has another shape.
    pub fn lookup<T: Elem>(&self, ctx: &Ctx, ids: &[u32], out: MatMut<'_, T>) -> Result<()> {
        self.gather(ctx, ids, Accumulate::Replace, out)
    }

    /// `out[i] += table[ids[i]]`
    pub(crate) fn add<T: Elem>(&self, ctx: &Ctx, ids: &[u32], out: MatMut<'_, T>) -> Result<()> {
        self.gather(ctx, ids, Accumulate::Add, out)
    }

    /// The table as the weight of a tied head.
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
        Ok(embed_rows(ctx, EmbedRows { ids, table: self.table(), scale: self.scale, accumulate, out })?)
    }
}
