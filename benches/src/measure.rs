//! Times the candidates of a product in rounds.
//!
//! In a round every candidate runs for a few milliseconds hot and for as long cold, between two measurements of the peak that
//! bounds it, and a plain loop reads the same weights. The clock of a shared machine drifts, and other processes take their
//! share, so a fraction is of the limit that was measured in the same round. Hot runs repeat one product; cold runs loop over
//! more weights than the caches hold.

use std::error::Error;
use std::time::{Duration, Instant};

use rachis_kernels::gemm::SummationOrder;
use rachis_kernels::probe::{bf16_gflops, fma_gflops, read_gbps};
use rachis_kernels::{
    AnySlice, Ctx, Dtype, Elem, Gemm, GemmPlan, Layout, MatMut, MatRef, PLANS, Scratch, Weights, bf16,
    gemm_with, reuse,
};

use rachis_testkit::shapes::GemmShape;

use crate::arena::{Arena, values};
use crate::cblas::Cblas;
use crate::peers::Product;

/// A way to compute a product.
#[derive(Clone, Copy)]
pub enum Method<'a> {
    /// A plan of this library.
    Rachis(&'static GemmPlan),
    /// A CBLAS library's product, for weights of the type that they are stored in.
    Cblas(&'a Cblas),
}

impl Method<'_> {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Method::Rachis(plan) => plan.name,
            Method::Cblas(_) => "cblas",
        }
    }

    /// The order in which it sums; a CBLAS library does not document one.
    pub fn order(&self) -> Option<SummationOrder> {
        match self {
            Method::Rachis(plan) => Some(plan.order),
            Method::Cblas(_) => None,
        }
    }

    /// The peak of one core that bounds it, in GFLOP/s: that of bfloat16 instructions for plans that use them, and for a CBLAS
    /// library's bfloat16 product if the level has such instructions.
    fn peak(&self, ctx: &Ctx, dtype: Dtype) -> f64 {
        let bf16 = match self {
            Method::Rachis(plan) => plan.order != SummationOrder::Ascending,
            Method::Cblas(_) => dtype == Dtype::Bfloat16,
        };
        let bf16 = if bf16 { bf16_gflops(ctx, 2) } else { None };
        bf16.unwrap_or_else(|| fma_gflops(ctx, 2))
    }
}

/// The measurements of one candidate in one round.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// GFLOP/s of one core: the larger of the measurements before and after the candidate.
    pub peak: f64,
    /// On weights that were just used.
    pub hot: Timing,
    /// On weights that no cache holds.
    pub cold: Timing,
}

/// The shortest call of a round, and the bandwidth measured beside it.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The shortest call.
    pub time: Duration,
    /// GB/s at which one core read its share of such weights in this round, without computing anything.
    pub gbps: f64,
}

const ROUNDS: usize = 40;
const MIN_ROUNDS: usize = 3;
/// Time for which a candidate runs hot in a round, and cold, unless one call takes longer.
const CANDIDATE_TIME: Duration = Duration::from_millis(5);
/// Time for which weights are read in a round, hot, and cold, unless one pass takes longer.
const READ_TIME: Duration = Duration::from_millis(1);
/// Time after which no further round starts.
const CASE_TIME: Duration = Duration::from_millis(2500);

/// The type of our activations and results. A session keeps them in bfloat16 between its products when it rounds to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// float32
    Float32,
    /// bfloat16
    Bfloat16,
}

/// A product with memory for its operands. Activations and results start at cache lines, as in a session.
pub struct Case<'a> {
    /// The dimensions.
    pub shape: GemmShape,
    /// How the weights lie.
    pub layout: Layout,
    arena: &'a Arena,
    /// The type of activations and results for our plans.
    activations: Activations,
    a: Scratch,
    /// The activations in bf16, which bf16 products of CBLAS libraries take too.
    a_bf16: Scratch,
    out: Scratch,
    scratch: Scratch,
}

