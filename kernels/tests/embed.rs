//! Embedding gather at every level: every pair of storage types, edge sizes, replacing and adding, and indices outside the
//! table.

mod common;

use common::{Element, at_every_level, bits, for_each_type, view, view_mut};
use rachis_kernels::{Accumulate, Ctx, EmbedRows, Error, embed_rows};
use rachis_testkit::{Grid, Kind, Rng, shapes, tolerance};

fn check<T: Element, H: Element>(ctx: &Ctx, hidden: usize, scale: f32, accumulate: Accumulate) {
    let mut rng = Rng::new(hidden as u64);
    let table: Grid<T> = Grid::random(&mut rng, Kind::Uniform, (7, hidden), 2);
    let initial: Grid<H> = Grid::random(&mut rng, Kind::Uniform, (5, hidden), hidden % 2);
    let ids = [6, 0, 3, 3, 1];
    let mut out = initial.clone();
    let op =
        EmbedRows { ids: &ids, table: T::matrix(view(&table)), scale, accumulate, out: view_mut(&mut out) };
    embed_rows(ctx, op).unwrap();
    out.assert_guards();
    for (i, id) in ids.into_iter().enumerate() {
        for j in 0..hidden {
            let sum_so_far = (accumulate == Accumulate::Add).then(|| initial.at(i, j).to_f64());
            let bound = tolerance::embed(table.at(id as usize, j).to_f64(), scale.into(), sum_so_far);
            bound.check(out.at(i, j), || {
                format!("{} {} row {i} column {j} of {hidden}", ctx.level(), T::NAME)
            });
        }
    }
}

fn every_length<T: Element>(ctx: &Ctx) {
    for hidden in shapes::row_lengths() {
        for (scale, accumulate) in
            [(1.0, Accumulate::Replace), (13.856_406, Accumulate::Replace), (-0.3, Accumulate::Add)]
        {
            check::<T, f32>(ctx, hidden, scale, accumulate);
            check::<T, rachis_kernels::bf16>(ctx, hidden, scale, accumulate);
            check::<T, rachis_kernels::f16>(ctx, hidden, scale, accumulate);
        }
    }
}

#[test]
fn every_length_and_pair_of_types_obeys_the_bound() {
    at_every_level(|ctx| {
        for_each_type!(every_length(ctx));
    });
}

#[test]
fn without_ids_there_are_no_rows() {
    at_every_level(|ctx| {
        let table = Grid::<f32>::new(&[], (0, 4), 0);
        let mut out = Grid::<f32>::new(&[], (0, 4), 0);
        let op = EmbedRows {
            ids: &[],
            table: view(&table).into(),
            scale: 1.0,
            accumulate: Accumulate::Replace,
            out: view_mut(&mut out),
        };
        embed_rows(ctx, op).unwrap();
        out.assert_guards();
    });
}

#[test]
fn a_bad_index_or_shape_is_refused_and_nothing_is_written() {
    let table = Grid::<f32>::new(&[1.0; 12], (3, 4), 0);
    at_every_level(|ctx| {
        let mut out = Grid::<f32>::new(&[5.0; 8], (2, 4), 1);
        let embed = |ids: &[u32], out: &mut Grid<f32>| {
            let out = view_mut(out);
            let accumulate = Accumulate::Replace;
            embed_rows(ctx, EmbedRows { ids, table: view(&table).into(), scale: 1.0, accumulate, out })
        };
        for bad in [3, 1 << 31, u32::MAX] {
            let error = embed(&[1, bad], &mut out).unwrap_err();
            assert_eq!(error, Error::Index { operation: "embed_rows", position: 1, index: bad, rows: 3 });
        }
        assert!(matches!(embed(&[0], &mut out), Err(Error::Shape { .. })));
        assert!(matches!(embed(&[0, 0, 0], &mut out), Err(Error::Shape { .. })));
        assert_eq!(bits(&out.values()), bits(&[5.0f32; 8]));
        let mut narrow = Grid::<f32>::new(&[5.0; 6], (2, 3), 1);
        assert!(matches!(embed(&[0, 0], &mut narrow), Err(Error::Shape { .. })));
    });
}
