//! SIMD kernels for transformer inference on the CPU: matrix products, attention, softmax, norms, activations and
//! embeddings, in float32, bfloat16 and float16, picked for the processor at run time.
//!
//! # Goals
//!
//! - **Weights stay in place.** A product reads weights where a file has them: either layout, any storage type, any row
//!   stride, no alignment beyond the element's.
//! - **The same bits.** A row's result does not depend on the rows beside it, on its position or on the number of threads.
//!   AVX2, AVX-512 and NEON agree bit for bit in float32. Each module states its numeric contract.
//! - **Nothing behind the caller's back.** No state that a result depends on, no threads but those of a pool that the caller hands in, and no
//!   allocation but in a [`Scratch`] that the caller keeps.
//! - **No panic and no undefined behaviour** for any arguments of safe functions: shapes are checked at the entry.
//!
//! Not goals: training, tensors with more than two dimensions, GPUs, and operators that transformers do not use.
//!
//! # Design
//!
//! Every call takes a [`Ctx`]: an instruction-set [`Level`], an optional thread pool, and a [`Precision`]. Operands are views
//! of slices ([`MatRef`], [`MatMut`]), or [`AnyMatRef`] where the storage type is known at run time only. An operation is
//! written once, generic over the vector vocabulary of a level and over storage types. `ARCHITECTURE.md` of the repository
//! has the map and the glossary.
//!
//! | level | needs | bfloat16 products |
//! |---|---|---|
//! | `scalar` | nothing | in f32 |
//! | `avx2` | AVX2, FMA, F16C | in f32 |
//! | `avx512` | AVX-512 F, BW, CD, DQ, VL | in f32 |
//! | `avx512bf16` | and AVX512-BF16 | `vdpbf16ps` |
//! | `amx` | and AMX-TILE, AMX-BF16 | `tdpbf16ps` |
//! | `neon` | Advanced SIMD | in f32 |
//!
//! # Threads
//!
//! Work runs on the thread that calls. Threads of a pool ([`Ctx::with_pool`]) help where they are free: a call never waits for
//! a helper that has not begun, nor runs anything else that is queued in the pool. So a call may come
//!
//! - from any thread, from a job of the same pool, or from a job of another one;
//! - under a lock that other jobs of the pool wait for;
//! - from async code, but it computes until it is done: wrap it in `spawn_blocking` or its like;
//! - from a forked child, if the pool was made there: the threads of the parent's pool do not exist in the child, and its
//!   queue may have been locked;
//! - not from a signal handler: a call may allocate, and rayon locks.
//!
//! [`Ctx::enter`] makes one pass of many calls, and a [`Team`] keeps what passes have asked the pool for. A helper spins
//! between the calls of a pass, for a millisecond without work at most, gives other jobs of the pool a turn every 5 ms, and
//! leaves at the end of the pass; without a pass nothing spins. rayon allocates a small job for each helper that is asked
//! for. A panic in a helper reaches the caller.
//!
//! # Features
//!
//! None: the crate has one configuration.
//!
//! # Example
//!
//! ```
//! use rachis_kernels::{Activation, Ctx, Gemm, Layout, MatMut, MatRef, Part, Scratch, Weights, gemm};
//!
//! // y = relu(a w^T + b) with two rows of activations, three inputs and two outputs.
//! let a = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
//! let w = [1.0f32, 0.0, -1.0, 0.5, 0.5, 0.5];
//! let bias = [0.0f32, 1.0];
//! let mut y = [0.0f32; 4];
//!
//! let weights = Weights { matrix: MatRef::new(&w, 2, 3)?.into(), layout: Layout::Nk };
//! let part = Part { bias: Some(bias[..].into()), activation: Activation::Relu, ..Part::of(weights) };
//! let product = Gemm::of(MatRef::new(&a, 2, 3)?, part, MatMut::new(&mut y, 2, 2)?);
//! gemm(&Ctx::detect(), &mut Scratch::new(), product)?;
//! assert_eq!(y, [0.0, 4.0, 0.0, 8.5]);
//! # Ok::<(), rachis_kernels::Error>(())
//! ```

pub mod activation;
mod arch;
pub mod attention;
pub mod copy;
pub mod ctx;
mod dtype;
pub mod elem;
pub mod embed;
pub mod error;
pub mod gemm;
mod isa;
mod l2_cache;
pub mod level;
pub mod math;
mod mem;
pub mod norm;
#[doc(hidden)]
pub mod probe;
pub mod rotary;
pub mod scratch;
pub mod softmax;
mod team;
pub mod view;

pub use activation::{Activation, activate};
pub use attention::{
    AlibiRounding, Attention, AttentionMask, Bias, Heads, Span, attention, attention_scratch_len,
};
pub use copy::copy_rows;
pub use ctx::{Ctx, Precision};
pub use dtype::Dtype;
pub use elem::{Elem, bf16, f16, reuse};
pub use embed::{Accumulate, EmbedRows, embed_rows};
pub use error::{Error, Expected, Result};
pub use gemm::{Combine, Dims, Gemm, Layout, Part, Weights, gemm, gemm_scratch_len};
#[doc(hidden)]
pub use gemm::{GemmPlan, PLANS, gemm_with};
pub use level::Level;
pub use norm::{NormRows, layer_norm_rows, rms_norm_rows};
/// The thread pool that [`Ctx::with_pool`] takes: that of the crate `rayon`.
pub use rayon::ThreadPool;
pub use rotary::{RotaryRows, rotary_angles, rotary_rows};
pub use scratch::Scratch;
pub use softmax::{Mask, SoftmaxRows, softmax_rows};
pub use team::Team;
pub use view::{AnyMatMut, AnyMatRef, AnySlice, MatMut, MatRef};
