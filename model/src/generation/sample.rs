//! Sampling: one token at a time from the distribution of the next token.
//!
//! Probabilities are `softmax(logits / temperature)`, computed from the row's maximum down: exponentials in f32, sums
//! in f64. A token of score minus infinity or NaN has probability 0. A row whose sum is not finite and positive (it
//! has plus infinity, or nothing but minus infinity and NaN) gives its argmax, like the greedy choice.
//!
//! Each sequence has its own stream of random numbers and draws one number per token.

use super::scores::{TopKSelector, argmax};
use super::strategy::{Sampler, SamplingMethod};
use crate::weights::Random;

/// Chooses tokens by a [`Sampler`], in buffers that all sequences reuse.
#[derive(Debug, Default)]
pub(crate) struct TokenSampler {
    selector: TopKSelector,
    numerators: Vec<f32>,
}

impl TokenSampler {
    /// The next token, from a row of processed logits.
    pub(crate) fn sample(&mut self, logits: &[f32], sampler: &Sampler, random: &mut Random) -> u32 {
        let vocabulary = logits.len();
        let softmax = || Softmax::new(logits, sampler.temperature);
        let token = match sampler.method {
            SamplingMethod::Greedy => None,
            SamplingMethod::Random => self.sample_all(&softmax(), random),
            SamplingMethod::TopK { k } => self.sample_top_k(&softmax(), k, random),
            SamplingMethod::TopP { p, k } => {
                self.sample_top_p(&softmax(), p, k.unwrap_or(vocabulary), random)
            }
            SamplingMethod::Filtered { top_k: None, top_p } if top_p >= 1.0 => {
                self.sample_all(&softmax(), random)
            }
            SamplingMethod::Filtered { top_k, top_p } => {
                self.sample_filtered(&softmax(), top_k.unwrap_or(vocabulary), top_p, random)
            }
        };
        token.unwrap_or_else(|| argmax(logits)) as u32
    }

    /// The `k` most probable tokens, in descending order, with their probabilities in the whole row.
    pub(crate) fn top_k(&mut self, logits: &[f32], k: usize, temperature: f32) -> Vec<(u32, f32)> {
        let softmax = Softmax::new(logits, temperature);
        let denominator = softmax.denominator();
        let top = self.select(&softmax, k).iter();
        top.map(|(x, i)| (*i as u32, (f64::from(softmax.numerator(*x)) / denominator) as f32)).collect()
    }

    fn sample_all(&mut self, softmax: &Softmax<'_>, random: &mut Random) -> Option<usize> {
        self.numerators.clear();
        self.numerators.extend(softmax.logits.iter().map(|x| softmax.numerator(*x)));
        multinomial(self.numerators.iter().copied().zip(0..), random)
    }

    fn sample_top_k(&mut self, softmax: &Softmax<'_>, k: usize, random: &mut Random) -> Option<usize> {
        multinomial(self.select(softmax, k).iter().map(|(x, i)| (softmax.numerator(*x), *i)), random)
    }

    /// KerasHub's nucleus: `p` is a share of the whole row, and a token is kept if the tokens before it have at most
    /// `p`.
    fn sample_top_p(
        &mut self,
        softmax: &Softmax<'_>,
        p: f32,
        k: usize,
        random: &mut Random,
    ) -> Option<usize> {
        let limit = f64::from(p) * softmax.denominator();
        let nucleus = self.nucleus(softmax, k, |before| before <= limit);
        multinomial(nucleus.iter().map(|(x, i)| (softmax.numerator(*x), *i)), random)
    }

    /// transformers' warpers: `p` is a share of the `k` most probable tokens, and a token is kept if the tokens
    /// before it have less than `p`.
    fn sample_filtered(
        &mut self,
        softmax: &Softmax<'_>,
        k: usize,
        p: f32,
        random: &mut Random,
    ) -> Option<usize> {
        if p >= 1.0 {
            return self.sample_top_k(softmax, k, random);
        }
        let total = if k < softmax.logits.len() {
            self.select(softmax, k).iter().map(|(x, _)| f64::from(softmax.numerator(*x))).sum()
        } else {
            softmax.denominator()
        };
        let limit = f64::from(p) * total;
        let nucleus = self.nucleus(softmax, k, |before| before < limit);
        multinomial(nucleus.iter().map(|(x, i)| (softmax.numerator(*x), *i)), random)
    }

    /// Of the `k` most probable tokens, in descending order, the first one and those for which `keep` is true of the
    /// sum of the numerators before them. Few tokens usually hold most of the probability, so [`FIRST_SELECTION`]
    /// tokens are sorted first, and more only when the nucleus is larger.
    fn nucleus(&mut self, softmax: &Softmax<'_>, k: usize, keep: impl Fn(f64) -> bool) -> &[(f32, usize)] {
        let k = k.min(softmax.logits.len());
        let mut n = k.min(FIRST_SELECTION);
        let len = loop {
            let top = self.select(softmax, n);
            let mut before = 0.0;
            let end = top.iter().position(|(x, _)| {
                let outside = before > 0.0 && !keep(before);
                before += f64::from(softmax.numerator(*x));
                outside
            });
            match end {
                Some(len) => break len,
                None if n == k => break top.len(),
                None => n = n.saturating_mul(8).min(k),
            }
        };
        self.selector.sorted().get(..len).unwrap_or_default()
    }

    /// The `n` highest logits with their indices, in descending order.
    fn select(&mut self, softmax: &Softmax<'_>, n: usize) -> &[(f32, usize)] {
        self.selector.reset(n);
        softmax.logits.iter().zip(0..).for_each(|(x, i)| self.selector.offer(*x, i));
        self.selector.sorted()
    }
}

/// Number of tokens that are sorted first to find a nucleus.
const FIRST_SELECTION: usize = 256;

/// The softmax of `logits / temperature`, as numerators and their sum, the denominator.
struct Softmax<'l> {
    logits: &'l [f32],
    max: f32,
    temperature: f32,
}

impl<'l> Softmax<'l> {
    fn new(logits: &'l [f32], temperature: f32) -> Softmax<'l> {
        let max = logits.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
        Softmax { logits, max, temperature }
    }

    /// `exp((logit - max) / temperature)`
    fn numerator(&self, logit: f32) -> f32 {
        // NaN where the logit or the maximum is not finite; `max` makes it 0.
        ((logit - self.max) / self.temperature).exp().max(0.0)
    }

    fn denominator(&self) -> f64 {
        self.logits.iter().map(|x| f64::from(self.numerator(*x))).sum()
    }
}

/// Draws a token with a probability proportional to its weight; `None` when no weight is positive.
fn multinomial(weights: impl Iterator<Item = (f32, usize)> + Clone, random: &mut Random) -> Option<usize> {
    let total: f64 = weights.clone().map(|(weight, _)| f64::from(weight)).sum();
    let target = uniform(random) * total;
    let (mut sum, mut last) = (0.0, None);
    for (weight, token) in weights.filter(|(weight, _)| *weight > 0.0) {
        sum += f64::from(weight);
        last = Some(token);
        if sum > target {
            break;
        }
    }
    last
}

/// Uniform in [0, 1), in steps of 2^-53.
fn uniform(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests;
