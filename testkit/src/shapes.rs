//! The one list of sizes that tests and benchmarks read: the products and rows that models are made of, and the sizes at
//! which kernels go wrong, around every edge of vectors, micro-tiles and blocks.

use core::fmt;
use core::str::FromStr;

use crate::data::Rng;

/// MR, the rows of the micro-tiles of all levels, and the rows whose sums a product of few rows keeps in registers.
pub const TILE_ROWS: [usize; 4] = [3, 6, 8, 16];
/// NR, the lanes of the micro-tiles of all levels.
pub const TILE_LANES: [usize; 3] = [16, 32, 48];
/// KC: the products that are summed in one run before they are added to the sums of earlier blocks of k.
pub const K_BLOCK: usize = 512;

/// The dimensions of a matrix product `[m, k] x [k, n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemmShape {
    /// Rows of the activations: tokens.
    pub m: usize,
    /// Outputs.
    pub n: usize,
    /// Inputs: the dimension summed over.
    pub k: usize,
}

/// The products of BERT base and of MiniLM at several batch sizes, one token against OPT's vocabulary, and a cube. The
/// benchmarks measure all of them; the tests compute those that the oracle can.
pub const MODEL_GEMMS: [GemmShape; 13] = [
    GemmShape { m: 1, n: 768, k: 768 },
    GemmShape { m: 8, n: 768, k: 768 },
    GemmShape { m: 16, n: 768, k: 768 },
    GemmShape { m: 32, n: 3072, k: 768 },
    GemmShape { m: 128, n: 384, k: 384 },
    GemmShape { m: 128, n: 1536, k: 384 },
    GemmShape { m: 128, n: 384, k: 1536 },
    GemmShape { m: 128, n: 768, k: 768 },
    GemmShape { m: 128, n: 3072, k: 768 },
    GemmShape { m: 128, n: 768, k: 3072 },
    GemmShape { m: 512, n: 3072, k: 768 },
    GemmShape { m: 1024, n: 1024, k: 1024 },
    GemmShape { m: 1, n: 50272, k: 768 },
];

/// Rows and columns of the matrices that BERT base normalises and activates at 128 tokens.
pub const MODEL_ROWS: [(usize, usize); 2] = [(128, 768), (128, 3072)];

/// The most elements of a matrix that [`GemmShape`] is read from text for: 1 GiB of f32.
const MAX_ELEMENTS: usize = 1 << 28;

impl GemmShape {
    /// Multiplications, at least 1.
    pub fn work(&self) -> u64 {
        (self.m * self.n * self.k).max(1) as u64
    }

    /// Multiplications and additions.
    pub fn flops(&self) -> u64 {
        2 * [self.m, self.n, self.k].into_iter().fold(1, |product, dim| product * dim as u64)
    }

    /// Elements of the weights.
    pub fn weights(&self) -> usize {
        self.n * self.k
    }
}

impl fmt::Display for GemmShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}

/// Reads `MxNxK`, as it is displayed.
impl FromStr for GemmShape {
    type Err = String;

    fn from_str(text: &str) -> Result<GemmShape, String> {
        let dims: Option<Vec<usize>> =
            text.split('x').map(|dim| dim.parse().ok().filter(|d| *d > 0)).collect();
        let Some(&[m, n, k]) = dims.as_deref() else {
            return Err(format!("shape {text}: expected MxNxK"));
        };
        let fits = |a: usize, b: usize| a.checked_mul(b).is_some_and(|elements| elements <= MAX_ELEMENTS);
        if fits(m, n) && fits(m, k) && fits(n, k) {
            Ok(GemmShape { m, n, k })
        } else {
            Err(format!("shape {text}: expected matrices of at most {MAX_ELEMENTS} elements"))
        }
    }
}

/// Lengths of a row around the edges of vectors and their unrolled groups: 0, 1, each edge and its neighbours, and a few
/// long ones, among them the hidden sizes of MiniLM and BERT base.
pub fn row_lengths() -> Vec<usize> {
    let mut lengths = with_neighbours(&[8, 16, 32, 48, 64, 256]);
    lengths.extend([100, 384, MODEL_ROWS[0].1, 1000]);
    lengths
}

