use super::*;
use crate::data::Rng;
use crate::oracle::Dot;
use half::{bf16, f16};

/// In blocks of 256.
fn sums(terms: usize) -> Sums {
    Sums { terms, roundings: terms.min(256) + terms / 256 + 1, smallest: TINY }
}

#[test]
fn zero_admits_only_zero() {
    let zero = Bound::exactly(0.0);
    assert!(zero.admits(0.0f32) && zero.admits(-0.0f32));
    assert!(!zero.admits(f32::from_bits(1)) && !zero.admits(1.0f32) && !zero.admits(f32::NAN));
    assert!(!zero.admits(f16::from_bits(1)) && !zero.admits(bf16::from_bits(0x8001)));
    let loose = Bound { exact: 0.0, error: 1e-10 };
    assert!(loose.admits(9e-11f32) && !loose.admits(1.1e-10f32));
    assert!(loose.admits(f16::ZERO) && !loose.admits(f16::from_bits(1)));
}

#[test]
fn special_values_must_match() {
    let nan = Bound { exact: f64::NAN, error: f64::NAN };
    assert!(nan.admits(f32::NAN) && !nan.admits(0.0f32) && !nan.admits(f32::INFINITY));
    let infinite = Bound { exact: f64::NEG_INFINITY, error: f64::INFINITY };
    assert!(infinite.admits(f32::NEG_INFINITY));
    assert!(!infinite.admits(f32::INFINITY) && !infinite.admits(f32::MIN) && !infinite.admits(f32::NAN));
    let finite = Bound { exact: 1.0, error: 1.0 };
    assert!(!finite.admits(f32::INFINITY) && !finite.admits(f32::NAN));
}

#[test]
#[should_panic(expected = "not a bound")]
fn an_infinite_error_is_refused() {
    Bound { exact: 1.0, error: f64::INFINITY }.admits(1.0f32);
}

#[test]
fn storage_rounding_is_half_a_unit_and_no_more() {
    let third = Bound::exactly(1.0 / 3.0);
    for (bits, admitted) in [(0x3eaa, false), (0x3eab, true), (0x3eac, false)] {
        assert_eq!(third.admits(bf16::from_bits(bits)), admitted, "{bits:x}");
    }
    // A tie that an error of any size can tip.
    let tie = Bound { exact: 1.0 + 1.0 / 256.0, error: 1e-9 };
    assert!(tie.admits(bf16::from_bits(0x3f80)) && tie.admits(bf16::from_bits(0x3f81)));
    // Overflow only where a number within the bound rounds up to it.
    assert!(Bound::exactly(65520.0).admits(f16::INFINITY) && !Bound::exactly(65520.0).admits(f16::MAX));
    assert!(Bound::exactly(65519.0).admits(f16::MAX) && !Bound::exactly(65519.0).admits(f16::INFINITY));
    // Subnormals: the nearest multiple of 2^-24.
    let small = Bound::exactly(2.6 * power_of_two(-24));
    assert!(small.admits(f16::from_bits(3)) && !small.admits(f16::from_bits(2)));
}

#[test]
fn units_in_the_last_place() {
    assert_eq!(ulp_error(1.0, 1.0), 0.0);
    assert_eq!(ulp_error(1.0 + f32::EPSILON, 1.0), 1.0);
    assert_eq!(ulp_error(1.0, 1.0 + f64::from(f32::EPSILON) / 2.0), 0.5);
    assert_eq!(ulp_error(0.0, 0.0), 0.0);
    assert_eq!(ulp_error(1.0, 0.0), power_of_two(149), "zero does not accept any value");
    assert_eq!(ulp_error(f32::from_bits(1), 0.0), 1.0);
    assert_eq!(ulp_error(0.0, power_of_two(-160)), power_of_two(-11));
    assert_eq!(ulp_error(f32::NAN, f64::NAN), 0.0);
    assert_eq!(ulp_error(f32::NAN, 1.0), f64::INFINITY);
    assert_eq!(ulp_error(1.0, f64::NAN), f64::INFINITY);
    assert_eq!(ulp_error(f32::INFINITY, f64::INFINITY), 0.0);
    assert_eq!(ulp_error(f32::INFINITY, f64::NEG_INFINITY), f64::INFINITY);
    assert_eq!(ulp_error(f32::INFINITY, f64::from(f32::MAX)), 1.0);
    assert_eq!(ulp_error(f32::INFINITY, 1e40), 0.0);
    assert!(ulp_error(f32::MAX, 1e40) > 1e6);
    assert_eq!(ulp_error(f32::MAX, f64::INFINITY), f64::INFINITY);
}

