//! The operations by their textbook formulas, in f64 and without any optimisation.

pub use libm::{erf, erfc};

/// An element-wise function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x
    Identity,
    /// max(x, 0)
    Relu,
    /// x/2 (1 + erf(x / sqrt 2))
    GeluErf,
    /// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    GeluTanh,
    /// x sigmoid(x)
    Silu,
    /// x sigmoid(1.702 x)
    QuickGelu,
    /// tanh(x)
    Tanh,
}

impl Activation {
    /// Every function.
    pub const ALL: [Activation; 7] = [
        Activation::Identity,
        Activation::Relu,
        Activation::GeluErf,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::QuickGelu,
        Activation::Tanh,
    ];

    /// The function; at an infinity its limit there.
    pub fn eval(self, x: f64) -> f64 {
        if x == f64::NEG_INFINITY && !matches!(self, Activation::Identity | Activation::Tanh) {
            return 0.0;
        }
        match self {
            Activation::Identity => x,
            Activation::Relu => {
                if x > 0.0 || x.is_nan() {
                    x
                } else {
                    0.0
                }
            }
            Activation::GeluErf => 0.5 * x * erfc(-x * core::f64::consts::FRAC_1_SQRT_2),
            Activation::GeluTanh => {
                // (1 + tanh u) / 2 = sigmoid(2u), which does not cancel.
                let u = (2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                x * sigmoid(2.0 * u)
            }
            Activation::Silu => x * sigmoid(x),
            Activation::QuickGelu => x * sigmoid(1.702 * x),
            Activation::Tanh => x.tanh(),
        }
    }

    /// A bound on the absolute value of the derivative.
    pub fn steepest(self) -> f64 {
        match self {
            Activation::Identity | Activation::Relu | Activation::Tanh => 1.0,
            Activation::GeluErf | Activation::GeluTanh | Activation::Silu | Activation::QuickGelu => 1.13,
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A matrix product with its epilogue: `activation(a * w + bias) + residual`. All matrices without gaps.
#[derive(Debug, Clone)]
pub struct Gemm {
    /// Rows of `a` and of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// The dimension summed over.
    pub k: usize,
    /// `[M, K]`
    pub a: Vec<f64>,
    /// `[N, K]`: a row for each column of the result.
    pub w: Vec<f64>,
    /// `[N]`
    pub bias: Option<Vec<f64>>,
    /// Applied after the bias.
    pub activation: Activation,
    /// `[M, N]`, added last.
    pub residual: Option<Vec<f64>>,
}

/// An element of a product, with the terms of its error bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dot {
    /// `sum a w`
    pub sum: f64,
    /// `sum |a| |w|`
    pub magnitude: f64,
    /// `sum + bias`
    pub biased: f64,
    /// `activation(biased)`
    pub activated: f64,
    /// The result.
    pub exact: f64,
}

impl Gemm {
    /// The element at row `i` and column `j`.
    pub fn at(&self, i: usize, j: usize) -> Dot {
        let a = &self.a[i * self.k..(i + 1) * self.k];
        let w = &self.w[j * self.k..(j + 1) * self.k];
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for (a, w) in a.iter().zip(w) {
            sum += a * w;
            magnitude += (a * w).abs();
        }
        let biased = self.bias.as_ref().map_or(sum, |bias| sum + bias[j]);
        let activated = self.activation.eval(biased);
        let exact = self.residual.as_ref().map_or(activated, |r| activated + r[i * self.n + j]);
        Dot { sum, magnitude, biased, activated, exact }
    }
}

/// The transpose of a `[rows, cols]` matrix.
pub fn transpose(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    assert_eq!(x.len(), rows * cols);
    (0..cols).flat_map(|j| (0..rows).map(move |i| x[i * cols + j])).collect()
}

/// Softmax over the visible elements. The others are 0, and all are 0 when none is visible.
pub fn softmax(scores: &[f64], visible: &[bool]) -> Vec<f64> {
    let seen = || scores.iter().zip(visible).filter(|(_, visible)| **visible).map(|(x, _)| *x);
    // `f64::max` ignores NaN; it reaches the result through the sum.
    let largest = seen().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = seen().map(|x| (x - largest).exp()).sum();
    let each = scores.iter().zip(visible);
    each.map(|(x, visible)| if *visible { (x - largest).exp() / sum } else { 0.0 }).collect()
}

/// Rows of values added with the softmax of `scores` as weights: attention for one query.
pub fn weighted_sum(scores: &[f64], values: &[&[f64]]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let columns = values.first().map_or(0, |row| row.len());
    let sum = |column: usize| values.iter().zip(&weights).map(|(v, w)| v[column] * w / total).sum();
    (0..columns).map(sum).collect()
}

/// Mean and biased variance.
pub fn moments(x: &[f64]) -> (f64, f64) {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    (mean, x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count)
}

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`
pub fn layer_norm(x: &[f64], gamma: &[f64], beta: &[f64], epsilon: f64) -> Vec<f64> {
    let (mean, variance) = moments(x);
    let scale = 1.0 / (variance + epsilon).sqrt();
    (0..x.len()).map(|i| (x[i] - mean) * scale * gamma[i] + beta[i]).collect()
}

/// `x / sqrt(mean(x^2) + epsilon) * gamma + beta`
pub fn rms_norm(x: &[f64], gamma: &[f64], beta: &[f64], epsilon: f64) -> Vec<f64> {
    let square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (square + epsilon).sqrt();
    (0..x.len()).map(|i| x[i] * scale * gamma[i] + beta[i]).collect()
}

/// The angles of a rotary embedding, `position * theta^(-2i / dim)` for `i < dim / 2`.
pub fn rotary_angles(position: u32, theta: f64, dim: usize) -> Vec<f64> {
    let frequency = |i: usize| (-2.0 * i as f64 / dim as f64 * theta.ln()).exp();
    (0..dim / 2).map(|i| f64::from(position) * frequency(i)).collect()
}

/// A head whose pairs `(x[i], x[i + dim / 2])` are rotated by angles with these cosines and sines.
pub fn rotary(x: &[f64], cosines: &[f64], sines: &[f64]) -> Vec<f64> {
    let (x, y) = x.split_at(cosines.len());
    let pairs = || cosines.iter().zip(sines).zip(x.iter().zip(y));
    let first = pairs().map(|((cos, sin), (x, y))| x * cos - y * sin);
    first.chain(pairs().map(|((cos, sin), (x, y))| y * cos + x * sin)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64, relative: f64) {
        assert!((got - expected).abs() <= relative * expected.abs(), "{got:e} for {expected:e}");
    }

    #[test]
    fn erf_has_the_known_values() {
        // Digits from NIST's Digital Library of Mathematical Functions, section 7.22, and from mpmath.
        close(erf(0.5), 0.520_499_877_813_046_5, 1e-15);
        close(erf(1.0), 0.842_700_792_949_714_9, 1e-15);
        close(erf(2.0), 0.995_322_265_018_952_7, 1e-15);
        close(erf(1e-9), 1.128_379_167_095_512_6e-9, 1e-15);
        close(erfc(1.0), 0.157_299_207_050_285_13, 1e-15);
        close(erfc(5.0), 1.537_459_794_428_035e-12, 2e-15);
        close(erfc(10.0), 2.088_487_583_762_545e-45, 4e-15);
        assert_eq!((erf(-0.0).to_bits(), erf(7.0)), ((-0.0f64).to_bits(), 1.0));
    }

    #[test]
    fn erf_agrees_with_its_series() {
        for i in 1..=300 {
            let x = f64::from(i) * 0.01;
            // 2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (2n+1)!!: all terms positive, nothing cancels.
            let (mut term, mut sum) = (x, 0.0);
            for n in 0..200 {
                sum += term;
                term *= 2.0 * x * x / f64::from(2 * n + 3);
            }
            close(erf(x), core::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum, 4e-15);
        }
    }

    #[test]
    fn activations_have_the_known_values() {
        let cases = [
            (Activation::Relu, -2.0, 0.0),
            (Activation::GeluErf, 1.0, 0.841_344_746_068_542_9),
            (Activation::GeluErf, -3.0, -0.004_049_694_094_890_284),
            (Activation::GeluTanh, 1.0, 0.841_191_990_608_276_8),
            (Activation::Silu, 1.0, 0.731_058_578_630_004_9),
            (Activation::Tanh, 0.5, 0.462_117_157_260_009_74),
        ];
        for (activation, x, expected) in cases {
            close(activation.eval(x), expected, 1e-13);
        }
        for activation in Activation::ALL {
            assert!(activation.eval(f64::NAN).is_nan());
            assert_eq!(activation.eval(0.0), 0.0);
            let limit = if activation == Activation::Tanh { 1.0 } else { f64::INFINITY };
            assert_eq!(activation.eval(f64::INFINITY), limit);
            assert!(activation.eval(f64::NEG_INFINITY) <= 0.0);
            // No difference quotient exceeds the stated slope.
            for i in -8000..8000 {
                let x = f64::from(i) * 1e-3;
                let slope = (activation.eval(x + 1e-3) - activation.eval(x)) / 1e-3;
                assert!(slope.abs() <= activation.steepest() + 1e-9, "{activation:?} at {x}: {slope}");
            }
        }
    }

    #[test]
    fn a_small_product_by_hand() {
        let gemm = Gemm {
            m: 1,
            n: 2,
            k: 2,
            a: vec![1.0, -2.0],
            w: vec![3.0, 4.0, 5.0, 1.0],
            bias: Some(vec![1.0, -10.0]),
            activation: Activation::Relu,
            residual: Some(vec![0.5, 0.25]),
        };
        assert_eq!(
            gemm.at(0, 0),
            Dot { sum: -5.0, magnitude: 11.0, biased: -4.0, activated: 0.0, exact: 0.5 }
        );
        assert_eq!(gemm.at(0, 1).exact, 0.25);
        assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn rotary_by_hand() {
        let angles = rotary_angles(3, 16.0, 4);
        close(angles[0], 3.0, 1e-15);
        close(angles[1], 0.75, 1e-15);
        // The first pair is rotated by a right angle, the second not at all.
        assert_eq!(rotary(&[1.0, 2.0, 3.0, 4.0], &[0.0, 1.0], &[1.0, 0.0]), [-3.0, 2.0, 1.0, 4.0]);
    }

    #[test]
    fn a_weighted_sum_by_hand() {
        // Weights 1/3 and 2/3.
        let y = weighted_sum(&[0.0, 2f64.ln()], &[&[3.0, 0.0], &[6.0, -3.0]]);
        close(y[0], 5.0, 1e-15);
        close(y[1], -2.0, 1e-15);
        assert_eq!(weighted_sum(&[f64::NEG_INFINITY, 1.0], &[&[7.0], &[2.0]]), [2.0]);
        assert!(weighted_sum(&[], &[]).is_empty());
    }

    #[test]
    fn softmax_and_norms_by_hand() {
        let y = softmax(&[0.0, 2f64.ln(), 9.0], &[true, true, false]);
        close(y[0], 1.0 / 3.0, 1e-15);
        close(y[1], 2.0 / 3.0, 1e-15);
        assert_eq!(y[2], 0.0);
        assert_eq!(softmax(&[1.0, 2.0], &[false, false]), [0.0, 0.0]);
        assert!(softmax(&[1.0, f64::NAN], &[true, true])[0].is_nan());
        assert_eq!(softmax(&[f64::NEG_INFINITY, 1.0], &[true, true]), [0.0, 1.0]);
        let y = layer_norm(&[1.0, 3.0], &[2.0, 1.0], &[0.0, 1.0], 0.0);
        assert_eq!(y, [-2.0, 2.0]);
        assert_eq!(rms_norm(&[3.0, -3.0], &[1.0, 2.0], &[0.0, 0.0], 0.0), [1.0, -2.0]);
    }
}
