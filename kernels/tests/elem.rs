//! Storage types at every level: widening is exact for every bit pattern, and narrowing rounds to nearest even at every edge.
//! The tests gather one row with a scale of 1, which only loads and stores.

mod common;

use common::{Element, at_every_level};
use rachis_kernels::{Accumulate, Ctx, EmbedRows, MatMut, MatRef, bf16, embed_rows, f16};
use rachis_testkit::Storage;

/// `from` stored as another type.
fn convert<T: Element, H: Element>(ctx: &Ctx, from: &[T]) -> Vec<H> {
    let mut to = vec![H::default(); from.len()];
    let op = EmbedRows {
        ids: &[0],
        table: T::matrix(MatRef::new(from, 1, from.len()).unwrap()),
        scale: 1.0,
        accumulate: Accumulate::Replace,
        out: MatMut::new(&mut to, 1, from.len()).unwrap(),
    };
    embed_rows(ctx, op).unwrap();
    to
}

/// Every value of a 16-bit type, and 5 more so that the length is no multiple of a vector.
fn all<H: Storage>() -> Vec<H> {
    (0..=0xffff).chain(0x3c00..0x3c05).map(H::from_bits).collect()
}

fn widening_is_exact<H: Element>(ctx: &Ctx) {
    let values = all::<H>();
    let widened: Vec<f32> = convert(ctx, &values);
    let copied: Vec<H> = convert(ctx, &values);
    for ((x, widened), copied) in values.iter().zip(widened).zip(copied) {
        let expected = x.to_f32();
        if expected.is_nan() {
            assert!(widened.is_nan() && copied.to_f32().is_nan(), "{} {:#x} is NaN", ctx.level(), x.bits());
        } else {
            assert_eq!(widened.to_bits(), expected.to_bits(), "{} {} {:#x}", ctx.level(), H::NAME, x.bits());
            assert_eq!(copied.bits(), x.bits(), "{} {} copied", ctx.level(), H::NAME);
        }
    }
}

#[test]
fn widening_and_copying_are_exact_for_every_bit_pattern() {
    at_every_level(|ctx| {
        widening_is_exact::<bf16>(ctx);
        widening_is_exact::<f16>(ctx);
    });
}

/// For every value of the type: the value, the midpoint to the next, and both neighbours of each in f32.
fn edges<H: Storage>() -> Vec<f32> {
    let mut edges = Vec::new();
    for bits in 0..=0xffff {
        let (x, next) = (H::from_bits(bits).to_f32(), H::from_bits((bits + 1) & 0xffff).to_f32());
        if x.is_finite() && next.is_finite() {
            // Exact in f32: the types have at most 11 digits. The sum of the two largest is not.
            let middle = x * 0.5 + next * 0.5;
            edges.extend([x, x.next_up(), x.next_down(), middle, middle.next_up(), middle.next_down()]);
        }
    }
    let overflow = (<f64 as From<f32>>::from(H::from_f32(f32::MAX).to_f32()).min(H::MAX)) as f32;
    let unit = overflow - H::from_bits(H::from_f32(overflow).bits() - 1).to_f32();
    let threshold = overflow + unit * 0.5;
    for x in [overflow, threshold, threshold.next_up(), threshold.next_down(), f32::MAX, f32::INFINITY] {
        edges.extend([x, -x]);
    }
    edges.extend([0.0, -0.0, f32::from_bits(1), -f32::from_bits(1), f32::MIN_POSITIVE]);
    edges
}

fn narrowing_rounds_to_nearest_even<H: Element>(ctx: &Ctx) {
    let edges = edges::<H>();
    let narrowed: Vec<H> = convert(ctx, &edges);
    for (x, got) in edges.iter().zip(narrowed) {
        // The testkit's rounding by arithmetic, and `half`'s by bits.
        assert_eq!(got.to_f64(), H::nearest(f64::from(*x)), "{} {} {x:e}", ctx.level(), H::NAME);
        assert_eq!(got.bits(), H::from_f32(*x).bits(), "{} {} {x:e}", ctx.level(), H::NAME);
    }
    let nans: Vec<f32> = [0x7f80_0001, 0x7fc0_0000, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff, 0x7f80_ffff]
        .map(f32::from_bits)
        .repeat(4);
    let narrowed: Vec<H> = convert(ctx, &nans);
    for (x, got) in nans.iter().zip(narrowed) {
        assert!(got.to_f32().is_nan(), "{} {} NaN {:#x} stays NaN", ctx.level(), H::NAME, x.to_bits());
    }
}

#[test]
fn narrowing_rounds_to_nearest_even_and_keeps_nan() {
    at_every_level(|ctx| {
        narrowing_rounds_to_nearest_even::<bf16>(ctx);
        narrowing_rounds_to_nearest_even::<f16>(ctx);
    });
}

#[test]
fn f32_is_stored_unchanged() {
    at_every_level(|ctx| {
        let values: Vec<f32> = (0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(42_949))).collect();
        let stored: Vec<f32> = convert(ctx, &values);
        for (x, y) in values.iter().zip(stored) {
            assert!(x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()));
        }
    });
}
