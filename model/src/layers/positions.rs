//! What positions do within attention: nothing, a bias on the scores, or a rotation of queries and keys.

use core::ops::Range;

use rachis_kernels::{AnyMatRef, Bias, MatMut, MatRef, rotary_angles};

use crate::error::Result;
use crate::weights::{Init, Role, Scope, Weight};
use crate::weights::{Piece, Tensors};

/// What positions do within attention.
#[derive(Debug)]
pub(crate) enum Positions {
    /// Nothing: the embeddings have them.
    Embedded,
    /// Each head's slope times the number of the key (Press et al., arXiv:2108.12409).
    Alibi { slopes: Vec<f32>, round: bool },
    /// Queries and keys are turned (Su et al., arXiv:2104.09864).
    Rotary { theta: f64, head_dim: usize },
    /// A learned bias for each head and range of distances (Raffel et al., arXiv:1910.10683).
    Relative(RelativeBias),
}

/// The positions of queries and of the rows that their keys lie in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    pub(crate) queries: &'a [u32],
    pub(crate) keys: &'a [u32],
}

/// The bias on scores and the angles of rotation of some rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prepared<'a> {
    pub(crate) bias: Bias<'a>,
    pub(crate) rotary: Option<MatRef<'a, f32>>,
}

impl<'a> Prepared<'a> {
    /// Those of a group of the rows, whose keys are the group's own or kept ones.
    pub(crate) fn of(self, group: &Range<usize>, own: bool) -> Prepared<'a> {
        let rotary = self.rotary.map(|angles| angles.rows_range(group.clone()));
        let bias = match self.bias {
            Bias::Distance { table, zero, queries, keys } => {
                let keys = if own { &keys[group.clone()] } else { keys };
                Bias::Distance { table, zero, queries: &queries[group.clone()], keys }
            }
            other => other,
        };
        Prepared { bias, rotary }
    }
}

impl Positions {
    /// ALiBi of so many heads.
    pub(crate) fn alibi(heads: usize, round: bool) -> Positions {
        let slopes = alibi_slopes(heads).into_iter();
        let rounded = |slope: f64| {
            let slope = slope as f32;
            if round { rachis_kernels::bf16::from_f32(slope).to_f32() } else { slope }
        };
        Positions::Alibi { slopes: slopes.map(rounded).collect(), round }
    }

    /// Elements of working memory for `rows` rows whose positions and whose keys' are less than `end`.
    pub(crate) fn room(&self, rows: usize, end: usize) -> usize {
        match self {
            Positions::Embedded | Positions::Alibi { .. } => 0,
            Positions::Rotary { head_dim, .. } => rows * head_dim,
            Positions::Relative(bias) => bias.heads * (2 * end),
        }
    }

    /// The bias on scores and the angles of rotation, in `room`.
    pub(crate) fn prepare<'a>(&'a self, places: Places<'a>, room: &'a mut [f32]) -> Result<Prepared<'a>> {
        let (bias, rotary) = match self {
            Positions::Embedded => (Bias::None, None),
            Positions::Alibi { slopes, round } => (Bias::Linear { slopes, round: *round }, None),
            Positions::Rotary { theta, head_dim } => {
                let rows = places.queries.len();
                let angles = &mut room[..rows * head_dim];
                rotary_angles(places.queries, *theta, MatMut::new(angles, rows, *head_dim)?)?;
                (Bias::None, Some(MatRef::new(angles, rows, *head_dim)?))
            }
            Positions::Relative(bias) => (bias.fill(places, room)?, None),
        };
        Ok(Prepared { bias, rotary })
    }
}

/// T5's biases of ranges of distances.
#[derive(Debug)]
pub(crate) struct RelativeBias {
    /// `[buckets, heads]`
    table: Weight,
    heads: usize,
    bidirectional: bool,
    /// The least distance of each bucket of one direction, in order.
    starts: Vec<usize>,
}

/// How distances are put into buckets: small ones each into its own, larger ones by their logarithm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buckets {
    pub(crate) count: usize,
    /// Distances from here on share the last bucket.
    pub(crate) max_distance: usize,
    /// Whether keys after the query have buckets of their own; else they share that of distance 0.
    pub(crate) bidirectional: bool,
}

