//! Our matrix products, and those of the crates `gemm` and `matrixmultiply`: one thread, `[N, K]` weights, hot.
//!
//! The throughput is counted in floating-point operations, so criterion's `Gelem/s` are GFLOP/s. Our products are named by
//! storage type, precision and the plan picked. Activations and results are f32, except for the f16 product of the crate
//! `gemm`, whose operands are all f16. `kprobe` measures the other layout, cold weights and the limits.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use rachis_benches::arena::values;
use rachis_benches::peers::{Product, gemm_f16, gemm_f32, matrixmultiply_f32};
use rachis_kernels::{
    AnyMatRef, Ctx, Gemm, GemmPlan, Layout, MatMut, MatRef, Precision, Scratch, Weights, bf16, f16, gemm,
};
use rachis_testkit::shapes::{GemmShape, MODEL_GEMMS};

fn main() {
    let criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    products(&mut criterion);
    criterion.final_summary();
}

fn products(criterion: &mut Criterion) {
    let strict = Ctx::from_env().expect("a level that this machine has");
    let rounded = strict.with_precision(Precision::Bf16);
    for shape in MODEL_GEMMS {
        let mut group = criterion.benchmark_group(format!("gemm/{}/{shape}", strict.level()));
        group.throughput(Throughput::Elements(shape.flops()));
        let w = values(shape.weights());
        let w_bf16: Vec<bf16> = w.iter().map(|x| bf16::from_f32(*x)).collect();
        let w_f16: Vec<f16> = w.iter().map(|x| f16::from_f32(*x)).collect();
        let (n, k) = (shape.n, shape.k);
        ours(&mut group, &strict, shape, "f32", MatRef::new(&w, n, k).expect("n * k").into());
        ours(&mut group, &strict, shape, "bf16", MatRef::new(&w_bf16, n, k).expect("n * k").into());
        ours(&mut group, &strict, shape, "f16", MatRef::new(&w_f16, n, k).expect("n * k").into());
        ours(&mut group, &rounded, shape, "bf16", MatRef::new(&w_bf16, n, k).expect("n * k").into());
        peer(&mut group, "gemm f32", shape, &w, |x| x, gemm_f32);
        peer(&mut group, "gemm f16", shape, &w_f16, f16::from_f32, gemm_f16);
        peer(&mut group, "matrixmultiply f32", shape, &w, |x| x, matrixmultiply_f32);
        group.finish();
    }
}

fn ours(
    group: &mut BenchmarkGroup<'_, WallTime>,
    ctx: &Ctx,
    shape: GemmShape,
    dtype: &str,
    w: AnyMatRef<'_>,
) {
    let GemmShape { m, n, k } = shape;
    let precision = ctx.precision();
    let name = format!("rachis {dtype} {precision} {}", GemmPlan::pick(ctx, Layout::Nk, m).name);
    let (a, mut out, mut scratch) = (values(m * k), vec![0.0f32; m * n], Scratch::new());
    let weights = Weights { matrix: w, layout: Layout::Nk };
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let a = MatRef::new(black_box(&a), m, k).expect("m * k");
            let out = MatMut::new(&mut out, m, n).expect("m * n");
            gemm(ctx, &mut scratch, Gemm::product(a, weights, out)).expect("shapes agree");
        });
    });
}

fn peer<T: Copy>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    shape: GemmShape,
    weights: &[T],
    stored: fn(f32) -> T,
    run: fn(Product<'_, T>),
) {
    let a: Vec<T> = values(shape.m * shape.k).into_iter().map(stored).collect();
    let mut out = vec![stored(0.0); shape.m * shape.n];
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            run(Product { shape, layout: Layout::Nk, a: black_box(&a), weights, out: &mut out });
        });
    });
}
