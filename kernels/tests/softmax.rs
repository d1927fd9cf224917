//! Row-wise softmax against the f64 oracle at every level, for every storage type, mask and edge size.

mod common;

use common::{Element, at_every_level, bits, for_each_type, is_scalar, ulps, view, view_mut};
use rachis_kernels::{Ctx, Error, Level, Mask, MatMut, MatRef, SoftmaxRows, softmax_rows};
use rachis_testkit::tolerance::{self, SoftmaxRow};
use rachis_testkit::{Grid, Kind, Rng, shapes};

/// The columns that a row sees under a mask.
fn visible(mask: Mask<'_>, row: usize, cols: usize) -> Vec<bool> {
    (0..cols)
        .map(|j| match mask {
            Mask::None => true,
            Mask::Columns(columns) => columns[j],
            Mask::Causal { first } => j <= first.saturating_add(row),
            Mask::Rows(rows) => rows.row(row)[j],
        })
        .collect()
}

#[track_caller]
fn check<T: Element>(ctx: &Ctx, x: &Grid<T>, scale: f32, bias: Option<&Grid<f32>>, mask: Mask<'_>) {
    let mut y = x.clone();
    softmax_rows(ctx, SoftmaxRows { x: view_mut(&mut y), scale, bias: bias.map(view), mask }).unwrap();
    y.assert_guards();
    for i in 0..x.rows() {
        let exact: Vec<f64> = x.row(i).iter().map(|x| x.to_f64()).collect();
        let bias: Option<Vec<f64>> = bias.map(|bias| bias.row(i).iter().map(|b| f64::from(*b)).collect());
        let visible = visible(mask, i, x.cols());
        let row = SoftmaxRow { x: &exact, scale: scale.into(), bias: bias.as_deref(), visible: &visible };
        for (j, bound) in tolerance::softmax(row, ulps(ctx, tolerance::EXP)).iter().enumerate() {
            bound.check(y.row(i)[j], || {
                format!("{} row {i} column {j} of {}, {mask:?}", ctx.level(), x.cols())
            });
            assert!(visible[j] || y.row(i)[j].bits() == 0, "a masked column is +0");
        }
    }
}

fn every_length_and_mask<T: Element>(ctx: &Ctx) {
    let mut rng = Rng::new(21);
    for cols in shapes::row_lengths() {
        for kind in [Kind::Uniform, Kind::Cancelling, Kind::Subnormal, Kind::Zero] {
            let x: Grid<T> = Grid::random(&mut rng, kind, (3, cols), cols % 3);
            let bias: Grid<f32> = Grid::random(&mut rng, Kind::Cancelling, (3, cols), 1);
            let columns: Vec<bool> = (0..cols).map(|_| rng.below(3) > 0).collect();
            let rows: Vec<bool> = (0..3 * cols).map(|_| rng.below(2) > 0).collect();
            let rows = MatRef::new(&rows, 3, cols).unwrap();
            check(ctx, &x, 1.0, None, Mask::None);
            check(ctx, &x, -3.5, Some(&bias), Mask::Columns(&columns));
            check(ctx, &x, 0.125, Some(&bias), Mask::Rows(rows));
            for first in [0, cols / 2, cols, usize::MAX] {
                check(ctx, &x, 0.7, None, Mask::Causal { first });
            }
        }
    }
}

#[test]
fn every_length_and_mask_obeys_the_bound() {
    at_every_level(|ctx| {
        for_each_type!(every_length_and_mask(ctx));
    });
}

