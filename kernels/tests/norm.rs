//! Layer and RMS normalisation against the f64 oracle at every level, for every storage type and edge size.

mod common;

use common::{Element, at_every_level, bits, for_each_type, is_scalar, view, view_mut};
use rachis_kernels::{Ctx, Error, Level, MatMut, MatRef, NormRows, layer_norm_rows, rms_norm_rows};
use rachis_testkit::tolerance::{self, Norm, NormRow};
use rachis_testkit::{Grid, Kind, Rng, data, shapes};
use rayon::ThreadPoolBuilder;

const NORMS: [Norm; 2] = [Norm::Layer, Norm::Rms];

fn run<T: Element>(ctx: &Ctx, norm: Norm, op: NormRows<'_, T>) -> rachis_kernels::Result<()> {
    match norm {
        Norm::Layer => layer_norm_rows(ctx, op),
        Norm::Rms => rms_norm_rows(ctx, op),
    }
}

/// The operands of one call; gamma and beta are stored as `P`.
struct Operands<T, P> {
    x: Grid<T>,
    gamma: Option<Vec<P>>,
    beta: Option<Vec<P>>,
    epsilon: f32,
}

impl<T: Element, P: Element> Operands<T, P> {
    fn run(&self, ctx: &Ctx, norm: Norm) -> Grid<T> {
        let mut out =
            Grid::new(&vec![T::default(); self.x.rows() * self.x.cols()], (self.x.rows(), self.x.cols()), 4);
        let op = NormRows {
            x: view(&self.x),
            gamma: self.gamma.as_deref().map(P::vector),
            beta: self.beta.as_deref().map(P::vector),
            epsilon: self.epsilon,
            out: view_mut(&mut out),
        };
        run(ctx, norm, op).unwrap();
        out.assert_guards();
        out
    }

    #[track_caller]
    fn check(&self, ctx: &Ctx, norm: Norm) {
        let out = self.run(ctx, norm);
        let exact = |values: &[P]| values.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
        let (gamma, beta) = (self.gamma.as_deref().map(exact), self.beta.as_deref().map(exact));
        for i in 0..self.x.rows() {
            let row = |grid: &Grid<T>| grid.row(i).iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
            let x = row(&self.x);
            let row = NormRow {
                x: &x,
                gamma: gamma.as_deref(),
                beta: beta.as_deref(),
                epsilon: self.epsilon.into(),
            };
            for (j, bound) in tolerance::norm(row, norm).iter().enumerate() {
                bound.check(out.row(i)[j], || {
                    format!(
                        "{} {norm:?} row {i} column {j} of {} epsilon {}",
                        ctx.level(),
                        x.len(),
                        self.epsilon
                    )
                });
            }
        }
    }
}

fn every_length<T: Element, P: Element>(ctx: &Ctx) {
    let mut rng = Rng::new(31);
    for cols in shapes::row_lengths() {
        for kind in [Kind::Uniform, Kind::Cancelling, Kind::NearOne, Kind::Subnormal, Kind::Zero] {
            for epsilon in [1e-5, 1e-12] {
                let x = Grid::random(&mut rng, kind, (3, cols), cols % 3);
                let plain = Operands::<T, P> { x, gamma: None, beta: None, epsilon };
                let full = Operands::<T, P> {
                    x: plain.x.clone(),
                    gamma: Some(data::values(&mut rng, Kind::NearOne, cols)),
                    beta: Some(data::values(&mut rng, Kind::Uniform, cols)),
                    epsilon,
                };
                for norm in NORMS {
                    plain.check(ctx, norm);
                    full.check(ctx, norm);
                }
            }
        }
    }
}

#[test]
fn every_length_obeys_the_bound() {
    at_every_level(|ctx| {
        every_length::<f32, f32>(ctx);
        every_length::<rachis_kernels::bf16, rachis_kernels::bf16>(ctx);
        every_length::<rachis_kernels::f16, rachis_kernels::f16>(ctx);
        every_length::<rachis_kernels::bf16, f32>(ctx);
        every_length::<rachis_kernels::f16, f32>(ctx);
        every_length::<f32, rachis_kernels::bf16>(ctx);
    });
}

