//! The bits of matrix products, as the numeric contract promises them: an output element depends on its row of activations and
//! its column of weights, and on nothing else.

mod common;

use common::{Element, at_every_level, bits, is_scalar, view, view_mut};
use rachis_kernels::gemm::SummationOrder;
use rachis_kernels::{
    Activation, AnyMatRef, Combine, Ctx, Gemm, GemmPlan, Layout, MatRef, Part, Precision, Scratch, Weights,
    bf16, f16, gemm,
};
use rachis_testkit::{Grid, Kind, Rng, Storage, data, shapes};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// `gelu(a * w + bias)`, plus the first columns of `a` as a residual, with weights that are stored as `W` in `layout`.
struct Model<W> {
    weights: Grid<W>,
    layout: Layout,
    bias: Vec<f32>,
}

impl<W: Element> Model<W> {
    fn new(w: &Grid<W>, layout: Layout) -> Model<W> {
        let (n, k) = (w.rows(), w.cols());
        let weights = match layout {
            Layout::Nk => Grid::new(&w.values(), (n, k), 2),
            Layout::Kn => {
                let transposed: Vec<W> = (0..k).flat_map(|i| (0..n).map(move |j| w.at(j, i))).collect();
                Grid::new(&transposed, (k, n), 1)
            }
        };
        Model { weights, layout, bias: (0..n).map(|j| j as f32 * 0.01).collect() }
    }

    fn run(&self, ctx: &Ctx, a: MatRef<'_, f32>) -> Vec<u32> {
        let (m, n) = (a.rows(), self.bias.len());
        let mut out = Grid::<f32>::new(&vec![0.0; m * n], (m, n), 3);
        let weights = Weights { matrix: W::matrix(view(&self.weights)), layout: self.layout };
        let bias = Some(self.bias.as_slice().into());
        let part = Part { weights, bias, activation: Activation::GeluErf };
        let op = Gemm { residual: a.columns(0, n).ok(), ..Gemm::of(a, part, view_mut(&mut out)) };
        gemm(ctx, &mut Scratch::new(), op).unwrap();
        bits(&out.values())
    }
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Each row of a batch of any size has the bits that it has in a call of its own.
#[test]
fn a_row_does_not_depend_on_its_batch() {
    let (most, n, k) = (300, 33, 41);
    let mut rng = Rng::new(11);
    let a: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (most, k), 1);
    let w: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (n, k), 0);
    at_every_level(|ctx| {
        for layout in Layout::ALL {
            for precision in Precision::ALL {
                let ctx = ctx.with_precision(precision);
                let model = Model::new(&w, layout);
                let alone: Vec<u32> =
                    (0..most).flat_map(|i| model.run(&ctx, view(&a).rows_range(i..i + 1))).collect();
                for m in 1..=most {
                    let batch = model.run(&ctx, view(&a).rows_range(0..m));
                    assert!(batch == alone[..m * n], "{} {layout:?} {precision:?} batch of {m}", ctx.level());
                }
            }
        }
    });
}

/// [`a_row_does_not_depend_on_its_batch`] with N that is whole vectors, a little more, and more than NC of few rows; with K
/// that is whole blocks of 32, and a little more.
#[test]
fn a_row_by_many_columns_does_not_depend_on_its_batch() {
    fn check<W: Element>(ctx: &Ctx, a: &Grid<f32>, w: &Grid<W>) {
        for layout in Layout::ALL {
            let model = Model::new(w, layout);
            let all = model.run(ctx, view(a));
            for m in 1..a.rows() {
                let batch = model.run(ctx, view(a).rows_range(0..m));
                let (n, k) = (w.rows(), w.cols());
                let place = format!("{} {layout} {:?} {}", ctx.level(), ctx.precision(), W::NAME);
                assert!(batch == all[..m * n], "{place} {m} x {n} x {k}");
            }
        }
    }
    let mut rng = Rng::new(16);
    for (n, k) in [128, 130, 1100].into_iter().flat_map(|n| [(n, 32), (n, 70)]) {
        let a: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (10, k), 0);
        let w: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (n, k), 0);
        let half: Grid<f16> = Grid::random(&mut rng, Kind::Uniform, (n, k), 0);
        let brain: Grid<bf16> = Grid::random(&mut rng, Kind::Uniform, (n, k), 0);
        at_every_level(|ctx| {
            for ctx in Precision::ALL.map(|precision| ctx.with_precision(precision)) {
                check(&ctx, &a, &w);
                check(&ctx, &a, &half);
                check(&ctx, &a, &brain);
            }
        });
    }
}

