//! Measures the machine's limits, and every plan of every product against them, in one run.
//!
//! A fraction is of the limit that binds: the multiply-add peak of the plan's unit, or the bandwidth at which the
//! weights can be read from where they are, whichever takes longer. Rates are the best of many short turns,
//! fractions the median of the turns'.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use rachis_benches::limits::{caches, past_caches};
use rachis_benches::machine::features;
use rachis_benches::report::lower;
use rachis_benches::{Arena, Case, Cblas, Dtype, Limits, Row, SHAPES, Shape, complaints};
use rachis_kernels::{Ctx, Layout, Precision};
use serde_json::{Value, json};

/// Measure this machine's limits and every plan of a matrix product against them
#[derive(Debug, Parser)]
struct Args {
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Threads that share a product
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Fail when a picked plan is, hot, more than 10 % behind another of its order, or, strict and at 128 rows or
    /// more, under 0.70 of its limit
    #[arg(long)]
    assert: bool,
    /// Storage type of the weights
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// How products treat their operands
    #[arg(long, value_enum, default_value_t = Rounding::Strict)]
    precision: Rounding,
    /// Activations and results in bf16, as a session at precision bf16 keeps them between its products; f32 else
    #[arg(long)]
    narrow: bool,
    /// Elements by which the weights start off a 64-byte boundary
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(..32))]
    misalign: u8,
    /// Products to measure: MxNxK,...
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// A CBLAS shared library (32-bit integers) to time beside: cblas_sgemm for f32, cblas_gemm_bf16bf16f32 for
    /// bf16 weights whatever the precision. Its threads are set by its own environment variables
    #[arg(long, value_name = "LIBRARY")]
    cblas: Option<OsString>,
}

/// The names of [`Precision`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rounding {
    /// Multiply what is stored
    Strict,
    /// Round both operands to bfloat16
    Bf16,
    /// Multiply f32 as three bfloat16 each, where there is a tile unit
    Bf16x6,
}

fn main() -> ExitCode {
    match probe(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn probe(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.into()).build()?;
    let ctx = Ctx::from_env()?.with_pool((args.threads > 1).then_some(&pool));
    let ctx = ctx.with_precision(match args.precision {
        Rounding::Strict => Precision::Strict,
        Rounding::Bf16 => Precision::Bf16,
        Rounding::Bf16x6 => Precision::Bf16x6,
    });
    let cblas = args.cblas.as_deref().map(Cblas::load).transpose()?;
    let shapes = if args.shapes.is_empty() { &SHAPES[..] } else { &args.shapes };
    let arena = Arena::new(args.dtype, arena_bytes(args.dtype, shapes), args.misalign.into());
    let limits = Limits::measure(&ctx, &arena);
    if !args.json {
        print_machine(args, &ctx, &arena, &limits);
    }
    let mut rows = Vec::new();
    for shape in shapes {
        for layout in Layout::ALL {
            let mut case = Case::new(*shape, layout, &arena, args.narrow);
            let methods = case.candidates(&ctx, cblas.as_ref());
            let turns = case.time(&ctx, &methods)?;
            for (method, turns) in methods.iter().zip(&turns) {
                let row = Row::new(&ctx, &limits, &case, args.dtype, method, turns);
                if !args.json {
                    println!("{row}");
                }
                rows.push(row);
            }
        }
    }
    if args.json {
        println!("{}", report(args, &ctx, &limits, &rows));
    }
    let complaints = if args.assert { complaints(&rows) } else { Vec::new() };
    for complaint in &complaints {
        eprintln!("error: {complaint}");
    }
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Enough to run past the caches with the largest product, within 1 GiB.
fn arena_bytes(dtype: Dtype, shapes: &[Shape]) -> usize {
    let largest = shapes.iter().map(Shape::weights).max().unwrap_or(0) * dtype.bytes();
    past_caches(&caches()).max((2 * largest).min(1 << 30))
}

fn print_machine(args: &Args, ctx: &Ctx, arena: &Arena, limits: &Limits) {
    let [l1, l2, l3] = limits.caches.map(|bytes| bytes >> 10);
    let [from_l2, from_l3, from_dram] = limits.read;
    println!("level {}, features {}", ctx.level(), features().join(" "));
    println!("caches: L1 {l1} KiB, L2 {l2} KiB, L3 {l3} KiB");
    print!("one core: f32 {:.0} GFLOP/s", limits.fma);
    if let Some(bf16) = limits.bf16 {
        print!(", bf16 {bf16:.0} GFLOP/s");
    }
    println!("; reads {from_l2:.1} GB/s from L2, {from_l3:.1} from L3, {from_dram:.1} from memory");
    println!(
        "weights {}, {} elements off a line; activations {}; precision {}; threads {}; * is the pick",
        arena.dtype().name(),
        arena.misalign(),
        if args.narrow { "bf16" } else { "f32" },
        lower(ctx.precision()),
        ctx.threads(),
    );
}

fn report(args: &Args, ctx: &Ctx, limits: &Limits, rows: &[Row]) -> Value {
    let [l1d, l2, l3] = limits.caches;
    json!({
        "level": ctx.level().name(),
        "features": features(),
        "caches": { "l1d": l1d, "l2": l2, "l3": l3 },
        "misalign": args.misalign,
        "narrow": args.narrow,
        "peaks": limits.peaks(),
        "gemm": rows.iter().map(Row::json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        let parse = |args: &str| Args::try_parse_from(args.split(' '));
        let args =
            parse("kprobe --shapes 1x2x3,4x5x6 --dtype bf16 --precision bf16 --narrow").expect("valid");
        assert_eq!(args.shapes, [Shape { m: 1, n: 2, k: 3 }, Shape { m: 4, n: 5, k: 6 }]);
        for args in ["--threads 0", "--misalign 32", "--shapes 1x2", "--dtype f64", "--precision f16"] {
            assert!(parse(&format!("kprobe {args}")).is_err(), "{args}");
        }
    }

    #[test]
    fn memory_is_past_the_caches_and_within_a_gibibyte() {
        let vocabulary = Shape { m: 1, n: 1 << 14, k: 1 << 14 };
        for shapes in [&SHAPES[..], &[vocabulary], &[]] {
            let bytes = arena_bytes(Dtype::F32, shapes);
            assert!((past_caches(&caches())..=1 << 30).contains(&bytes), "{bytes}");
        }
    }
}
