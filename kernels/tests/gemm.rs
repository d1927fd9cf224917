//! Matrix products against the f64 oracle at every level: every storage type, both layouts, every edge size, unaligned and
//! strided operands, every epilogue, and special values.

mod common;

use common::gemm_case::{Case, Operands, check_case};
use common::{Element, at_every_level, for_each_type, view, view_mut};
use rachis_kernels::{
    Activation, AnyMatRef, AnySlice, Ctx, Dims, Error, Gemm, Layout, Level, MatMut, MatRef, PLANS, Part,
    Precision, Scratch, Weights, bf16, f16, gemm, gemm_scratch_len, gemm_with,
};
use rachis_testkit::shapes::{self, GemmShape};
use rachis_testkit::{Grid, Kind, Rng, oracle};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Multiplications in the list of shapes.
const BUDGET: u64 = 20_000_000;

/// A few shapes: one element, few rows, a little more than a tile, a little more than a block of k.
const FEW: [GemmShape; 5] = [
    GemmShape { m: 1, n: 1, k: 1 },
    GemmShape { m: 3, n: 150, k: 70 },
    GemmShape { m: 7, n: 33, k: 35 },
    GemmShape { m: 17, n: 5, k: 530 },
    GemmShape { m: 33, n: 49, k: 16 },
];

#[test]
fn every_shape_obeys_the_bound() {
    let kinds = [
        [Kind::Uniform, Kind::Uniform],
        [Kind::Cancelling, Kind::NearOne],
        [Kind::WideRange, Kind::WideRange],
        [Kind::Subnormal, Kind::Uniform],
        [Kind::NearOne, Kind::Subnormal],
        [Kind::Zero, Kind::WideRange],
    ];
    let cases = shapes::gemm(BUDGET).into_iter().enumerate().map(|(i, shape)| Case {
        layout: Layout::ALL[i % 2],
        gaps: [[0; 4], [1, 2, 3, 5]][i / 2 % 2],
        kinds: kinds[i % kinds.len()],
        seed: i as u64,
        ..Case::new(shape, Layout::Nk)
    });
    let in_both_layouts = cases.flat_map(|case| Layout::ALL.map(|layout| Case { layout, ..case }));
    let products: Vec<_> = in_both_layouts
        .map(|case| {
            let operands = Operands::<f32, f32, f32>::new(case);
            let oracle = operands.oracle();
            (operands, oracle)
        })
        .collect();
    let mut scratch = Scratch::new();
    at_every_level(|ctx| {
        let mut worst = 0.0f64;
        for (operands, oracle) in &products {
            worst = worst.max(operands.check(ctx, &mut scratch, oracle));
        }
        println!("{}: {} products, at most {worst:.3} of the bound", ctx.level(), products.len());
    });
}

/// The products of models, as the benchmarks measure them, that are small enough for the oracle.
#[test]
fn products_of_models_obey_the_bound() {
    let shapes = shapes::MODEL_GEMMS.into_iter().filter(|shape| shape.work() <= BUDGET / 2);
    let cases = shapes.flat_map(|shape| Layout::ALL.map(|layout| Case::new(shape, layout)));
    let products: Vec<_> = cases
        .map(|case| {
            let operands = Operands::<f32, bf16, f32>::new(case);
            let oracle = operands.oracle();
            (operands, oracle)
        })
        .collect();
    // 1, 8 and 16 rows by the weights of BERT base's attention, in two layouts.
    assert_eq!(products.len(), 6);
    let mut scratch = Scratch::new();
    at_every_level(|ctx| {
        for (operands, oracle) in &products {
            operands.check(ctx, &mut scratch, oracle);
        }
    });
}

/// Every combination of the storage types of activations, weights and results.
#[test]
fn every_combination_of_types_obeys_the_bound() {
    fn with_a<A: Element>(ctx: &Ctx, case: Case) {
        fn with_w<A: Element, W: Element>(ctx: &Ctx, case: Case) {
            check_case::<A, W, f32>(ctx, case);
            check_case::<A, W, bf16>(ctx, case);
            check_case::<A, W, f16>(ctx, case);
        }
        with_w::<A, f32>(ctx, case);
        with_w::<A, bf16>(ctx, case);
        with_w::<A, f16>(ctx, case);
    }
    at_every_level(|ctx| {
        for shape in FEW {
            for layout in Layout::ALL {
                for precision in Precision::ALL {
                    let plain = Case { precision, gaps: [3, 1, 0, 7], ..Case::new(shape, layout) };
                    let full =
                        Case { bias: true, activation: oracle::Activation::Silu, residual: true, ..plain };
                    let wide_range = Case { kinds: [Kind::WideRange; 2], seed: 9, ..plain };
                    for case in [plain, full, wide_range] {
                        for_each_type!(with_a(ctx, case));
                    }
                }
            }
        }
    });
}

