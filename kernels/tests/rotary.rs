//! Rotary embedding against the f64 oracle at every level, for every storage type.

mod common;

use common::{Element, at_every_level, bits, for_each_type, view, view_mut};
use rachis_kernels::{Ctx, Error, MatMut, MatRef, RotaryRows, rotary_angles, rotary_rows};
use rachis_testkit::tolerance::{self, Bound, ROTARY_ANGLE};
use rachis_testkit::{Grid, Kind, Rng, oracle};

const DIMS: [usize; 8] = [2, 6, 16, 20, 32, 34, 64, 128];
/// Number of groups of heads, heads of each group that are rotated, and heads of each group that are not.
const LAYOUTS: [(usize, usize, usize); 4] = [(1, 1, 0), (1, 3, 1), (3, 2, 2), (2, 1, 0)];

fn angles(positions: &[u32], theta: f64, dim: usize) -> Grid<f32> {
    let mut angles = Grid::new(&vec![7.0; positions.len() * dim], (positions.len(), dim), 3);
    rotary_angles(positions, theta, view_mut(&mut angles)).unwrap();
    angles.assert_guards();
    angles
}

#[test]
fn angles_are_rounded_once() {
    let positions: Vec<u32> = (0..2048).collect();
    for theta in [10_000.0, 500_042.0] {
        for dim in [2, 6, 64, 128] {
            let angles = angles(&positions, theta, dim);
            for (i, position) in positions.iter().enumerate() {
                for (j, angle) in oracle::rotary_angles(*position, theta, dim).into_iter().enumerate() {
                    for (column, exact) in [(j, angle.cos()), (dim / 2 + j, angle.sin())] {
                        let bound = Bound { exact, error: ROTARY_ANGLE };
                        bound.check(angles.at(i, column), || format!("{theta} {dim}: {position}, {column}"));
                    }
                }
            }
        }
    }
    assert_eq!(bits(angles(&[0], 10_000.0, 4).row(0)), bits(&[1.0f32, 1.0, 0.0, 0.0]));
}

struct Case<T> {
    x: Grid<T>,
    angles: Grid<f32>,
    /// An element of [`LAYOUTS`].
    layout: (usize, usize, usize),
}

impl<T: Element> Case<T> {
    fn random(rng: &mut Rng, dim: usize, layout: (usize, usize, usize)) -> Case<T> {
        let width = layout.0 * (layout.1 + layout.2) * dim;
        let x = Grid::random(rng, Kind::Uniform, (5, width), 1);
        Case { x, angles: angles(&[0, 1, 7, 300, 2047], 10_000.0, dim), layout }
    }

    fn run(&self, ctx: &Ctx) -> Grid<T> {
        let (mut x, (groups, heads, others)) = (self.x.clone(), self.layout);
        let (angles, step) = (view(&self.angles), (heads + others) * self.angles.cols());
        rotary_rows(ctx, RotaryRows { x: view_mut(&mut x), angles, groups, step, heads }).unwrap();
        x.assert_guards();
        x
    }

    fn check(&self, ctx: &Ctx) {
        let (out, dim) = (self.run(ctx), self.angles.cols());
        let (_, rotated, others) = self.layout;
        for i in 0..self.x.rows() {
            let exact = |row: &[f32]| row.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
            let (cosines, sines) = self.angles.row(i).split_at(dim / 2);
            let (cosines, sines) = (exact(cosines), exact(sines));
            for (h, (x, y)) in self.x.row(i).chunks(dim).zip(out.row(i).chunks(dim)).enumerate() {
                if h % (rotated + others) >= rotated {
                    assert_eq!(bits(x), bits(y), "{} row {i} head {h} is not rotated", ctx.level());
                    continue;
                }
                let x: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
                for (j, exact) in oracle::rotary(&x, &cosines, &sines).into_iter().enumerate() {
                    let pair = j % (dim / 2);
                    let bound =
                        tolerance::rotary(exact, (x[pair], x[pair + dim / 2]), (cosines[pair], sines[pair]));
                    bound.check(y[j], || format!("{} dim {dim} row {i} head {h} column {j}", ctx.level()));
                }
            }
        }
    }
}

