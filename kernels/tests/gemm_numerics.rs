//! Matrix products at the limits of the arithmetic: rounding of operands, sums of many terms, outputs as wide as a vocabulary,
//! and several parts in one call.

mod common;

use common::gemm_case::{Case, check_case};
use common::{Element, at_every_level, bits, view, view_mut};
use rachis_kernels::gemm::SummationOrder;
use rachis_kernels::{
    Activation, Combine, Ctx, Error, Gemm, GemmPlan, Layout, Level, MatMut, MatRef, PLANS, Part, Precision,
    Scratch, Weights, bf16, f16, gemm, gemm_with,
};
use rachis_testkit::shapes::GemmShape;
use rachis_testkit::{Grid, Kind, Rng};

/// An operand as a plan multiplies it: rounded to bf16, and zero if it is subnormal and the plan uses bf16 instructions.
fn rounded(order: SummationOrder, x: f32) -> f32 {
    if order != SummationOrder::Ascending && x.abs() < f32::MIN_POSITIVE {
        0.0
    } else {
        bf16::from_f32(x).to_f32()
    }
}

/// Checks the product of `[x]` and `[1]` for every x, with x as an activation and as a weight.
fn check_rounding(plan: &GemmPlan, ctx: &Ctx, values: &[f32]) {
    let one = [1.0f32];
    let mut out = vec![0.0f32; values.len()];
    let mut scratch = Scratch::new();
    let check = |place: &str, out: &[f32]| {
        for (x, y) in values.iter().zip(out) {
            let expected = rounded(plan.order, *x);
            let same = *y == expected || (y.is_nan() && expected.is_nan());
            assert!(same, "{} {} {place}: {x:e} became {y:e}, not {expected:e}", ctx.level(), plan.name);
        }
    };
    for layout in Layout::ALL.into_iter().filter(|layout| plan.layouts.contains(layout)) {
        let column = MatRef::new(values, values.len(), 1).unwrap();
        let row = MatRef::new(values, 1, values.len()).unwrap();
        if values.len() <= plan.max_rows {
            let weights = Weights { matrix: MatRef::new(&one, 1, 1).unwrap().into(), layout };
            let to = MatMut::new(&mut out, values.len(), 1).unwrap();
            gemm_with(plan, ctx, &mut scratch, Gemm::product(column, weights, to)).unwrap();
            check("activation", &out);
        }
        let matrix = if layout == Layout::Nk { column } else { row };
        let to = MatMut::new(&mut out, 1, values.len()).unwrap();
        let op =
            Gemm::product(MatRef::new(&one, 1, 1).unwrap(), Weights { matrix: matrix.into(), layout }, to);
        gemm_with(plan, ctx, &mut scratch, op).unwrap();
        check("weight", &out);
    }
}

/// The plans that fit in at least one layout.
fn plans<'c>(ctx: &'c Ctx<'c>, m: usize) -> impl Iterator<Item = &'static GemmPlan> + 'c {
    PLANS.iter().filter(move |plan| Layout::ALL.iter().any(|layout| plan.fits(ctx, *layout, m)))
}

/// The values around every bf16: itself, the midpoint to the next, and their neighbours.
#[test]
fn operands_round_to_nearest_even() {
    let values: Vec<f32> = (0..=0xffffu32)
        .flat_map(|high| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| f32::from_bits(high << 16 | low)))
        .collect();
    at_every_level(|ctx| {
        let ctx = ctx.with_precision(Precision::Bf16);
        for plan in plans(&ctx, 1) {
            values.chunks(4096).for_each(|values| check_rounding(plan, &ctx, values));
            values.chunks(8).take(64).for_each(|values| check_rounding(plan, &ctx, values));
        }
    });
}

#[test]
#[ignore = "four billion values a plan: minutes in release, hours without"]
fn every_operand_rounds_to_nearest_even() {
    let ctx = Ctx::from_env().unwrap().with_precision(Precision::Bf16);
    let plan = GemmPlan::pick(&ctx, Layout::Nk, 4096);
    let mut values = vec![0.0f32; 1 << 16];
    for high in 0..=0xffffu32 {
        for (low, x) in values.iter_mut().enumerate() {
            *x = f32::from_bits(high << 16 | low as u32);
        }
        check_rounding(plan, &ctx, &values);
    }
}

