//! Copying rows into another storage type, as for keys and values into a cache.
//!
//! Widening is exact and narrowing rounds once, to nearest, ties to even; NaN stays NaN. Where the types are equal
//! the bits are copied.

use crate::ctx::Ctx;
use crate::elem::Elem;
use crate::elem::private::Stored;
use crate::error::{Result, check};
use crate::isa::{Kernel, LANES, Simd};
use crate::mem;
use crate::view::{AnyMatMut, AnyMatRef, MatMut, MatRef, any};

/// `to = from`, each element in the storage type of `to`.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ; nothing is written then.
pub fn copy_rows(ctx: &Ctx, from: AnyMatRef<'_>, to: AnyMatMut<'_>) -> Result<()> {
    const NAME: &str = "copy_rows";
    check(NAME, "rows of the output", from.rows(), to.rows())?;
    check(NAME, "columns of the output", from.cols(), to.cols())?;
    if to.cols() > 0 {
        ctx.run(Copy { from, to });
    }
    Ok(())
}

struct Copy<'a> {
    from: AnyMatRef<'a>,
    to: AnyMatMut<'a>,
}

impl Kernel for Copy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        any!(AnyMatMut, &mut self.to, to => match Stored::typed(self.from) {
            Some(from) => copy(from, to),
            None => any!(AnyMatRef, self.from, from => convert(s, from, to)),
        });
    }
}

fn copy<T: Elem>(from: MatRef<'_, T>, to: &mut MatMut<'_, T>) {
    for i in 0..from.rows() {
        to.row_mut(i).copy_from_slice(from.row(i));
    }
}

#[inline(always)]
fn convert<S: Simd, T: Elem, U: Elem>(s: S, from: MatRef<'_, T>, to: &mut MatMut<'_, U>) {
    for i in 0..from.rows() {
        let (from, to) = (from.row(i), to.row_mut(i));
        for at in (0..from.len()).step_by(LANES) {
            mem::store(s, to, at, mem::load(s, from, at));
        }
    }
}
