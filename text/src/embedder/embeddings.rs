//! The vectors of texts, and how they are compared.

use std::fmt;

use crate::error::{Error, Result, clip};
use crate::sentence_transformers::Fields;

/// Vectors of texts: one row a text, in the order of the texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    values: Vec<f32>,
    dimension: usize,
}

impl Embeddings {
    /// Vectors of `dimension` components, one after another.
    pub(super) fn new(values: Vec<f32>, dimension: usize) -> Embeddings {
        Embeddings { values, dimension }
    }

    /// Vectors from elsewhere, one after another, such as those of an earlier run.
    ///
    /// # Errors
    /// [`Error::Request`] when `dimension` is 0, or the number of values is not a multiple of it.
    pub fn from_values(values: Vec<f32>, dimension: usize) -> Result<Embeddings> {
        if dimension == 0 || !values.len().is_multiple_of(dimension) {
            let expected = format!("a multiple of the dimension, {dimension}");
            return Err(Error::Request {
                what: "number of values",
                found: values.len().to_string(),
                expected,
            });
        }
        Ok(Embeddings { values, dimension })
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dimension).unwrap_or(0)
    }

    /// Whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Number of components of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The vector of text `i`; `None` when there is no such text.
    pub fn get(&self, i: usize) -> Option<&[f32]> {
        let start = i.checked_mul(self.dimension)?;
        self.values.get(start..start.checked_add(self.dimension)?).filter(|row| !row.is_empty())
    }

    /// The vectors, in the order of the texts.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.dimension.max(1))
    }

    /// All components, `[texts, dimension]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// All components, `[texts, dimension]`.
    pub fn into_vec(self) -> Vec<f32> {
        self.values
    }

    /// The cosine of the angle between the vectors of texts `i` and `j`; 0 for a vector of length 0.
    ///
    /// # Panics
    /// When there is no such text.
    pub fn cosine(&self, i: usize, j: usize) -> f32 {
        Similarity::Cosine.of(self.row(i), self.row(j))
    }

    /// The vector of text `i`.
    #[track_caller]
    fn row(&self, i: usize) -> &[f32] {
        self.get(i).unwrap_or_else(|| panic!("text {i} of {}", self.len()))
    }
}

impl<'e> IntoIterator for &'e Embeddings {
    type Item = &'e [f32];
    type IntoIter = std::slice::ChunksExact<'e, f32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A measure of the likeness of two vectors: the larger, the more alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Similarity {
    /// The cosine of the angle between them; 0 where one has length 0.
    #[default]
    Cosine,
    /// The dot product.
    Dot,
    /// The negative of the Euclidean distance.
    Euclidean,
    /// The negative of the sum of the components' distances.
    Manhattan,
}

impl Similarity {
    /// Every measure.
    pub const ALL: [Similarity; 4] =
        [Similarity::Cosine, Similarity::Dot, Similarity::Euclidean, Similarity::Manhattan];

    /// The name in sentence-transformers: `cosine`, `dot`, `euclidean` or `manhattan`.
    pub fn name(self) -> &'static str {
        match self {
            Similarity::Cosine => "cosine",
            Similarity::Dot => "dot",
            Similarity::Euclidean => "euclidean",
            Similarity::Manhattan => "manhattan",
        }
    }

    /// The likeness of two vectors, summed in float64. Components that only one of them has do not count.
    pub fn of(self, a: &[f32], b: &[f32]) -> f32 {
        let sum = |a: &[f32], b: &[f32], of: fn(f64, f64) -> f64| -> f64 {
            a.iter().zip(b).map(|(a, b)| of(f64::from(*a), f64::from(*b))).sum()
        };
        let dot = |a, b| sum(a, b, |a, b| a * b);
        let similarity = match self {
            Similarity::Cosine => match (dot(a, a) * dot(b, b)).sqrt() {
                0.0 => 0.0,
                lengths => dot(a, b) / lengths,
            },
            Similarity::Dot => dot(a, b),
            Similarity::Euclidean => -sum(a, b, |a, b| (a - b) * (a - b)).sqrt(),
            Similarity::Manhattan => -sum(a, b, |a, b| (a - b).abs()),
        };
        similarity as f32
    }

    /// The measure that a directory names. Names that sentence-transformers does not use for single vectors count as
    /// none, as they do there.
    pub(super) fn saved(config: &Fields) -> Result<Similarity> {
        let name = config.opt_str("similarity_fn_name")?;
        Ok(Similarity::ALL.into_iter().find(|known| Some(known.name()) == name).unwrap_or_default())
    }
}

impl fmt::Display for Similarity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Similarity {
    type Err = Error;

    fn from_str(name: &str) -> Result<Similarity> {
        let expected = "cosine, dot, euclidean or manhattan".to_owned();
        let unknown = || Error::Request { what: "similarity", found: clip(name), expected };
        Similarity::ALL.into_iter().find(|known| known.name() == name).ok_or_else(unknown)
    }
}
