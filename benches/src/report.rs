//! A row for each candidate of each product, and what `--assert` asks of the rows.

use std::fmt;
use std::time::Duration;

use rachis_kernels::gemm::SummationOrder;
use rachis_kernels::{Ctx, GemmPlan, Layout, Precision};
use serde_json::{Value, json};

use crate::arena::Dtype;
use crate::limits::{Limit, Limits, rounded};
use crate::measure::{Best, Case, Method, Turn};
use crate::shape::Shape;

/// The fraction of its limit that a picked [`Precision::Strict`] product of [`FLOOR_ROWS`] rows or more must
/// reach, hot.
pub const FLOOR: f64 = 0.70;
/// From how many rows of activations there is a floor.
pub const FLOOR_ROWS: usize = 128;
/// How far the pick may be behind another plan of its order, hot.
pub const LAG: f64 = 0.10;

/// What one candidate reached.
#[derive(Debug, Clone)]
pub struct Row {
    /// The dimensions.
    pub shape: Shape,
    /// How the weights lie.
    pub layout: Layout,
    /// What they are stored as.
    pub dtype: Dtype,
    /// How our products treat their operands.
    pub precision: Precision,
    /// Threads that shared the product; `None` where a library decides.
    pub threads: Option<usize>,
    /// The candidate.
    pub plan: &'static str,
    /// Rows and columns of its register tile; `None` of a library's.
    pub tile: Option<(usize, usize)>,
    /// Whether it is what [`gemm`](fn@rachis_kernels::gemm) would run.
    pub picked: bool,
    /// In which order it sums.
    pub order: Option<SummationOrder>,
    /// GFLOP/s of all cores that bound it, the best of the turns.
    pub peak: f64,
    /// Weights just used.
    pub hot: Rate,
    /// Weights that no cache holds.
    pub cold: Rate,
}

/// A speed and the limit that it is held against.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// The best of the turns.
    pub gflops: f64,
    /// Of the limit; the median of the turns'.
    pub fraction: f64,
    /// What bounds it.
    pub limit: Limit,
    /// GB/s at which all cores read the weights, each its share; the median of the turns'.
    pub read: f64,
}

impl Row {
    /// Sums up the turns of one candidate.
    pub fn new(
        ctx: &Ctx,
        limits: &Limits,
        case: &Case<'_>,
        dtype: Dtype,
        method: &Method<'_>,
        turns: &[Turn],
    ) -> Row {
        let Case { shape, layout, .. } = *case;
        let (flops, bytes) = (shape.flops() as f64, dtype.bytes() * shape.weights());
        let peak = median(turns.iter().map(|turn| turn.peak));
        let rate = |place: Limit, best: fn(&Turn) -> Best| {
            let bound = |peak: f64, gbps: f64| limits.bound((flops, peak), (bytes, gbps));
            let fraction = |turn: &Turn| {
                let best = best(turn);
                bound(turn.peak, best.gbps).0.as_secs_f64() / best.time.as_secs_f64()
            };
            let time = turns.iter().map(|turn| best(turn).time).min().unwrap_or(Duration::MAX);
            let gbps = median(turns.iter().map(|turn| best(turn).gbps));
            Rate {
                gflops: flops / time.as_secs_f64() / 1e9,
                fraction: median(turns.iter().map(fraction)),
                limit: if bound(peak, gbps).1 { Limit::Compute } else { place },
                read: gbps * limits.threads as f64,
            }
        };
        let (picked, threads, tile) = match method {
            Method::GemmPlan(plan) => {
                let picked = *plan == GemmPlan::pick(ctx, layout, shape.m);
                (picked, Some(ctx.threads()), Some(plan.tile(ctx)))
            }
            Method::Cblas(_) => (false, None, None),
        };
        Row {
            shape,
            layout,
            dtype,
            precision: ctx.precision(),
            threads,
            plan: method.name(),
            tile,
            picked,
            order: method.order(),
            peak: turns.iter().map(|turn| turn.peak).fold(0.0, f64::max) * limits.threads as f64,
            hot: rate(limits.hot(bytes), |turn| turn.hot),
            cold: rate(Limit::Dram, |turn| turn.cold),
        }
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({
            "m": self.shape.m, "n": self.shape.n, "k": self.shape.k,
            "dtype": self.dtype.name(), "precision": lower(self.precision), "layout": lower(self.layout),
            "threads": self.threads,
            "plan": self.plan, "tile": self.tile, "picked": self.picked, "order": self.order.map(lower),
            "peak_gflops": rounded(self.peak),
            "hot_gflops": rounded(self.hot.gflops), "cold_gflops": rounded(self.cold.gflops),
            "hot_fraction": rounded(self.hot.fraction), "cold_fraction": rounded(self.cold.fraction),
            "limit": self.hot.limit.name(), "cold_limit": self.cold.limit.name(),
            "hot_read_gbps": rounded(self.hot.read), "cold_read_gbps": rounded(self.cold.read),
        })
    }

    /// Whether the two differ in their plans alone, and any of the two may be picked without changing results.
    fn is_interchangeable(&self, other: &Row) -> bool {
        (self.shape, self.layout, self.dtype, self.precision)
            == (other.shape, other.layout, other.dtype, other.precision)
            && self.order.is_some()
            && self.order == other.order
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { m, n, k } = self.shape;
        let mark = if self.picked { '*' } else { ' ' };
        let (layout, plan) = (lower(self.layout), self.plan);
        write!(f, "{m:>5} x {n:>5} x {k:>5} {layout} {mark} {plan:<10}")?;
        for (name, rate) in [("hot", self.hot), ("cold", self.cold)] {
            let (fraction, limit) = (rate.fraction, rate.limit.name());
            write!(f, "  {name} {:>7.1} GFLOP/s, {fraction:.2} of {limit:<7}", rate.gflops)?;
        }
        write!(f, "  limits {:.0} GFLOP/s, {:.1} and {:.1} GB/s", self.peak, self.hot.read, self.cold.read)
    }
}

/// What is wrong with the rows that are picked: one is behind an interchangeable plan, or under its floor.
pub fn complaints(rows: &[Row]) -> Vec<String> {
    let mut complaints = Vec::new();
    for row in rows.iter().filter(|row| row.picked) {
        let name = format!("{} {} by {}", row.shape, lower(row.layout), row.plan);
        let reached = row.hot.fraction;
        // Fractions of one limit: their ratio is that of the speeds, without the drift of the clock.
        for other in rows.iter().filter(|other| row.is_interchangeable(other)) {
            if reached < (1.0 - LAG) * other.hot.fraction {
                let (plan, fraction) = (other.plan, other.hot.fraction);
                complaints.push(format!("{name}: {reached:.2} of the limit, and {fraction:.2} by {plan}"));
            }
        }
        let has_floor = row.order == Some(SummationOrder::Ascending)
            && row.precision == Precision::Strict
            && row.shape.m >= FLOOR_ROWS;
        if has_floor && reached < FLOOR {
            complaints.push(format!("{name}: {reached:.2} of the limit, expected {FLOOR:.2}"));
        }
    }
    complaints
}

/// The name of a variant in small letters.
pub fn lower(value: impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// The middle of the values.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests;
