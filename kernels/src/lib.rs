//! SIMD kernels for transformer inference on the CPU.

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
pub mod probe;
pub mod rotary;
pub mod scratch;
pub mod softmax;
mod spin_join;
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
pub use error::{Error, Result};
pub use gemm::{
    Combine, Dims, Gemm, GemmPlan, Layout, PLANS, Part, Weights, gemm, gemm_scratch_len, gemm_with,
};
pub use level::Level;
pub use norm::{NormRows, layer_norm_rows, rms_norm_rows};
pub use rotary::{RotaryRows, rotary_angles, rotary_rows};
pub use scratch::Scratch;
pub use softmax::{Mask, SoftmaxRows, softmax_rows};
pub use view::{AnyMatMut, AnyMatRef, AnySlice, MatMut, MatRef};
