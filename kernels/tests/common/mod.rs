//! Shared code of the kernel tests: storage types with their views, and contexts for every level.
#![allow(dead_code, unused_macros, unused_imports, reason = "each test file uses a part")]

pub mod attention_case;
pub mod gemm_case;

use rachis_kernels::{AnyMatRef, AnySlice, Ctx, Elem, Level, MatMut, MatRef, bf16, f16};
use rachis_testkit::{Grid, Storage, for_each_level, oracle};

/// A storage type of the kernels that is a [`Storage`] type of the testkit.
pub trait Element: Elem + Storage {
    fn matrix<'a>(matrix: MatRef<'a, Self>) -> AnyMatRef<'a>;
    fn vector(vector: &[Self]) -> AnySlice<'_>;
}

macro_rules! element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            fn matrix<'a>(matrix: MatRef<'a, Self>) -> AnyMatRef<'a> {
                matrix.into()
            }
            fn vector(vector: &[Self]) -> AnySlice<'_> {
                vector.into()
            }
        }
    )*};
}
element!(f32, bf16, f16);

/// Calls a function that is generic over the storage type with each storage type.
macro_rules! for_each_type {
    ($function:ident($($argument:expr),*)) => {
        $function::<f32>($($argument),*);
        $function::<rachis_kernels::bf16>($($argument),*);
        $function::<rachis_kernels::f16>($($argument),*);
    };
}
pub(crate) use for_each_type;

/// Runs `test` with a context of each level of this machine.
pub fn at_every_level(mut test: impl FnMut(&Ctx)) {
    for_each_level(Level::supported(), |level| test(&Ctx::new(level).unwrap()));
}

/// The matrix in a grid, without the guards.
pub fn view<T: Element>(grid: &Grid<T>) -> MatRef<'_, T> {
    MatRef::with_stride(grid.slice(), grid.rows(), grid.cols(), grid.stride()).unwrap()
}

/// The matrix in a grid, mutably.
pub fn view_mut<T: Element>(grid: &mut Grid<T>) -> MatMut<'_, T> {
    let (rows, cols, stride) = (grid.rows(), grid.cols(), grid.stride());
    MatMut::with_stride(grid.slice_mut(), rows, cols, stride).unwrap()
}

/// The bits of all elements, for comparisons without tolerance.
pub fn bits<T: Storage>(values: &[T]) -> Vec<u32> {
    values.iter().map(|x| x.bits()).collect()
}

/// Whether this is the level without fused multiply-add, which rounds products when it adds them.
pub fn is_scalar(ctx: &Ctx) -> bool {
    ctx.level() == Level::Scalar
}

/// The error of a function in units in the last place at this context's level.
pub fn ulps(ctx: &Ctx, bound: rachis_testkit::tolerance::Ulps) -> f64 {
    if is_scalar(ctx) { bound.scalar } else { bound.fused }
}

/// The kernels' activation for an oracle's.
pub fn activation(activation: oracle::Activation) -> rachis_kernels::Activation {
    use rachis_kernels::Activation as Kernel;
    match activation {
        oracle::Activation::Identity => Kernel::Identity,
        oracle::Activation::Relu => Kernel::Relu,
        oracle::Activation::GeluErf => Kernel::GeluErf,
        oracle::Activation::GeluTanh => Kernel::GeluTanh,
        oracle::Activation::Silu => Kernel::Silu,
        oracle::Activation::QuickGelu => Kernel::QuickGelu,
        oracle::Activation::Tanh => Kernel::Tanh,
    }
}