/// [`a_row_does_not_depend_on_its_batch`] where operands, products, partial sums or sums are about as small as the smallest
/// normal numbers.
#[test]
fn a_row_of_tiny_numbers_does_not_depend_on_its_batch() {
    let (most, n, k) = (20, 40, 200);
    let mut rng = Rng::new(15);
    let mut tiny = |shape: (usize, usize), smallest: i32| {
        let value = |i: usize| {
            let x: f32 = data::values(&mut rng, Kind::Uniform, 1)[0];
            x * 2.0f32.powi(smallest + 7 * (i as i32 % 5))
                * if i.is_multiple_of(11) { 2.0f32.powi(-70) } else { 1.0 }
        };
        let values: Vec<f32> = (0..shape.0 * shape.1).map(value).collect();
        Grid::new(&values, shape, 0)
    };
    let cases = [-78, -70, -64].map(|smallest| (tiny((most, k), smallest), tiny((n, k), smallest)));
    at_every_level(|ctx| {
        for (i, (a, w)) in cases.iter().enumerate() {
            for layout in Layout::ALL {
                for precision in Precision::ALL {
                    let ctx = ctx.with_precision(precision);
                    let model = Model::new(w, layout);
                    let product = |rows: usize| {
                        let mut out = Grid::<f32>::new(&vec![1.0; rows * n], (rows, n), 0);
                        let weights = Weights { matrix: view(&model.weights).into(), layout };
                        let op = Gemm::product(view(a).rows_range(0..rows), weights, view_mut(&mut out));
                        gemm(&ctx, &mut Scratch::new(), op).unwrap();
                        bits(&out.values())
                    };
                    let all = product(most);
                    let place = format!("{} {layout:?} {precision:?}, case {i}", ctx.level());
                    assert!(all.iter().any(|x| f32::from_bits(*x) != 0.0), "{place}: all zero");
                    for rows in 1..10 {
                        assert!(product(rows) == all[..rows * n], "{place}, {rows} rows");
                    }
                }
            }
        }
    });
}

/// A subnormal operand times a large one, and normal products whose sum is subnormal: at an even and an odd k, and in two
/// blocks of k.
#[test]
fn few_rows_treat_subnormal_numbers_as_many_rows_do() {
    let (rows, k) = (20, 33);
    let power = |exponent: i32| if exponent < -126 { power_below(exponent) } else { 2.0f32.powi(exponent) };
    let at = |places: [(usize, f32); 2]| {
        let mut values = vec![0.0f32; k];
        places.iter().for_each(|(at, x)| values[*at] = *x);
        values
    };
    let cases = [
        (at([(0, power(20)), (1, 0.0)]), at([(0, power(-130)), (1, 0.0)])),
        (at([(0, power(-130)), (1, 0.0)]), at([(0, power(20)), (1, 0.0)])),
        (at([(0, 1.5 * power(-63)), (1, power(-63))]), at([(0, power(-63)), (1, -power(-63))])),
        (at([(0, 1.5 * power(-63)), (32, power(-63))]), at([(0, power(-63)), (32, -power(-63))])),
    ];
    at_every_level(|ctx| {
        for (i, (x, w)) in cases.iter().enumerate() {
            let a = Grid::new(&x.repeat(rows), (rows, k), 0);
            let w: Vec<bf16> = w.iter().map(|x| bf16::from_f32(*x)).collect();
            for layout in Layout::ALL {
                let shape = if layout == Layout::Nk { (1, k) } else { (k, 1) };
                let w = Grid::new(&w, shape, 0);
                for precision in Precision::ALL {
                    let product = |rows: usize| {
                        let mut out = Grid::<f32>::new(&vec![1.0; rows], (rows, 1), 0);
                        let weights = Weights { matrix: view(&w).into(), layout };
                        let op = Gemm::product(view(&a).rows_range(0..rows), weights, view_mut(&mut out));
                        gemm(&ctx.with_precision(precision), &mut Scratch::new(), op).unwrap();
                        bits(&out.values())
                    };
                    for few in [1, 2, 3, 4, 8] {
                        let place = format!("{} {layout:?} {precision:?}, case {i}", ctx.level());
                        assert_eq!(product(few), product(rows)[..few], "{place}, {few} rows");
                    }
                }
            }
        }
    });
}