/// Sums of many terms that cancel, that differ by many orders of magnitude, that are subnormal.
#[test]
fn long_sums_obey_the_bound() {
    at_every_level(|ctx| {
        for (m, n, k) in [(3, 20, 16_384), (33, 5, 16_385), (9, 17, 8_191)] {
            for layout in Layout::ALL {
                for precision in Precision::ALL {
                    for kinds in [
                        [Kind::Cancelling, Kind::NearOne],
                        [Kind::WideRange, Kind::WideRange],
                        [Kind::Subnormal, Kind::Uniform],
                    ] {
                        let case = Case {
                            precision,
                            kinds,
                            gaps: [1, 3, 0, 0],
                            ..Case::new(GemmShape { m, n, k }, layout)
                        };
                        check_case::<f32, f32, f32>(ctx, case);
                        check_case::<f32, bf16, f32>(ctx, case);
                    }
                }
            }
        }
    });
}

/// Outputs as wide as a vocabulary.
#[test]
fn wide_outputs_obey_the_bound() {
    at_every_level(|ctx| {
        for (m, n, k) in [(1, 50_257, 24), (9, 50_257, 8), (2, 250_002, 3)] {
            for layout in Layout::ALL {
                let case = Case { bias: true, ..Case::new(GemmShape { m, n, k }, layout) };
                check_case::<f32, bf16, f32>(ctx, case);
                check_case::<f32, f32, f32>(ctx, Case { precision: Precision::Bf16, ..case });
                check_case::<f32, f32, f32>(ctx, Case { precision: Precision::Bf16x6, ..case });
            }
        }
    });
}

/// Three parts of the given widths.
struct Parts<W> {
    layout: Layout,
    weights: Vec<Grid<W>>,
    bias: Vec<f32>,
}

impl<W: Element> Parts<W> {
    fn new(layout: Layout, widths: [usize; 3], k: usize) -> Parts<W> {
        let mut rng = Rng::new(5);
        let weights = widths.map(|n| {
            let shape = if layout == Layout::Nk { (n, k) } else { (k, n) };
            Grid::random(&mut rng, Kind::Uniform, shape, 1)
        });
        Parts { layout, weights: weights.into(), bias: (0..500).map(|i| i as f32 * 0.01 - 1.0).collect() }
    }

    fn part(&self, i: usize) -> Part<'_> {
        let weights = Weights { matrix: W::matrix(view(&self.weights[i])), layout: self.layout };
        let bias = (i != 1).then(|| self.bias[..weights.n()].into());
        let activation = [Activation::GeluErf, Activation::Identity, Activation::Silu][i];
        Part { weights, bias, activation }
    }

    /// Each part in a call of its own.
    fn separately(&self, ctx: &Ctx, a: MatRef<'_, f32>) -> [Grid<f32>; 3] {
        [0, 1, 2].map(|i| {
            let part = self.part(i);
            let n = part.weights.n();
            let mut out = Grid::<f32>::new(&vec![f32::NAN; a.rows() * n], (a.rows(), n), 2);
            gemm(ctx, &mut Scratch::new(), Gemm::of(a, part, view_mut(&mut out))).unwrap();
            out
        })
    }

    /// All parts in one call.
    fn together(&self, ctx: &Ctx, a: MatRef<'_, f32>, combine: Combine, n: usize) -> Grid<f32> {
        let mut out = Grid::<f32>::new(&vec![f32::NAN; a.rows() * n], (a.rows(), n), 1);
        let residual = (combine == Combine::Product).then(|| a.columns(0, n).unwrap());
        let parts = [0, 1, 2].map(|i| self.part(i));
        gemm(ctx, &mut Scratch::new(), Gemm { a, parts, combine, residual, out: view_mut(&mut out) })
            .unwrap();
        out.assert_guards();
        out
    }
}

fn check_parts<W: Element>(ctx: &Ctx, m: usize, k: usize) {
    let mut rng = Rng::new(6);
    let a: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (m, k), 3);
    for layout in Layout::ALL {
        let place = format!("{} {layout:?} {m} rows {}", ctx.level(), W::NAME);
        let parts = Parts::<W>::new(layout, [70, 1, 33], k);
        let columns = parts.together(ctx, view(&a), Combine::Columns, 104);
        let separate = parts.separately(ctx, view(&a));
        for i in 0..m {
            let row: Vec<f32> = separate.iter().flat_map(|part| part.row(i).to_vec()).collect();
            assert_eq!(bits(columns.row(i)), bits(&row), "columns {place}");
        }
        let parts = Parts::<W>::new(layout, [39; 3], k);
        let product = parts.together(ctx, view(&a), Combine::Product, 39);
        let separate = parts.separately(ctx, view(&a));
        for i in 0..m {
            let expected: Vec<f32> = (0..39)
                .map(|j| separate[0].at(i, j) * separate[1].at(i, j) * separate[2].at(i, j) + a.at(i, j))
                .collect();
            assert_eq!(bits(product.row(i)), bits(&expected), "product {place}");
        }
    }
}

