//! exp, tanh, gelu, silu and the narrowing stores over the bit patterns of f32: every 4099th at every level, and in an ignored
//! test all of them at one level:
//!
//! `cargo test --release -p rachis-kernels --test math_exhaustive -- --ignored --nocapture`

mod common;

use common::{Element, at_every_level, ulps};
use rachis_kernels::{
    Accumulate, Activation, Ctx, EmbedRows, MatMut, MatRef, activate, bf16, embed_rows, f16, math,
};
use rachis_testkit::{oracle, tolerance};

/// The largest error in units of its bound, and the argument that has it.
type Worst = (f64, f32);

/// A function under test.
struct Function {
    name: &'static str,
    run: fn(&Ctx, &[f32], &mut [f32]),
    /// The worst of the results `y` for the arguments `x`.
    worst: fn(&Ctx, x: &[f32], y: &[f32]) -> Worst,
}

const FUNCTIONS: [Function; 8] = [
    Function {
        name: "exp",
        run: |ctx, x, y| math::exp(ctx, x, y).unwrap(),
        worst: |ctx, x, y| worst_ulp(x, y, exp, ulps(ctx, tolerance::EXP)),
    },
    Function {
        name: "tanh",
        run: |ctx, x, y| math::tanh(ctx, x, y).unwrap(),
        worst: |ctx, x, y| worst_ulp(x, y, tanh, ulps(ctx, tolerance::TANH)),
    },
    Function {
        name: "gelu_erf",
        run: |ctx, x, y| activated(ctx, Activation::GeluErf, x, y),
        worst: |_, x, y| worst_activation(x, y, gelu_erf),
    },
    Function {
        name: "gelu_tanh",
        run: |ctx, x, y| activated(ctx, Activation::GeluTanh, x, y),
        worst: |_, x, y| worst_activation(x, y, gelu_tanh),
    },
    Function {
        name: "silu",
        run: |ctx, x, y| activated(ctx, Activation::Silu, x, y),
        worst: |_, x, y| worst_activation(x, y, silu),
    },
    Function {
        name: "quick_gelu",
        run: |ctx, x, y| activated(ctx, Activation::QuickGelu, x, y),
        worst: |_, x, y| worst_activation(x, y, quick_gelu),
    },
    Function { name: "store bf16", run: |_, _, _| (), worst: |ctx, x, _| worst_store::<bf16>(ctx, x) },
    Function { name: "store f16", run: |_, _, _| (), worst: |ctx, x, _| worst_store::<f16>(ctx, x) },
];

fn activated(ctx: &Ctx, activation: Activation, x: &[f32], y: &mut [f32]) {
    y.copy_from_slice(x);
    activate(ctx, activation, y);
}

/// The larger of two errors. A NaN counts as the largest.
fn worse(a: Worst, b: Worst) -> Worst {
    if b.0 > a.0 || b.0.is_nan() { b } else { a }
}

fn worst_ulp(x: &[f32], y: &[f32], exact: fn(f64) -> f64, bound: f64) -> Worst {
    let errors = x.iter().zip(y).map(|(x, y)| (tolerance::ulp_error(*y, exact(f64::from(*x))) / bound, *x));
    errors.fold((0.0, 0.0), worse)
}

fn worst_activation(x: &[f32], y: &[f32], exact: fn(f64) -> f64) -> Worst {
    let share = |x: f64, y: f64| {
        let exact = exact(x);
        if exact.is_nan() && y.is_nan() || exact == y {
            return 0.0;
        }
        let error = (y - exact).abs() / (tolerance::ACTIVATION * x.abs() + f64::from(f32::from_bits(1)));
        if error.is_nan() { f64::INFINITY } else { error }
    };
    x.iter().zip(y).map(|(x, y)| (share(f64::from(*x), f64::from(*y)), *x)).fold((0.0, 0.0), worse)
}

/// An infinite error at the first value that is stored otherwise than `half` rounds it.
fn worst_store<H: Element>(ctx: &Ctx, x: &[f32]) -> Worst {
    let mut stored = vec![H::default(); x.len()];
    let op = EmbedRows {
        ids: &[0],
        table: MatRef::new(x, 1, x.len()).unwrap().into(),
        scale: 1.0,
        accumulate: Accumulate::Replace,
        out: MatMut::new(&mut stored, 1, x.len()).unwrap(),
    };
    embed_rows(ctx, op).unwrap();
    let right =
        |x: f32, y: H| if x.is_nan() { y.to_f32().is_nan() } else { H::from_f32(x).bits() == y.bits() };
    let wrong = x.iter().zip(stored).find(|(x, y)| !right(**x, *y));
    wrong.map_or((0.0, 0.0), |(x, _)| (f64::INFINITY, *x))
}

// The oracles. Most f32 are tiny or huge, so where a simple formula is exact it is used, which is faster.

fn exp(x: f64) -> f64 {
    match x {
        x if x > 110.0 => f64::INFINITY,
        x if x < -110.0 => 0.0,
        x => x.exp(),
    }
}

fn tanh(x: f64) -> f64 {
    match x.abs() {
        a if a > 20.0 => 1f64.copysign(x),
        a if a < 1e-5 => x - x * x * x / 3.0,
        _ => x.tanh(),
    }
}

