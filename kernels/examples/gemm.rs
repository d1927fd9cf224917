//! One linear layer, `out = relu(a * w + bias)`, on bfloat16 weights that are read where they lie.
//!
//! `cargo run --release -p rachis-kernels --example gemm`

use rachis_kernels::{
    Activation, Ctx, Dims, Error, Gemm, Layout, MatMut, MatRef, Part, Scratch, Weights, bf16, gemm,
    gemm_scratch_len,
};

fn main() -> Result<(), Error> {
    // 4 rows of activations, 384 inputs, 1536 outputs. The weights are [N, K], as Hugging Face files store them.
    let (m, k, n) = (4, 384, 1536);
    let wave = |i: usize, step: f32| (i as f32 * step).sin();
    let a: Vec<f32> = (0..m * k).map(|i| wave(i, 0.1)).collect();
    let weights: Vec<bf16> = (0..n * k).map(|i| bf16::from_f32(wave(i, 0.07) / 16.0)).collect();
    let bias: Vec<f32> = (0..n).map(|i| wave(i, 0.3)).collect();
    let mut out = vec![0.0f32; m * n];

    let ctx = Ctx::detect();
    // After this, products of up to this size allocate nothing.
    let mut scratch = Scratch::new();
    scratch.reserve(gemm_scratch_len(&ctx, &Dims::of_one(Layout::Nk, [m, n, k])))?;

    let w = Weights { matrix: MatRef::new(&weights, n, k)?.into(), layout: Layout::Nk };
    let part = Part { bias: Some(bias.as_slice().into()), activation: Activation::Relu, ..Part::of(w) };
    let op = Gemm::of(MatRef::new(&a, m, k)?, part, MatMut::new(&mut out, m, n)?);
    gemm(&ctx, &mut scratch, op)?;

    // The same layer as plain loops in f64.
    let mut worst = 0.0f64;
    for (i, out) in out.iter().enumerate() {
        let (a, w) = (&a[i / n * k..][..k], &weights[i % n * k..][..k]);
        let sum: f64 = a.iter().zip(w).map(|(a, w)| f64::from(*a) * f64::from(w.to_f32())).sum();
        let expected = (sum + f64::from(bias[i % n])).max(0.0);
        worst = worst.max((f64::from(*out) - expected).abs());
    }
    println!("level {}, [{m}, {k}] by [{n}, {k}] transposed: largest error {worst:.1e}", ctx.level());
    Ok(())
}