/// Parts in one call have the bits that they have in calls of their own.
#[test]
fn parts_in_one_call_have_the_bits_of_separate_calls() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    at_every_level(|ctx| {
        for precision in Precision::ALL {
            let ctx = ctx.with_precision(precision);
            for m in [1, 5, 9, 33, 70] {
                check_parts::<f32>(&ctx, m, 50);
                check_parts::<bf16>(&ctx, m, 64);
            }
            let ctx = ctx.with_pool(Some(&pool));
            check_parts::<f16>(&ctx, 130, 600);
            check_parts::<f16>(&ctx, 7, 4000);
        }
    });
}

#[test]
fn parts_that_disagree_are_refused() {
    let ctx = Ctx::new(Level::Scalar).unwrap();
    let data = [1.0f32; 64];
    let mut written = [7.0f32; 64];
    let part = |rows, cols, layout| {
        Part::of(Weights { matrix: MatRef::new(&data, rows, cols).unwrap().into(), layout })
    };
    let mut refused = |parts: [Part<'_>; 2], combine, n| {
        let (a, out) = (MatRef::new(&data, 2, 4).unwrap(), MatMut::new(&mut written, 2, n).unwrap());
        gemm(&ctx, &mut Scratch::new(), Gemm { a, parts, combine, residual: None, out }).unwrap_err()
    };
    let (five, three) = (part(5, 4, Layout::Nk), part(3, 4, Layout::Nk));
    assert!(matches!(refused([five, three], Combine::Product, 5), Error::Shape { .. }));
    assert!(matches!(refused([three, five], Combine::Product, 5), Error::Shape { .. }));
    assert!(matches!(refused([five, three], Combine::Columns, 5), Error::Shape { .. }));
    assert!(matches!(refused([five, part(4, 3, Layout::Kn)], Combine::Columns, 8), Error::Layout { .. }));
    assert_eq!(written, [7.0; 64]);
}

#[test]
fn a_plan_that_does_not_fit_is_refused() {
    let data = [1.0f32; 64];
    at_every_level(|ctx| {
        for plan in &PLANS {
            for m in [1, 20] {
                let mut written = [7.0f32; 20];
                let weights =
                    Weights { matrix: MatRef::new(&data, 1, 2).unwrap().into(), layout: Layout::Nk };
                let to = MatMut::new(&mut written[..m], m, 1).unwrap();
                let op = Gemm::product(MatRef::new(&data[..2 * m], m, 2).unwrap(), weights, to);
                let result = gemm_with(plan, ctx, &mut Scratch::new(), op);
                if plan.fits(ctx, Layout::Nk, m) {
                    assert!(result.is_ok() && written[..m].iter().all(|y| *y == 2.0));
                } else {
                    assert!(matches!(result, Err(Error::GemmPlan { .. })));
                    assert_eq!(written, [7.0; 20]);
                }
            }
        }
    });
}

/// The plans that a context picks for different numbers of rows have the same summation order.
#[test]
fn the_pick_has_the_same_order_for_any_number_of_rows() {
    at_every_level(|ctx| {
        for precision in Precision::ALL {
            let ctx = ctx.with_precision(precision);
            let order = GemmPlan::pick(&ctx, Layout::Nk, 1).order;
            for layout in Layout::ALL {
                assert!((0..300).all(|m| GemmPlan::pick(&ctx, layout, m).order == order));
            }
            let expected = match (ctx.level(), precision) {
                (Level::Amx, Precision::Bf16) => SummationOrder::Tiles,
                (Level::Amx, Precision::Bf16x6) => SummationOrder::SplitTiles,
                (Level::Avx512Bf16, Precision::Bf16) => SummationOrder::Pairs,
                _ => SummationOrder::Ascending,
            };
            assert_eq!(order, expected);
        }
    });
}
