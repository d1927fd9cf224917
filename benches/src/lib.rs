//! What the benchmarks share: the list of products that models are made of, and a clock.

pub mod machine;

use std::time::{Duration, Instant};

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

/// The products of BERT base and of MiniLM at several batch sizes, and a cube.
pub const SHAPES: [Shape; 11] = [
    Shape { m: 1, n: 768, k: 768 },
    Shape { m: 8, n: 768, k: 768 },
    Shape { m: 32, n: 3072, k: 768 },
    Shape { m: 128, n: 384, k: 384 },
    Shape { m: 128, n: 1536, k: 384 },
    Shape { m: 128, n: 384, k: 1536 },
    Shape { m: 128, n: 768, k: 768 },
    Shape { m: 128, n: 3072, k: 768 },
    Shape { m: 128, n: 768, k: 3072 },
    Shape { m: 512, n: 3072, k: 768 },
    Shape { m: 1024, n: 1024, k: 1024 },
];

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let dims: Option<Vec<usize>> =
            text.split('x').map(|dim| dim.parse().ok().filter(|d| *d > 0)).collect();
        match dims.as_deref() {
            Some(&[m, n, k]) => Ok(Shape { m, n, k }),
            _ => Err(format!("shape {text}: expected MxNxK")),
        }
    }
}

/// The shortest of several calls: at least `fewest`, and as many as fit into `budget`.
pub fn best_time(fewest: usize, budget: Duration, mut call: impl FnMut()) -> Duration {
    let started = Instant::now();
    let mut best = Duration::MAX;
    let mut count = 0;
    while count < fewest || started.elapsed() < budget {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed());
        count += 1;
    }
    best
}
