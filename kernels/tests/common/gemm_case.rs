//! A matrix product: operands, the call, and the comparison with the oracle's bounds. The tests and the fuzz target
//! `gemm_vs_oracle` share it.

use rachis_kernels::gemm::SummationOrder;
use rachis_kernels::{
    Combine, Ctx, Gemm, GemmPlan, Layout, PLANS, Part, Precision, Scratch, Weights, bf16, gemm, gemm_with,
};
use rachis_testkit::shapes::GemmShape;
use rachis_testkit::tolerance::{SMALLEST_NORMAL, Sums};
use rachis_testkit::{Grid, Kind, Rng, Storage, data, oracle, tolerance};

use super::{Element, activation, view, view_mut};

/// What to multiply, and how.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub shape: GemmShape,
    pub layout: Layout,
    pub precision: Precision,
    pub bias: bool,
    pub activation: oracle::Activation,
    pub residual: bool,
    /// Elements between the rows of a, the weights, the residual and the output.
    pub gaps: [usize; 4],
    /// The kinds of numbers in a and in the weights.
    pub kinds: [Kind; 2],
    /// Whether a and the weights have NaN and infinities at random places.
    pub specials: bool,
    pub seed: u64,
}

impl Case {
    /// A product alone, of uniform numbers, in matrices without gaps.
    pub fn new(shape: GemmShape, layout: Layout) -> Case {
        Case {
            shape,
            layout,
            precision: Precision::Strict,
            bias: false,
            activation: oracle::Activation::Identity,
            residual: false,
            gaps: [0; 4],
            kinds: [Kind::Uniform; 2],
            specials: false,
            seed: 1,
        }
    }
}

/// The operands of a case.
pub struct Operands<A, W, C> {
    pub case: Case,
    pub a: Grid<A>,
    /// The weights, in the layout of the case.
    pub weights: Grid<W>,
    pub bias: Option<Vec<W>>,
    pub residual: Option<Grid<C>>,
}

impl<A: Element, W: Element, C: Element> Operands<A, W, C> {
    /// Random operands from the case's seed.
    pub fn new(case: Case) -> Self {
        let GemmShape { m, n, k } = case.shape;
        let mut rng = Rng::new(case.seed);
        let mut a = data::values::<A>(&mut rng, case.kinds[0], m * k);
        let mut w = data::values::<W>(&mut rng, case.kinds[1], n * k);
        if case.specials {
            data::inject_specials(&mut rng, &mut a, 4 * k.max(1));
            data::inject_specials(&mut rng, &mut w, 8 * k.max(1));
        }
        let stored = if case.layout == Layout::Nk { (n, k) } else { (k, n) };
        Operands {
            case,
            a: Grid::new(&a, (m, k), case.gaps[0]),
            weights: Grid::new(&w, stored, case.gaps[1]),
            bias: case.bias.then(|| data::values(&mut rng, Kind::Uniform, n)),
            residual: case.residual.then(|| Grid::random(&mut rng, Kind::Uniform, (m, n), case.gaps[2])),
        }
    }

    /// The output of the plan that a context picks.
    pub fn run(&self, ctx: &Ctx, scratch: &mut Scratch) -> Grid<C> {
        let ctx = ctx.with_precision(self.case.precision);
        self.run_with(GemmPlan::pick(&ctx, self.case.layout, self.case.shape.m), &ctx, scratch)
    }

    /// The output of a plan. Nothing but its elements was written.
    pub fn run_with(&self, plan: &GemmPlan, ctx: &Ctx, scratch: &mut Scratch) -> Grid<C> {
        let ctx = ctx.with_precision(self.case.precision);
        let mut out = self.unwritten();
        let residual = self.residual.as_ref().map(view);
        let op = Gemm { residual, ..Gemm::of(view(&self.a), self.part(), view_mut(&mut out)) };
        gemm_with(plan, &ctx, scratch, op).unwrap();
        out.assert_guards();
        out
    }

    /// The output of one call with the weights cut into two parts at column `at`.
    pub fn run_in_parts(&self, ctx: &Ctx, scratch: &mut Scratch, at: usize) -> Grid<C> {
        let (ctx, GemmShape { n, .. }) = (ctx.with_precision(self.case.precision), self.case.shape);
        let parts = [0..at.min(n), at.min(n)..n].map(|columns| {
            let weights = view(&self.weights);
            let matrix = match self.case.layout {
                Layout::Nk => weights.rows_range(columns.clone()),
                Layout::Kn => weights.columns(columns.start, columns.len()).unwrap(),
            };
            let bias = self.bias.as_deref().map(|bias| W::vector(&bias[columns]));
            let weights = Weights { matrix: W::matrix(matrix), layout: self.case.layout };
            Part { weights, bias, activation: activation(self.case.activation) }
        });
        self.run_combined(&ctx, scratch, parts, Combine::Columns)
    }

    /// The output of one call that multiplies two equal parts.
    pub fn run_squared(&self, ctx: &Ctx, scratch: &mut Scratch) -> Grid<C> {
        let ctx = ctx.with_precision(self.case.precision);
        self.run_combined(&ctx, scratch, [self.part(); 2], Combine::Product)
    }

