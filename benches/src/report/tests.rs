use rachis_kernels::{Level, PLANS};

use super::*;
use crate::arena::Arena;
use crate::limits::tests::LIMITS;
use crate::measure::Activations;

const SHAPE: GemmShape = GemmShape { m: 128, n: 768, k: 768 };

fn row(plan: &'static str, picked: bool, order: Option<SummationOrder>, fraction: f64) -> Row {
    let rate = Rate { gflops: 100.0 * fraction, fraction, limit: Limit::Compute, read: 10.0 };
    Row {
        shape: SHAPE,
        layout: Layout::Nk,
        dtype: Dtype::Float32,
        precision: Precision::Strict,
        threads: Some(1),
        plan,
        tile: Some((8, 48)),
        picked,
        order,
        peak: 100.0,
        hot: rate,
        cold: rate,
    }
}

const ASCENDING: Option<SummationOrder> = Some(SummationOrder::Ascending);
const TILES: Option<SummationOrder> = Some(SummationOrder::Tiles);

#[test]
fn a_pick_within_a_tenth_of_the_best_plan_passes() {
    assert!(complaints(&[row("a", true, ASCENDING, 0.82), row("b", false, ASCENDING, 0.90)]).is_empty());
    assert!(complaints(&[row("a", true, ASCENDING, 0.90), row("b", false, ASCENDING, 0.10)]).is_empty());
    assert!(complaints(&[]).is_empty());
}

#[test]
fn a_pick_slower_than_another_plan_of_its_order_fails() {
    let rows = [row("a", true, ASCENDING, 0.80), row("b", false, ASCENDING, 0.90)];
    assert_eq!(complaints(&rows), ["128x768x768 nk by a: 0.80 of the limit, and 0.90 by b"]);
}

#[test]
fn only_interchangeable_rows_are_compared() {
    let pick = || row("a", true, ASCENDING, 0.80);
    let fast = || row("b", false, ASCENDING, 2.0);
    for other in [
        Row { order: TILES, ..fast() },
        Row { order: None, ..fast() },
        Row { layout: Layout::Kn, ..fast() },
        Row { shape: GemmShape { m: 1, ..SHAPE }, ..fast() },
        Row { dtype: Dtype::Float16, ..fast() },
        Row { precision: Precision::Bf16, ..fast() },
    ] {
        assert!(complaints(&[other.clone(), pick()]).is_empty(), "{other:?}");
    }
}

#[test]
fn a_cblas_library_is_not_checked() {
    let rows = [row("cblas", false, None, 0.1), row("a", true, ASCENDING, 0.8)];
    assert!(complaints(&rows).is_empty());
}

#[test]
fn the_floor_holds_for_strict_products_of_many_rows() {
    let slow = || row("a", true, ASCENDING, 0.69);
    assert_eq!(complaints(&[slow()]), ["128x768x768 nk by a: 0.69 of the limit, expected 0.70"]);
    for row in [
        Row { picked: false, ..slow() },
        Row { precision: Precision::Bf16, ..slow() },
        Row { order: TILES, ..slow() },
        Row { shape: GemmShape { m: 127, ..SHAPE }, ..slow() },
        row("a", true, ASCENDING, 0.70),
    ] {
        assert!(complaints(&[row]).is_empty());
    }
}

#[test]
fn a_row_is_computed_from_its_rounds() {
    let ctx = Ctx::new(Level::Scalar).expect("every processor has it");
    let arena = Arena::new(Dtype::Float32, 1 << 22, 4);
    let case = Case::new(SHAPE, Layout::Kn, &arena, Activations::Float32);
    let pick = Method::Rachis(GemmPlan::pick(&ctx, Layout::Kn, SHAPE.m));
    let ms = |x: f64| Duration::from_secs_f64(x / 1000.0);
    let limit = SHAPE.flops() as f64 / 1e8; // ms at 100 GFLOP/s
    let round = |share: f64, clock: f64| Round {
        peak: 100.0 * clock,
        hot: Timing { time: ms(limit / share / clock), gbps: 100.0 },
        cold: Timing { time: ms(2.0 * limit / share / clock), gbps: 10.0 },
    };
    let rounds = [round(0.8, 1.0), round(0.9, 0.5), round(0.1, 1.0)];
    let row = Row::new(&ctx, &LIMITS, &case, Dtype::Float32, &pick, &rounds);
    assert!(row.picked && row.order == ASCENDING && row.threads == Some(1));
    assert!((row.hot.fraction - 0.8).abs() < 1e-6, "the median, with the clock of each round: {row:?}");
    assert!((row.hot.gflops - 80.0).abs() < 1e-3, "the best round: {row:?}");
    assert!((row.cold.fraction - 0.4).abs() < 1e-6, "{row:?}");
    assert_eq!((row.hot.limit, row.cold.limit), (Limit::Compute, Limit::Compute));
    let slow = rounds.map(|round| Round { cold: Timing { gbps: 0.01, ..round.cold }, ..round });
    let row = Row::new(&ctx, &LIMITS, &case, Dtype::Float32, &pick, &slow);
    assert_eq!((row.hot.limit, row.cold.limit), (Limit::Compute, Limit::Dram));
    let other = PLANS
        .iter()
        .find(|plan| **plan != *GemmPlan::pick(&ctx, Layout::Kn, SHAPE.m))
        .expect("several plans");
    assert!(!Row::new(&ctx, &LIMITS, &case, Dtype::Float32, &Method::Rachis(other), &rounds).picked);
}

#[test]
fn a_row_has_these_keys_in_json() {
    let json = Row { threads: None, order: None, ..row("cblas", false, None, 0.5) }.json();
    let keys: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut expected = [
        "m",
        "n",
        "k",
        "dtype",
        "precision",
        "layout",
        "threads",
        "plan",
        "tile",
        "picked",
        "order",
        "peak_gflops",
        "hot_gflops",
        "cold_gflops",
        "hot_fraction",
        "cold_fraction",
        "limit",
        "cold_limit",
        "hot_read_gbps",
        "cold_read_gbps",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(json["order"], Value::Null);
    assert_eq!(row("a", true, TILES, 0.5).json()["order"], "tiles");
    assert_eq!(
        (&json["layout"], &json["precision"], &json["limit"]),
        (&json!("nk"), &json!("strict"), &json!("compute"))
    );
}