impl RelativeBias {
    /// The table at `scope`.
    pub(crate) fn load(scope: &Scope<'_>, heads: usize, buckets: Buckets) -> Result<RelativeBias> {
        let table = scope.weight(Role::Weight, &[buckets.count, heads], Init::KERNEL)?;
        let starts = (0..buckets.of_direction()).map(|bucket| buckets.start(bucket)).collect();
        Ok(RelativeBias { table, heads, bidirectional: buckets.bidirectional, starts })
    }

    /// What is to be stored, under the name of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m RelativeBias, tensors: &mut Tensors<'m>) {
        let table = self.table.matrix();
        tensors.add(like.table.name(), vec![table.rows(), table.cols()], vec![Piece::Rows(table)]);
    }

    /// Each head's bias for every distance between the positions: keys after the query first, the nearest last, then
    /// the query's own position and keys before it.
    fn fill<'a>(&self, places: Places<'a>, room: &'a mut [f32]) -> Result<Bias<'a>> {
        let largest = |positions: &[u32]| positions.iter().max().map_or(0, |largest| *largest as usize);
        let (zero, last) = (largest(places.keys), largest(places.queries));
        let distances = zero + last + 1;
        let values = &mut room[..self.heads * distances];
        let table = self.table.matrix();
        for (head, values) in values.chunks_exact_mut(distances).enumerate() {
            let (after, before) = values.split_at_mut(zero);
            if !self.bidirectional {
                after.fill(element(table, 0, head));
            }
            for (bucket, start) in self.starts.iter().copied().enumerate() {
                let end = self.starts.get(bucket + 1).copied().unwrap_or(usize::MAX);
                before[start.min(last + 1)..end.min(last + 1)].fill(element(table, bucket, head));
                if self.bidirectional {
                    // At distance 0 there is no key after the query.
                    let columns = (zero + 1).saturating_sub(end)..(zero + 1).saturating_sub(start.max(1));
                    after[columns].fill(element(table, self.starts.len() + bucket, head));
                }
            }
        }
        let table = MatRef::new(values, self.heads, distances)?;
        Ok(Bias::Distance { table, zero, queries: places.queries, keys: places.keys })
    }
}

impl Buckets {
    /// Buckets of one direction.
    fn of_direction(self) -> usize {
        if self.bidirectional { self.count / 2 } else { self.count }
    }

    /// The least distance whose bucket, among those of one direction, is `bucket` or a later one; `max_distance` of
    /// the last bucket at the latest.
    fn start(self, bucket: usize) -> usize {
        let (mut below, mut start) = (0, bucket.max(self.max_distance));
        while below < start {
            let middle = below.midpoint(start);
            if self.of(-(middle as i64)) < bucket {
                below = middle + 1;
            } else {
                start = middle;
            }
        }
        start
    }