    fn run_combined(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        parts: [Part<'_>; 2],
        combine: Combine,
    ) -> Grid<C> {
        let mut out = self.unwritten();
        let (a, residual) = (view(&self.a), self.residual.as_ref().map(view));
        gemm(ctx, scratch, Gemm { a, parts, combine, residual, out: view_mut(&mut out) }).unwrap();
        out.assert_guards();
        out
    }

    /// All weights as one part, with bias and activation.
    fn part(&self) -> Part<'_> {
        let weights = Weights { matrix: W::matrix(view(&self.weights)), layout: self.case.layout };
        let bias = self.bias.as_deref().map(W::vector);
        Part { weights, bias, activation: activation(self.case.activation) }
    }

    /// An output of NaN.
    fn unwritten(&self) -> Grid<C> {
        let GemmShape { m, n, .. } = self.case.shape;
        Grid::new(&vec![C::from_f32(f32::NAN); m * n], (m, n), self.case.gaps[3])
    }

    /// The oracle's operands: widened, and rounded to bf16 if the precision rounds them.
    pub fn oracle(&self) -> oracle::Gemm {
        self.oracle_of(SummationOrder::Ascending)
    }

    /// The oracle's operands as a plan with this order multiplies them: all orders but the ascending take subnormal numbers
    /// for zero.
    fn oracle_of(&self, order: SummationOrder) -> oracle::Gemm {
        let GemmShape { m, n, k } = self.case.shape;
        let operand = |values: Vec<f64>| -> Vec<f64> {
            let flushes_subnormals = order != SummationOrder::Ascending;
            let values = values
                .into_iter()
                .map(|x| if flushes_subnormals && x.abs() < SMALLEST_NORMAL { 0.0 * x } else { x });
            match self.case.precision {
                Precision::Strict | Precision::Bf16x6 => values.collect(),
                Precision::Bf16 => values.map(<bf16 as Storage>::nearest).collect(),
            }
        };
        let w = operand(self.weights.exact());
        oracle::Gemm {
            m,
            n,
            k,
            a: operand(self.a.exact()),
            w: if self.case.layout == Layout::Nk { w } else { oracle::transpose(&w, k, n) },
            bias: self.bias.as_ref().map(|bias| bias.iter().map(|x| x.to_f64()).collect()),
            activation: self.case.activation,
            residual: self.residual.as_ref().map(Grid::exact),
        }
    }

    /// Runs every plan that fits and compares every element with its bound. Returns the largest error in units of the
    /// bound; where 16 bits are stored, rounding for storage may make that more than 1.
    #[track_caller]
    pub fn check(&self, ctx: &Ctx, scratch: &mut Scratch, oracle: &oracle::Gemm) -> f64 {
        let ctx = ctx.with_precision(self.case.precision);
        let fitting = PLANS.iter().filter(|plan| plan.fits(&ctx, self.case.layout, self.case.shape.m));
        fitting.map(|plan| self.check_plan(plan, &ctx, scratch, oracle)).fold(0.0, f64::max)
    }

    #[track_caller]
    fn check_plan(&self, plan: &GemmPlan, ctx: &Ctx, scratch: &mut Scratch, oracle: &oracle::Gemm) -> f64 {
        let GemmShape { m, n, k } = self.case.shape;
        let out = self.run_with(plan, ctx, scratch);
        let flushed = (plan.order != SummationOrder::Ascending).then(|| self.oracle_of(plan.order));
        let oracle = flushed.as_ref().unwrap_or(oracle);
        let largest = |values: &[f64]| values.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
        let sums = match plan.order {
            SummationOrder::Ascending => Sums::ascending(k),
            SummationOrder::Pairs => Sums::in_pairs(k),
            SummationOrder::Tiles => Sums::in_tiles(k),
            SummationOrder::SplitTiles => Sums::in_split_tiles(k, [largest(&oracle.a), largest(&oracle.w)]),
        };
        let mut worst = 0.0f64;
        for i in 0..m {
            for j in 0..n {
                let got = out.at(i, j);
                let bound = tolerance::gemm(&oracle.at(i, j), self.case.activation, sums);
                bound.check(got, || {
                    let types = (A::NAME, W::NAME, C::NAME);
                    let place = format!("{} {}", ctx.level(), plan.name);
                    format!("{place} {types:?} {:?}, row {i}, column {j}", self.case)
                });
                if bound.exact.is_finite() && bound.error > 0.0 {
                    worst = worst.max((got.to_f64() - bound.exact).abs() / bound.error);
                }
            }
        }
        worst
    }
}

/// Computes a case by every plan that fits and compares it with the oracle; see [`Operands::check`].
#[track_caller]
pub fn check_case<A: Element, W: Element, C: Element>(ctx: &Ctx, case: Case) -> f64 {
    let operands = Operands::<A, W, C>::new(case);
    operands.check(ctx, &mut Scratch::new(), &operands.oracle())
}
