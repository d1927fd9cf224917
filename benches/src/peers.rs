//! Products by other Rust libraries, on the same operands as ours, behind safe functions.

use rachis_kernels::{Layout, f16};
use rachis_testkit::shapes::GemmShape;

/// `out = a * weights`, in matrices without gaps between rows.
pub struct Product<'a, T, C = T> {
    /// The dimensions.
    pub shape: GemmShape,
    /// How the weights lie.
    pub layout: Layout,
    /// `[M, K]`
    pub a: &'a [T],
    /// `[N, K]` or `[K, N]`
    pub weights: &'a [T],
    /// `[M, N]`, overwritten.
    pub out: &'a mut [C],
}

impl<T, C> Product<'_, T, C> {
    /// Checks that every slice has the elements that the shape says.
    ///
    /// # Panics
    /// When one does not.
    pub(crate) fn check(&self) {
        let GemmShape { m, n, k } = self.shape;
        let size = |rows: usize, cols: usize| rows.checked_mul(cols);
        assert_eq!(Some(self.a.len()), size(m, k), "elements of the activations");
        assert_eq!(Some(self.weights.len()), size(k, n), "elements of the weights");
        assert_eq!(Some(self.out.len()), size(m, n), "elements of the output");
    }

    /// Elements from one k to the next, and from one n to the next.
    fn strides(&self) -> (isize, isize) {
        match self.layout {
            Layout::Nk => (1, self.shape.k as isize),
            Layout::Kn => (self.shape.n as isize, 1),
        }
    }
}

/// The crate `gemm` on one thread, in f32.
///
/// # Panics
/// When a slice has another length than the shape says.
pub fn gemm_f32(product: Product<'_, f32>) {
    gemm_any(product, 0.0, 1.0);
}

/// The crate `gemm` on one thread, in f16: activations and results are f16 too.
///
/// # Panics
/// When a slice has another length than the shape says.
pub fn gemm_f16(product: Product<'_, f16>) {
    gemm_any(product, f16::ZERO, f16::ONE);
}

fn gemm_any<T: 'static>(product: Product<'_, T>, zero: T, one: T) {
    product.check();
    let GemmShape { m, n, k } = product.shape;
    let (by_k, by_n) = product.strides();
    // SAFETY: with these strides, for `i < m`, `j < n` and `l < k`, the function reads `a[i * k + l]` and the weights at
    // `l * by_k + j * by_n`, which is `j * k + l` or `l * n + j`, and writes `out[i * n + j]`: all inside slices that `check`
    // has found to have `m * k`, `k * n` and `m * n` elements. `out` is borrowed exclusively. `T` is f32 or f16 in the two
    // callers above, and the function takes both.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            product.out.as_mut_ptr(),
            1,
            n as isize,
            false,
            product.a.as_ptr(),
            1,
            k as isize,
            product.weights.as_ptr(),
            by_n,
            by_k,
            zero,
            one,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The crate `matrixmultiply` on one thread, its default, in f32.
///
/// # Panics
/// When a slice has another length than the shape says.
pub fn matrixmultiply_f32(product: Product<'_, f32>) {
    product.check();
    let GemmShape { m, n, k } = product.shape;
    let (by_k, by_n) = product.strides();
    let (a, weights, out) = (product.a.as_ptr(), product.weights.as_ptr(), product.out.as_mut_ptr());
    // SAFETY: as in `gemm_any`, the strides keep every access inside slices whose lengths `check` has compared with the
    // shape, and `out`, which is borrowed exclusively, has no two elements at one place.
    unsafe {
        matrixmultiply::sgemm(m, k, n, 1.0, a, k as isize, 1, weights, by_k, by_n, 0.0, out, n as isize, 1);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::arena::values;

    /// The product in f64.
    pub(crate) fn exact(shape: GemmShape, layout: Layout, a: &[f32], weights: &[f32]) -> Vec<f64> {
        let GemmShape { m, n, k } = shape;
        let mut out = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                for l in 0..k {
                    let at = if layout == Layout::Nk { j * k + l } else { l * n + j };
                    out[i * n + j] += f64::from(a[i * k + l]) * f64::from(weights[at]);
                }
            }
        }
        out
    }

    fn compare(got: impl Iterator<Item = f32>, want: &[f64], error: f64, case: &str) {
        let got: Vec<f32> = got.collect();
        assert_eq!(got.len(), want.len());
        for (got, want) in got.into_iter().zip(want) {
            assert!((f64::from(got) - want).abs() <= error, "{case}: {got} {want}");
        }
    }

    #[test]
    fn peers_compute_our_product_in_both_layouts() {
        for shape in [
            GemmShape { m: 1, n: 17, k: 33 },
            GemmShape { m: 5, n: 1, k: 7 },
            GemmShape { m: 19, n: 23, k: 40 },
        ] {
            let (a, w) = (values(shape.m * shape.k), values(shape.weights()));
            let half = |x: &[f32]| x.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>();
            for layout in Layout::ALL {
                let want = exact(shape, layout, &a, &w);
                // Sums of k products below 1/4.
                let bound = |eps: f64| eps * 0.25 * (shape.k * shape.k) as f64;
                let mut out = vec![f32::NAN; want.len()];
                for (name, run) in [("gemm", gemm_f32 as fn(Product<'_, f32>)), ("mm", matrixmultiply_f32)] {
                    out.fill(f32::NAN);
                    run(Product { shape, layout, a: &a, weights: &w, out: &mut out });
                    compare(out.iter().copied(), &want, bound(2f64.powi(-23)), name);
                }
                let mut out = vec![f16::NAN; want.len()];
                gemm_f16(Product { shape, layout, a: &half(&a), weights: &half(&w), out: &mut out });
                compare(out.iter().map(|x| x.to_f32()), &want, bound(2f64.powi(-10)), "gemm f16");
            }
        }
    }

    #[test]
    #[should_panic(expected = "elements of the weights")]
    fn a_slice_that_is_too_short_is_refused() {
        let shape = GemmShape { m: 1, n: 2, k: 3 };
        let (a, weights, out) = (&values(3), &values(5), &mut [0.0; 2]);
        gemm_f32(Product { shape, layout: Layout::Nk, a, weights, out });
    }
}