/// A subnormal power of two.
fn power_below(exponent: i32) -> f32 {
    f32::from_bits(1 << (exponent + 149))
}

/// On AMX, rows of bf16 weights that are whole blocks of 32 are multiplied in place, or from a copy if there are many rows of
/// activations. The bits are the same, also if the second factor of a product must be copied.
#[test]
fn bits_do_not_depend_on_whether_weights_are_multiplied_in_place() {
    let (most, n, k) = (300, 64, 96);
    let mut rng = Rng::new(14);
    let a: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (most, k), 0);
    let [gate, up] = [2, 0].map(|gap| Grid::<bf16>::random(&mut rng, Kind::Uniform, (n, k), gap));
    let values: Vec<f32> = up.values().into_iter().map(Storage::to_f32).collect();
    let widened = Grid::new(&values, (n, k), 0);
    at_every_level(|ctx| {
        for precision in [Precision::Bf16, Precision::Bf16x6] {
            let ctx = ctx.with_precision(precision);
            let product = |rows: usize, up: AnyMatRef<'_>| {
                let mut out = Grid::<f32>::new(&vec![0.0; rows * n], (rows, n), 0);
                let part = |matrix| Part::of(Weights { matrix, layout: Layout::Nk });
                let op = Gemm {
                    a: view(&a).rows_range(0..rows),
                    parts: [part(view(&gate).into()), part(up)],
                    combine: Combine::Product,
                    residual: None,
                    out: view_mut(&mut out),
                };
                gemm(&ctx, &mut Scratch::new(), op).unwrap();
                bits(&out.values())
            };
            let all = product(most, view(&up).into());
            for rows in [1, 16, 40, 130] {
                assert!(product(rows, view(&up).into()) == all[..rows * n], "{} {rows}", ctx.level());
                assert!(
                    product(rows, view(&widened).into()) == all[..rows * n],
                    "{} {rows} f32",
                    ctx.level()
                );
            }
        }
    });
}

/// Threads partition the output, never a sum. K is more than a block, also of pairs, and there are more rows than MC.
#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let k = 1060;
    let mut rng = Rng::new(12);
    let mut weights = |n: usize| -> Grid<f32> { Grid::random(&mut rng, Kind::NearOne, (n, k), 0) };
    // Few columns, and so many that one row is work for several threads.
    let shapes = [
        (weights(70), [1, 2, 27, 54, 71, 105, 150, 211, 300].as_slice()),
        (weights(1100), [1, 2, 4].as_slice()),
    ];
    let a: Grid<f32> = Grid::random(&mut rng, Kind::Cancelling, (300, k), 0);
    let pools = [1, 2, 3].map(pool);
    at_every_level(|ctx| {
        for ((w, batches), layout) in shapes.iter().flat_map(|shape| Layout::ALL.map(|l| (shape, l))) {
            for precision in Precision::ALL {
                let ctx = ctx.with_precision(precision);
                let model = Model::new(w, layout);
                let most = batches[batches.len() - 1];
                let alone: Vec<u32> =
                    (0..most).flat_map(|i| model.run(&ctx, view(&a).rows_range(i..i + 1))).collect();
                for (m, pool) in batches.iter().flat_map(|m| pools.iter().map(move |pool| (*m, pool))) {
                    let ctx = ctx.with_pool(Some(pool));
                    let batch = model.run(&ctx, view(&a).rows_range(0..m));
                    let (n, threads) = (w.rows(), ctx.threads());
                    let place =
                        format!("{} {layout} {precision:?} {m} x {n}, {threads} threads", ctx.level());
                    assert!(batch == alone[..m * n], "{place}");
                    let entered = ctx.enter(|ctx| model.run(ctx, view(&a).rows_range(0..m)));
                    assert!(entered == batch, "{place}, inside the pool");
                }
            }
        }
    });
}

