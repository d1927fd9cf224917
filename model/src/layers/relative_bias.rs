//! T5's bias on scores: a learned number for each head and bucket of distances between query and key.

use rachis_kernels::{AnyMatRef, Bias, MatRef};

use crate::error::Result;
use crate::layers::positions::QueryKeyPositions;
use crate::weights::{Init, Role, RowBlock, Scope, Tensors, Weight};

/// T5's relative position bias.
#[derive(Debug)]
pub(crate) struct RelativeBias {
    /// `[buckets, heads]`
    table: Weight,
    heads: usize,
    direction: Direction,
    /// The smallest distance of each bucket of one direction, in order.
    starts: Vec<usize>,
}

/// How distances are divided into buckets: small distances one by one, larger ones by their logarithm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buckets {
    pub(crate) count: usize,
    /// Distances from here on share the last bucket.
    pub(crate) max_distance: usize,
    pub(crate) direction: Direction,
}

/// Which keys have buckets of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Keys before the query; keys after it share the bucket of distance 0.
    Before,
    /// Keys before the query have one half of the buckets, keys after it the other.
    Both,
}

impl RelativeBias {
    /// The table at `scope`.
    pub(crate) fn load(scope: &Scope<'_>, heads: usize, buckets: Buckets) -> Result<RelativeBias> {
        let table = scope.weight(Role::Weight, &[buckets.count, heads], Init::KERNEL)?;
        let starts = (0..buckets.per_direction()).map(|bucket| buckets.start(bucket)).collect();
        Ok(RelativeBias { table, heads, direction: buckets.direction, starts })
    }

    /// Adds the tensor to save, under the name of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m RelativeBias, tensors: &mut Tensors<'m>) {
        let table = self.table.matrix();
        let shape = vec![table.rows(), table.cols()];
        tensors.add(like.table.name(), shape, vec![RowBlock::Matrix(table)]);
    }

    /// Elements of working memory when the positions of queries and keys are less than `end`.
    pub(crate) fn working_len(&self, end: usize) -> usize {
        self.heads * (2 * end)
    }

    /// Writes each head's bias for every distance between the positions, `[heads, distances]`: of keys after the query
    /// first, the nearest last, then of the query's own position and of keys before it.
    pub(crate) fn fill<'a>(
        &self,
        positions: QueryKeyPositions<'a>,
        memory: &'a mut [f32],
    ) -> Result<Bias<'a>> {
        let QueryKeyPositions { queries, keys } = positions;
        let largest = |positions: &[u32]| positions.iter().max().map_or(0, |largest| *largest as usize);
        let (zero, last) = (largest(keys), largest(queries));
        let distances = zero + last + 1;
        let values = &mut memory[..self.heads * distances];
        let table = self.table.matrix();
        for (head, values) in values.chunks_exact_mut(distances).enumerate() {
            let (after, before) = values.split_at_mut(zero);
            if self.direction == Direction::Before {
                after.fill(element(table, 0, head));
            }
            for (bucket, start) in self.starts.iter().copied().enumerate() {
                let end = self.starts.get(bucket + 1).copied().unwrap_or(usize::MAX);
                before[start.min(last + 1)..end.min(last + 1)].fill(element(table, bucket, head));
                if self.direction == Direction::Both {
                    // At distance 0 there is no key after the query.
                    let columns = (zero + 1).saturating_sub(end)..(zero + 1).saturating_sub(start.max(1));
                    after[columns].fill(element(table, self.starts.len() + bucket, head));
                }
            }
        }
        let table = MatRef::new(values, self.heads, distances)?;
        Ok(Bias::Distance { table, zero, queries, keys })
    }
}

impl Buckets {
    /// Number of buckets of one direction.
    fn per_direction(self) -> usize {
        match self.direction {
            Direction::Before => self.count,
            Direction::Both => self.count / 2,
        }
    }

    /// The smallest distance whose bucket, among those of one direction, is `bucket` or a later one: `max_distance` for
    /// the last bucket at the latest.
    fn start(self, bucket: usize) -> usize {
        let (mut below, mut start) = (0, bucket.max(self.max_distance));
        while below < start {
            let middle = below.midpoint(start);
            if self.bucket(-(middle as i64)) < bucket {
                below = middle + 1;
            } else {
                start = middle;
            }
        }
        start
    }

    /// The bucket of a key that lies `relative` positions after the query.
    fn bucket(self, relative: i64) -> usize {
        let count = self.per_direction();
        let (base, distance) = match self.direction {
            Direction::Both => (if relative > 0 { count } else { 0 }, relative.unsigned_abs() as usize),
            Direction::Before => (0, (-relative).max(0) as usize),
        };
        let exact = count / 2;
        if distance < exact {
            return base + distance;
        }
        // In f32, as the reference implementations do: the result is truncated to an integer.
        let share = (distance as f32 / exact as f32).ln() / (self.max_distance as f32 / exact as f32).ln();
        base + (exact + (share * (count - exact) as f32) as usize).min(count - 1)
    }
}

/// One element, widened.
fn element(matrix: AnyMatRef<'_>, row: usize, column: usize) -> f32 {
    match matrix {
        AnyMatRef::F32(matrix) => matrix.row(row)[column],
        AnyMatRef::Bf16(matrix) => matrix.row(row)[column].to_f32(),
        AnyMatRef::F16(matrix) => matrix.row(row)[column].to_f32(),
    }
}

#[cfg(test)]
mod tests;
