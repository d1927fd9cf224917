use rachis_testkit::goldens::Goldens;

use super::*;

fn tables() -> Goldens {
    Goldens::read("tables/tables.safetensors")
}

#[test]
fn buckets_match_the_reference() {
    let tables = tables();
    let relative = &tables.integer("t5_bucket.rel").data;
    assert_eq!((relative.first(), relative.last()), (Some(&-300), Some(&300)));
    for (kind, direction) in [("bidirectional", Direction::Both), ("causal", Direction::Before)] {
        for (count, max_distance) in [(32, 128), (16, 20)] {
            let buckets = Buckets { count, max_distance, direction };
            let name = format!("t5_bucket.{kind}_{count}_{max_distance}");
            let expected = &tables.integer(&name).data;
            assert_eq!(expected.len(), relative.len());
            for (relative, expected) in relative.iter().zip(expected) {
                let found = buckets.bucket(i64::from(*relative));
                assert_eq!(found, *expected as usize, "{name} of {relative}");
            }
        }
    }
}

#[test]
fn every_distance_has_a_bucket() {
    for (count, max_distance) in [(4, 3), (4, 1 << 24), (32, 17), (1 << 20, (1 << 19) + 1)] {
        for direction in [Direction::Both, Direction::Before] {
            let buckets = Buckets { count, max_distance, direction };
            for distance in [0, 1, 2, 3, 100, 1 << 19, 1 << 20, 1 << 24, 1 << 32] {
                let (before, after) = (buckets.bucket(-distance), buckets.bucket(distance));
                assert!(before < count && after < count, "{buckets:?}: {before} and {after}");
            }
        }
    }
}

#[test]
fn a_bucket_starts_at_its_smallest_distance() {
    for (count, max_distance) in [(4, 3), (32, 128), (32, 17), (16, 1 << 20), (64, 40)] {
        for direction in [Direction::Both, Direction::Before] {
            let buckets = Buckets { count, max_distance, direction };
            let starts: Vec<usize> = (0..buckets.per_direction()).map(|b| buckets.start(b)).collect();
            assert!(starts.is_sorted() && starts.first() == Some(&0), "{buckets:?}: {starts:?}");
            for distance in (0..300).chain([1 << 19, 1 << 20, 1 << 24]) {
                let found = starts.partition_point(|start| *start <= distance) - 1;
                assert_eq!(found, buckets.bucket(-(distance as i64)), "{buckets:?}, distance {distance}");
            }
        }
    }
}