fn gelu_erf(x: f64) -> f64 {
    sigmoidal(x, oracle::Activation::GeluErf, core::f64::consts::FRAC_2_SQRT_PI / 8f64.sqrt())
}

fn gelu_tanh(x: f64) -> f64 {
    sigmoidal(x, oracle::Activation::GeluTanh, core::f64::consts::FRAC_2_SQRT_PI / 8f64.sqrt())
}

fn silu(x: f64) -> f64 {
    sigmoidal(x, oracle::Activation::Silu, 0.25)
}

fn quick_gelu(x: f64) -> f64 {
    sigmoidal(x, oracle::Activation::QuickGelu, 1.702 * 0.25)
}

/// A function that is x or 0 in the tails, and `x / 2 + curve x^2` near 0.
fn sigmoidal(x: f64, function: oracle::Activation, curve: f64) -> f64 {
    match x.abs() {
        a if a > 150.0 => x.max(0.0),
        a if a < 1e-6 => 0.5 * x + curve * x * x,
        _ => function.eval(x),
    }
}

/// The worst error over the bit patterns `first, first + step, ...` below `end`.
fn worst_of_patterns(ctx: &Ctx, function: &Function, (first, end): (u64, u64), step: usize) -> Worst {
    const CHUNK: usize = 1 << 14;
    let mut worst = (0.0, 0.0);
    let (mut x, mut y) = (Vec::with_capacity(CHUNK), vec![0.0; CHUNK]);
    let mut patterns = (first..end).step_by(step).map(|bits| f32::from_bits(bits as u32));
    loop {
        x.clear();
        x.extend(patterns.by_ref().take(CHUNK));
        if x.is_empty() {
            return worst;
        }
        let y = &mut y[..x.len()];
        (function.run)(ctx, &x, y);
        worst = worse(worst, (function.worst)(ctx, &x, y));
    }
}

/// Prints each function's worst error, then fails if one exceeds its bound.
#[track_caller]
fn report(ctx: &Ctx, worst: impl Fn(usize, &Function) -> Worst) {
    let mut outside = Vec::new();
    for (i, function) in FUNCTIONS.iter().enumerate() {
        let (share, at) = worst(i, function);
        let line = format!("{} {}: {share:.4} of the bound, at {at:e}", ctx.level(), function.name);
        println!("{line}");
        if share > 1.0 {
            outside.push(line);
        }
    }
    assert!(outside.is_empty(), "{outside:#?}");
}

#[test]
fn a_sample_of_all_f32_obeys_the_bounds() {
    at_every_level(|ctx| {
        report(ctx, |i, function| {
            let first = 577 * i as u64 + 101 * ctx.level() as u64;
            worst_of_patterns(ctx, function, (first, 1 << 32), 4099)
        });
    });
}

#[test]
#[ignore = "four billion values a function: minutes in release, hours without"]
fn every_f32_obeys_the_bounds() {
    let ctx = Ctx::from_env().unwrap();
    report(&ctx, |_, function| {
        // Two threads take even and odd patterns, so that they share the costly ranges evenly.
        std::thread::scope(|scope| {
            let threads = [0, 1]
                .map(|first| scope.spawn(move || worst_of_patterns(&ctx, function, (first, 1 << 32), 2)));
            threads.into_iter().map(|thread| thread.join().unwrap()).fold((0.0, 0.0), worse)
        })
    });
}

/// What comparing errors does not check: the sign of zero, and the documented results for NaN and infinities.
#[test]
fn special_values_are_as_documented() {
    at_every_level(|ctx| {
        let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e30, -1e30, 88.8, -104.0];
        let results = |function: fn(&Ctx, &[f32], &mut [f32]) -> rachis_kernels::Result<()>| {
            let mut y = [0.0; 9];
            function(ctx, &x, &mut y).unwrap();
            assert!(y[0].is_nan());
            y[1..].iter().map(|y| y.to_bits()).collect::<Vec<u32>>()
        };
        let expect = |values: &[f32]| values.iter().map(|y| y.to_bits()).collect::<Vec<u32>>();
        let inf = f32::INFINITY;
        assert_eq!(results(math::exp), expect(&[inf, 0.0, 1.0, 1.0, inf, 0.0, inf, 0.0]));
        let odd = expect(&[1.0, -1.0, 0.0, -0.0, 1.0, -1.0, 1.0, -1.0]);
        assert_eq!(results(math::tanh), odd);
    });
}

#[test]
fn lengths_that_differ_are_refused_and_every_length_works() {
    at_every_level(|ctx| {
        for function in [math::exp, math::tanh] {
            assert!(function(ctx, &[1.0; 3], &mut [0.0; 4]).is_err());
            for length in rachis_testkit::shapes::row_lengths() {
                let x: Vec<f32> = (0..length).map(|i| i as f32 * 0.01 - 1.0).collect();
                let (mut all, mut each) = (vec![0.0; length], vec![0.0; length]);
                function(ctx, &x, &mut all).unwrap();
                for (x, y) in x.iter().zip(&mut each) {
                    function(ctx, &[*x], core::slice::from_mut(y)).unwrap();
                }
                assert_eq!(all, each, "the end of a row has the bits of a whole vector");
            }
        }
    });
}
