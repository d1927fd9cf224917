//! Embedding gather: rows of a table, selected by indices.

use crate::ctx::Ctx;
use crate::elem::Elem;
use crate::error::{Error, Result, check};
use crate::isa::{Kernel, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatRef, MatMut, any};

/// Whether gathered rows replace the output or are added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accumulate {
    /// The output is overwritten.
    #[default]
    Replace,
    /// The gathered rows are added to the output.
    Add,
}

/// Operands of [`embed_rows`].
#[derive(Debug)]
pub struct EmbedRows<'a, T> {
    /// An index into the table for each row of the output.
    pub ids: &'a [u32],
    /// `[vocabulary, hidden]`
    pub table: AnyMatRef<'a>,
    /// Multiplies the gathered rows.
    pub scale: f32,
    /// Whether the output is replaced or added to.
    pub accumulate: Accumulate,
    /// `[ids, hidden]`
    pub out: MatMut<'a, T>,
}

/// `out[i] = scale * table[ids[i]]`, or adds it.
///
/// # Errors
/// [`Error::Index`] when an id is outside the table, [`Error::Shape`] when shapes disagree; nothing is written
/// then.
pub fn embed_rows<T: Elem>(ctx: &Ctx, op: EmbedRows<'_, T>) -> Result<()> {
    const NAME: &str = "embed_rows";
    check(NAME, "rows of the output", op.ids.len(), op.out.rows())?;
    check(NAME, "columns of the output", op.table.cols(), op.out.cols())?;
    let rows = op.table.rows();
    if let Some(position) = op.ids.iter().position(|id| *id as usize >= rows) {
        return Err(Error::Index { operation: NAME, position, index: op.ids[position], rows });
    }
    ctx.run(op);
    Ok(())
}

impl<T: Elem> Kernel for EmbedRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let scale = s.splat(self.scale);
        for (i, id) in self.ids.iter().enumerate() {
            let out = self.out.row_mut(i);
            any!(AnyMatRef, self.table, table => {
                let row = table.row(*id as usize);
                for at in (0..row.len()).step_by(LANES) {
                    let y = s.mul(mem::load(s, row, at), scale);
                    let y = match self.accumulate {
                        Accumulate::Replace => y,
                        Accumulate::Add => s.add(mem::load(s, out, at), y),
                    };
                    mem::store(s, out, at, y);
                }
            });
        }
    }
}
