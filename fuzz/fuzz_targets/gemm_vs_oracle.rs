//! Any product of any small shape, strides, types, epilogue and level, by every plan against the f64 oracle; and
//! its bits against the same product on two threads, in two parts side by side, and in two parts multiplied.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rachis_kernels::{Ctx, Layout, Level, Precision, Scratch, bf16, f16};
use rachis_testkit::shapes::GemmShape;
use rachis_testkit::{Grid, Kind, oracle::Activation};
use rayon::{ThreadPool, ThreadPoolBuilder};

#[path = "../../kernels/tests/common/mod.rs"]
mod common;

use common::Element;
use common::gemm_case::{Case, Operands};

#[derive(Debug, Arbitrary)]
struct Input {
    m: u8,
    n: u8,
    k: u8,
    k_base: KBase,
    nk: bool,
    precision: u8,
    types: [u8; 3],
    bias: bool,
    activation: u8,
    residual: bool,
    gaps: [u8; 4],
    kinds: [u8; 2],
    specials: bool,
    level: u8,
    cut: u8,
    seed: u16,
}

/// What k is counted from: mostly nothing, at times just below an edge of the blocks it is summed in.
#[derive(Debug, Arbitrary)]
enum KBase {
    Zero,
    Small,
    BelowOneBlock,
    BelowTwoBlocks,
}

static POOL: LazyLock<ThreadPool> =
    LazyLock::new(|| ThreadPoolBuilder::new().num_threads(2).build().unwrap());

fuzz_target!(|input: Input| {
    let pick = |index: u8, len: usize| usize::from(index) % len;
    let k = match input.k_base {
        KBase::Zero | KBase::Small => pick(input.k, 70),
        KBase::BelowOneBlock => 506 + pick(input.k, 12),
        KBase::BelowTwoBlocks => 1018 + pick(input.k, 12),
    };
    let levels: Vec<Level> = Level::supported().collect();
    let precision = Precision::ALL[pick(input.precision, Precision::ALL.len())];
    let case = Case {
        shape: GemmShape { m: pick(input.m, 70), n: pick(input.n, 100), k },
        layout: if input.nk { Layout::Nk } else { Layout::Kn },
        precision,
        bias: input.bias,
        activation: Activation::ALL[pick(input.activation, Activation::ALL.len())],
        residual: input.residual,
        gaps: input.gaps.map(|gap| pick(gap, 20)),
        kinds: input.kinds.map(|kind| Kind::ALL[pick(kind, Kind::ALL.len())]),
        // In parts infinity gives NaN, which is not what the oracle has.
        specials: input.specials && precision != Precision::Bf16x6,
        seed: input.seed.into(),
    };
    let ctx = Ctx::new(levels[pick(input.level, levels.len())]).unwrap();
    match input.types.map(|t| t % 3) {
        [0, w, c] => with_weights::<f32>(&ctx, (case, input.cut), w, c),
        [1, w, c] => with_weights::<bf16>(&ctx, (case, input.cut), w, c),
        [_, w, c] => with_weights::<f16>(&ctx, (case, input.cut), w, c),
    }
});

fn with_weights<A: Element>(ctx: &Ctx, case: (Case, u8), w: u8, c: u8) {
    match w {
        0 => with_output::<A, f32>(ctx, case, c),
        1 => with_output::<A, bf16>(ctx, case, c),
        _ => with_output::<A, f16>(ctx, case, c),
    }
}

fn with_output<A: Element, W: Element>(ctx: &Ctx, case: (Case, u8), c: u8) {
    match c {
        0 => run::<A, W, f32>(ctx, case),
        1 => run::<A, W, bf16>(ctx, case),
        _ => run::<A, W, f16>(ctx, case),
    }
}

fn run<A: Element, W: Element, C: Element>(ctx: &Ctx, (case, cut): (Case, u8)) {
    let operands = Operands::<A, W, C>::new(case);
    let mut scratch = Scratch::new();
    operands.check(ctx, &mut scratch, &operands.oracle());
    let one = operands.run(ctx, &mut scratch);
    let two = operands.run(&ctx.with_pool(Some(&POOL)), &mut scratch);
    assert_same(ctx, case, "on two threads", &one, &two);
    let parts = operands.run_in_parts(ctx, &mut scratch, cut.into());
    assert_same(ctx, case, "in two parts", &one, &parts);

    let mut squares = Operands::<A, W, f32>::new(Case { residual: false, ..case }).run(ctx, &mut scratch);
    for i in 0..squares.rows() {
        let residual = operands.residual.as_ref().map(|residual| residual.row(i));
        for (j, x) in squares.row_mut(i).iter_mut().enumerate() {
            *x = *x * *x + residual.map_or(0.0, |residual| residual[j].to_f32());
        }
    }
    let squares = Grid::<C>::new(
        &squares.values().into_iter().map(C::from_f32).collect::<Vec<_>>(),
        (squares.rows(), squares.cols()),
        0,
    );
    assert_same(ctx, case, "in two parts multiplied", &squares, &operands.run_squared(ctx, &mut scratch));
}

/// The same bits everywhere, or NaN: which NaN is not promised.
fn assert_same<C: Element>(ctx: &Ctx, case: Case, how: &str, expected: &Grid<C>, found: &Grid<C>) {
    for (i, (expected, found)) in expected.values().into_iter().zip(found.values()).enumerate() {
        let same = expected.bits() == found.bits() || expected.to_f32().is_nan() && found.to_f32().is_nan();
        assert!(same, "{} {case:?} {how}: element {i} is {found:?}, not {expected:?}", ctx.level());
    }
}
