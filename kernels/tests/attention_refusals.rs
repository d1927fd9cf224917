//! Calls that attention refuses without writing anything: heads, operands, spans, biases and masks that do not fit.

use rachis_kernels::{
    AlibiRounding, Attention, AttentionMask, Bias, Ctx, Error, Heads, Level, MatMut, MatRef, Scratch, Span,
    attention,
};

#[test]
fn heads_that_do_not_fit_are_refused() {
    let ctx = Ctx::new(Level::Scalar).unwrap();
    let data = [1.0f32; 24];
    let accepted = |heads: Heads| {
        let mut written = [7.0f32; 16];
        let matrix = || MatRef::new(&data, 4, 6).unwrap();
        let op = Attention {
            q: matrix(),
            k: matrix().into(),
            v: matrix().columns(1, 5).unwrap().into(),
            heads,
            scale: 1.0,
            bias: Bias::None,
            mask: AttentionMask::None,
            spans: &[Span { queries: 0..4, keys: 0..4 }],
            out: MatMut::new(&mut written, 4, 4).unwrap(),
        };
        let result = attention(&ctx, &mut Scratch::new(), op);
        let refused = matches!(
            result,
            Err(Error::Shape { operation: "attention", .. } | Error::Range { operation: "attention", .. })
        );
        assert!(refused == (written == [7.0; 16]) && refused == result.is_err(), "{result:?}");
        !refused
    };
    let heads = Heads { count: 4, kv_heads: 2, dim: 1, query_stride: 4, kv_stride: 4 };
    assert!(accepted(heads));
    assert!(accepted(Heads { query_stride: 2, ..heads }));
    assert!(accepted(Heads::dense(2, 1, 2)));
    assert!(!accepted(Heads { query_stride: 5, ..heads }));
    assert!(!accepted(Heads { kv_stride: 5, ..heads }));
    assert!(!accepted(Heads { kv_heads: 0, ..heads }));
    assert!(!accepted(Heads { kv_heads: 3, ..heads }));
    assert!(!accepted(Heads { dim: 0, ..heads }));
    assert!(!accepted(Heads { count: 0, ..heads }));
    assert!(!accepted(Heads { query_stride: usize::MAX, ..heads }));
    assert!(!accepted(Heads { kv_stride: usize::MAX, ..heads }));
    for (count, kv_heads) in [(usize::MAX, usize::MAX), (usize::MAX, 1), (4, 0), (0, 4)] {
        for dim in [0, 1, usize::MAX] {
            assert!(!accepted(Heads::dense(count, kv_heads, dim)));
            assert!(!accepted(Heads::fused(count, kv_heads, dim)));
        }
    }
}

#[test]
fn operands_that_disagree_are_refused_and_nothing_is_written() {
    let ctx = Ctx::new(Level::Scalar).unwrap();
    let data = [1.0f32; 24];
    let refused =
        |spans: &[Span], heads: usize, (q, k, v): ((usize, usize), (usize, usize), (usize, usize))| {
            let mut written = [7.0f32; 24];
            let matrix = |(rows, cols)| MatRef::new(&data, rows, cols).unwrap();
            let out = MatMut::new(&mut written, 4, 6).unwrap();
            let op = Attention {
                q: matrix(q),
                k: matrix(k).into(),
                v: matrix(v).into(),
                heads: Heads::dense(heads, heads, 6 / heads.max(1)),
                scale: 1.0,
                bias: Bias::None,
                mask: AttentionMask::None,
                spans,
                out,
            };
            let error = attention(&ctx, &mut Scratch::new(), op).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Shape { operation: "attention", .. } | Error::Range { operation: "attention", .. }
                ),
                "{error}"
            );
            assert_eq!(written, [7.0; 24]);
        };
    let all = (4, 6);
    let span = |queries, keys| Span { queries, keys };
    let good = || span(0..4, 0..4);
    refused(&[good()], 0, (all, all, all));
    refused(&[good()], 4, (all, all, all));
    refused(&[good()], 2, ((3, 6), all, all));
    refused(&[good()], 2, ((4, 4), all, all));
    refused(&[good()], 2, (all, (4, 4), all));
    refused(&[good()], 2, (all, all, (3, 6)));
    refused(&[span(0..5, 0..4)], 2, (all, all, all));
    refused(&[span(0..4, 0..5)], 2, (all, all, all));
    refused(&[span(0..2, 0..2), span(1..4, 1..4)], 2, (all, all, all));
    refused(&[span(0..2, 0..usize::MAX)], 2, (all, all, all));
    #[allow(clippy::reversed_empty_ranges, reason = "a hostile range")]
    refused(&[span(3..1, 0..2)], 2, (all, all, all));
}

#[test]
fn a_bias_or_a_mask_that_does_not_fit_is_refused() {
    let ctx = Ctx::new(Level::Scalar).unwrap();
    let data = [1.0f32; 24];
    let good = [0, 1, 2, 3];
    let refused = |kv_heads: usize, bias: Bias<'_>, mask: AttentionMask, keys: std::ops::Range<usize>| {
        let mut written = [7.0f32; 24];
        let matrix = || MatRef::new(&data, 4, 6).unwrap();
        let out = MatMut::new(&mut written, 4, 6).unwrap();
        let spans = &[Span { queries: 0..4, keys }];
        let op = Attention {
            q: matrix(),
            k: matrix().into(),
            v: matrix().into(),
            heads: Heads::dense(2, kv_heads, 3),
            scale: 1.0,
            bias,
            mask,
            spans,
            out,
        };
        let result = attention(&ctx, &mut Scratch::new(), op);
        let refused = matches!(
            result,
            Err(Error::Shape { operation: "attention", .. } | Error::Range { operation: "attention", .. })
        );
        assert!(refused == (written == [7.0; 24]), "{result:?}");
        refused
    };
    let table = |rows, cols| MatRef::new(&data, rows, cols).unwrap();
    let distance = |table, zero, queries, keys| Bias::Distance { table, zero, queries, keys };
    assert!(!refused(2, Bias::None, AttentionMask::Causal, 0..4));
    assert!(refused(0, Bias::None, AttentionMask::None, 0..4));
    assert!(!refused(1, Bias::None, AttentionMask::None, 0..4));
    assert!(refused(3, Bias::None, AttentionMask::None, 0..4));
    assert!(refused(2, Bias::None, AttentionMask::Causal, 0..3));
    assert!(refused(
        2,
        Bias::Linear { slopes: &[1.0], rounding: AlibiRounding::None },
        AttentionMask::None,
        0..4
    ));
    assert!(!refused(2, distance(table(2, 7), 3, &good, &good), AttentionMask::None, 0..4));
    assert!(refused(2, distance(table(3, 7), 3, &good, &good), AttentionMask::None, 0..4));
    assert!(refused(2, distance(table(2, 6), 3, &good, &good), AttentionMask::None, 0..4));
    assert!(refused(2, distance(table(2, 7), 2, &good, &good), AttentionMask::None, 0..4));
    assert!(refused(2, distance(table(2, 7), 3, &good[..3], &good), AttentionMask::None, 0..4));
    assert!(refused(2, distance(table(2, 7), 3, &good, &good[..3]), AttentionMask::None, 0..4));
    assert!(refused(2, distance(table(2, 7), 3, &[0, 2, 1, 3], &good), AttentionMask::None, 0..4));
    assert!(refused(2, distance(table(2, 7), usize::MAX, &good, &good), AttentionMask::None, 0..4));
}