#[test]
fn every_epilogue_obeys_the_bound() {
    at_every_level(|ctx| {
        for shape in FEW {
            for layout in Layout::ALL {
                for activation in oracle::Activation::ALL {
                    for (bias, residual) in [(false, false), (true, false), (false, true), (true, true)] {
                        let case = Case {
                            bias,
                            activation,
                            residual,
                            gaps: [0, 1, 2, 3],
                            kinds: [Kind::Uniform, Kind::NearOne],
                            seed: shape.work(),
                            ..Case::new(shape, layout)
                        };
                        check_case::<f32, f32, f32>(ctx, case);
                        check_case::<bf16, f16, bf16>(ctx, case);
                    }
                }
            }
        }
    });
}

#[test]
fn precision_bf16_rounds_operands_once_and_nothing_else() {
    at_every_level(|ctx| {
        for shape in shapes::gemm(0) {
            for layout in Layout::ALL {
                let case = Case {
                    precision: Precision::Bf16,
                    bias: true,
                    residual: true,
                    gaps: [1; 4],
                    seed: shape.work(),
                    ..Case::new(shape, layout)
                };
                check_case::<f32, f32, f32>(ctx, case);
            }
        }
    });
}

/// At the precision bf16x6 on AMX, infinities are split into terms that add up to NaN. They affect only their row or column.
#[test]
fn special_values_that_are_split_into_terms_affect_only_their_row_or_column() {
    let (m, n, k) = (40, 37, 70);
    at_every_level(|ctx| {
        for layout in Layout::ALL {
            let ctx = ctx.with_precision(Precision::Bf16x6);
            let mut rng = Rng::new(9);
            let mut a = Grid::<f32>::random(&mut rng, Kind::NearOne, (m, k), 0).values();
            let mut w = Grid::<f32>::random(&mut rng, Kind::NearOne, (n, k), 0).values();
            (a[3 * k + 7], a[33 * k], w[5 * k + 69]) = (f32::INFINITY, f32::NAN, f32::NEG_INFINITY);
            let w = match layout {
                Layout::Nk => w,
                Layout::Kn => (0..n * k).map(|i| w[i % n * k + i / n]).collect(),
            };
            let shape = if layout == Layout::Nk { (n, k) } else { (k, n) };
            let weights = MatRef::new(&w, shape.0, shape.1).unwrap().into();
            let mut out = vec![0.0f32; m * n];
            let to = MatMut::new(&mut out, m, n).unwrap();
            let op = Gemm::product(MatRef::new(&a, m, k).unwrap(), Weights { matrix: weights, layout }, to);
            gemm(&ctx, &mut Scratch::new(), op).unwrap();
            for (i, y) in out.iter().enumerate() {
                let affected = [3, 33].contains(&(i / n)) || i % n == 5;
                let (level, splits) = (ctx.level(), ctx.level() == Level::Amx);
                assert!(y.is_finite() != affected, "{level} {i}: {y}");
                assert!(!affected || !splits || y.is_nan(), "{level} {i}: {y}");
            }
        }
    });
}

/// NaN and infinity are in the result exactly where exact arithmetic has them.
#[test]
fn special_values_propagate() {
    at_every_level(|ctx| {
        for shape in shapes::gemm(0) {
            for layout in Layout::ALL {
                for precision in [Precision::Strict, Precision::Bf16] {
                    let case = Case {
                        precision,
                        specials: true,
                        bias: true,
                        activation: oracle::Activation::ALL[shape.m % 7],
                        residual: true,
                        gaps: [2, 0, 1, 1],
                        seed: shape.work(),
                        ..Case::new(shape, layout)
                    };
                    check_case::<f32, f32, f32>(ctx, case);
                    check_case::<bf16, bf16, f16>(ctx, case);
                }
            }
        }
    });
}

/// Earlier contents of scratch, NaN here, do not affect the result.
#[test]
fn contents_of_scratch_do_not_affect_the_result() {
    at_every_level(|ctx| {
        let mut scratch = Scratch::new();
        for shape in FEW {
            for layout in Layout::ALL {
                for precision in Precision::ALL {
                    let case = Case { bias: true, precision, ..Case::new(shape, layout) };
                    let operands = Operands::<f32, f32, f32>::new(case);
                    scratch.take(1 << 20).unwrap().fill(f32::NAN);
                    operands.check(ctx, &mut scratch, &operands.oracle());
                }
            }
        }
    });
}

