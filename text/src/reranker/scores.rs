//! The scores of pairs, and texts in their order.

/// A text of a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Ranked {
    /// Its number among the texts.
    pub index: usize,
    /// Its score.
    pub score: f32,
}

/// The scores of pairs, one row a pair, in the order of the pairs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PairScores {
    values: Vec<f32>,
    labels: usize,
}

impl PairScores {
    pub(super) fn new(values: Vec<f32>, labels: usize) -> PairScores {
        PairScores { values, labels }
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.labels).unwrap_or(0)
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Number of scores of a pair.
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// The scores of each pair.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.labels.max(1))
    }

    /// All scores, `[pairs, labels]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }
}

impl<'s> IntoIterator for &'s PairScores {
    type Item = &'s [f32];
    type IntoIter = std::slice::ChunksExact<'s, f32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
