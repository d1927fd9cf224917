//! Measures the machine's limits and the matrix products against them, in one run.
//!
//! A fraction is of the limit that binds: the multiply-add peak, or the bandwidth at which the bytes that the
//! product must touch can be read, whichever takes longer. `hot` repeats one product; `cold` cycles through more
//! weights than the caches hold. Rates are the best of many short turns, fractions the median of the turns'.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use rachis_benches::machine::{cache_bytes, features};
use rachis_benches::{SHAPES, Shape, best_time};
use rachis_kernels::probe::{fma_gflops, read_gbps};
use rachis_kernels::{
    AnyMatRef, Ctx, Gemm, Layout, Level, MatMut, MatRef, Scratch, Weights, bf16, f16, gemm,
};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Args {
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Threads that share a product
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Fail when a product of 128 or more rows is under 0.70 of the peak, hot
    #[arg(long)]
    assert: bool,
    /// Storage type of the weights
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// Products to measure: MxNxK,...
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<Shape>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
    F16,
}

/// Weights of every storage type, enough to run past the caches.
enum Store {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

/// The fraction of the multiply-add peak that `--assert` asks for.
const FLOOR: f64 = 0.70;

fn main() -> ExitCode {
    match probe(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn probe(args: &Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.max(1)).build()?;
    let ctx = Ctx::new(Level::from_env()?)?;
    let ctx = ctx.with_pool((args.threads > 1).then_some(&pool));
    let caches: Vec<usize> = (1..=3).map(cache_bytes).collect();
    let past_caches = (2 * caches[2]).clamp(64 << 20, 1 << 30);
    let ring = vec![1.0f32; past_caches / 4];
    let gbps = |bytes: usize, runs| read_gbps(&ctx, &ring[..(bytes / 4).clamp(1024, ring.len())], runs);
    let (l2, l3) = (gbps(caches[1] / 2, 200), gbps((caches[2] / 4).min(32 << 20), 8));
    let dram = gbps(past_caches, 2);
    drop(ring);

    let shapes = if args.shapes.is_empty() { &SHAPES[..] } else { &args.shapes };
    let mut rows = Vec::new();
    let mut lowest = f64::MAX;
    for shape in shapes {
        for (layout, name) in [(Layout::Nk, "nk"), (Layout::Kn, "kn")] {
            let turns = time(&ctx, args.dtype, *shape, layout, past_caches)?;
            let bytes = weight_bytes(args.dtype) * shape.n * shape.k;
            let cache = if bytes < caches[1] * 3 / 4 { l2 } else { l3 };
            let flops = 2.0 * (shape.m * shape.n * shape.k) as f64;
            let threads = args.threads as f64;
            let fraction = |peak: f64, gbps: f64, time: Duration| {
                let limit = (flops / (peak * threads * 1e9)).max(bytes as f64 / (gbps * threads * 1e9));
                limit / time.as_secs_f64()
            };
            let hot_fraction = median(turns.iter().map(|turn| fraction(turn.peak, cache, turn.hot)));
            let cold_fraction = median(turns.iter().map(|turn| fraction(turn.peak, dram, turn.cold)));
            let best = |times: &mut dyn Iterator<Item = Duration>| {
                flops / times.min().unwrap_or(Duration::MAX).as_secs_f64() / 1e9
            };
            let hot = best(&mut turns.iter().map(|turn| turn.hot));
            let cold = best(&mut turns.iter().map(|turn| turn.cold));
            let peak = turns.iter().map(|turn| turn.peak).fold(0.0, f64::max) * threads;
            if shape.m >= 128 {
                lowest = lowest.min(hot_fraction);
            }
            let row = json!({
                "m": shape.m, "n": shape.n, "k": shape.k,
                "dtype": format!("{:?}", args.dtype).to_lowercase(),
                "precision": "strict", "layout": name, "threads": args.threads,
                "plan": format!("fma-{}", ctx.level()), "picked": true, "peak_gflops": round(peak),
                "hot_gflops": round(hot), "cold_gflops": round(cold),
                "hot_fraction": round(hot_fraction), "cold_fraction": round(cold_fraction),
            });
            if !args.json {
                println!("{}", line(&row));
            }
            rows.push(row);
        }
    }
    let report = json!({
        "level": ctx.level().name(),
        "features": features(),
        "caches": { "l1d": caches[0], "l2": caches[1], "l3": caches[2] },
        "peaks": {
            "f32_gflops": round(fma_gflops(&ctx, 50)),
            "amx_bf16_gflops": Value::Null,
            "read_gbps": { "l2": round(l2), "l3": round(l3), "dram": round(dram) },
        },
        "gemm": rows,
    });
    if args.json {
        println!("{report}");
    } else {
        println!("level {}, peaks {}", report["level"], report["peaks"]);
    }
    if args.assert && lowest < FLOOR {
        eprintln!("error: a product of 128 or more rows reached {lowest:.2} of the peak, expected {FLOOR}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// One short turn, in which the multiply-add peak and the product are measured one after the other: the clock of
/// a shared machine drifts, and a neighbour takes a share, so a fraction is of the peak beside it.
struct Turn {
    /// GFLOP/s of one core.
    peak: f64,
    hot: Duration,
    cold: Duration,
}

/// The middle of the values.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

const TURNS: usize = 40;
const TURN: Duration = Duration::from_millis(8);

fn time(
    ctx: &Ctx,
    dtype: Dtype,
    shape: Shape,
    layout: Layout,
    past_caches: usize,
) -> Result<Vec<Turn>, Box<dyn std::error::Error>> {
    let Shape { m, n, k } = shape;
    let each = n * k;
    let copies = (past_caches / (each * weight_bytes(dtype))).max(2);
    let value = |i: usize| ((i * 7919 % 1009) as f32 - 504.0) / 1009.0;
    let store = match dtype {
        Dtype::F32 => Store::F32((0..copies * each).map(value).collect()),
        Dtype::Bf16 => Store::Bf16((0..copies * each).map(|i| bf16::from_f32(value(i))).collect()),
        Dtype::F16 => Store::F16((0..copies * each).map(|i| f16::from_f32(value(i))).collect()),
    };
    let a: Vec<f32> = (0..m * k).map(value).collect();
    let mut out = vec![0.0f32; m * n];
    let mut scratch = Scratch::new();
    let mut failure = None;
    let mut call = |copy: usize| {
        let result = matrix(
            &store,
            copy * each..(copy + 1) * each,
            if layout == Layout::Nk { (n, k) } else { (k, n) },
        )
        .and_then(|matrix| {
            let weights = Weights { matrix, layout };
            let (a, out) = (MatRef::new(&a, m, k)?, MatMut::new(&mut out, m, n)?);
            gemm(ctx, &mut scratch, Gemm::product(a, weights, out))
        });
        failure = result.err().or(failure.take());
    };
    let mut turns = Vec::with_capacity(TURNS);
    let mut next = 0;
    for _ in 0..TURNS {
        let before = fma_gflops(ctx, 2);
        call(0);
        let hot = best_time(1, TURN, || call(0));
        let cold = best_time(1, TURN, || {
            next = (next + 1) % copies;
            call(next);
        });
        turns.push(Turn { peak: before.max(fma_gflops(ctx, 2)), hot, cold });
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(turns),
    }
}

fn matrix(
    store: &Store,
    range: std::ops::Range<usize>,
    (rows, cols): (usize, usize),
) -> rachis_kernels::Result<AnyMatRef<'_>> {
    Ok(match store {
        Store::F32(data) => MatRef::new(&data[range], rows, cols)?.into(),
        Store::Bf16(data) => MatRef::new(&data[range], rows, cols)?.into(),
        Store::F16(data) => MatRef::new(&data[range], rows, cols)?.into(),
    })
}

fn weight_bytes(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 => 4,
        Dtype::Bf16 | Dtype::F16 => 2,
    }
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_owned);
    let number = |key: &str| row[key].as_f64().unwrap_or(0.0);
    format!(
        "{:>5} x {:>5} x {:>5}  {} {} {:<12} hot {:>6.1} GFLOP/s ({:.2})  cold {:>6.1} GFLOP/s ({:.2})  peak {:.0}",
        text("m"),
        text("n"),
        text("k"),
        text("dtype"),
        text("layout"),
        text("plan"),
        number("hot_gflops"),
        number("hot_fraction"),
        number("cold_gflops"),
        number("cold_fraction"),
        number("peak_gflops"),
    )
}
