//! Copies between storage types at every level: every pair has the bits of scalar conversion.

mod common;

use common::{Element, at_every_level, bits, for_each_type, view, view_mut};
use rachis_kernels::{Ctx, Error, MatMut, MatRef, copy_rows};
use rachis_testkit::{Grid, Kind, Rng, data};

fn check<T: Element, U: Element>(ctx: &Ctx) {
    let mut rng = Rng::new(51);
    for width in [0, 1, 15, 16, 17, 33] {
        for kind in [Kind::Uniform, Kind::WideRange, Kind::Subnormal, Kind::Zero] {
            let mut values = data::values::<T>(&mut rng, kind, 3 * width);
            data::inject_specials(&mut rng, &mut values, 11);
            let from = Grid::new(&values, (3, width), 2);
            let mut to = Grid::new(&vec![U::from_f32(7.0); 3 * width], (3, width), 5);
            copy_rows(ctx, view(&from).into(), view_mut(&mut to).into()).unwrap();
            to.assert_guards();
            for (x, y) in values.iter().zip(to.values()) {
                let place = format!("{} {} {x:?} {} {y:?}", ctx.level(), T::NAME, U::NAME);
                if x.to_f32().is_nan() {
                    assert!(y.to_f32().is_nan(), "{place}");
                } else {
                    assert_eq!(y.bits(), U::from_f32(x.to_f32()).bits(), "{place}");
                }
                assert!(T::NAME != U::NAME || x.bits() == y.bits(), "{place}");
            }
        }
    }
}

fn from_type<T: Element>(ctx: &Ctx) {
    check::<T, f32>(ctx);
    check::<T, rachis_kernels::bf16>(ctx);
    check::<T, rachis_kernels::f16>(ctx);
}

#[test]
fn every_pair_of_types_has_the_bits_of_scalar_conversion() {
    at_every_level(|ctx| {
        for_each_type!(from_type(ctx));
    });
}

/// A block of rows and columns is written, as in a cache of keys.
#[test]
fn only_the_block_is_written() {
    at_every_level(|ctx| {
        let from = Grid::<f32>::random(&mut Rng::new(52), Kind::Uniform, (2, 19), 1);
        let mut to = Grid::new(&[rachis_kernels::bf16::from_f32(7.0); 5 * 40], (5, 40), 3);
        let mut cache: rachis_kernels::AnyMatMut<'_> = view_mut(&mut to).into();
        copy_rows(ctx, view(&from).into(), cache.block_mut(1..3, 20..39).unwrap()).unwrap();
        copy_rows(ctx, view(&from).rows_range(0..0).into(), cache.block_mut(5..5, 0..19).unwrap()).unwrap();
        to.assert_guards();
        for i in 0..5 {
            for j in 0..40 {
                let inside = (1..3).contains(&i) && (20..39).contains(&j);
                let expected = if inside { from.at(i - 1, j - 20) } else { 7.0 };
                assert_eq!(to.at(i, j), rachis_kernels::bf16::from_f32(expected));
            }
        }
    });
}

#[test]
fn shapes_that_differ_are_refused_and_nothing_is_written() {
    let ctx = Ctx::from_env().unwrap();
    let data = [1.0f32; 12];
    for shape in [(2, 3), (3, 4), (4, 3)] {
        let mut out = [7.0f32; 12];
        let from = MatRef::new(&data, 2, 4).unwrap();
        let to = MatMut::new(&mut out, shape.0, shape.1).unwrap();
        let error = copy_rows(&ctx, from.into(), to.into()).unwrap_err();
        assert!(matches!(error, Error::Shape { operation: "copy_rows", .. }), "{error}");
        assert_eq!(bits(&out), bits(&[7.0f32; 12]));
    }
}
