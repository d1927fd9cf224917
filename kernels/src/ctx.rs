//! The execution context: instructions, threads and precision. A value, never global state.

use core::fmt;
use core::ops::Range;
use core::str::FromStr;
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::isa::{Isa, Kernel};
use crate::level::Level;
use crate::team::Team;

/// Elements of rows below which another thread costs more than it saves. The norm of 2^11 elements takes less time than
/// waking a thread, but a thread must fetch rows that another thread has normalised from the other core's cache: on two
/// threads MiniLM 1 x 128 in bf16 takes 3.8 ms with 2^16 here, and 2.7 ms with 2^11.
const ELEMENTS_PER_THREAD: usize = 1 << 11;

/// The arithmetic of matrix products.
///
/// It is apart from [`Dtype`], the type of stored elements: products of float32 operands may run in any precision, and
/// operands stored in 16 bits in `Strict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Operands are widened to f32 exactly; nothing is rounded before the product.
    #[default]
    Strict,
    /// Both operands of a matrix product are rounded once to bfloat16 (to nearest, ties to even); products are accumulated
    /// in f32. Everything outside the products stays as in [`Precision::Strict`]. At [`Level::Avx512Bf16`] and
    /// [`Level::Amx`] they are summed in the orders of those levels' instructions for bfloat16, with subnormal numbers as
    /// zero.
    Bf16,
    /// About the accuracy of f32 at a multiple of its speed on [`Level::Amx`]: each f32 is split into three bfloat16 terms,
    /// and of the nine products of two such sums the six largest are added, in f32 (Henry et al., arXiv:1904.06376). The
    /// products left out are at most `2^-23` of the whole. Numbers that bfloat16 cannot hold (infinity, and from about
    /// 3.39e38 on) give NaN, and subnormal numbers count as zero. At other levels, and outside the products of weights, it
    /// is [`Precision::Strict`].
    Bf16x6,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 3] = [Precision::Strict, Precision::Bf16, Precision::Bf16x6];

    /// Its name: `strict`, `bf16` or `bf16x6`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Strict => "strict",
            Precision::Bf16 => "bf16",
            Precision::Bf16x6 => "bf16x6",
        }
    }

    /// The type in which operands that only products use may be stored without changing any result.
    pub fn operand_dtype(self) -> Dtype {
        match self {
            Precision::Strict | Precision::Bf16x6 => Dtype::Float32,
            Precision::Bf16 => Dtype::Bfloat16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Precision> {
        let named = Precision::ALL.into_iter().find(|precision| precision.name() == name);
        named.ok_or_else(|| Error::UnknownName {
            what: "precision",
            name: name.to_owned(),
            expected: "strict, bf16, bf16x6",
        })
    }
}

/// The precision of a model that computes in a float type: products in bfloat16 round their operands; in float16 weights
/// are widened exactly, and activations stay in float32.
impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Precision {
        match dtype {
            Dtype::Bfloat16 => Precision::Bf16,
            Dtype::Float32 | Dtype::Float16 => Precision::Strict,
        }
    }
}

/// The argument of every kernel call: the level, the caller's threads (if any) and the precision.
#[derive(Debug, Clone, Copy)]
pub struct Ctx<'p> {
    isa: Isa,
    threads: Threads<'p>,
    precision: Option<Precision>,
}

/// The threads of a context.
#[derive(Debug, Clone, Copy)]
enum Threads<'p> {
    /// The calling thread alone.
    Caller,
    /// Those of a pool; each pass makes a team.
    Pool(&'p ThreadPool),
    /// Those of a team, when a pass begins.
    Team(&'p Team<'p>),
    /// Those of a team, within a pass.
    Pass(&'p Team<'p>),
}

impl Ctx<'static> {
    /// A context at the best level of this processor, on the calling thread alone, in [`Precision::Strict`].
    pub fn detect() -> Ctx<'static> {
        Ctx::of(Isa::detect())
    }

    /// A context at a chosen level, on the calling thread alone, in [`Precision::Strict`].
    ///
    /// # Errors
    /// [`Error::UnsupportedLevel`] when this processor cannot run `level`.
    pub fn new(level: Level) -> Result<Ctx<'static>> {
        Ok(Ctx::of(level.tokens()?))
    }

    /// A context at the level of [`Level::from_env`].
    ///
    /// # Errors
    /// [`Error::UnknownLevel`] or [`Error::UnsupportedLevel`] when the variable names a level that does not exist or cannot
    /// run here.
    pub fn from_env() -> Result<Ctx<'static>> {
        Ctx::new(Level::from_env()?)
    }

    fn of(isa: Isa) -> Ctx<'static> {
        Ctx { isa, threads: Threads::Caller, precision: None }
    }
}