/// A column has the same bits at any position and with any number of other columns.
#[test]
fn bits_do_not_depend_on_the_position_of_a_column() {
    let (m, n, k) = (14, 70, 515);
    let mut rng = Rng::new(13);
    let a: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (m, k), 0);
    let w: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (n, k), 0);
    at_every_level(|ctx| {
        for layout in Layout::ALL {
            let plain = |first: usize, count: usize| {
                let some = Grid::new(&w.values()[first * k..(first + count) * k], (count, k), 0);
                let model = Model { bias: vec![0.5; count], ..Model::new(&some, layout) };
                let a = Grid::new(&a.values(), (m, k), 0);
                let mut out = Grid::<f32>::new(&vec![0.0; m * count], (m, count), 0);
                let weights = Weights { matrix: view(&model.weights).into(), layout };
                let part = Part { bias: Some(model.bias.as_slice().into()), ..Part::of(weights) };
                let op = Gemm::of(view(&a), part, view_mut(&mut out));
                gemm(ctx, &mut Scratch::new(), op).unwrap();
                out
            };
            let all = plain(0, n);
            for (first, count) in [(0, 1), (1, 1), (69, 1), (3, 16), (5, 33), (15, 48), (38, 32)] {
                let some = plain(first, count);
                for i in 0..m {
                    assert_eq!(
                        bits(some.row(i)),
                        bits(&all.row(i)[first..first + count]),
                        "{layout:?} {first}"
                    );
                }
            }
        }
    });
}

/// Checksums of the products of [`bits_do_not_depend_on_layout_storage_or_level`] in each precision, by summation order: the
/// ascending order at every level with fused multiply-add on every architecture, pairs, and AMX tiles. A change of a checksum
/// is a change of the numeric contract.
const CHECKSUMS: [(SummationOrder, [u64; 3]); 4] = [
    (SummationOrder::Ascending, [0xcafd35d361e0111, 0x8b062937bbda3279, 0xcafd35d361e0111]),
    (SummationOrder::Pairs, [0, 0x720fdce921b4f5d8, 0]),
    (SummationOrder::Tiles, [0, 0xa6f46a16766209c4, 0]),
    (SummationOrder::SplitTiles, [0, 0, 0xf3e6c88834408cd8]),
];

/// The FNV-1a hash of the bits.
fn checksum<'a>(products: impl Iterator<Item = &'a Vec<u32>>) -> u64 {
    let bytes = products.flatten().flat_map(|bits| bits.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Results do not depend on the layout and the storage type of the weights. All levels with the same summation order give the
/// same bits, except for the scalar level, which does not fuse.
#[test]
fn bits_do_not_depend_on_layout_storage_or_level() {
    at_every_level(|ctx| {
        let mut all = Vec::new();
        for shape in shapes::gemm(0) {
            let mut rng = Rng::new(shape.work());
            let a: Grid<f32> = Grid::random(&mut rng, Kind::Uniform, (shape.m, shape.k), 1);
            all.push(same_for_layout_and_storage::<bf16>(ctx, &a, shape.n));
            all.push(same_for_layout_and_storage::<f16>(ctx, &a, shape.n));
        }
        if is_scalar(ctx) {
            return;
        }
        for (i, precision) in Precision::ALL.into_iter().enumerate() {
            let order = GemmPlan::pick(&ctx.with_precision(precision), Layout::Nk, 1).order;
            let expected = CHECKSUMS.into_iter().find(|(of, _)| *of == order).map(|(_, sums)| sums[i]);
            let found = checksum(all.iter().map(|products| &products[i]));
            assert_eq!(Some(found), expected, "{} {precision:?} {order:?} {found:#x}", ctx.level());
        }
    });
}

fn same_for_layout_and_storage<H: Element>(ctx: &Ctx, a: &Grid<f32>, n: usize) -> [Vec<u32>; 3] {
    let mut rng = Rng::new(n as u64);
    let half: Grid<H> = Grid::random(&mut rng, Kind::Uniform, (n, a.cols()), 0);
    let widened: Vec<f32> = half.values().into_iter().map(Storage::to_f32).collect();
    let single = Grid::new(&widened, (n, a.cols()), 0);
    Precision::ALL.map(|precision| {
        let ctx = ctx.with_precision(precision);
        let expected = Model::new(&single, Layout::Nk).run(&ctx, view(a));
        for layout in Layout::ALL {
            let place = format!("{} {precision:?} {layout:?} {}", ctx.level(), H::NAME);
            assert!(Model::new(&single, layout).run(&ctx, view(a)) == expected, "{place} as f32");
            assert!(Model::new(&half, layout).run(&ctx, view(a)) == expected, "{place}");
        }
        expected
    })
}