/// A product with K = 0 is the epilogue of zeros; one without rows or columns writes nothing.
#[test]
fn empty_dimensions_are_allowed() {
    at_every_level(|ctx| {
        for layout in Layout::ALL {
            for (m, n, k) in [(0, 5, 3), (5, 0, 3), (0, 0, 0), (0, 0, 300), (3, 20, 0), (1, 1, 0)] {
                for (bias, residual) in [(false, false), (true, true)] {
                    let case = Case {
                        bias,
                        residual,
                        gaps: [1, 1, 1, 1],
                        activation: oracle::Activation::Relu,
                        ..Case::new(GemmShape { m, n, k }, layout)
                    };
                    // Bias and residual in f32, so the result is exact.
                    let operands = Operands::<f32, f32, f32>::new(case);
                    let mut scratch = Scratch::new();
                    scratch.take(1 << 16).unwrap().fill(f32::NAN);
                    operands.check(ctx, &mut scratch, &operands.oracle());
                }
            }
        }
    });
}

/// A row stride of zero repeats one row of weights or of activations.
#[test]
fn a_row_stride_of_zero_repeats_a_row() {
    at_every_level(|ctx| {
        let mut rng = Rng::new(4);
        let row: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (1, 40), 0);
        let a: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (9, 40), 3);
        let repeated = Grid::new(&row.values().repeat(21), (21, 40), 0);
        let shared = MatRef::with_stride(row.slice(), 21, 40, 0).unwrap();
        let product = |a: MatRef<'_, f32>, w: MatRef<'_, f32>| {
            let mut out = Grid::<f32>::new(&vec![0.0; a.rows() * w.rows()], (a.rows(), w.rows()), 1);
            let weights = Weights { matrix: w.into(), layout: Layout::Nk };
            gemm(ctx, &mut Scratch::new(), Gemm::product(a, weights, view_mut(&mut out))).unwrap();
            out.values()
        };
        assert_eq!(product(view(&a), shared), product(view(&a), view(&repeated)));
        assert_eq!(product(shared, view(&a)), product(view(&repeated), view(&a)));
    });
}

#[test]
fn operands_that_disagree_are_refused_and_nothing_is_written() {
    let data = [1.0f32; 64];
    let refused =
        |a: (usize, usize), w: (usize, usize), out: (usize, usize), bias, residual: (usize, usize)| {
            let mut written = [7.0f32; 64];
            for layout in Layout::ALL {
                let (rows, cols) = if layout == Layout::Nk { w } else { (w.1, w.0) };
                let matrix = AnyMatRef::F32(MatRef::new(&data, rows, cols).unwrap());
                let part = Part {
                    weights: Weights { matrix, layout },
                    bias: Some(AnySlice::F32(&data[..bias])),
                    activation: Activation::Tanh,
                };
                let op = Gemm {
                    residual: Some(MatRef::new(&data, residual.0, residual.1).unwrap()),
                    ..Gemm::of(
                        MatRef::new(&data, a.0, a.1).unwrap(),
                        part,
                        MatMut::new(&mut written, out.0, out.1).unwrap(),
                    )
                };
                let error = gemm(&Ctx::from_env().unwrap(), &mut Scratch::new(), op).unwrap_err();
                assert!(matches!(error, Error::Shape { operation: "gemm", .. }), "{error}");
            }
            assert_eq!(written, [7.0; 64]);
        };
    let (m, n, k) = (3, 4, 5);
    refused((m, k), (n, k + 1), (m, n), n, (m, n));
    refused((m, k), (n, k - 1), (m, n), n, (m, n));
    refused((m, k), (n, k), (m + 1, n), n, (m, n));
    refused((m, k), (n, k), (m, n + 1), n, (m, n));
    refused((m, k), (n, k), (m, n), n - 1, (m, n));
    refused((m, k), (n, k), (m, n), n + 1, (m, n));
    refused((m, k), (n, k), (m, n), n, (m + 1, n));
    refused((m, k), (n, k), (m, n), n, (m, n - 1));
    refused((0, k), (0, k + 1), (0, 0), 0, (0, 0));
}

