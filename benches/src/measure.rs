//! Times the candidates of a product against each other, turn by turn.
//!
//! In a turn every candidate runs for a few milliseconds hot and as long cold, between two measurements of the
//! peak that bounds it, and a plain loop reads the same weights: the clock of a shared machine drifts, and a
//! neighbour takes a share, so a fraction is of the limit beside it. `hot` repeats one product; `cold` goes
//! through more weights than the caches hold.

use std::error::Error;
use std::time::{Duration, Instant};

use rachis_kernels::gemm::SummationOrder;
use rachis_kernels::probe::{bf16_gflops, fma_gflops, read_gbps};
use rachis_kernels::{
    AnySlice, Ctx, Elem, Gemm, GemmPlan, Layout, MatMut, MatRef, PLANS, Scratch, Weights, bf16, gemm_with,
    reuse,
};

use crate::arena::{Arena, Dtype, values};
use crate::cblas::Cblas;
use crate::peers::Product;
use crate::shape::Shape;

/// A way to compute a product.
#[derive(Clone, Copy)]
pub enum Method<'a> {
    /// One of ours.
    GemmPlan(&'static GemmPlan),
    /// A library's, for the weights as they are stored.
    Cblas(&'a Cblas),
}

impl Method<'_> {
    /// What reports call it.
    pub fn name(&self) -> &'static str {
        match self {
            Method::GemmPlan(plan) => plan.name,
            Method::Cblas(_) => "cblas",
        }
    }

    /// In which order it sums; a library does not say.
    pub fn order(&self) -> Option<SummationOrder> {
        match self {
            Method::GemmPlan(plan) => Some(plan.order),
            Method::Cblas(_) => None,
        }
    }

    /// GFLOP/s of one core that bound it: those of bfloat16 instructions for the plans made of them, and for a
    /// library's bfloat16 product where there are any.
    fn peak(&self, ctx: &Ctx, dtype: Dtype) -> f64 {
        let bf16 = match self {
            Method::GemmPlan(plan) => plan.order != SummationOrder::Ascending,
            Method::Cblas(_) => dtype == Dtype::Bf16,
        };
        let bf16 = if bf16 { bf16_gflops(ctx, 2) } else { None };
        bf16.unwrap_or_else(|| fma_gflops(ctx, 2))
    }
}

/// One candidate in one turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// GFLOP/s of one core, before or after.
    pub peak: f64,
    /// On weights just used.
    pub hot: Best,
    /// On weights that no cache holds.
    pub cold: Best,
}

/// The best of a turn.
#[derive(Debug, Clone, Copy)]
pub struct Best {
    /// The shortest call.
    pub time: Duration,
    /// GB/s at which one core, in this turn, read its share of such weights and did nothing else with them.
    pub gbps: f64,
}

const TURNS: usize = 40;
const FEWEST_TURNS: usize = 3;
/// How long a candidate runs hot in a turn, and cold, if one call is not longer.
const TURN: Duration = Duration::from_millis(5);
/// How long weights are read in a turn, hot, and cold, if one pass is not longer.
const READ: Duration = Duration::from_millis(1);
/// After which no further turn starts.
const CASE: Duration = Duration::from_millis(2500);

/// A product with memory for its operands, activations and results at cache lines, as a session has them.
pub struct Case<'a> {
    /// The dimensions.
    pub shape: Shape,
    /// How the weights lie.
    pub layout: Layout,
    arena: &'a Arena,
    /// Whether our plans read and write bf16, as a session does between its products when it rounds to bf16.
    narrow: bool,
    a: Scratch,
    /// The same rounded, also for libraries that take no mixture.
    a_bf16: Scratch,
    out: Scratch,
    scratch: Scratch,
}

