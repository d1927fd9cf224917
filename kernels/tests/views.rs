//! Views with absurd dimensions are refused without panics, and accepted views never reach outside their slice.

use rachis_kernels::{
    AnyMatMut, AnyMatRef, Attention, AttentionMask, Bias, Ctx, Error, Gemm, Heads, Layout, MatMut, MatRef,
    NormRows, Scratch, SoftmaxRows, Span, Weights, attention, gemm, layer_norm_rows, softmax_rows,
};

/// Sizes around those at which products of sizes overflow.
const ABSURD: [usize; 12] =
    [0, 1, 2, 7, 10, 11, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, usize::MAX - 1, usize::MAX];

#[test]
fn absurd_dimensions_are_errors_and_accepted_views_stay_inside() {
    let mut data: Vec<u16> = (0..10).collect();
    let range = data.as_ptr_range();
    for rows in ABSURD {
        for cols in ABSURD {
            for stride in ABSURD {
                let fits = rows == 0
                    || cols == 0
                    || (rows as u128 - 1) * stride as u128 + cols as u128 <= data.len() as u128;
                let view = MatRef::with_stride(&data, rows, cols, stride);
                assert_eq!(view.is_ok(), fits, "{rows} x {cols} by {stride}");
                if let Ok(view) = view {
                    for i in [0, rows / 2, rows.saturating_sub(1)].into_iter().filter(|i| *i < rows) {
                        let row = view.row(i).as_ptr_range();
                        assert!(view.row(i).is_empty() || (range.start <= row.start && row.end <= range.end));
                        assert_eq!(view.row(i).len(), cols);
                    }
                    assert!(view.columns(usize::MAX, 1).is_err());
                    assert!(view.columns(1, usize::MAX).is_err());
                    assert!(view.columns(cols, 0).is_ok());
                    for last in [rows / 2, rows].into_iter().filter(|last| *last > 0) {
                        assert_eq!(view.rows_range(last - 1..last).rows(), 1);
                    }
                }
                let overlap = rows > 1 && stride < cols;
                if let Ok(mut view) = MatMut::with_stride(&mut data, rows, cols, stride) {
                    assert!(fits && !overlap);
                    for i in [0, rows / 2, rows.saturating_sub(1)].into_iter().filter(|i| *i < rows) {
                        let row = view.row_mut(i).as_ptr_range();
                        assert!(view.row(i).is_empty() || (range.start <= row.start && row.end <= range.end));
                        assert_eq!(view.row(i).len(), cols);
                    }
                } else {
                    assert!(!fits || overlap);
                }
            }
        }
    }
}

#[test]
fn a_packed_view_needs_all_its_elements() {
    let data = [0.0f32; 10];
    for (rows, cols) in [(2, 6), (11, 1), (usize::MAX, 2), (2, usize::MAX), (1 << 32, 1 << 32)] {
        assert!(MatRef::new(&data, rows, cols).is_err(), "{rows} x {cols}");
        assert!(MatMut::new(&mut data.clone(), rows, cols).is_err(), "{rows} x {cols}");
    }
}

#[test]
#[should_panic]
fn a_row_outside_panics() {
    let _ = MatRef::new(&[0.0f32; 4], 2, 2).unwrap().row(2);
}

/// Matrices without elements may have any number of rows: operations must take them, in no time and without overflow.
#[test]
fn operations_take_empty_matrices() {
    let ctx = Ctx::from_env().unwrap();
    let (none, mut scratch) = ([0.0f32; 0], Scratch::new());
    for (rows, cols) in [(0, 0), (0, 5), (5, 0), (0, 1 << 40)] {
        let x = || MatRef::new(&none, rows, cols).unwrap();
        let mut out = [0.0f32; 0];
        let op = SoftmaxRows {
            x: MatMut::new(&mut out, rows, cols).unwrap(),
            scale: 1.0,
            bias: None,
            mask: rachis_kernels::Mask::None,
        };
        softmax_rows(&ctx, op).unwrap();
        let op = NormRows {
            x: x(),
            gamma: None,
            beta: None,
            epsilon: 1e-5,
            out: MatMut::new(&mut out, rows, cols).unwrap(),
        };
        layer_norm_rows(&ctx, op).unwrap();
    }
    // No rows of activations, but a weight matrix that claims to be enormous: there is nothing to compute.
    for (n, k) in [(1 << 40, 0), (0, 1 << 40), (1 << 62, 0)] {
        for layout in Layout::ALL {
            let (rows, cols) = if layout == Layout::Nk { (n, k) } else { (k, n) };
            let Ok(w) = MatRef::new(&none, rows, cols) else { continue };
            let mut out = [0.0f32; 0];
            let a = MatRef::new(&none, 0, k).unwrap();
            let weights = Weights { matrix: AnyMatRef::F32(w), layout };
            let op = Gemm::product(a, weights, MatMut::new(&mut out, 0, n).unwrap());
            gemm(&ctx, &mut scratch, op).unwrap();
        }
    }
    assert!(scratch.bytes() < 1 << 20, "nothing to compute needs no scratch");
}

#[test]
#[allow(clippy::reversed_empty_ranges, reason = "the point of the test")]
fn hostile_spans_are_errors() {
    let ctx = Ctx::from_env().unwrap();
    let data = [0.5f32; 12];
    let try_spans = |spans: &[Span], heads: usize| {
        let m = || MatRef::new(&data, 3, 4).unwrap();
        let mut out = [0.0f32; 12];
        let out = MatMut::new(&mut out, 3, 4).unwrap();
        attention(
            &ctx,
            &mut Scratch::new(),
            Attention {
                q: m(),
                k: m().into(),
                v: m().into(),
                heads: Heads::dense(heads, heads, 4 / heads.max(1)),
                scale: 1.0,
                bias: Bias::None,
                mask: AttentionMask::None,
                spans,
                out,
            },
        )
    };
    let span = |queries, keys| Span { queries, keys };
    assert!(try_spans(&[span(0..3, 0..3)], 2).is_ok());
    assert!(try_spans(&[span(0..3, 0..3)], 0).is_err());
    assert!(try_spans(&[span(0..3, 0..3)], 3).is_err());
    assert!(try_spans(&[span(0..4, 0..3)], 2).is_err());
    assert!(try_spans(&[span(0..3, 0..usize::MAX)], 2).is_err());
    assert!(try_spans(&[span(0..3, usize::MAX..0)], 2).is_err());
    assert!(try_spans(&[span(2..1, 0..1)], 2).is_err());
    assert!(try_spans(&[span(0..2, 0..1), span(1..3, 0..1)], 2).is_err());
    assert!(try_spans(&[], usize::MAX).is_err());
}

#[test]
#[allow(clippy::reversed_empty_ranges, reason = "hostile ranges")]
fn blocks_stay_inside() {
    let mut data = [0.0f32; 12];
    let mut m: AnyMatMut<'_> = MatMut::new(&mut data, 3, 4).unwrap().into();
    for (rows, columns) in [(0..4, 0..4), (2..1, 0..4), (0..3, 3..5), (0..3, 2..1), (0..usize::MAX, 0..1)] {
        assert!(matches!(m.block_mut(rows, columns), Err(Error::Range { .. })));
    }
    let empty = m.block_mut(3..3, 1..4).unwrap();
    assert_eq!((empty.rows(), empty.cols()), (0, 3));
    let AnyMatMut::F32(mut block) = m.block_mut(1..3, 2..4).unwrap() else { unreachable!() };
    block.row_mut(1).fill(1.0);
    assert_eq!(data, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
}