fn far_apart<T: Element>(ctx: &Ctx) {
    // Differences from zero to where the exponential underflows, at any offset: no overflow, no NaN.
    for offset in [0.0f32, 60.0, -300.0, 3e4] {
        let row: Vec<T> = (0..83).map(|j| T::from_f32(offset + 2.0 * j as f32)).collect();
        check(ctx, &Grid::new(&row, (1, 83), 0), 1.0, None, Mask::None);
        check(ctx, &Grid::new(&row, (1, 83), 0), -1.0, None, Mask::None);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    at_every_level(|ctx| {
        for_each_type!(far_apart(ctx));
    });
}

fn no_visible_column<T: Element>(ctx: &Ctx) {
    for cols in [1, 15, 16, 17, 40] {
        let mut x = Grid::new(&vec![T::from_f32(f32::NAN); 2 * cols], (2, cols), 1);
        let mut mask = vec![false; 2 * cols];
        mask[cols] = true;
        *x.row_mut(1).first_mut().unwrap() = T::from_f32(-5.0);
        let rows = MatRef::new(&mask, 2, cols).unwrap();
        softmax_rows(
            ctx,
            SoftmaxRows { x: view_mut(&mut x), scale: 1.0, bias: None, mask: Mask::Rows(rows) },
        )
        .unwrap();
        assert!(bits(x.row(0)).iter().all(|bits| *bits == 0), "a row without a visible column is all +0");
        assert_eq!(x.at(1, 0).to_f32(), 1.0, "masked NaNs have no effect");
        assert!(bits(&x.row(1)[1..]).iter().all(|bits| *bits == 0));
    }
}

#[test]
fn a_fully_masked_row_is_zero_and_masked_values_have_no_effect() {
    at_every_level(|ctx| {
        for_each_type!(no_visible_column(ctx));
    });
}

fn specials<T: Element>(ctx: &Ctx) {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for cols in [2, 16, 21, 50] {
        for at in [0, cols / 2, cols - 1] {
            for special in [nan, inf, -inf] {
                let mut row: Vec<T> = (0..cols).map(|j| T::from_f32(j as f32 * 0.1)).collect();
                row[at] = T::from_f32(special);
                // The oracle gives NaN in the whole row for NaN and +inf, and 0 for -inf.
                check(ctx, &Grid::new(&row, (1, cols), 0), 1.0, None, Mask::None);
                let others: Vec<bool> = (0..cols).map(|j| j != at).collect();
                check(ctx, &Grid::new(&row, (1, cols), 0), 1.0, None, Mask::Columns(&others));
            }
        }
        let all = vec![T::from_f32(-inf); cols];
        check(ctx, &Grid::new(&all, (1, cols), 0), 1.0, None, Mask::None);
    }
}

#[test]
fn special_values_give_the_documented_results() {
    at_every_level(|ctx| {
        for_each_type!(specials(ctx));
    });
}

/// The bits of a row depend on that row alone, and are the same at all levels with fused multiply-add.
#[test]
fn bits_do_not_depend_on_neighbours_or_level() {
    let mut reference: Option<(Level, Vec<u32>)> = None;
    let mut rng = Rng::new(22);
    let grids: Vec<Grid<f32>> = shapes::row_lengths()
        .into_iter()
        .map(|cols| Grid::random(&mut rng, Kind::Cancelling, (5, cols), 1))
        .collect();
    at_every_level(|ctx| {
        let run = |mut x: Grid<f32>| {
            let x_mut = view_mut(&mut x);
            softmax_rows(ctx, SoftmaxRows { x: x_mut, scale: 0.3, bias: None, mask: Mask::None }).unwrap();
            bits(&x.values())
        };
        let mut all = Vec::new();
        for grid in &grids {
            let alone = (0..grid.rows()).flat_map(|i| run(Grid::new(grid.row(i), (1, grid.cols()), 0)));
            let alone: Vec<u32> = alone.collect();
            assert_eq!(run(grid.clone()), alone);
            all.extend(alone);
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

#[test]
fn operands_that_disagree_are_refused_and_nothing_is_written() {
    let ctx = Ctx::from_env().unwrap();
    let bias = [0.0f32; 12];
    let flags = [true; 12];
    let mut x = [2.0f32; 6];
    let mut refused = |bias: Option<MatRef<'_, f32>>, mask| {
        let op = SoftmaxRows { x: MatMut::new(&mut x, 2, 3).unwrap(), scale: 1.0, bias, mask };
        let error = softmax_rows(&ctx, op).unwrap_err();
        assert!(matches!(error, Error::Shape { operation: "softmax_rows", .. }), "{error}");
    };
    refused(Some(MatRef::new(&bias, 1, 3).unwrap()), Mask::None);
    refused(Some(MatRef::new(&bias, 2, 4).unwrap()), Mask::None);
    refused(None, Mask::Columns(&flags[..2]));
    refused(None, Mask::Columns(&flags[..4]));
    refused(None, Mask::Rows(MatRef::new(&flags, 3, 3).unwrap()));
    refused(None, Mask::Rows(MatRef::new(&flags, 2, 2).unwrap()));
    assert_eq!(x, [2.0; 6]);
}