impl<'a> Case<'a> {
    /// A product by the weights in `arena`, of activations in f32 or, when `narrow`, in bf16.
    pub fn new(shape: Shape, layout: Layout, arena: &'a Arena, narrow: bool) -> Case<'a> {
        let activations = values(shape.m * shape.k);
        let (mut a, mut a_bf16) = (Scratch::new(), Scratch::new());
        a.take(activations.len()).expect("memory").copy_from_slice(&activations);
        let rounded = reuse::<bf16>(a_bf16.take(activations.len().div_ceil(2)).expect("memory"));
        for (rounded, x) in rounded.iter_mut().zip(&activations) {
            *rounded = bf16::from_f32(*x);
        }
        Case { shape, layout, arena, narrow, a, a_bf16, out: Scratch::new(), scratch: Scratch::new() }
    }

    /// Everything that can compute it: the plans that fit, and the library if it takes such weights.
    pub fn candidates<'b>(&self, ctx: &Ctx, cblas: Option<&'b Cblas>) -> Vec<Method<'b>> {
        let plans =
            PLANS.iter().filter(|plan| plan.fits(ctx, self.layout, self.shape.m)).map(Method::GemmPlan);
        let cblas = cblas.filter(|cblas| cblas.takes(self.arena.dtype())).map(Method::Cblas);
        plans.chain(cblas).collect()
    }

    /// Times the candidates; for each, its turns.
    ///
    /// # Errors
    /// When a candidate does not take the product.
    pub fn time(&mut self, ctx: &Ctx, methods: &[Method<'_>]) -> Result<Vec<Vec<Turn>>, Box<dyn Error>> {
        let dtype = self.arena.dtype();
        let copies = self.arena.copies(self.shape).max(1);
        let mut turns = vec![Vec::with_capacity(TURNS); methods.len()];
        let mut next = 0;
        let started = Instant::now();
        for turn in 0..TURNS {
            if turn >= FEWEST_TURNS && started.elapsed() > CASE {
                break;
            }
            let hot_gbps = self.read(ctx, || 0);
            let cold_gbps = self.read(ctx, || {
                next = (next + 1) % copies;
                next
            });
            for i in 0..methods.len() {
                // Nobody always runs after the same one.
                let i = (i + turn) % methods.len();
                let method = &methods[i];
                let before = method.peak(ctx, dtype);
                self.run(ctx, method, 0)?;
                let hot = best_time(TURN, || self.run(ctx, method, 0))?;
                let cold = best_time(TURN, || {
                    next = (next + 1) % copies;
                    self.run(ctx, method, next)
                })?;
                turns[i].push(Turn {
                    peak: before.max(method.peak(ctx, dtype)),
                    hot: Best { time: hot, gbps: hot_gbps },
                    cold: Best { time: cold, gbps: cold_gbps },
                });
            }
        }
        Ok(turns)
    }

    /// GB/s at which one core reads its share of the weights, the best of several passes.
    fn read(&self, ctx: &Ctx, mut copy: impl FnMut() -> usize) -> f64 {
        let started = Instant::now();
        let mut best = 0.0f64;
        // One pass more than is timed brings hot weights into the cache.
        for pass in 0.. {
            let share = self.arena.share(self.shape, copy(), ctx.threads());
            let gbps = read_gbps(ctx, share, 1);
            if pass > 0 {
                best = best.max(gbps);
            }
            if pass > 0 && started.elapsed() > READ {
                break;
            }
        }
        best
    }

    /// Computes the product by the given copy of the weights.
    fn run(&mut self, ctx: &Ctx, method: &Method<'_>, copy: usize) -> Result<(), Box<dyn Error>> {
        let Case { shape, layout, .. } = *self;
        let Shape { m, n, k } = shape;
        let weights = self.arena.weights(shape, copy);
        let (a, out) = (&*self.a.take(m * k)?, self.out.take(m * n)?);
        let a_bf16 = &reuse::<bf16>(self.a_bf16.take((m * k).div_ceil(2))?)[..m * k];
        match (method, weights) {
            (Method::GemmPlan(plan), weights) => {
                let (rows, cols) = if layout == Layout::Nk { (n, k) } else { (k, n) };
                let matrix = match weights {
                    AnySlice::F32(data) => MatRef::new(data, rows, cols)?.into(),
                    AnySlice::Bf16(data) => MatRef::new(data, rows, cols)?.into(),
                    AnySlice::F16(data) => MatRef::new(data, rows, cols)?.into(),
                };
                let (weights, scratch) = (Weights { matrix, layout }, &mut self.scratch);
                if self.narrow {
                    run_plan(ctx, plan, scratch, (a_bf16, weights, &mut reuse(out)[..m * n]), shape)
                } else {
                    run_plan(ctx, plan, scratch, (a, weights, out), shape)
                }
            }
            (Method::Cblas(cblas), AnySlice::F32(weights)) => {
                cblas.gemm_f32(Product { shape, layout, a, weights, out });
                Ok(())
            }
            (Method::Cblas(cblas), AnySlice::Bf16(weights))
                if cblas.gemm_bf16(Product { shape, layout, a: a_bf16, weights, out }) =>
            {
                Ok(())
            }
            (Method::Cblas(_), _) => Err("cblas: no product of such weights".into()),
        }
    }
}