    /// The bucket of a key that lies `relative` positions after the query.
    fn of(self, relative: i64) -> usize {
        let count = self.of_direction();
        let (base, distance) = match self.bidirectional {
            true => (if relative > 0 { count } else { 0 }, relative.unsigned_abs() as usize),
            false => (0, (-relative).max(0) as usize),
        };
        let exact = count / 2;
        if distance < exact {
            return base + distance;
        }
        // In f32, as the reference implementations do: the result is cut off to an integer.
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

/// The slopes of ALiBi: a geometric sequence that begins with its ratio, `2^(-8 / heads)`; where the number of heads
/// is no power of two, that of the power below and every other one of the power above.
fn alibi_slopes(heads: usize) -> Vec<f64> {
    let slope = |of: usize, i: usize| (-8.0 * (i + 1) as f64 / of as f64).exp2();
    let below = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    let first = (0..below).map(|i| slope(below, i));
    first.chain((0..heads - below).map(|i| slope(2 * below, 2 * i))).collect()
}

#[cfg(test)]
mod tests {
    use rachis_kernels::bf16;
    use rachis_testkit::goldens::Goldens;

    use super::*;

    const HEADS: [usize; 11] = [1, 2, 3, 4, 5, 8, 12, 16, 32, 71, 128];

    fn tables() -> Goldens {
        Goldens::read("tables/tables.safetensors")
    }

    #[test]
    fn buckets_are_those_of_the_reference() {
        let tables = tables();
        let relative = &tables.integer("t5_bucket.rel").data;
        assert_eq!((relative.first(), relative.last()), (Some(&-300), Some(&300)));
        for (kind, bidirectional) in [("bidirectional", true), ("causal", false)] {
            for (count, max_distance) in [(32, 128), (16, 20)] {
                let buckets = Buckets { count, max_distance, bidirectional };
                let name = format!("t5_bucket.{kind}_{count}_{max_distance}");
                let expected = &tables.integer(&name).data;
                assert_eq!(expected.len(), relative.len());
                for (relative, expected) in relative.iter().zip(expected) {
                    let found = buckets.of(i64::from(*relative));
                    assert_eq!(found, *expected as usize, "{name} of {relative}");
                }
            }
        }
    }

    #[test]
    fn no_distance_is_beyond_the_buckets() {
        for (count, max_distance) in [(4, 3), (4, 1 << 24), (32, 17), (1 << 20, (1 << 19) + 1)] {
            for bidirectional in [true, false] {
                let buckets = Buckets { count, max_distance, bidirectional };
                for distance in [0, 1, 2, 3, 100, 1 << 19, 1 << 20, 1 << 24, 1 << 32] {
                    let (before, after) = (buckets.of(-distance), buckets.of(distance));
                    assert!(before < count && after < count, "{buckets:?}: {before} and {after}");
                }
            }
        }
    }

    #[test]
    fn a_bucket_starts_where_distances_enter_it() {
        for (count, max_distance) in [(4, 3), (32, 128), (32, 17), (16, 1 << 20), (64, 40)] {
            for bidirectional in [true, false] {
                let buckets = Buckets { count, max_distance, bidirectional };
                let starts: Vec<usize> = (0..buckets.of_direction()).map(|b| buckets.start(b)).collect();
                assert!(starts.is_sorted() && starts.first() == Some(&0), "{buckets:?}: {starts:?}");
                for distance in (0..300).chain([1 << 19, 1 << 20, 1 << 24]) {
                    let found = starts.partition_point(|start| *start <= distance) - 1;
                    assert_eq!(found, buckets.of(-(distance as i64)), "{buckets:?}, distance {distance}");
                }
            }
        }
    }

    #[test]
    fn slopes_are_those_of_the_reference() {
        let tables = tables();
        for heads in HEADS {
            let expected = &tables.float(&format!("alibi.slopes_f64.{heads}")).data;
            let found = alibi_slopes(heads);
            assert_eq!(found.len(), expected.len());
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert!((found / expected - 1.0).abs() < 1e-14, "head {i} of {heads}: {found}, {expected}");
            }
        }
    }

    /// The bias is the slope times the key's number; both, and the product, are rounded where the reference rounds,
    /// the latter two by the kernel.
    #[test]
    fn biases_are_those_of_the_references() {
        let tables = tables();
        let keys = &tables.integer("alibi.positions").data;
        for (name, round) in [("hf_bf16_rounded", true), ("keras_f32", false)] {
            for heads in HEADS {
                let Positions::Alibi { slopes, .. } = Positions::alibi(heads, round) else { unreachable!() };
                let expected = tables.float(&format!("alibi.{name}.{heads}"));
                assert_eq!(expected.shape, [heads, keys.len()]);
                for (head, row) in expected.rows().enumerate() {
                    for (key, expected) in keys.iter().zip(row) {
                        let rounded = |x: f32| if round { bf16::from_f32(x).to_f32() } else { x };
                        let found = rounded(slopes[head] * rounded(*key as f32));
                        // KerasHub's slopes are powers in f32, a few units off.
                        let most = if round { 0.0 } else { 1e-6 * expected.abs() };
                        let error = (f64::from(found) - expected).abs();
                        assert!(
                            error <= most,
                            "{name} head {head} of {heads}, key {key}: {found}, {expected}"
                        );
                    }
                }
            }
        }
    }
}
