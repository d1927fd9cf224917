//! One token after the other, each drawn by itself.
//!
//! Probabilities are the softmax of `logits / temperature`: exponentials in f32 below the row's maximum, sums in f64.
//! A token of score minus infinity or NaN has none. A row without any finite sum (one with plus infinity, or nothing
//! but minus infinity and NaN) gives its argmax, as the greedy choice does.
//!
//! Each sequence has a stream of random numbers of its own, one number a token.

use super::scores::{Best, argmax};
use super::strategy::{Choice, Sampler};
use crate::weights::Random;

/// Picks tokens, in memory that all sequences reuse.
#[derive(Debug, Default)]
pub(crate) struct Picker {
    best: Best,
    weights: Vec<f32>,
}

impl Picker {
    /// The token that follows, out of a row of processed logits.
    pub(crate) fn pick(&mut self, logits: &[f32], sampler: &Sampler, random: &mut Random) -> u32 {
        let all = logits.len();
        let softmax = || Softmax::new(logits, sampler.temperature);
        let token = match sampler.choice {
            Choice::Greedy => None,
            Choice::Random => self.any(&softmax(), random),
            Choice::TopK { k } => self.likeliest(&softmax(), k, random),
            Choice::TopP { p, k } => self.nucleus(&softmax(), p, k.unwrap_or(all), random),
            Choice::Filtered { top_k: None, top_p } if top_p >= 1.0 => self.any(&softmax(), random),
            Choice::Filtered { top_k: Some(k), top_p } => self.filtered(&softmax(), k, top_p, random),
            Choice::Filtered { top_k: None, top_p } => self.filtered(&softmax(), all, top_p, random),
        };
        token.unwrap_or_else(|| argmax(logits)) as u32
    }

    /// The `k` likeliest tokens of a row, likeliest first, with their share of the whole row's probability.
    pub(crate) fn candidates(&mut self, logits: &[f32], k: usize, temperature: f32) -> Vec<(u32, f32)> {
        let softmax = Softmax::new(logits, temperature);
        let total = softmax.total();
        let best = self.best(&softmax, k).iter();
        best.map(|(x, i)| (*i as u32, (f64::from(softmax.weight(*x)) / total) as f32)).collect()
    }

    fn any(&mut self, softmax: &Softmax<'_>, random: &mut Random) -> Option<usize> {
        self.weights.clear();
        self.weights.extend(softmax.logits.iter().map(|x| softmax.weight(*x)));
        draw(self.weights.iter().copied().zip(0..), random)
    }

    fn likeliest(&mut self, softmax: &Softmax<'_>, k: usize, random: &mut Random) -> Option<usize> {
        draw(self.best(softmax, k).iter().map(|(x, i)| (softmax.weight(*x), *i)), random)
    }

    /// KerasHub's: shares of the whole row, and a token stays when those before it have at most `p`.
    fn nucleus(&mut self, softmax: &Softmax<'_>, p: f32, k: usize, random: &mut Random) -> Option<usize> {
        let share = f64::from(p) * softmax.total();
        let kept = self.ahead(softmax, k, |before| before <= share);
        draw(kept.iter().map(|(x, i)| (softmax.weight(*x), *i)), random)
    }

    /// transformers': shares of the `k` likeliest, and a token stays when those before it have less than `p`.
    fn filtered(&mut self, softmax: &Softmax<'_>, k: usize, p: f32, random: &mut Random) -> Option<usize> {
        if p >= 1.0 {
            return self.likeliest(softmax, k, random);
        }
        let total = if k < softmax.logits.len() {
            self.best(softmax, k).iter().map(|(x, _)| f64::from(softmax.weight(*x))).sum()
        } else {
            softmax.total()
        };
        let share = f64::from(p) * total;
        let kept = self.ahead(softmax, k, |before| before < share);
        draw(kept.iter().map(|(x, i)| (softmax.weight(*x), *i)), random)
    }

    /// Of the `k` likeliest tokens the first one and those that stay given the weight of all before them. Few tokens
    /// hold most of the probability as a rule, so few are sorted at first.
    fn ahead(&mut self, softmax: &Softmax<'_>, k: usize, stays: impl Fn(f64) -> bool) -> &[(f32, usize)] {
        let k = k.min(softmax.logits.len());
        let mut n = k.min(FEW);
        let kept = loop {
            let best = self.best(softmax, n);
            let mut before = 0.0;
            let left = best.iter().position(|(x, _)| {
                let leaves = before > 0.0 && !stays(before);
                before += f64::from(softmax.weight(*x));
                leaves
            });
            match left {
                Some(kept) => break kept,
                None if n == k => break best.len(),
                None => n = n.saturating_mul(8).min(k),
            }
        };
        self.best.sorted().get(..kept).unwrap_or_default()
    }

    fn best(&mut self, softmax: &Softmax<'_>, n: usize) -> &[(f32, usize)] {
        self.best.reset(n);
        softmax.logits.iter().zip(0..).for_each(|(x, i)| self.best.offer(*x, i));
        self.best.sorted()
    }
}

/// Tokens that are sorted first when the likeliest are sought by their probability.
const FEW: usize = 256;

/// A row's probabilities but for their common factor.
struct Softmax<'l> {
    logits: &'l [f32],
    max: f32,
    scale: f32,
}

impl<'l> Softmax<'l> {
    fn new(logits: &'l [f32], temperature: f32) -> Softmax<'l> {
        let max = logits.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
        Softmax { logits, max, scale: temperature }
    }

    fn weight(&self, logit: f32) -> f32 {
        // Not a number where the logit or the maximum is not finite, and then no weight.
        ((logit - self.max) / self.scale).exp().max(0.0)
    }

    fn total(&self) -> f64 {
        self.logits.iter().map(|x| f64::from(self.weight(*x))).sum()
    }
}

/// One of the tokens, as likely as its share of the weights; `None` when there is no weight.
fn draw(weights: impl Iterator<Item = (f32, usize)> + Clone, random: &mut Random) -> Option<usize> {
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
