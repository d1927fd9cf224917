//! Any CBLAS shared library that is named when the program runs: MKL, OpenBLAS and others.
//!
//! The library must have the C interface with 32-bit integers (LP64, the usual one). Its own environment variables set its
//! number of threads. MKL needs its directory on the loader's path:
//!
//! ```sh
//! LD_LIBRARY_PATH=MKL_DIRECTORY MKL_INTERFACE_LAYER=LP64 MKL_THREADING_LAYER=SEQUENTIAL \
//!     kprobe --cblas MKL_DIRECTORY/libmkl_rt.so
//! ```

use std::error::Error;
use std::ffi::{OsStr, c_int};

use libloading::Library;
use rachis_kernels::{Dtype, Layout, bf16};
use rachis_testkit::shapes::GemmShape;

use crate::arena::values;
use crate::peers::Product;

/// `cblas_?gemm` with f32 results: layout, transposition of A and of B, m, n, k, alpha, A and its row stride, B and its row
/// stride, beta, C and its row stride.
type Function<T> = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const T,
    c_int,
    *const T,
    c_int,
    f32,
    *mut f32,
    c_int,
);

const ROW_MAJOR: c_int = 101;
const AS_IS: c_int = 111;
const TRANSPOSED: c_int = 112;

/// A loaded library.
pub struct Cblas {
    f32: Function<f32>,
    bf16: Option<Function<bf16>>,
    /// Keeps the functions in memory.
    _library: Library,
}

impl Cblas {
    /// Loads the library with `cblas_sgemm` and, if it has it, `cblas_gemm_bf16bf16f32`, and tries them.
    ///
    /// Whoever names the library vouches for it, as for any program that they start: its initialisers run, and functions with
    /// these names are called with the signatures of CBLAS with 32-bit integers. No check can replace that promise; a library
    /// that computes a small product wrongly is refused as well.
    ///
    /// # Errors
    /// When the library or `cblas_sgemm` cannot be loaded, or a small product is wrong.
    pub fn load(path: &OsStr) -> Result<Cblas, String> {
        let error = |error: libloading::Error| match error.source() {
            Some(source) => format!("{}: {error}: {source}", path.display()),
            None => format!("{}: {error}", path.display()),
        };
        // SAFETY: the library's initialisers and finalisers may run in this process at this time: whoever named it vouches
        // for that, as documented above.
        let library = unsafe { Library::new(path) }.map_err(error)?;
        // SAFETY: a function with this name has this signature in every CBLAS with 32-bit integers, which this is by the same
        // promise. Only `Cblas`, which owns the library, uses the copied pointer.
        let f32 = *unsafe { library.get::<Function<f32>>("cblas_sgemm") }.map_err(error)?;
        // SAFETY: as for `cblas_sgemm`; `bf16` has the layout of the library's 16-bit integer type.
        let bf16 = unsafe { library.get::<Function<bf16>>("cblas_gemm_bf16bf16f32") }.ok().map(|f| *f);
        let cblas = Cblas { f32, bf16, _library: library };
        if cblas.computes_correctly() {
            Ok(cblas)
        } else {
            Err(format!(
                "{}: a small product is wrong; expected an interface with 32-bit integers",
                path.display()
            ))
        }
    }

    /// Whether it has a product for weights of this type.
    pub fn takes(&self, dtype: Dtype) -> bool {
        match dtype {
            Dtype::Float32 => true,
            Dtype::Bfloat16 => self.bf16.is_some(),
            Dtype::Float16 => false,
        }
    }

    /// Calls `cblas_sgemm`.
    ///
    /// # Panics
    /// When a slice has another length than the shape says, or a dimension does not fit 32 bits.
    pub fn gemm_f32(&self, product: Product<'_, f32>) {
        call(self.f32, product);
    }

    /// Calls `cblas_gemm_bf16bf16f32`; returns whether the library has it.
    ///
    /// # Panics
    /// When a slice has another length than the shape says, or a dimension does not fit 32 bits.
    pub fn gemm_bf16(&self, product: Product<'_, bf16, f32>) -> bool {
        self.bf16.inspect(|function| call(*function, product)).is_some()
    }

    fn computes_correctly(&self) -> bool {
        // Sums of integers that stay below 2^8, so that every type and order gives the same result.
        let shape = GemmShape { m: 3, n: 4, k: 5 };
        let small = |count| values(count).into_iter().map(|x| (x * 6.0).round()).collect::<Vec<f32>>();
        let (a, w) = (small(15), small(20));
        let rounded = |x: &[f32]| x.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
        let (a16, w16) = (rounded(&a), rounded(&w));
        Layout::ALL.into_iter().all(|layout| {
            let (by_n, by_k) = if layout == Layout::Nk { (5, 1) } else { (1, 4) };
            let sum = |i: usize| (0..5).map(|k| a[i / 4 * 5 + k] * w[i % 4 * by_n + k * by_k]).sum::<f32>();
            let want: Vec<f32> = (0..12).map(sum).collect();
            let (mut out, mut out16) = (vec![f32::NAN; 12], vec![f32::NAN; 12]);
            self.gemm_f32(Product { shape, layout, a: &a, weights: &w, out: &mut out });
            let has = self.gemm_bf16(Product { shape, layout, a: &a16, weights: &w16, out: &mut out16 });
            out == want && (!has || out16 == want)
        })
    }
}

fn call<T>(function: Function<T>, product: Product<'_, T, f32>) {
    product.check();
    let GemmShape { m, n, k } = product.shape;
    let [rows, cols, depth] = [m, n, k].map(|dim| c_int::try_from(dim).expect("dimensions fit 32 bits"));
    let (transposed, stride) = match product.layout {
        Layout::Nk => (TRANSPOSED, depth),
        Layout::Kn => (AS_IS, cols),
    };
    // Strides are at least 1, also for a matrix without elements.
    let [stride, a_stride, out_stride] = [stride, depth, cols].map(|stride| stride.max(1));
    // SAFETY: by the contract of `Cblas::load`, the function reads `m` rows of `k` elements at `a` and `n` rows of `k` or `k`
    // rows of `n` at the weights, and writes `m` rows of `n` at `out`, each row where the last ends. `check` has compared the
    // lengths of the slices with that; `out` is borrowed exclusively.
    unsafe {
        function(
            ROW_MAJOR,
            AS_IS,
            transposed,
            rows,
            cols,
            depth,
            1.0,
            product.a.as_ptr(),
            a_stride,
            product.weights.as_ptr(),
            stride,
            0.0,
            product.out.as_mut_ptr(),
            out_stride,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_a_library_that_does_not_exist() {
        let error = Cblas::load(OsStr::new("no-such-library.so")).err().expect("there is none");
        assert!(error.starts_with("no-such-library.so: "), "{error}");
    }
}
