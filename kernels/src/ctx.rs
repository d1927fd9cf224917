//! The execution context: which instructions, which threads, which precision. A value, never global state.

use core::ops::Range;

use rayon::ThreadPool;

use crate::awake::{Offers, for_each_piece, join, while_awake};
use crate::error::Result;
use crate::isa::{Isa, Kernel};
use crate::level::Level;

/// Elements of rows below which another thread costs more than it brings. A norm of so many takes less than to wake one,
/// but rows that a thread has not normed itself it has to fetch from the other's cache: MiniLM 1 x 128 in bf16 on two
/// threads takes 3.8 ms with shares of 2^16, 2.7 with these.
const ELEMENTS_PER_THREAD: usize = 1 << 11;

/// How matrix products treat their operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Operands are widened to f32 exactly; nothing is rounded before the product.
    #[default]
    Strict,
    /// Both operands of a matrix product are rounded once to bfloat16 (nearest, ties to even); products are
    /// accumulated in f32. Everything outside the products stays as in [`Precision::Strict`]. At
    /// [`Level::Avx512Bf16`] and [`Level::Amx`] they are summed in the orders of these levels' instructions for bfloat16,
    /// with subnormal numbers as zero.
    Bf16,
    /// About the accuracy of f32 at a multiple of its speed where there is a tile unit ([`Level::Amx`]): each f32 is
    /// taken as a sum of three bfloat16 numbers, and of the nine products of two such sums the six largest are added, in
    /// f32 (Henry et al., arXiv:1904.06376). What is left out is at most `2^-23` of a product. Numbers that bfloat16
    /// cannot hold (infinity, and from about 3.39e38 on) give NaN, and subnormal numbers are zero. At other levels it is
    /// [`Precision::Strict`], as is everything outside the products of weights.
    Bf16x6,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 3] = [Precision::Strict, Precision::Bf16, Precision::Bf16x6];
}

/// What every kernel call is given: the level, the caller's threads (if any) and the precision.
#[derive(Debug, Clone, Copy)]
pub struct Ctx<'p> {
    isa: Isa,
    pool: Option<&'p ThreadPool>,
    /// Of the forward pass, where this is in one.
    offers: Option<&'p Offers>,
    precision: Option<Precision>,
}

impl Ctx<'static> {
    /// A context on the calling thread alone, in [`Precision::Strict`].
    ///
    /// # Errors
    /// [`crate::Error::UnsupportedLevel`] when this processor cannot run `level`.
    pub fn new(level: Level) -> Result<Ctx<'static>> {
        let level = level.require()?;
        // `require` has just answered that the level can be constructed.
        let isa = Isa::new(level).unwrap_or(Isa::SCALAR);
        Ok(Ctx { isa, pool: None, offers: None, precision: None })
    }

    /// The context of [`Level::from_env`].
    ///
    /// # Errors
    /// As [`Level::from_env`].
    pub fn from_env() -> Result<Ctx<'static>> {
        Ctx::new(Level::from_env()?)
    }
}

impl<'p> Ctx<'p> {
    /// The same context with the caller's thread pool; `None` keeps all work on the calling thread.
    pub fn with_pool(self, pool: Option<&ThreadPool>) -> Ctx<'_> {
        Ctx { isa: self.isa, pool, offers: None, precision: self.precision }
    }

    /// The same context with another precision.
    pub fn with_precision(self, precision: Precision) -> Ctx<'p> {
        Ctx { precision: Some(precision), ..self }
    }

    /// The same context with this precision, unless it was given one by [`Ctx::with_precision`].
    pub fn with_default_precision(self, precision: Precision) -> Ctx<'p> {
        Ctx { precision: self.precision.or(Some(precision)), ..self }
    }

    /// The instruction-set level.
    pub fn level(&self) -> Level {
        self.isa.level()
    }

    /// The precision of matrix products.
    pub fn precision(&self) -> Precision {
        self.precision.unwrap_or_default()
    }

    /// How many threads share the work: 1 without a pool.
    pub fn threads(&self) -> usize {
        self.pool.map_or(1, ThreadPool::current_num_threads)
    }

    /// Runs `work` inside the pool, so that the calls within find themselves already there: one entry for a
    /// whole forward pass instead of one for each product. With the context that `work` is given, the pool's other
    /// threads look for work of its calls until it returns, instead of going to sleep, unless there is none for a while.
    pub fn enter<R: Send>(&self, work: impl FnOnce(&Ctx<'_>) -> R + Send) -> R {
        match self.pool {
            Some(pool) => pool.install(|| {
                while_awake(self.threads() - 1, |offers| work(&Ctx { offers: Some(offers), ..*self }))
            }),
            None => work(self),
        }
    }

    /// Runs both, at the same time if the pool has a thread to spare. What they call must be given contexts
    /// without the pool, where the one is not to wait for the other.
    pub fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        self.in_pool(2, |offers| match offers {
            Some(offers) => join(offers, a, b),
            None => (a(), b()),
        })
    }

    /// Runs `work`, of so many parts: of several inside the pool, if there is one, where it can offer parts to others.
    fn in_pool<R: Send>(&self, parts: usize, work: impl FnOnce(Option<&Offers>) -> R + Send) -> R {
        match self.pool.filter(|_| parts > 1) {
            Some(pool) => pool.install(|| work(Some(self.offers.unwrap_or(&Offers::default())))),
            None => work(None),
        }
    }

    /// The level with the proof that it can run.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Runs a kernel body with this context's instructions.
    #[inline]
    pub(crate) fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        self.isa.dispatch(kernel)
    }

    /// Cuts rows into shares that are worth a thread, and runs `task` on each, on the pool when there is one.
    pub(crate) fn for_each_share(&self, rows: usize, cols: usize, task: impl Fn(Range<usize>) + Sync + Send) {
        let shares =
            self.threads().min(rows.saturating_mul(cols) / ELEMENTS_PER_THREAD).clamp(1, rows.max(1));
        let step = rows.div_ceil(shares);
        let share = |i: usize| (i * step).min(rows)..((i + 1) * step).min(rows);
        self.in_pool(shares, |offers| match offers {
            Some(offers) => for_each_piece(offers, 0..shares, (&mut [], 0), &|i, _| task(share(i))),
            None => task(0..rows),
        });
    }

    /// Cuts `scratch` into pieces of `piece` elements and runs `task` on each with its number, on the pool
    /// when there is one. Tasks must not depend on their order.
    pub(crate) fn for_each_piece(
        &self,
        scratch: &mut [f32],
        piece: usize,
        task: impl Fn(usize, &mut [f32]) + Sync + Send,
    ) {
        let pieces = scratch.len() / piece;
        self.in_pool(pieces, |offers| match offers {
            Some(offers) => for_each_piece(offers, 0..pieces, (scratch, piece), &task),
            None => scratch.chunks_exact_mut(piece).enumerate().for_each(|(i, piece)| task(i, piece)),
        });
    }
}
