//! Storage types: f32, bf16 and f16 in memory, f32 in registers.
//!
//! Widening is exact. Rounding on store is to nearest, ties to even, with gradual underflow; a NaN stays a NaN
//! (quiet), and a value beyond the largest finite one becomes infinity.

pub use half::{bf16, f16};

use crate::isa::Simd;
use crate::view::{AnyMatMut, AnyMatRef, MatMut, MatRef};

/// An element type that matrices and vectors may be stored in. Sealed: f32, [`struct@bf16`] and [`struct@f16`].
pub trait Elem: private::Stored {}

/// Reinterprets memory for f32 as memory for another storage type, for at least as many elements. Contents are
/// unspecified.
pub fn reuse<T: Elem>(memory: &mut [f32]) -> &mut [T] {
    bytemuck::cast_slice_mut(memory)
}

impl Elem for f32 {}
impl Elem for bf16 {}
impl Elem for f16 {}

pub(crate) mod private {
    use super::{AnyMatMut, AnyMatRef, MatMut, MatRef, Simd, bf16, f16};

    /// Loads and stores of 16 elements between memory and a register.
    pub trait Stored: bytemuck::Pod + Default + Send + Sync + core::fmt::Debug {
        /// Whether storing a value and loading it again gives the same value.
        const EXACT: bool;

        /// Whether it is bf16, which bf16 instructions take as stored.
        const IS_BF16: bool;

        /// The value, widened exactly.
        fn widen(self) -> f32;

        /// The matrix with its storage type as a value.
        fn any(matrix: MatRef<'_, Self>) -> AnyMatRef<'_>;

        /// The writable matrix with its storage type as a value.
        fn any_mut(matrix: MatMut<'_, Self>) -> AnyMatMut<'_>;

        /// The matrix, if this is its storage type.
        fn typed(matrix: AnyMatRef<'_>) -> Option<MatRef<'_, Self>>;

        /// Widens 16 elements.
        ///
        /// # Safety
        /// 16 elements must be readable at `from`; no alignment beyond the element's is needed.
        unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::F32;

        /// Widens raw stored bits, 4 bytes for each lane: the first element of each lane, and the second where 4 bytes
        /// hold two.
        fn split<S: Simd>(s: S, lanes: S::F32) -> [S::F32; 2];

        /// Rounds and stores 16 elements.
        ///
        /// # Safety
        /// 16 elements must be writable at `to`; no alignment beyond the element's is needed.
        unsafe fn store<S: Simd>(s: S, to: *mut Self, v: S::F32);
    }

    macro_rules! storage {
        ($t:ty, $variant:ident, $bits:ty, $exact:literal, $is_bf16:literal, $load:ident, $store:ident,
         |$s:ident, $lanes:ident| $split:expr) => {
            impl Stored for $t {
                const EXACT: bool = $exact;
                const IS_BF16: bool = $is_bf16;

                fn widen(self) -> f32 {
                    self.into()
                }

                fn any(matrix: MatRef<'_, Self>) -> AnyMatRef<'_> {
                    AnyMatRef::$variant(matrix)
                }

                fn any_mut(matrix: MatMut<'_, Self>) -> AnyMatMut<'_> {
                    AnyMatMut::$variant(matrix)
                }

                #[inline(always)]
                fn typed(matrix: AnyMatRef<'_>) -> Option<MatRef<'_, Self>> {
                    if let AnyMatRef::$variant(matrix) = matrix { Some(matrix) } else { None }
                }

                #[inline(always)]
                unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::F32 {
                    // SAFETY: the caller's contract is the operation's; the cast keeps size and alignment.
                    unsafe { s.$load(from.cast::<$bits>()) }
                }

                #[inline(always)]
                fn split<S: Simd>($s: S, $lanes: S::F32) -> [S::F32; 2] {
                    $split
                }

                #[inline(always)]
                unsafe fn store<S: Simd>(s: S, to: *mut Self, v: S::F32) {
                    // SAFETY: the caller's contract is the operation's; the cast keeps size and alignment.
                    unsafe { s.$store(to.cast::<$bits>(), v) }
                }
            }
        };
    }

    storage!(f32, F32, f32, true, false, load, store, |s, lanes| [lanes, s.splat(0.0)]);
    storage!(bf16, Bf16, u16, false, true, load_bf16, store_bf16, |s, lanes| s.split_bf16(lanes));
    storage!(f16, F16, u16, false, false, load_f16, store_f16, |s, lanes| s.split_f16(lanes));
}