/// The variance is computed around the mean: a large offset costs precision in the input, not in the algorithm.
#[test]
fn an_offset_does_not_cancel() {
    at_every_level(|ctx| {
        for offset in [1e3f32, -1e5] {
            let row: Vec<f32> = (0..100).map(|j| offset + (j % 10) as f32).collect();
            let x = Grid::new(&row, (1, 100), 0);
            let op = Operands::<f32, f32> { x, gamma: None, beta: None, epsilon: 1e-12 };
            op.check(ctx, Norm::Layer);
            let spread: f32 = op.run(ctx, Norm::Layer).row(0).iter().map(|y| y * y).sum();
            assert!((spread / 100.0 - 1.0).abs() < 1e-3, "{}: variance {}", ctx.level(), spread / 100.0);
        }
    });
}

fn specials<T: Element>(ctx: &Ctx) {
    for norm in NORMS {
        for cols in [1, 16, 19, 40] {
            let mut x: Grid<T> = Grid::new(&vec![T::from_f32(1.0); 2 * cols], (2, cols), 1);
            x.row_mut(0)[cols - 1] = T::from_f32(f32::NAN);
            let op = Operands::<T, f32> { x, gamma: None, beta: None, epsilon: 1e-5 };
            let out = op.run(ctx, norm);
            assert!(out.row(0).iter().all(|y| y.to_f32().is_nan()), "a NaN makes its whole row NaN");
            assert!(out.row(1).iter().all(|y| y.to_f32().is_finite()), "and no other row");
        }
    }
}

#[test]
fn a_nan_affects_only_its_row() {
    at_every_level(|ctx| {
        for_each_type!(specials(ctx));
    });
}

/// The bits of a row depend on that row alone, and are the same at all levels with fused multiply-add.
#[test]
fn bits_do_not_depend_on_neighbours_or_level() {
    let mut reference: Option<(Level, Vec<u32>)> = None;
    at_every_level(|ctx| {
        let mut rng = Rng::new(32);
        let mut all = Vec::new();
        for cols in shapes::row_lengths() {
            let x: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (5, cols), 1);
            for norm in NORMS {
                let normed = |x: Grid<f32>| {
                    let op = Operands::<f32, f32> { x, gamma: None, beta: None, epsilon: 1e-6 };
                    bits(&op.run(ctx, norm).values())
                };
                let alone: Vec<u32> =
                    (0..5).flat_map(|i| normed(Grid::new(x.row(i), (1, cols), 0))).collect();
                assert_eq!(normed(x.clone()), alone);
                all.extend(alone);
            }
        }
        if is_scalar(ctx) {
            return;
        }
        match &reference {
            None => reference = Some((ctx.level(), all)),
            Some((level, reference)) => assert!(*reference == all, "{level} and {} differ", ctx.level()),
        }
    });
}

/// Enough rows that threads share them, in a number that they cannot share evenly.
#[test]
fn bits_do_not_depend_on_threads() {
    let mut rng = Rng::new(5);
    let operands = Operands {
        x: Grid::<f32>::random(&mut rng, Kind::Uniform, (1001, 203), 3),
        gamma: Some(vec![0.5f32; 203]),
        beta: Some(vec![0.25; 203]),
        epsilon: 1e-5,
    };
    let pools = [1, 2, 3].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    at_every_level(|ctx| {
        for norm in NORMS {
            let alone = operands.run(ctx, norm);
            for pool in &pools {
                let shared = operands.run(&ctx.with_pool(Some(pool)), norm);
                assert!(bits(&shared.values()) == bits(&alone.values()), "{} {norm:?}", ctx.level());
            }
        }
    });
}

#[test]
fn operands_that_disagree_are_refused_and_nothing_is_written() {
    let ctx = Ctx::from_env().unwrap();
    let data = [1.0f32; 12];
    let mut out = [2.0f32; 12];
    let mut refused = |gamma: usize, beta: usize, to: (usize, usize)| {
        for norm in NORMS {
            let op = NormRows {
                x: MatRef::new(&data, 2, 3).unwrap(),
                gamma: Some(data[..gamma].into()),
                beta: Some(data[..beta].into()),
                epsilon: 1e-5,
                out: MatMut::new(&mut out, to.0, to.1).unwrap(),
            };
            let error = run(&ctx, norm, op).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{error}");
        }
    };
    refused(2, 3, (2, 3));
    refused(3, 4, (2, 3));
    refused(3, 3, (3, 3));
    refused(3, 3, (2, 2));
    assert_eq!(out, [2.0; 12]);
}
