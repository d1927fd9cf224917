//! The largest sizes that arguments can have: calls come back at once, and lengths of scratch do not wrap.

use rachis_kernels::{
    Accumulate, Combine, Ctx, Dims, EmbedRows, Gemm, Layout, Level, Mask, MatMut, MatRef, NormRows,
    RotaryRows, Scratch, SoftmaxRows, Weights, attention_scratch_len, copy_rows, embed_rows, gemm,
    gemm_scratch_len, layer_norm_rows, rms_norm_rows, rotary_rows, softmax_rows,
};

/// As many rows as there can be, of no columns.
fn nothing() -> MatMut<'static, f32> {
    MatMut::new(&mut [], usize::MAX, 0).unwrap()
}

#[test]
fn rows_of_nothing_are_no_work() {
    let ctx = Ctx::detect();
    let read = MatRef::<f32>::new(&[], usize::MAX, 0).unwrap();
    softmax_rows(&ctx, SoftmaxRows { x: nothing(), scale: 1.0, bias: None, mask: Mask::None }).unwrap();
    for norm in [layer_norm_rows, rms_norm_rows] {
        norm(&ctx, NormRows { x: read, gamma: None, beta: None, epsilon: 1e-6, out: nothing() }).unwrap();
    }
    let op = RotaryRows { x: nothing(), angles: read, groups: 1, step: 0, heads: 1 };
    rotary_rows(&ctx, op).unwrap();
    copy_rows(&ctx, read.into(), nothing().into()).unwrap();
    let table = MatRef::<f32>::new(&[], 1, 0).unwrap();
    let op = EmbedRows {
        table: table.into(),
        ids: &[0],
        scale: 1.0,
        accumulate: Accumulate::Replace,
        out: MatMut::<f32>::new(&mut [], 1, 0).unwrap(),
    };
    embed_rows(&ctx, op).unwrap();
    for layout in Layout::ALL {
        let weights = Weights { matrix: MatRef::<f32>::new(&[], 0, 0).unwrap().into(), layout };
        gemm(&ctx, &mut Scratch::new(), Gemm::product(read, weights, nothing())).unwrap();
    }
}

#[test]
fn lengths_of_scratch_do_not_wrap() {
    for level in Level::supported() {
        let ctx = Ctx::new(level).unwrap();
        for layout in Layout::ALL {
            for (m, n, k) in [
                (usize::MAX, 1 << 20, 1 << 20),
                (1 << 40, 1 << 40, 1 << 62),
                (1 << 33, 64, 1 << 33),
                (7, 64, usize::MAX),
                (1, usize::MAX, 1),
                (usize::MAX, usize::MAX, usize::MAX),
            ] {
                for combine in [Combine::Columns, Combine::Product] {
                    let dims = Dims { layout, m, n, k, parts: 2, combine };
                    assert_eq!(gemm_scratch_len(&ctx, &dims), usize::MAX, "{level} {dims:?}");
                }
            }
            // The largest matrices for which there is a length.
            for (m, n, k) in [(1 << 24, 1 << 23, 1 << 23), (1, 1, 1 << 47), (1 << 47, 1, 1), (1, 1 << 47, 1)]
            {
                let dims = Dims { layout, m, n, k, parts: 2, combine: Combine::Product };
                assert!(gemm_scratch_len(&ctx, &dims) < 1 << 60, "{level} {dims:?}");
            }
            let none =
                Dims { layout, m: 0, n: usize::MAX, k: usize::MAX, parts: 1, combine: Combine::Columns };
            assert_eq!(gemm_scratch_len(&ctx, &none), 0);
        }
        for width in [1 << 30, 1 << 61, usize::MAX / 2, usize::MAX] {
            assert!(attention_scratch_len(&ctx, width) >= width / 2, "{level} {width}");
        }
        assert!(attention_scratch_len(&ctx, 1 << 40) < 1 << 60, "{level}");
    }
}

#[test]
fn errors_of_sizes_read_as_sentences() {
    let (mut data, angles) = ([0.0f32; 8], [0.0f32; 8]);
    let x = MatMut::new(&mut data, 2, 4).unwrap();
    let op = RotaryRows { x, angles: MatRef::new(&angles, 2, 4).unwrap(), groups: 2, step: 4, heads: 1 };
    let error = rotary_rows(&Ctx::detect(), op).unwrap_err();
    assert_eq!(error.to_string(), "rotary_rows: columns of the rows is 4, expected at least 8");
}
