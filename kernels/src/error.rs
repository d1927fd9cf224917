//! The one error type of the crate.

/// What a kernel call can refuse. Every check happens before any number is computed or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The requested instruction-set level is not one of this crate's names.
    #[error("unknown ISA level {0:?}: expected one of scalar, avx2, avx512, avx512bf16, amx, neon")]
    UnknownLevel(String),
    /// A dtype's name is not one of this crate's.
    #[error("unknown dtype {0:?}: expected float32, bfloat16 or float16")]
    UnknownDtype(String),
    /// The requested instruction-set level cannot run on this processor.
    #[error("ISA level {level} is not supported by this processor (supported: {supported})")]
    UnsupportedLevel {
        /// The level asked for.
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
        /// What the other operands require.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// Weight matrices that are multiplied in one call lie in different layouts.
    #[error("{operation}: the weights' layouts differ")]
    Layout {
        /// The operation that refused.
        operation: &'static str,
    },
    /// A plan was asked for a product that it cannot compute.
    #[error(
        "gemm: plan {plan} does not fit level {level} with {rows} rows by weights {layout} in this precision"
    )]
    Plan {
        /// The plan's name.
        plan: &'static str,
        /// The level of the context.
        level: crate::Level,
        /// How the weights lie.
        layout: crate::Layout,
        /// Rows of activations.
        rows: usize,
    },
    /// Memory could not be had.
    #[error("{bytes} bytes of memory cannot be had")]
    Memory {
        /// What was asked for.
        bytes: usize,
    },
    /// A view does not fit in the slice that it was made from.
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
    /// An index lies outside the table that it selects from.
    #[error("{operation}: index {index} at position {position} is outside the table of {rows} rows")]
    Index {
        /// The operation that refused.
        operation: &'static str,
        /// Where in the list of indices.
        position: usize,
        /// The index itself.
        index: u32,
        /// Rows of the table.
        rows: usize,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// `Ok` when `found == expected`, otherwise the [`Error::Shape`] that names the operand.
pub(crate) fn check(
    operation: &'static str,
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Shape { operation, what, expected, found }) }
}
