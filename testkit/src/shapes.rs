//! The sizes at which kernels go wrong: around every edge of vectors, register tiles and blocks.

use crate::data::Rng;

/// Rows of the register tiles of all levels.
pub const TILE_ROWS: [usize; 4] = [3, 6, 8, 16];
/// Lanes of the register tiles of all levels.
pub const TILE_LANES: [usize; 3] = [16, 32, 48];
/// Products that are summed in one run.
pub const K_BLOCK: usize = 512;

/// The dimensions of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemmShape {
    /// Rows of the activations.
    pub m: usize,
    /// Outputs.
    pub n: usize,
    /// The dimension summed over.
    pub k: usize,
}

impl GemmShape {
    /// Multiplications, at least 1.
    pub fn work(&self) -> u64 {
        (self.m * self.n * self.k).max(1) as u64
    }
}

/// Lengths of a row that straddle the edges of vectors and their unrolled groups: 0, 1, each edge and its
/// neighbours, and a few long ones.
pub fn row_lengths() -> Vec<usize> {
    let mut lengths = around(&[8, 16, 32, 48, 64, 256]);
    lengths.extend([100, 384, 1000]);
    lengths
}

/// Sizes of a dimension that is cut into tiles.
pub fn tiled() -> Vec<usize> {
    let mut edges: Vec<usize> = TILE_ROWS.into_iter().chain(TILE_LANES).collect();
    // Strips of rows: multiples of both the tile's rows and a vector's lanes.
    edges.extend([48, 64, 96]);
    around(&edges)
}

/// Sizes of the dimension summed over.
pub fn depths() -> Vec<usize> {
    around(&[16, 32, K_BLOCK, 2 * K_BLOCK])
}

/// Shapes of matrix products of about `budget` multiplications in all, and not fewer than the list of edges
/// asks for: each dimension takes each of its edge sizes while the others are small, then random combinations
/// of edge sizes, the same for every run.
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
fn around(edges: &[usize]) -> Vec<usize> {
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
    fn edges_and_their_neighbours_are_there() {
        let tiled = tiled();
        for size in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49] {
            assert!(tiled.contains(&size), "{size}");
        }
        assert!([31, 33, 511, 512, 513, 1023, 1025].iter().all(|k| depths().contains(k)));
        assert!(row_lengths().windows(2).all(|pair| pair[0] < pair[1]) || row_lengths().contains(&1000));
    }

    #[test]
    fn the_budget_is_kept_and_the_list_is_stable() {
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
}