fn every_width<T: Element>(ctx: &Ctx) {
    let mut rng = Rng::new(61);
    for dim in DIMS {
        for layout in LAYOUTS {
            Case::<T>::random(&mut rng, dim, layout).check(ctx);
        }
    }
}

#[test]
fn every_width_and_layout_obeys_the_bound() {
    at_every_level(|ctx| {
        for_each_type!(every_width(ctx));
    });
}

/// All levels agree, the one without fused multiply-add among them: a rotation has none.
#[test]
fn all_levels_give_the_same_bits() {
    fn check<T: Element>() {
        let mut first = None;
        at_every_level(|ctx| {
            let mut rng = Rng::new(62);
            let all: Vec<u32> = DIMS
                .iter()
                .flat_map(|dim| bits(&Case::<T>::random(&mut rng, *dim, (3, 2, 1)).run(ctx).values()))
                .collect();
            assert!(*first.get_or_insert_with(|| all.clone()) == all, "{} {}", ctx.level(), T::NAME);
        });
    }
    for_each_type!(check());
}

#[test]
fn a_nan_stays_in_its_pair() {
    at_every_level(|ctx| {
        let mut case = Case::<f32>::random(&mut Rng::new(63), 20, (1, 2, 0));
        case.x.row_mut(2)[3] = f32::NAN;
        let out = case.run(ctx);
        for (i, j) in (0..5).flat_map(|i| (0..40).map(move |j| (i, j))) {
            assert_eq!(out.at(i, j).is_nan(), i == 2 && (j == 3 || j == 13), "{} {i} {j}", ctx.level());
        }
    });
}

#[test]
fn operands_that_disagree_are_refused_and_nothing_is_written() {
    let ctx = Ctx::from_env().unwrap();
    let data = [0.5f32; 64];
    let try_with = |(rows, dim): (usize, usize), groups: usize, step: usize, heads: usize| {
        let mut x = [7.0f32; 30];
        let angles = MatRef::new(&data, rows, dim).unwrap();
        let op = RotaryRows { x: MatMut::new(&mut x, 3, 10).unwrap(), angles, groups, step, heads };
        let result = rotary_rows(&ctx, op);
        let refused = matches!(
            result,
            Err(Error::Shape { operation: "rotary_rows", .. } | Error::Range { operation: "rotary_rows", .. })
        );
        assert!(refused == result.is_err() && (!refused || x == [7.0; 30]), "{result:?}");
        !refused
    };
    assert!(try_with((3, 4), 1, 0, 2));
    assert!(try_with((3, 4), 2, 6, 1));
    assert!(try_with((3, 0), usize::MAX, usize::MAX, usize::MAX));
    assert!(try_with((3, 4), 0, 4, 2));
    assert!(!try_with((2, 4), 1, 0, 2));
    assert!(!try_with((3, 5), 1, 0, 2));
    assert!(!try_with((3, 4), 1, 0, 3));
    assert!(!try_with((3, 4), 2, 7, 1));
    assert!(!try_with((3, 4), 2, 3, 1));
    assert!(!try_with((3, 4), usize::MAX, 4, 1));
    assert!(!try_with((3, 4), 2, usize::MAX, 1));
    assert!(!try_with((3, 4), 1, 0, usize::MAX));
    let mut out = [7.0f32; 12];
    for (positions, rows, cols) in [(&[1, 2][..], 3, 4), (&[1, 2, 3], 3, 3)] {
        let error = rotary_angles(positions, 10.0, MatMut::new(&mut out, rows, cols).unwrap()).unwrap_err();
        let refused = matches!(
            error,
            Error::Shape { operation: "rotary_angles", .. } | Error::Range { operation: "rotary_angles", .. }
        );
        assert!(refused, "{error}");
    }
    assert_eq!(out, [7.0; 12]);
}
