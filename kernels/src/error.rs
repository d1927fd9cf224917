//! The one error type of the crate.

use core::fmt;

/// Why a kernel call was refused. Every check happens before any number is computed or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The requested instruction-set level is not one of this crate's names.
    #[error("unknown ISA level {0:?}: expected one of scalar, avx2, avx512, avx512bf16, amx, neon")]
    UnknownLevel(String),
    /// A name is not one of those that its type has.
    #[error("unknown {what} {name:?}: expected one of {expected}")]
    UnknownName {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
        /// The names that exist, comma separated.
        expected: &'static str,
    },
    /// The requested instruction-set level cannot run on this processor.
    #[error("ISA level {level} is not supported by this processor (supported: {supported})")]
    UnsupportedLevel {
        /// The requested level.
        level: crate::Level,
        /// The levels that would work, comma separated.
        supported: String,
    },
    /// Two operands disagree about a dimension.
    #[error("{operation}: {what} is {found}, expected {expected}")]
    Shape {
        /// The operation that refused.
        operation: &'static str,
        /// The dimension or length at fault.
        what: &'static str,
        /// The value that the other operands require.
        expected: usize,
        /// The value found.
        found: usize,
    },
    /// A dimension or length is outside its range.
    #[error("{operation}: {what} is {found}, expected {expected}")]
    Range {
        /// The operation that refused.
        operation: &'static str,
        /// The dimension or length at fault.
        what: &'static str,
        /// The values that the other operands allow.
        expected: Expected,
        /// The value found.
        found: usize,
    },
    /// The weight matrices of one call have different layouts.
    #[error("{operation}: the weights' layouts differ")]
    Layout {
        /// The operation that refused.
        operation: &'static str,
    },
    /// A plan cannot compute the product that it was given.
    #[error(
        "gemm: plan {plan} does not fit level {level} with {rows} rows by weights {layout} in this precision"
    )]
    GemmPlan {
        /// The plan's name.
        plan: &'static str,
        /// The level of the context.
        level: crate::Level,
        /// The layout of the weights.
        layout: crate::Layout,
        /// Rows of activations.
        rows: usize,
    },
    /// An allocation failed.
    #[error("could not allocate {bytes} bytes")]
    OutOfMemory {
        /// The size of the allocation.
        bytes: usize,
    },
    /// A view does not fit in its slice.
    #[error("a {rows} x {cols} view with row stride {row_stride} does not fit in {len} elements")]
    View {
        /// Rows of the view.
        rows: usize,
        /// Columns of the view.
        cols: usize,
        /// Elements between the starts of two rows.
        row_stride: usize,
        /// Length of the slice.
        len: usize,
    },
    /// An index is outside its table.
    #[error("{operation}: index {index} at position {position} is outside the table of {rows} rows")]
    Index {
        /// The operation that refused.
        operation: &'static str,
        /// The position in the list of indices.
        position: usize,
        /// The index.
        index: u32,
        /// Rows of the table.
        rows: usize,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// The values that a dimension or length may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// This value or more.
    AtLeast(usize),
    /// This value or less.
    AtMost(usize),
    /// Divisors of this value.
    DivisorOf(usize),
    /// Multiples of this value.
    MultipleOf(usize),
    /// Places from which positions ascend.
    AscendingPositions,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::AtLeast(least) => write!(f, "at least {least}"),
            Expected::AtMost(most) => write!(f, "at most {most}"),
            Expected::DivisorOf(whole) => write!(f, "a divisor of {whole}"),
            Expected::MultipleOf(part) => write!(f, "a multiple of {part}"),
            Expected::AscendingPositions => f.write_str("positions that ascend from there"),
        }
    }
}

/// Returns `Ok` when `found == expected`, otherwise an [`Error::Shape`] that names the operand.
pub(crate) fn check(
    operation: &'static str,
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Shape { operation, what, expected, found }) }
}

/// An [`Error::Range`].
pub(crate) fn outside<T>(
    operation: &'static str,
    what: &'static str,
    expected: Expected,
    found: usize,
) -> Result<T> {
    Err(Error::Range { operation, what, expected, found })
}