/// `gemm_scratch_len` is what the product needs: the scratch does not grow in the call.
#[test]
fn gemm_scratch_len_is_what_the_call_needs() {
    at_every_level(|ctx| {
        for shape in FEW {
            for layout in Layout::ALL {
                for precision in Precision::ALL {
                    let case = Case { precision, ..Case::new(shape, layout) };
                    let operands = Operands::<f32, f32, f32>::new(case);
                    let mut scratch = Scratch::new();
                    let dims = Dims::of_one(layout, [shape.m, shape.n, shape.k]);
                    scratch.reserve(gemm_scratch_len(&ctx.with_precision(precision), &dims)).unwrap();
                    let before = scratch.bytes();
                    operands.run(ctx, &mut scratch);
                    assert_eq!(scratch.bytes(), before);
                }
            }
        }
    });
}

/// Scratch for M rows suffices for fewer rows, which may be cut for fewer threads.
#[test]
fn scratch_for_some_rows_suffices_for_fewer() {
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let pools: [ThreadPool; 3] = [2, 3, 8].map(pool);
    at_every_level(|ctx| {
        let contexts = pools.iter().flat_map(|pool| {
            Precision::ALL.map(|precision| ctx.with_pool(Some(pool)).with_precision(precision))
        });
        for ctx in contexts {
            for layout in Layout::ALL {
                for (n, k) in [(768, 768), (3072, 768), (16, 1536), (100, 5000)] {
                    let scratch_len = |m| gemm_scratch_len(&ctx, &Dims::of_one(layout, [m, n, k]));
                    let mut most = 0;
                    for m in 1..300 {
                        assert!(
                            scratch_len(m) >= most,
                            "{layout:?} {m} x {n} x {k}, {} threads",
                            ctx.threads()
                        );
                        most = scratch_len(m);
                    }
                }
            }
        }
    });
}

/// Only plans of the table are accepted: a caller's own could claim to fit what its routine cannot compute.
#[test]
fn a_plan_that_is_not_in_the_table_is_refused() {
    let mut plan = PLANS[PLANS.len() - 1];
    plan.name = "another";
    let ctx = Ctx::new(Level::Scalar).unwrap();
    let (a, w, mut out) = ([1.0f32], [1.0f32], [0.0f32]);
    let weights = Weights { matrix: MatRef::new(&w, 1, 1).unwrap().into(), layout: Layout::Nk };
    let op = Gemm::product(MatRef::new(&a, 1, 1).unwrap(), weights, MatMut::new(&mut out, 1, 1).unwrap());
    let refused = gemm_with(&plan, &ctx, &mut Scratch::new(), op);
    assert!(matches!(refused, Err(Error::GemmPlan { plan: "another", .. })));
}

/// A plan computes what it fits, and refuses everything else.
#[test]
fn a_plan_that_does_not_fit_is_refused() {
    let (a, w) = ([1.0f32; 9], [1.0f32; 1]);
    at_every_level(|ctx| {
        for plan in &PLANS {
            for layout in Layout::ALL {
                for precision in Precision::ALL {
                    for m in [1, 9] {
                        let ctx = ctx.with_precision(precision);
                        let mut out = [0.0f32; 9];
                        let weights = Weights { matrix: MatRef::new(&w, 1, 1).unwrap().into(), layout };
                        let (a, to) = (MatRef::new(&a, m, 1).unwrap(), MatMut::new(&mut out, m, 1).unwrap());
                        let computed =
                            gemm_with(plan, &ctx, &mut Scratch::new(), Gemm::product(a, weights, to));
                        let fits = plan.levels.contains(&ctx.level())
                            && plan.precisions.contains(&precision)
                            && plan.layouts.contains(&layout)
                            && m <= plan.max_rows;
                        match computed {
                            Ok(()) => assert!(fits && out[m - 1] == 1.0, "{} {layout} {m}", plan.name),
                            Err(error) => {
                                assert!(!fits, "{error}");
                                assert!(error.to_string().contains(&layout.to_string()), "{error}");
                                assert_eq!(out, [0.0; 9]);
                            }
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn types_convert_as_the_oracle_assumes() {
    // The oracle and the kernels must round operands in the same way.
    for x in [1.003_906_3f32, 1.011_718_8, -3.4e38, 1e-40] {
        assert_eq!(
            f64::from(bf16::from_f32(x).to_f32()),
            <bf16 as rachis_testkit::Storage>::nearest(x.into())
        );
        assert_eq!(f64::from(f16::from_f32(x).to_f32()), <f16 as rachis_testkit::Storage>::nearest(x.into()));
    }
}
