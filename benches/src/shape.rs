//! The products that models are made of.

use std::fmt;
use std::str::FromStr;

/// A product `[m, k] x [k, n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of activations: tokens.
    pub m: usize,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
}

/// The products of BERT base and of MiniLM at several batch sizes, one token against a vocabulary, and a cube.
pub const SHAPES: [Shape; 13] = [
    Shape { m: 1, n: 768, k: 768 },
    Shape { m: 8, n: 768, k: 768 },
    Shape { m: 16, n: 768, k: 768 },
    Shape { m: 32, n: 3072, k: 768 },
    Shape { m: 128, n: 384, k: 384 },
    Shape { m: 128, n: 1536, k: 384 },
    Shape { m: 128, n: 384, k: 1536 },
    Shape { m: 128, n: 768, k: 768 },
    Shape { m: 128, n: 3072, k: 768 },
    Shape { m: 128, n: 768, k: 3072 },
    Shape { m: 512, n: 3072, k: 768 },
    Shape { m: 1024, n: 1024, k: 1024 },
    Shape { m: 1, n: 50272, k: 768 },
];

/// The most elements of a matrix: 1 GiB of f32.
const MOST: usize = 1 << 28;

impl Shape {
    /// Multiplications and additions.
    pub fn flops(&self) -> u64 {
        2 * [self.m, self.n, self.k].into_iter().fold(1, |product, dim| product * dim as u64)
    }

    /// Elements of the weights.
    pub fn weights(&self) -> usize {
        self.n * self.k
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let dims: Option<Vec<usize>> =
            text.split('x').map(|dim| dim.parse().ok().filter(|d| *d > 0)).collect();
        let Some(&[m, n, k]) = dims.as_deref() else {
            return Err(format!("shape {text}: expected MxNxK"));
        };
        let fits = |a: usize, b: usize| a.checked_mul(b).is_some_and(|elements| elements <= MOST);
        if fits(m, n) && fits(m, k) && fits(n, k) {
            Ok(Shape { m, n, k })
        } else {
            Err(format!("shape {text}: expected matrices of at most {MOST} elements"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_shape_is_parsed_from_what_it_prints() {
        for shape in SHAPES {
            assert_eq!(shape.to_string().parse(), Ok(shape));
        }
    }

    #[test]
    fn a_product_has_three_dimensions_above_zero() {
        for text in ["", "1", "1x2", "1x2x3x4", "1x0x3", "1x-2x3", "1xax3", "1x2x", "1X2X3", " 1x2x3"] {
            let error = text.parse::<Shape>().unwrap_err();
            assert_eq!(error, format!("shape {text}: expected MxNxK"));
        }
    }

    #[test]
    fn no_matrix_is_larger_than_the_memory_set_aside() {
        assert!("1x16384x16384".parse::<Shape>().is_ok());
        for text in ["1x16384x16385", "16385x1x16384", "16385x16384x1", "1x9999999999x9999999999"] {
            assert!(text.parse::<Shape>().unwrap_err().contains("at most"), "{text}");
        }
    }

    #[test]
    fn a_product_counts_two_operations_for_each_multiplication() {
        assert_eq!(Shape { m: 2, n: 3, k: 5 }.flops(), 60);
        assert_eq!(Shape { m: 2, n: 3, k: 5 }.weights(), 15);
    }
}
