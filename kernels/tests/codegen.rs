//! The compiled code of the kernels: this test disassembles its own release build.
//!
//! A kernel's body is generic and becomes vector code only because everything below the `#[target_feature]` entry is inlined
//! into it. If one call is not, the program still works, many times slower, and no other test fails. Here each hot loop (an
//! innermost loop that calls nothing and multiplies vectors) is counted by level, kernel, instruction and products in one
//! iteration, and the counts must be those of the table `codegen/hot_loops.rs`: a loop that lost its inlining, its width or
//! its unrolling is missing there. Register tiles may not spill vectors, and no intrinsic and no scalar math function may be
//! called at all.
//!
//! Kernels are named by their types, which only symbols with the v0 mangling contain. It is set in `.cargo/config.toml`:
//! `[build] rustflags = ["-Csymbol-mangling-version=v0"]`. Code for levels that this machine lacks is in the program, too, since the
//! level of a context is a value.
//!
//! Only a release build shows the code that will run: a debug build skips the test, with a message. A change of the compiler
//! or of a kernel changes counts; the test prints the table that it found in the form of the file.

mod common;
#[path = "codegen/hot_loops.rs"]
mod hot_loops;
#[path = "codegen/program.rs"]
mod program;

use std::hint::black_box;

use common::{Element, activation, for_each_type};
use program::Program;
use rachis_kernels::{
    Accumulate, AlibiRounding, AnyMatRef, Attention, AttentionMask, Bias, Ctx, EmbedRows, Gemm, Heads,
    Layout, Level, Mask, MatMut, MatRef, NormRows, Precision, RotaryRows, Scratch, SoftmaxRows, Span,
    Weights, activate, attention, embed_rows, gemm, layer_norm_rows, math, rms_norm_rows, rotary_rows,
    softmax_rows,
};
use rachis_testkit::oracle::Activation;

/// Rows and columns of every matrix.
const SIDE: usize = 8;

/// Calls every operation for a storage type, so that all of its code is in this program.
fn use_everything<T: Element>(ctx: &Ctx) {
    let data = black_box(vec![T::default(); SIDE * SIDE]);
    let mut written = vec![T::default(); SIDE * SIDE];
    let matrix = || MatRef::new(&data, SIDE, SIDE).unwrap();
    for layout in black_box(Layout::ALL) {
        let weights = Weights { matrix: T::matrix(matrix()), layout };
        let op = Gemm::product(matrix(), weights, MatMut::new(&mut written, SIDE, SIDE).unwrap());
        gemm(ctx, &mut Scratch::new(), op).unwrap();
    }
    for norm in [layer_norm_rows, rms_norm_rows] {
        let gamma = Some(T::vector(&data[..SIDE]));
        let out = MatMut::new(&mut written, SIDE, SIDE).unwrap();
        norm(ctx, NormRows { x: matrix(), gamma, beta: gamma, epsilon: 1e-5, out }).unwrap();
    }
    let rows = black_box([true; SIDE * SIDE]);
    for mask in [
        Mask::None,
        Mask::Columns(&rows[..SIDE]),
        Mask::Causal { first: black_box(0) },
        Mask::Rows(MatRef::new(&rows, SIDE, SIDE).unwrap()),
    ] {
        let x = MatMut::new(&mut written, SIDE, SIDE).unwrap();
        softmax_rows(ctx, SoftmaxRows { x, scale: 1.0, bias: None, mask }).unwrap();
    }
    for function in Activation::ALL {
        activate(ctx, activation(function), &mut written);
    }
    let out = MatMut::new(&mut written, SIDE, SIDE).unwrap();
    let (table, accumulate) = (T::matrix(matrix()), Accumulate::Add);
    embed_rows(ctx, EmbedRows { ids: &[1; SIDE], table, scale: 2.0, accumulate, out }).unwrap();
    let angles = black_box([0.5f32; SIDE * SIDE]);
    let angles = MatRef::new(&angles, SIDE, SIDE).unwrap();
    let x = MatMut::new(&mut written, SIDE, SIDE).unwrap();
    rotary_rows(ctx, RotaryRows { x, angles, groups: 1, step: SIDE, heads: 1 }).unwrap();
    use_attention(ctx, matrix(), T::matrix(matrix()), &mut written);
    black_box(&written);
}

/// Calls attention with every mask and bias, for several queries and for a single one.
fn use_attention<T: Element>(ctx: &Ctx, q: MatRef<'_, T>, kv: AnyMatRef<'_>, written: &mut [T]) {
    let table = black_box([0.5f32; 2 * SIDE]);
    let positions: Vec<u32> = (0..SIDE as u32).collect();
    let biases = [
        Bias::None,
        Bias::Linear { slopes: &[0.5], rounding: AlibiRounding::Bf16 },
        Bias::Distance {
            table: MatRef::new(&table, 1, 2 * SIDE).unwrap(),
            zero: SIDE,
            queries: &positions,
            keys: &positions,
        },
    ];
    for mask in black_box([AttentionMask::None, AttentionMask::Causal]) {
        for bias in biases {
            for queries in black_box([0..SIDE, SIDE - 1..SIDE]) {
                let op = Attention {
                    q,
                    k: kv,
                    v: kv,
                    heads: Heads::dense(1, 1, SIDE),
                    scale: 1.0,
                    bias,
                    mask,
                    spans: &[Span { queries, keys: 0..SIDE }],
                    out: MatMut::new(written, SIDE, SIDE).unwrap(),
                };
                attention(ctx, &mut Scratch::new(), op).unwrap();
            }
        }
    }
}

#[test]
fn hot_loops_are_vector_code() {
    for level in Level::supported() {
        for precision in Precision::ALL {
            let ctx = Ctx::new(level).unwrap().with_precision(precision);
            for_each_type!(use_everything(&ctx));
            for function in [math::exp, math::tanh] {
                function(&ctx, &[0.5], &mut [0.0]).unwrap();
            }
        }
    }
    if cfg!(debug_assertions) {
        println!("skipped: only a release build shows the code that will run");
        return;
    }
    let program = Program::this();
    program.assert_no_lost_inlining();
    Program::assert_no_scalar_math();
    program.assert_tiles_do_not_spill();
    if cfg!(target_arch = "x86_64") {
        program.assert_hot_loops(&hot_loops::X86_64);
        program.assert_exponentials(&hot_loops::X86_64_EXPONENTIALS);
    } else if cfg!(target_arch = "aarch64") {
        // 6 rows of 4 registers, twice the lanes of a product by one element.
        program.assert_some_tile(".4s", 12);
    }
}