/// Sizes of a dimension that is cut into tiles.
pub fn tiled() -> Vec<usize> {
    let mut edges: Vec<usize> = TILE_ROWS.into_iter().chain(TILE_LANES).collect();
    // MC: multiples of both the tile's rows and a vector's lanes.
    edges.extend([48, 64, 96]);
    with_neighbours(&edges)
}

/// Sizes of the dimension summed over.
pub fn depths() -> Vec<usize> {
    with_neighbours(&[16, 32, K_BLOCK, 2 * K_BLOCK])
}

/// Shapes of matrix products with about `budget` multiplications in total, or more if the edges alone need more: each
/// dimension takes each of its edge sizes while the others are small, then random combinations of edge sizes follow, the
/// same in every run.
pub fn gemm(budget: u64) -> Vec<GemmShape> {
    let (tiled, depths) = (tiled(), depths());
    let mut shapes = Vec::new();
    for &size in &tiled {
        shapes.push(GemmShape { m: size, n: 17, k: 19 });
        shapes.push(GemmShape { m: 5, n: size, k: 19 });
        shapes.push(GemmShape { m: 13, n: size, k: 7 });
    }
    for &k in &depths {
        shapes.push(GemmShape { m: 1, n: 33, k });
        shapes.push(GemmShape { m: 13, n: 17, k });
    }
    let mut rng = Rng::new(0x5eed);
    let mut spent: u64 = shapes.iter().map(GemmShape::work).sum();
    while spent < budget {
        let shape = GemmShape { m: rng.pick(&tiled), n: rng.pick(&tiled), k: rng.pick(&depths) };
        spent += shape.work();
        shapes.push(shape);
    }
    shapes
}

/// 0, 1, and each edge with its neighbours, ascending and without repetition.
fn with_neighbours(edges: &[usize]) -> Vec<usize> {
    let neighbours = edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]);
    let mut sizes: Vec<usize> = [0, 1].into_iter().chain(neighbours).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_have_edges_and_their_neighbours() {
        let tiled = tiled();
        for size in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49] {
            assert!(tiled.contains(&size), "{size}");
        }
        assert!([31, 33, 511, 512, 513, 1023, 1025].iter().all(|k| depths().contains(k)));
        let lengths = row_lengths();
        assert!(lengths.starts_with(&[0, 1, 7, 8, 9]) && lengths.ends_with(&[384, 768, 1000]));
    }

    #[test]
    fn the_budget_holds_and_the_list_is_the_same_in_every_run() {
        let shapes = gemm(3_000_000);
        let work: u64 = shapes.iter().map(GemmShape::work).sum();
        assert!((3_000_000..6_000_000).contains(&work), "{work}");
        assert_eq!(shapes, gemm(3_000_000));
        assert!(
            shapes.iter().any(|s| s.m == 0)
                && shapes.iter().any(|s| s.n == 0)
                && shapes.iter().any(|s| s.k == 0)
        );
        assert!(gemm(0).len() > 70);
    }

    #[test]
    fn every_product_of_a_model_is_parsed_from_what_it_displays() {
        for shape in MODEL_GEMMS {
            assert_eq!(shape.to_string().parse(), Ok(shape));
        }
    }

    #[test]
    fn a_product_has_three_dimensions_above_zero() {
        for text in ["", "1", "1x2", "1x2x3x4", "1x0x3", "1x-2x3", "1xax3", "1x2x", "1X2X3", " 1x2x3"] {
            let error = text.parse::<GemmShape>().unwrap_err();
            assert_eq!(error, format!("shape {text}: expected MxNxK"));
        }
    }

    #[test]
    fn a_parsed_matrix_has_a_bounded_size() {
        assert!("1x16384x16384".parse::<GemmShape>().is_ok());
        for text in ["1x16384x16385", "16385x1x16384", "16385x16384x1", "1x9999999999x9999999999"] {
            assert!(text.parse::<GemmShape>().unwrap_err().contains("at most"), "{text}");
        }
    }

    #[test]
    fn a_product_counts_two_operations_for_each_multiplication() {
        assert_eq!(GemmShape { m: 2, n: 3, k: 5 }.flops(), 60);
        assert_eq!(GemmShape { m: 2, n: 3, k: 5 }.weights(), 15);
    }
}