impl<'a> Case<'a> {
    /// A product by weights of `arena`.
    pub fn new(shape: GemmShape, layout: Layout, arena: &'a Arena, activations: Activations) -> Case<'a> {
        let x = values(shape.m * shape.k);
        let (mut a, mut a_bf16) = (Scratch::new(), Scratch::new());
        a.take(x.len()).expect("memory").copy_from_slice(&x);
        let rounded = reuse::<bf16>(a_bf16.take(x.len().div_ceil(2)).expect("memory"));
        for (rounded, x) in rounded.iter_mut().zip(&x) {
            *rounded = bf16::from_f32(*x);
        }
        Case { shape, layout, arena, activations, a, a_bf16, out: Scratch::new(), scratch: Scratch::new() }
    }

    /// Everything that can compute the product: the plans that fit, and the CBLAS library if it takes such weights.
    pub fn candidates<'b>(&self, ctx: &Ctx, cblas: Option<&'b Cblas>) -> Vec<Method<'b>> {
        let plans = PLANS.iter().filter(|plan| plan.fits(ctx, self.layout, self.shape.m)).map(Method::Rachis);
        let cblas = cblas.filter(|cblas| cblas.takes(self.arena.dtype())).map(Method::Cblas);
        plans.chain(cblas).collect()
    }

    /// Times the candidates; returns the rounds of each.
    ///
    /// # Errors
    /// When a candidate refuses the product.
    pub fn time(&mut self, ctx: &Ctx, methods: &[Method<'_>]) -> Result<Vec<Vec<Round>>, Box<dyn Error>> {
        let dtype = self.arena.dtype();
        let copies = self.arena.copies(self.shape).max(1);
        let mut rounds = vec![Vec::with_capacity(ROUNDS); methods.len()];
        let mut next = 0;
        let started = Instant::now();
        for round in 0..ROUNDS {
            if round >= MIN_ROUNDS && started.elapsed() > CASE_TIME {
                break;
            }
            let hot_gbps = self.read(ctx, || 0);
            let cold_gbps = self.read(ctx, || {
                next = (next + 1) % copies;
                next
            });
            for i in 0..methods.len() {
                // The order changes, so that no candidate always runs after the same one.
                let i = (i + round) % methods.len();
                let method = &methods[i];
                let before = method.peak(ctx, dtype);
                self.run(ctx, method, 0)?;
                let hot = best_time(CANDIDATE_TIME, || self.run(ctx, method, 0))?;
                let cold = best_time(CANDIDATE_TIME, || {
                    next = (next + 1) % copies;
                    self.run(ctx, method, next)
                })?;
                rounds[i].push(Round {
                    peak: before.max(method.peak(ctx, dtype)),
                    hot: Timing { time: hot, gbps: hot_gbps },
                    cold: Timing { time: cold, gbps: cold_gbps },
                });
            }
        }
        Ok(rounds)
    }

    /// GB/s at which one core reads its share of the weights: the best of several passes.
    fn read(&self, ctx: &Ctx, mut copy: impl FnMut() -> usize) -> f64 {
        let started = Instant::now();
        let mut best = 0.0f64;
        // The first pass is not timed: it loads hot weights into the cache.
        for pass in 0.. {
            let share = self.arena.share(self.shape, copy(), ctx.threads());
            let gbps = read_gbps(ctx, share, 1);
            if pass > 0 {
                best = best.max(gbps);
            }
            if pass > 0 && started.elapsed() > READ_TIME {
                break;
            }
        }
        best
    }

    /// Computes the product with the given copy of the weights.
    fn run(&mut self, ctx: &Ctx, method: &Method<'_>, copy: usize) -> Result<(), Box<dyn Error>> {
        let Case { shape, layout, .. } = *self;
        let GemmShape { m, n, k } = shape;
        let weights = self.arena.weights(shape, copy);
        let (a, out) = (&*self.a.take(m * k)?, self.out.take(m * n)?);
        let a_bf16 = &reuse::<bf16>(self.a_bf16.take((m * k).div_ceil(2))?)[..m * k];
        match (method, weights) {
            (Method::Rachis(plan), weights) => {
                let (rows, cols) = if layout == Layout::Nk { (n, k) } else { (k, n) };
                let matrix = match weights {
                    AnySlice::F32(data) => MatRef::new(data, rows, cols)?.into(),
                    AnySlice::Bf16(data) => MatRef::new(data, rows, cols)?.into(),
                    AnySlice::F16(data) => MatRef::new(data, rows, cols)?.into(),
                };
                let (weights, scratch) = (Weights { matrix, layout }, &mut self.scratch);
                match self.activations {
                    Activations::Float32 => run_plan(ctx, plan, scratch, (a, weights, out), shape),
                    Activations::Bfloat16 => {
                        let out = &mut reuse(out)[..m * n];
                        run_plan(ctx, plan, scratch, (a_bf16, weights, out), shape)
                    }
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

/// Computes a product with one of our plans. Activations and results have one type.
fn run_plan<T: Elem>(
    ctx: &Ctx,
    plan: &GemmPlan,
    scratch: &mut Scratch,
    (a, weights, out): (&[T], Weights<'_>, &mut [T]),
    GemmShape { m, n, k }: GemmShape,
) -> Result<(), Box<dyn Error>> {
    let product = Gemm::product(MatRef::new(a, m, k)?, weights, MatMut::new(out, m, n)?);
    Ok(gemm_with(plan, ctx, scratch, product)?)
}

/// The shortest of as many calls as fit into `budget`, at least one.
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
        let shape = GemmShape { m: 3, n: 37, k: 65 };
        for level in Level::supported() {
            for precision in Precision::ALL {
                for dtype in Dtype::ALL {
                    let ctx = Ctx::new(level).expect("supported").with_precision(precision);
                    let arena = Arena::new(dtype, 1 << 16, 4);
                    let types = [Activations::Float32, Activations::Bfloat16];
                    let cases = Layout::ALL.into_iter().flat_map(|layout| types.map(|of| (layout, of)));
                    for (layout, activations) in cases {
                        let mut case = Case::new(shape, layout, &arena, activations);
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
                            println!(
                                "{level} {precision} {dtype} {layout} {activations:?} {}",
                                method.name()
                            );
                            let len = shape.m * shape.n;
                            case.out.take(len).expect("memory").fill(f32::NAN);
                            case.run(&ctx, &method, copy).expect("it fits");
                            let out = case.out.take(len).expect("memory");
                            let got: Vec<f32> = match activations {
                                Activations::Float32 => out.to_vec(),
                                Activations::Bfloat16 => {
                                    reuse::<bf16>(out)[..len].iter().map(|x| x.to_f32()).collect()
                                }
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
        let arena = Arena::new(Dtype::Float32, 1 << 10, 0);
        for level in Level::supported() {
            for precision in Precision::ALL {
                let ctx = Ctx::new(level).expect("supported").with_precision(precision);
                for m in [1, 8, 128] {
                    let case =
                        Case::new(GemmShape { m, n: 1, k: 1 }, Layout::Nk, &arena, Activations::Float32);
                    let pick = GemmPlan::pick(&ctx, Layout::Nk, m).name;
                    let named = case.candidates(&ctx, None).iter().filter(|c| c.name() == pick).count();
                    assert_eq!(named, 1, "{level} {precision:?} {m}");
                }
            }
        }
    }

    #[test]
    fn at_least_one_call_is_timed() {
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
