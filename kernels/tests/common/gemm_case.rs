//! One matrix product, from its description to the comparison with the oracle. The tests and the fuzz target
//! `gemm_vs_oracle` share it.

use rachis_kernels::gemm::K_BLOCK;
use rachis_kernels::{Ctx, Gemm, Layout, Precision, Scratch, Weights, bf16, gemm};
use rachis_testkit::shapes::GemmShape;
use rachis_testkit::{Grid, Kind, Rng, Storage, data, oracle, tolerance};

use super::{Element, activation, view, view_mut};

/// A product, described.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub shape: GemmShape,
    pub layout: Layout,
    pub precision: Precision,
    pub bias: bool,
    pub activation: oracle::Activation,
    pub residual: bool,
    /// Guards between the rows of a, the weights, the residual and the output.
    pub gaps: [usize; 4],
    /// What a and the weights look like.
    pub kinds: [Kind; 2],
    /// Whether NaN and infinities are strewn into a and the weights.
    pub specials: bool,
    pub seed: u64,
}

impl Case {
    /// A plain product of uniform data without gaps.
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
    /// In the layout of the case.
    pub weights: Grid<W>,
    pub bias: Option<Vec<W>>,
    pub residual: Option<Grid<C>>,
}

impl<A: Element, W: Element, C: Element> Operands<A, W, C> {
    /// The operands that the case's seed gives.
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

    /// The result of the kernel, which has written nothing but its elements.
    pub fn run(&self, ctx: &Ctx, scratch: &mut Scratch) -> Grid<C> {
        let ctx = ctx.with_precision(self.case.precision);
        let GemmShape { m, n, .. } = self.case.shape;
        let mut out = Grid::new(&vec![C::from_f32(f32::NAN); m * n], (m, n), self.case.gaps[3]);
        let weights = Weights { matrix: W::matrix(view(&self.weights)), layout: self.case.layout };
        let op = Gemm {
            bias: self.bias.as_deref().map(W::vector),
            activation: activation(self.case.activation),
            residual: self.residual.as_ref().map(view),
            ..Gemm::product(view(&self.a), weights, view_mut(&mut out))
        };
        gemm(&ctx, scratch, op).unwrap();
        out.assert_guards();
        out
    }

    /// The oracle's operands: widened, and rounded to bf16 where the precision asks for it.
    pub fn oracle(&self) -> oracle::Gemm {
        let GemmShape { m, n, k } = self.case.shape;
        let operand = |values: Vec<f64>| match self.case.precision {
            Precision::Strict => values,
            Precision::Bf16 => values.into_iter().map(<bf16 as Storage>::nearest).collect(),
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

    /// Runs the kernel and compares every element with the oracle. The largest share of its bound that an
    /// element uses, where f32 is stored.
    #[track_caller]
    pub fn check(&self, ctx: &Ctx, scratch: &mut Scratch, oracle: &oracle::Gemm) -> f64 {
        let GemmShape { m, n, k } = self.case.shape;
        let out = self.run(ctx, scratch);
        let mut worst = 0.0f64;
        for i in 0..m {
            for j in 0..n {
                let got = out.at(i, j);
                let bound = tolerance::gemm(&oracle.at(i, j), self.case.activation, k, K_BLOCK);
                bound.check(got, || {
                    let types = (A::NAME, W::NAME, C::NAME);
                    format!("{} {types:?} {:?}, row {i}, column {j}", ctx.level(), self.case)
                });
                if bound.exact.is_finite() && bound.error > 0.0 {
                    worst = worst.max((got.to_f64() - bound.exact).abs() / bound.error);
                }
            }
        }
        worst
    }
}

/// Runs a case and compares it with the oracle.
#[track_caller]
pub fn check_case<A: Element, W: Element, C: Element>(ctx: &Ctx, case: Case) -> f64 {
    let operands = Operands::<A, W, C>::new(case);
    operands.check(ctx, &mut Scratch::new(), &operands.oracle())
}
