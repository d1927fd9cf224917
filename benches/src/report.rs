//! A row for each candidate of each product, and the checks of `--assert` on the rows.

use std::fmt;
use std::time::Duration;

use rachis_kernels::gemm::SummationOrder;
use rachis_kernels::{Ctx, Dtype, GemmPlan, Layout, Precision};
use rachis_testkit::shapes::GemmShape;
use serde_json::{Value, json};

use crate::arena::short_name;
use crate::limits::{Limit, Limits, rounded};
use crate::measure::{Case, Method, Round, Timing};

/// The fraction of its limit that a picked [`Precision::Strict`] product of at least [`FLOOR_ROWS`] rows must reach, hot.
pub const FLOOR: f64 = 0.70;
/// The least number of rows of activations for which [`FLOOR`] holds.
pub const FLOOR_ROWS: usize = 128;
/// The fraction by which the pick may be slower than another plan with its summation order, hot.
pub const LAG: f64 = 0.10;

/// The speed of one candidate.
#[derive(Debug, Clone)]
pub struct Row {
    /// The dimensions.
    pub shape: GemmShape,
    /// How the weights lie.
    pub layout: Layout,
    /// The storage type of the weights.
    pub dtype: Dtype,
    /// The precision of our products.
    pub precision: Precision,
    /// Threads that shared the product; `None` if a CBLAS library decides.
    pub threads: Option<usize>,
    /// The candidate's name.
    pub plan: &'static str,
    /// MR and NR of its micro-tile; `None` for a CBLAS library.
    pub tile: Option<(usize, usize)>,
    /// Whether [`gemm`](fn@rachis_kernels::gemm) would run it.
    pub picked: bool,
    /// The order in which it sums.
    pub order: Option<SummationOrder>,
    /// The peak of all cores that bounds it, in GFLOP/s: the best of the rounds.
    pub peak: f64,
    /// The speed with weights that were just used.
    pub hot: Rate,
    /// The speed with weights that no cache holds.
    pub cold: Rate,
}

/// A speed, and the limit that it is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// GFLOP/s: the best of the rounds.
    pub gflops: f64,
    /// The fraction of the limit that was reached: the median of the rounds.
    pub fraction: f64,
    /// The limit that bounds it.
    pub limit: Limit,
    /// GB/s at which all cores read the weights, each its share: the median of the rounds.
    pub read: f64,
}

impl Row {
    /// The row of one candidate from its rounds.
    pub fn new(
        ctx: &Ctx,
        limits: &Limits,
        case: &Case<'_>,
        dtype: Dtype,
        method: &Method<'_>,
        rounds: &[Round],
    ) -> Row {
        let Case { shape, layout, .. } = *case;
        let (flops, bytes) = (shape.flops() as f64, dtype.size_of() * shape.weights());
        let peak = median(rounds.iter().map(|round| round.peak));
        let rate = |place: Limit, best: fn(&Round) -> Timing| {
            let bound = |peak: f64, gbps: f64| limits.bound((flops, peak), (bytes, gbps));
            let fraction = |round: &Round| {
                let best = best(round);
                bound(round.peak, best.gbps).0.as_secs_f64() / best.time.as_secs_f64()
            };
            let time = rounds.iter().map(|round| best(round).time).min().unwrap_or(Duration::MAX);
            let gbps = median(rounds.iter().map(|round| best(round).gbps));
            Rate {
                gflops: flops / time.as_secs_f64() / 1e9,
                fraction: median(rounds.iter().map(fraction)),
                limit: if bound(peak, gbps).1 { Limit::Compute } else { place },
                read: gbps * limits.threads as f64,
            }
        };
        let (picked, threads, tile) = match method {
            Method::Rachis(plan) => {
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
            peak: rounds.iter().map(|round| round.peak).fold(0.0, f64::max) * limits.threads as f64,
            hot: rate(limits.hot(bytes), |round| round.hot),
            cold: rate(Limit::Dram, |round| round.cold),
        }
    }

    /// The row for `--json`.
    pub fn json(&self) -> Value {
        json!({
            "m": self.shape.m, "n": self.shape.n, "k": self.shape.k,
            "dtype": short_name(self.dtype), "precision": self.precision.name(), "layout": lower(self.layout),
            "threads": self.threads,
            "plan": self.plan, "tile": self.tile, "picked": self.picked, "order": self.order.map(lower),
            "peak_gflops": rounded(self.peak),
            "hot_gflops": rounded(self.hot.gflops), "cold_gflops": rounded(self.cold.gflops),
            "hot_fraction": rounded(self.hot.fraction), "cold_fraction": rounded(self.cold.fraction),
            "limit": self.hot.limit.name(), "cold_limit": self.cold.limit.name(),
            "hot_read_gbps": rounded(self.hot.read), "cold_read_gbps": rounded(self.cold.read),
        })
    }

    /// Whether the two rows differ in their plans alone and either plan may be picked without changing results.
    fn is_interchangeable(&self, other: &Row) -> bool {
        (self.shape, self.layout, self.dtype, self.precision)
            == (other.shape, other.layout, other.dtype, other.precision)
            && self.order.is_some()
            && self.order == other.order
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GemmShape { m, n, k } = self.shape;
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

/// Complaints about picked rows that are slower than an interchangeable plan or below [`FLOOR`].
pub fn complaints(rows: &[Row]) -> Vec<String> {
    let mut complaints = Vec::new();
    for row in rows.iter().filter(|row| row.picked) {
        let name = format!("{} {} by {}", row.shape, lower(row.layout), row.plan);
        let reached = row.hot.fraction;
        // Both are fractions of one limit: their ratio is the ratio of the speeds without the drift of the clock.
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

/// The name of an enum's variant in lower case.
pub fn lower(value: impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// The median of the values; 0 if there are none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests;