/// Computes a product with one of our plans, its activations and results of one type.
fn run_plan<T: Elem>(
    ctx: &Ctx,
    plan: &GemmPlan,
    scratch: &mut Scratch,
    (a, weights, out): (&[T], Weights<'_>, &mut [T]),
    Shape { m, n, k }: Shape,
) -> Result<(), Box<dyn Error>> {
    let product = Gemm::product(MatRef::new(a, m, k)?, weights, MatMut::new(out, m, n)?);
    Ok(gemm_with(plan, ctx, scratch, product)?)
}

/// The shortest of as many calls as fit into `budget`, and of one at least.
fn best_time<E>(budget: Duration, mut call: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    let started = Instant::now();
    let mut best = Duration::MAX;
    while best == Duration::MAX || started.elapsed() < budget {
        let start = Instant::now();
        call()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use rachis_kernels::{Level, Precision};

    use super::*;
    use crate::peers::tests::exact;

    #[test]
    fn every_candidate_computes_the_product() {
        let shape = Shape { m: 3, n: 37, k: 65 };
        for level in Level::supported() {
            for precision in Precision::ALL {
                for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
                    let ctx = Ctx::new(level).expect("supported").with_precision(precision);
                    let arena = Arena::new(dtype, 1 << 16, 4);
                    for (layout, narrow) in Layout::ALL.into_iter().flat_map(|l| [(l, false), (l, true)]) {
                        let mut case = Case::new(shape, layout, &arena, narrow);
                        let copy = arena.copies(shape) - 1;
                        let weights = match arena.weights(shape, copy) {
                            AnySlice::F32(data) => data.to_vec(),
                            AnySlice::Bf16(data) => data.iter().map(|x| x.to_f32()).collect(),
                            AnySlice::F16(data) => data.iter().map(|x| x.to_f32()).collect(),
                        };
                        let want = exact(shape, layout, &values(shape.m * shape.k), &weights);
                        let methods = case.candidates(&ctx, None);
                        assert!(!methods.is_empty());
                        for method in methods {
                            println!("{level} {precision:?} {dtype:?} {layout:?} {narrow} {}", method.name());
                            let len = shape.m * shape.n;
                            case.out.take(len).expect("memory").fill(f32::NAN);
                            case.run(&ctx, &method, copy).expect("it fits");
                            let out = case.out.take(len).expect("memory");
                            let got: Vec<f32> = if narrow {
                                reuse::<bf16>(out)[..len].iter().map(|x| x.to_f32()).collect()
                            } else {
                                out.to_vec()
                            };
                            for (got, want) in got.iter().zip(&want) {
                                assert!((f64::from(*got) - want).abs() < 0.1, "{got} {want}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_pick_is_a_candidate() {
        let arena = Arena::new(Dtype::F32, 1 << 10, 0);
        for level in Level::supported() {
            for precision in Precision::ALL {
                let ctx = Ctx::new(level).expect("supported").with_precision(precision);
                for m in [1, 8, 128] {
                    let case = Case::new(Shape { m, n: 1, k: 1 }, Layout::Nk, &arena, false);
                    let pick = GemmPlan::pick(&ctx, Layout::Nk, m).name;
                    let named = case.candidates(&ctx, None).iter().filter(|c| c.name() == pick).count();
                    assert_eq!(named, 1, "{level} {precision:?} {m}");
                }
            }
        }
    }

    #[test]
    fn one_call_is_timed_whatever_the_budget() {
        let mut calls = 0;
        let time = best_time(Duration::ZERO, || {
            calls += 1;
            Ok::<(), ()>(())
        });
        assert!(time.is_ok_and(|time| time < Duration::MAX));
        assert_eq!(calls, 1);
        assert_eq!(best_time(Duration::ZERO, || Err(7)), Err(7));
    }
}
