//! Activation functions against the f64 oracle: every level, storage type and length, the tails of the functions, and special
//! values. `math_exhaustive` covers all values of f32.

mod common;

use common::{Element, activation, at_every_level, for_each_type};
use rachis_kernels::{Ctx, activate};
use rachis_testkit::oracle::Activation;
use rachis_testkit::{Grid, Kind, Rng, shapes, tolerance};

#[track_caller]
fn check<T: Element>(ctx: &Ctx, function: Activation, x: &[T]) {
    // A grid of one row, so that the values are unaligned and have guards after them.
    let mut y = Grid::new(x, (1, x.len()), 0);
    activate(ctx, activation(function), y.row_mut(0));
    y.assert_guards();
    for (x, y) in x.iter().zip(y.row(0)) {
        let bound = tolerance::activation(function, x.to_f64());
        bound.check(*y, || format!("{} {function:?}({x:?})", ctx.level()));
    }
}

fn every_length<T: Element>(ctx: &Ctx) {
    let mut rng = Rng::new(41);
    for length in shapes::row_lengths() {
        for kind in [Kind::Uniform, Kind::Cancelling, Kind::WideRange, Kind::Subnormal, Kind::Zero] {
            let x: Vec<T> = rachis_testkit::data::values(&mut rng, kind, length);
            for function in Activation::ALL {
                check(ctx, function, &x);
            }
        }
    }
}

#[test]
fn every_length_obeys_the_bound() {
    at_every_level(|ctx| {
        for_each_type!(every_length(ctx));
    });
}

fn dense<T: Element>(ctx: &Ctx) {
    // Where the functions curve, and far into both tails.
    let x: Vec<T> = (-30_000..30_000).map(|i| T::from_f32(i as f32 * 1e-3)).collect();
    for function in Activation::ALL {
        check(ctx, function, &x);
    }
}

#[test]
fn a_dense_grid_obeys_the_bound() {
    at_every_level(|ctx| {
        for_each_type!(dense(ctx));
    });
}

fn specials<T: Element>(ctx: &Ctx) {
    let x = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, f32::MIN];
    let x = x.map(T::from_f32);
    for function in Activation::ALL {
        check(ctx, function, &x);
        let mut y = x;
        activate(ctx, activation(function), &mut y);
        let zeros = (y[4].to_f32(), y[5].to_f32());
        assert_eq!(zeros, (0.0, 0.0), "{function:?} of zero is zero");
    }
}

#[test]
fn special_values_give_the_limits() {
    at_every_level(|ctx| {
        for_each_type!(specials(ctx));
    });
}