fn dot(a: f64, w: f64, activation: Activation) -> Dot {
    let (sum, magnitude) = (a * w, (a * w).abs());
    let activated = activation.eval(sum);
    Dot { sum, magnitude, biased: sum, activated, exact: activated }
}

#[test]
fn a_product_is_bounded_by_its_magnitude_not_its_value() {
    let cancelled = Dot { sum: 0.0, magnitude: 100.0, biased: 0.0, activated: 0.0, exact: 0.0 };
    let bound = gemm(&cancelled, Activation::Identity, sums(256));
    assert!(bound.error >= 258.0 * U * 100.0 && bound.error < 259.0 * U * 100.0);
    // Blocks bound the growth: 4096 products take 256 + 16 + 1 roundings, not 4096.
    let long = gemm(&cancelled, Activation::Identity, sums(4096));
    assert!(long.error < 274.0 * U * 100.0);
    // Nothing times something is exactly nothing, but for underflow.
    let zero = gemm(&dot(0.0, 5.0, Activation::Identity), Activation::Identity, sums(1));
    assert!(zero.error <= 2.0 * TINY);
    assert_eq!(gemm(&dot(0.0, 0.0, Activation::Identity), Activation::Identity, sums(0)).error, 0.0);
}

#[test]
fn a_product_with_special_values_has_a_finite_bound_or_none() {
    for activation in Activation::ALL {
        for (a, w) in [(f64::INFINITY, 1.0), (f64::NEG_INFINITY, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)]
        {
            let bound = gemm(&dot(a, w, activation), activation, sums(3));
            assert!(bound.exact.is_nan() || bound.exact.is_infinite() || bound.error <= 2.0 * U);
        }
    }
}

#[test]
fn softmax_and_norm_bounds_are_a_few_units() {
    let x: Vec<f64> = (0..100).map(|i| f64::from(i % 7) - 3.0).collect();
    let row = SoftmaxRow { x: &x, scale: 0.5, bias: None, visible: &[true; 100] };
    for bound in softmax(row, 1.0) {
        assert!(bound.error > 5.0 * U * bound.exact && bound.error < 100.0 * U * bound.exact);
    }
    let hidden = softmax(SoftmaxRow { visible: &[false; 100], ..row }, 1.0);
    assert!(hidden.iter().all(|bound| *bound == Bound::exactly(0.0)));
    for kind in [Norm::Layer, Norm::Rms] {
        let row = NormRow { x: &x, gamma: None, beta: None, epsilon: 1e-5 };
        for bound in norm(row, kind) {
            assert!(bound.error > U * bound.exact.abs() && bound.error < 100.0 * U, "{bound:?}");
        }
    }
}

/// Whether every exact value of `got`, rounded to f32, is within the bound beside it.
fn all_admitted(bounds: &[Bound], got: &[Bound]) -> bool {
    assert_eq!(bounds.len(), got.len());
    bounds.iter().zip(got).all(|(bound, got)| bound.admits(got.exact as f32))
}

#[test]
fn a_wrong_norm_is_outside_the_bounds() {
    // A variance of about 4e-6, beside which epsilon counts.
    let x: Vec<f64> = (0..100).map(|i| 1e-3 * (f64::from(i % 7) - 2.5)).collect();
    let (gamma, beta) = (vec![1.5; 100], vec![0.25; 100]);
    let right = NormRow { x: &x, gamma: Some(&gamma), beta: Some(&beta), epsilon: 1e-5 };
    for kind in [Norm::Layer, Norm::Rms] {
        let bounds = norm(right, kind);
        assert!(all_admitted(&bounds, &bounds), "{kind:?}");
        let epsilon = NormRow { epsilon: 1.001e-5, ..right };
        let no_gamma = NormRow { gamma: None, ..right };
        let no_beta = NormRow { beta: None, ..right };
        for wrong in [epsilon, no_gamma, no_beta] {
            assert!(!all_admitted(&bounds, &norm(wrong, kind)), "{kind:?} {wrong:?}");
        }
        let other = if kind == Norm::Layer { Norm::Rms } else { Norm::Layer };
        assert!(!all_admitted(&bounds, &norm(right, other)), "{kind:?} is not {other:?}");
        // A single element of a hundred that is off by 1e-5 of its value.
        let mut off = bounds.clone();
        off[50].exact *= 1.00001;
        assert!(!all_admitted(&bounds, &off), "{kind:?}");
    }
}

