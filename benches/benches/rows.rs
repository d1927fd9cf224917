//! Softmax, the norms and the activations on the rows of BERT base: one thread, hot. The throughput is counted in elements.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use rachis_benches::arena::values;
use rachis_kernels::{
    Activation, AnySlice, Ctx, Elem, Mask, MatMut, MatRef, NormRows, SoftmaxRows, activate, bf16, f16,
    layer_norm_rows, rms_norm_rows, softmax_rows,
};
use rachis_testkit::shapes::MODEL_ROWS;

fn main() {
    let criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    rows(&mut criterion);
    criterion.final_summary();
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::Relu,
    Activation::GeluErf,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::QuickGelu,
    Activation::Tanh,
];

fn rows(criterion: &mut Criterion) {
    let ctx = Ctx::from_env().expect("a level that this machine has");
    for (rows, cols) in MODEL_ROWS {
        let mut group = criterion.benchmark_group(format!("rows/{}/{rows}x{cols}", ctx.level()));
        group.throughput(Throughput::Elements((rows * cols) as u64));
        operations(&mut group, &ctx, (rows, cols), "f32", |x| x);
        operations(&mut group, &ctx, (rows, cols), "bf16", bf16::from_f32);
        operations(&mut group, &ctx, (rows, cols), "f16", f16::from_f32);
        group.finish();
    }
}

fn operations<T: Elem>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    ctx: &Ctx,
    (rows, cols): (usize, usize),
    dtype: &str,
    stored: fn(f32) -> T,
) {
    let data: Vec<T> = values(rows * cols).into_iter().map(|x| stored(8.0 * x)).collect();
    let mut out = data.clone();
    in_place(group, format!("softmax_rows {dtype}"), &data, |x| {
        let x = MatMut::new(x, rows, cols).expect("rows * cols");
        let op = SoftmaxRows { x, scale: 0.125, bias: None, mask: Mask::None };
        softmax_rows(ctx, op).expect("shapes agree");
    });
    let (gamma, beta) = (values(cols), values(cols));
    for (name, norm) in [
        ("layer_norm_rows", layer_norm_rows as fn(&Ctx, NormRows<'_, T>) -> rachis_kernels::Result<()>),
        ("rms_norm_rows", rms_norm_rows),
    ] {
        let beta = (name == "layer_norm_rows").then_some(AnySlice::F32(&beta));
        group.bench_function(format!("{name} {dtype}"), |bencher| {
            bencher.iter(|| {
                let op = NormRows {
                    x: MatRef::new(black_box(&data), rows, cols).expect("rows * cols"),
                    gamma: Some(AnySlice::F32(&gamma)),
                    beta,
                    epsilon: 1e-12,
                    out: MatMut::new(&mut out, rows, cols).expect("rows * cols"),
                };
                norm(ctx, op).expect("shapes agree");
            });
        });
    }
    for activation in ACTIVATIONS {
        in_place(group, format!("{activation:?} {dtype}"), &data, |x| activate(ctx, activation, x));
    }
}

/// Times an operation that overwrites its input, without the copy that restores the input for each call: repeated on its own
/// results, an activation would soon have only subnormal inputs.
fn in_place<T: Copy>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: String,
    data: &[T],
    mut run: impl FnMut(&mut [T]),
) {
    let mut x = data.to_vec();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|count| {
            let mut time = Duration::ZERO;
            for _ in 0..count {
                x.copy_from_slice(data);
                let start = Instant::now();
                run(black_box(&mut x));
                time += start.elapsed();
            }
            time
        });
    });
}
