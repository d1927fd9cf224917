//! Benchmarks: what the machine can do, what the kernels reach, what their peers reach beside them.
//!
//! | to | run |
//! |---|---|
//! | measure the machine and every plan of a matrix product against it | `cargo run --release -p rachis-benches --bin kprobe` |
//! | the same for other weights, products or threads | `kprobe --dtype bf16 --precision bf16 --shapes 128x768x768,1x768x768 --threads 2` |
//! | fail when the wrong plan is picked, or a product is slow | `kprobe --assert` |
//! | time a CBLAS library in the same turns | `kprobe --cblas LIBRARY`, see [`cblas`] |
//! | compare with the crates `gemm` and `matrixmultiply` | `cargo bench -p rachis-benches --bench gemm` |
//! | time softmax, the norms and the activations | `cargo bench -p rachis-benches --bench rows` |
//!
//! `RACHIS_ISA` asks for a lesser level, as everywhere. Only rates of one run may be compared: the clock of a
//! machine drifts, and neighbours take their share.
//!
//! | where | what |
//! |---|---|
//! | `src/bin/kprobe.rs` | options, and the order of events |
//! | [`shape`] | the products that all of it measures |
//! | [`arena`] | weights, misaligned as in files, enough of them to run past the caches |
//! | [`machine`], [`limits`] | caches and features; peaks, bandwidths, and which of them binds |
//! | [`measure`] | the candidates of a product, timed turn by turn |
//! | [`report`] | a row for each candidate, and what `--assert` asks of the rows |
//! | [`peers`], [`cblas`] | other libraries behind safe functions |
//! | `benches/` | the criterion benchmarks |
//! | `record/` | dated results, with what was tried |
//!
//! Unsafe code is in [`peers`] and [`cblas`] only: the other libraries take pointers.

pub mod arena;
pub mod cblas;
pub mod limits;
pub mod machine;
pub mod measure;
pub mod peers;
pub mod report;
pub mod shape;

pub use arena::{Arena, Dtype};
pub use cblas::Cblas;
pub use limits::{Limit, Limits};
pub use measure::{Case, Method};
pub use report::{Row, complaints};
pub use shape::{SHAPES, Shape};
