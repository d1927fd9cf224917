//! Benchmarks: the limits of the machine, and the speed of the kernels and of their peers, measured in one run.
//!
//! | to | run |
//! |---|---|
//! | measure the machine and every plan of a matrix product against it | `cargo run --release -p rachis-benches --bin kprobe` |
//! | measure other weights, products or threads | `kprobe --dtype bf16 --precision bf16 --shapes 128x768x768,1x768x768 --threads 2` |
//! | fail if the wrong plan is picked or a product is slow | `kprobe --assert` |
//! | time a CBLAS library in the same rounds | `kprobe --cblas LIBRARY`, see [`cblas`] |
//! | compare with the crates `gemm` and `matrixmultiply` | `cargo bench -p rachis-benches --bench gemm` |
//! | time softmax, the norms and the activations | `cargo bench -p rachis-benches --bench rows` |
//!
//! `RACHIS_ISA` selects a level, as everywhere. Only rates of one run can be compared: the clock of a machine drifts, and other
//! processes take their share.
//!
//! | file | content |
//! |---|---|
//! | `src/bin/kprobe.rs` | the command line and the run |
//! | `rachis_testkit::shapes` | the products and rows that are measured: tests read the same lists |
//! | [`arena`] | weights, unaligned as in files, and more of them than the caches hold |
//! | [`machine`], [`limits`] | caches and features; peaks, bandwidths, and which of them bounds a product |
//! | [`measure`] | the candidates of a product, timed in rounds |
//! | [`report`] | a row for each candidate, and the checks of `--assert` |
//! | [`peers`], [`cblas`] | other libraries behind safe functions |
//! | `benches/` | the criterion benchmarks |
//! | `record/` | dated results, and what was tried |
//!
//! Unsafe code is in [`peers`] and [`cblas`] only: the other libraries take pointers.

pub mod arena;
pub mod cblas;
pub mod limits;
pub mod machine;
pub mod measure;
pub mod peers;
pub mod report;

pub use arena::Arena;
pub use cblas::Cblas;
pub use limits::{Limit, Limits};
pub use measure::{Activations, Case, Method};
pub use report::{Row, complaints};
