//! Measures the machine's limits and, in the same run, every plan of every product against them.
//!
//! A fraction is of the limit that bounds the product: the multiply-add peak of the plan's instructions, or the bandwidth at
//! which the weights can be read from their cache or memory, whichever takes longer. Rates are the best of many short rounds,
//! fractions the median of the rounds.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use rachis_benches::arena::{by_short_name, short_name};
use rachis_benches::limits::{caches, past_caches};
use rachis_benches::machine::features;
use rachis_benches::{Activations, Arena, Case, Cblas, Limits, Row, complaints};
use rachis_kernels::{Ctx, Dtype, Layout, Precision};
use rachis_testkit::shapes::{GemmShape, MODEL_GEMMS};
use serde_json::{Value, json};

/// Measure this machine's limits and every plan of a matrix product against them
#[derive(Debug, Parser)]
struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Threads that share a product
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Fail if a picked plan is more than 10 % slower, hot, than another with its summation order, or if a strict product
    /// of at least 128 rows reaches less than 0.70 of its limit
    #[arg(long)]
    assert: bool,
    /// Storage type of the weights: f32, bf16 or f16
    #[arg(long, value_parser = by_short_name, default_value = "f32")]
    dtype: Dtype,
    /// Precision of the products: strict, bf16 or bf16x6
    #[arg(long, default_value_t = Precision::Strict)]
    precision: Precision,
    /// Activations and results in bf16, as in a session at precision bf16, and not in f32
    #[arg(long)]
    narrow: bool,
    /// Elements from a 64-byte boundary to the start of the weights
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(..32))]
    misalign: u8,
    /// Products to measure: MxNxK,... (the products of BERT base, MiniLM and OPT by default)
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<GemmShape>,
    /// A CBLAS shared library (with 32-bit integers) to time in the same rounds: cblas_sgemm for f32 weights,
    /// cblas_gemm_bf16bf16f32 for bf16 weights at any precision. Its own environment variables set its threads
    #[arg(long, value_name = "LIBRARY")]
    cblas: Option<OsString>,
}

impl Args {
    fn activations(&self) -> Activations {
        if self.narrow { Activations::Bfloat16 } else { Activations::Float32 }
    }
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
    let ctx = ctx.with_precision(args.precision);
    let cblas = args.cblas.as_deref().map(Cblas::load).transpose()?;
    let shapes = if args.shapes.is_empty() { &MODEL_GEMMS[..] } else { &args.shapes };
    let arena = Arena::new(args.dtype, arena_bytes(args.dtype, shapes), args.misalign.into());
    let limits = Limits::measure(&ctx, &arena);
    if !args.json {
        print_machine(args, &ctx, &arena, &limits);
    }
    let mut rows = Vec::new();
    for shape in shapes {
        for layout in Layout::ALL {
            let mut case = Case::new(*shape, layout, &arena, args.activations());
            let methods = case.candidates(&ctx, cblas.as_ref());
            let rounds = case.time(&ctx, &methods)?;
            for (method, rounds) in methods.iter().zip(&rounds) {
                let row = Row::new(&ctx, &limits, &case, args.dtype, method, rounds);
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

/// Bytes of weights: more than the caches hold, also with the largest product, at most 1 GiB.
fn arena_bytes(dtype: Dtype, shapes: &[GemmShape]) -> usize {
    let largest = shapes.iter().map(GemmShape::weights).max().unwrap_or(0) * dtype.size_of();
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
        "weights {}, {} elements after a line; activations {}; precision {}; threads {}; * is the pick",
        short_name(arena.dtype()),
        arena.misalign(),
        if args.narrow { "bf16" } else { "f32" },
        ctx.precision(),
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
    fn the_command_line_parses_its_options_and_refuses_others() {
        Args::command().debug_assert();
        let parse = |args: &str| Args::try_parse_from(args.split(' '));
        let args =
            parse("kprobe --shapes 1x2x3,4x5x6 --dtype bf16 --precision bf16 --narrow").expect("valid");
        assert_eq!(args.shapes, [GemmShape { m: 1, n: 2, k: 3 }, GemmShape { m: 4, n: 5, k: 6 }]);
        for args in ["--threads 0", "--misalign 32", "--shapes 1x2", "--dtype f64", "--precision f16"] {
            assert!(parse(&format!("kprobe {args}")).is_err(), "{args}");
        }
    }

    #[test]
    fn weights_are_more_than_the_caches_hold_and_at_most_a_gibibyte() {
        let vocabulary = GemmShape { m: 1, n: 1 << 14, k: 1 << 14 };
        for shapes in [&MODEL_GEMMS[..], &[vocabulary], &[]] {
            let bytes = arena_bytes(Dtype::Float32, shapes);
            assert!((past_caches(&caches())..=1 << 30).contains(&bytes), "{bytes}");
        }
    }
}