impl<'p> Ctx<'p> {
    /// The same context with the caller's thread pool; `None` keeps all work on the calling thread.
    ///
    /// Each [pass](Ctx::enter) asks the pool for helpers anew. [`Ctx::with_team`] keeps what it has asked for, which a
    /// service with a busy pool wants; sessions of the crate `rachis` do so by themselves.
    pub fn with_pool(self, pool: Option<&ThreadPool>) -> Ctx<'_> {
        let threads = pool.map_or(Threads::Caller, Threads::Pool);
        Ctx { isa: self.isa, threads, precision: self.precision }
    }

    /// The same context with a team; `None` keeps all work on the calling thread.
    pub fn with_team<'t>(self, team: Option<&'t Team<'t>>) -> Ctx<'t> {
        let threads = team.map_or(Threads::Caller, Threads::Team);
        Ctx { isa: self.isa, threads, precision: self.precision }
    }

    /// The team of [`Ctx::with_team`], or a new one of the pool of [`Ctx::with_pool`].
    pub fn team(&self) -> Option<Team<'p>> {
        match self.threads {
            Threads::Caller => None,
            Threads::Pool(pool) => Some(Team::new(pool)),
            Threads::Team(team) | Threads::Pass(team) => Some(team.clone()),
        }
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
        match self.threads {
            Threads::Caller => 1,
            Threads::Pool(pool) => pool.current_num_threads(),
            Threads::Team(team) | Threads::Pass(team) => team.threads(),
        }
    }

    /// Runs a forward pass: one call for many kernels. Threads of the pool are asked to help from here on; they spin between
    /// the kernels of the pass and leave at its end.
    ///
    /// `work` runs on the calling thread, whether that is one of the pool's or not, and so does every part of it that no
    /// helper has taken. It never waits for other work of the pool, nor for a helper that has not begun.
    pub fn enter<R>(&self, work: impl FnOnce(&Ctx<'_>) -> R) -> R {
        self.in_pass(self.threads(), |team| match team {
            Some(team) => work(&Ctx { threads: Threads::Pass(team), ..*self }),
            None => work(self),
        })
    }

    /// Runs `a` and `b`, at the same time if the pool has a thread to spare. Give calls inside them contexts without the
    /// pool, or one may wait for the other.
    pub fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        self.in_pass(2, |team| match team {
            Some(team) => team.join(a, b),
            None => (a(), b()),
        })
    }

    /// Runs `work`, which can be cut into `pieces` pieces, in a pass if there are several and threads for them: the one that
    /// this context is in, or one of its own.
    fn in_pass<R>(&self, pieces: usize, work: impl FnOnce(Option<&Team<'_>>) -> R) -> R {
        match self.threads {
            _ if pieces <= 1 => work(None),
            Threads::Caller => work(None),
            Threads::Pass(team) => work(Some(team)),
            Threads::Team(team) => team.pass(|| work(Some(team))),
            Threads::Pool(pool) => {
                let team = Team::new(pool);
                team.pass(|| work(Some(&team)))
            }
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

    /// Cuts rows into shares that are large enough for a thread, and runs `task` on each, on the pool if there is one. Rows
    /// without columns are no work, however many there are.
    pub(crate) fn for_each_share(&self, rows: usize, cols: usize, task: impl Fn(Range<usize>) + Sync + Send) {
        if cols == 0 {
            return;
        }
        let shares =
            self.threads().min(rows.saturating_mul(cols) / ELEMENTS_PER_THREAD).clamp(1, rows.max(1));
        let step = rows.div_ceil(shares);
        let share = |i: usize| (i * step).min(rows)..((i + 1) * step).min(rows);
        self.in_pass(shares, |team| match team {
            Some(team) => team.for_each(shares, &|i| task(share(i))),
            None => task(0..rows),
        });
    }

    /// Cuts `scratch` into pieces of `piece` elements and runs `task` on each of as many numbers, with one of the pieces
    /// for its own, on the pool if there is one. Tasks must not depend on their order.
    pub(crate) fn for_each_piece(
        &self,
        scratch: &mut [f32],
        piece: usize,
        task: impl Fn(usize, &mut [f32]) + Sync + Send,
    ) {
        let count = scratch.len() / piece;
        let mut pieces = scratch.chunks_exact_mut(piece);
        self.in_pass(count, |team| match team {
            Some(team) => {
                let pieces = Mutex::new(pieces);
                team.for_each(count, &|i| {
                    let piece = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
                    task(i, piece.unwrap_or_default());
                });
            }
            None => pieces.by_ref().enumerate().for_each(|(i, piece)| task(i, piece)),
        });
    }
}
