//! What attention refuses: heads, operands, spans, biases and masks that do not fit, each before anything is written.

use rachis_kernels::{Attention, Bias, Ctx, Error, Heads, Level, MatMut, MatRef, Scratch, Span, attention};

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
            causal: false,
            spans: &[Span { queries: 0..4, keys: 0..4 }],
            out: MatMut::new(&mut written, 4, 4).unwrap(),
        };
        let result = attention(&ctx, &mut Scratch::new(), op);
        let refused = matches!(result, Err(Error::Shape { operation: "attention", .. }));
        assert!(refused == (written == [7.0; 16]) && refused == result.is_err(), "{result:?}");
        !refused
    };
    let heads = Heads { count: 4, groups: 2, dim: 1, query_step: 4, key_step: 4 };
    assert!(accepted(heads));
    assert!(accepted(Heads { query_step: 2, ..heads }));
    assert!(accepted(Heads::dense(2, 1, 2)));
    assert!(!accepted(Heads { query_step: 5, ..heads }));
    assert!(!accepted(Heads { key_step: 5, ..heads }));
    assert!(!accepted(Heads { groups: 0, ..heads }));
    assert!(!accepted(Heads { groups: 3, ..heads }));
    assert!(!accepted(Heads { dim: 0, ..heads }));
    assert!(!accepted(Heads { count: 0, ..heads }));
    assert!(!accepted(Heads { query_step: usize::MAX, ..heads }));
    assert!(!accepted(Heads { key_step: usize::MAX, ..heads }));
    for (count, groups) in [(usize::MAX, usize::MAX), (usize::MAX, 1), (4, 0), (0, 4)] {
        for dim in [0, 1, usize::MAX] {
            assert!(!accepted(Heads::dense(count, groups, dim)));
            assert!(!accepted(Heads::fused(count, groups, dim)));
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
                causal: false,
                spans,
                out,
            };
            let error = attention(&ctx, &mut Scratch::new(), op).unwrap_err();
            assert!(matches!(error, Error::Shape { operation: "attention", .. }), "{error}");
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
    let refused = |groups: usize, bias: Bias<'_>, causal: bool, keys: std::ops::Range<usize>| {
        let mut written = [7.0f32; 24];
        let matrix = || MatRef::new(&data, 4, 6).unwrap();
        let out = MatMut::new(&mut written, 4, 6).unwrap();
        let spans = &[Span { queries: 0..4, keys }];
        let op = Attention {
            q: matrix(),
            k: matrix().into(),
            v: matrix().into(),
            heads: Heads::dense(2, groups, 3),
            scale: 1.0,
            bias,
            causal,
            spans,
            out,
        };
        let result = attention(&ctx, &mut Scratch::new(), op);
        let refused = matches!(result, Err(Error::Shape { operation: "attention", .. }));
        assert!(refused == (written == [7.0; 24]), "{result:?}");
        refused
    };
    let table = |rows, cols| MatRef::new(&data, rows, cols).unwrap();
    let distance = |table, zero, queries, keys| Bias::Distance { table, zero, queries, keys };
    assert!(!refused(2, Bias::None, true, 0..4));
    assert!(refused(0, Bias::None, false, 0..4));
    assert!(!refused(1, Bias::None, false, 0..4));
    assert!(refused(3, Bias::None, false, 0..4));
    assert!(refused(2, Bias::None, true, 0..3));
    assert!(refused(2, Bias::Linear { slopes: &[1.0], round: false }, false, 0..4));
    assert!(!refused(2, distance(table(2, 7), 3, &good, &good), false, 0..4));
    assert!(refused(2, distance(table(3, 7), 3, &good, &good), false, 0..4));
    assert!(refused(2, distance(table(2, 6), 3, &good, &good), false, 0..4));
    assert!(refused(2, distance(table(2, 7), 2, &good, &good), false, 0..4));
    assert!(refused(2, distance(table(2, 7), 3, &good[..3], &good), false, 0..4));
    assert!(refused(2, distance(table(2, 7), 3, &good, &good[..3]), false, 0..4));
    assert!(refused(2, distance(table(2, 7), 3, &[0, 2, 1, 3], &good), false, 0..4));
    assert!(refused(2, distance(table(2, 7), usize::MAX, &good, &good), false, 0..4));
}