#[test]
fn a_wrong_softmax_is_outside_the_bounds() {
    let x: Vec<f64> = (0..100).map(|i| f64::from(i % 7) - 3.0).collect();
    let right = SoftmaxRow { x: &x, scale: 1.0, bias: None, visible: &[true; 100] };
    let bounds = softmax(right, 1.0);
    assert!(all_admitted(&bounds, &bounds));
    assert!(!all_admitted(&bounds, &softmax(SoftmaxRow { scale: 1.00001, ..right }, 1.0)));
    let mut one_hidden = [true; 100];
    one_hidden[0] = false;
    assert!(!all_admitted(&bounds, &softmax(SoftmaxRow { visible: &one_hidden, ..right }, 1.0)));
}

#[test]
fn a_wrong_gather_or_rotation_is_outside_the_bounds() {
    assert!(embed(0.1f32.into(), 1.0, None).admits(0.1f32));
    assert!(!embed(0.1f32.into(), 1.0, None).admits(0.1f32.next_up()));
    let (value, scale, sum) = (0.1f32, 13.856_406f32, 0.7f32);
    let bound = embed(value.into(), scale.into(), None);
    assert!(bound.admits(value * scale) && !bound.admits(value * scale * (1.0 + 1e-6)));
    let bound = embed(value.into(), scale.into(), Some(sum.into()));
    assert!(bound.admits(sum + value * scale) && !bound.admits((sum + value * scale) * (1.0 + 1e-6)));
    let (x, y, cos, sin) = (0.3f32, -0.8f32, 0.6f32, 0.8f32);
    let exact = f64::from(x) * f64::from(cos) - f64::from(y) * f64::from(sin);
    let bound = rotary(exact, (x.into(), y.into()), (cos.into(), sin.into()));
    let rotated = x * cos - y * sin;
    assert!(
        bound.admits(rotated) && !bound.admits(rotated * (1.0 + 1e-6)) && !bound.admits(x * cos + y * sin)
    );
}

#[test]
fn sums_in_blocks_go_through_few_roundings() {
    assert_eq!(Sums::ascending(0).roundings, 1);
    assert_eq!(Sums::ascending(100).roundings, 101);
    assert_eq!(Sums::ascending(4096).roundings, 512 + 8 + 1);
    assert_eq!(Sums::in_pairs(4096).roundings, 1024 + 4 + 1);
    // What the order of tiles needs: see `Sums::in_tiles`.
    for terms in [1, 32, 512, 4096, 16_384, 16_896] {
        assert!(Sums::in_tiles(terms).roundings >= (18 + terms / 32).min(terms), "{terms}");
    }
    assert_eq!(Sums::in_split_tiles(33, [1.0; 2]).roundings, 6 * 2 + 24);
    assert_eq!(Sums::in_split_tiles(33, [2.0, 5.0]).smallest, 8.0 * SMALLEST_NORMAL);
}

/// Dot products of numbers that bf16 does not hold, with one operand rounded to it and with both.
#[test]
fn rounding_both_operands_costs_at_most_twice_what_rounding_one_does() {
    let mut rng = Rng::new(7);
    let (mut one, mut both) = (0.0f64, 0.0f64);
    for _ in 0..200 {
        let mut row = || (0..256).map(|_| rng.signed()).collect::<Vec<f64>>();
        let (a, w) = (row(), row());
        let round = |x: &f64| <bf16 as Storage>::nearest(*x);
        let dot = |a: &[f64], w: &[f64]| a.iter().zip(w).map(|(a, w)| a * w).sum::<f64>();
        let rounded: [Vec<f64>; 2] = [&a, &w].map(|values| values.iter().map(round).collect());
        let exact = dot(&a, &w);
        one = one.max((dot(&rounded[0], &w) - exact).abs());
        both = both.max((dot(&rounded[0], &rounded[1]) - exact).abs());
    }
    assert!(one < both && both < BOTH_OPERANDS_ROUNDED * one, "{one:e} and {both:e}");
}
