//! Sampling: one token at a time from the distribution of the next token.
//!
//! Probabilities are `softmax(logits / temperature)`, computed from the row's maximum down: exponentials in f32, sums
//! in f64. A token of score minus infinity or NaN has probability 0. A row whose sum is not finite and positive (it
//! has plus infinity, or nothing but minus infinity and NaN) gives its argmax, like the greedy choice.
//!
//! Each sequence has its own stream of random numbers and draws one number per token.

use super::filters::{Candidates, weight};
use super::scores::argmax;
use super::strategy::{Sampler, SamplingMethod};
use crate::weights::Random;

/// Chooses tokens by a [`Sampler`], in buffers that all sequences reuse.
#[derive(Debug, Default)]
pub(crate) struct TokenSampler {
    candidates: Candidates,
    /// `(logits - maximum) / temperature`
    scaled: Vec<f32>,
}

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) token: u32,
    /// The probability that it was drawn with; `None` when it was not drawn but is the argmax.
    pub(crate) probability: Option<f64>,
}

impl TokenSampler {
    /// The next token, from a row of processed logits.
    pub(crate) fn sample(&mut self, logits: &[f32], sampler: &Sampler, random: &mut Random) -> Chosen {
        let drawn = match sampler.method {
            SamplingMethod::Greedy => None,
            method => {
                self.scale(logits, sampler.temperature);
                match method {
                    SamplingMethod::Greedy | SamplingMethod::Random => self.draw_from_all(random),
                    SamplingMethod::Filtered(filters) if filters.keep_all() => self.draw_from_all(random),
                    SamplingMethod::Filtered(filters) => {
                        self.candidates.collect(&self.scaled, &filters, 1);
                        self.draw(random)
                    }
                    SamplingMethod::TopK { k } => {
                        self.candidates.select(&self.scaled, k);
                        self.draw(random)
                    }
                    SamplingMethod::TopP { p, k } => {
                        match k {
                            Some(k) => self.candidates.select(&self.scaled, k),
                            None => self.candidates.take_all(&self.scaled),
                        }
                        // KerasHub's nucleus: `p` is a share of the whole row, and a token is kept if the tokens before
                        // it have at most `p`.
                        let total: f64 = self.scaled.iter().map(|x| f64::from(weight(*x, 0.0))).sum();
                        let limit = f64::from(p) * total;
                        self.candidates.keep_nucleus(1, |before| before <= limit);
                        self.draw(random)
                    }
                }
            }
        };
        let (token, probability) = drawn.map_or_else(|| (argmax(logits), None), |(i, p)| (i, Some(p)));
        Chosen { token: token as u32, probability }
    }

    /// The `k` most probable tokens, in descending order, with their probabilities in the whole row.
    pub(crate) fn top_k(&mut self, logits: &[f32], k: usize, temperature: f32) -> Vec<(u32, f32)> {
        self.scale(logits, temperature);
        self.candidates.select(&self.scaled, k);
        let total: f64 = self.scaled.iter().map(|x| f64::from(weight(*x, 0.0))).sum();
        let top = self.candidates.list().iter();
        top.map(|(x, i)| (*i as u32, (f64::from(weight(*x, 0.0)) / total) as f32)).collect()
    }

    fn scale(&mut self, logits: &[f32], temperature: f32) {
        let max = logits.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
        self.scaled.clear();
        self.scaled.extend(logits.iter().map(|x| (x - max) / temperature));
    }

    fn draw_from_all(&mut self, random: &mut Random) -> Option<(usize, f64)> {
        self.scaled.iter_mut().for_each(|x| *x = weight(*x, 0.0));
        multinomial(self.scaled.iter().copied().zip(0..), random)
    }

    fn draw(&self, random: &mut Random) -> Option<(usize, f64)> {
        multinomial(self.candidates.list().iter().map(|(x, i)| (weight(*x, 0.0), *i)), random)
    }
}

/// Draws a token with a probability proportional to its weight, and says which; `None` when no weight is positive.
fn multinomial(
    weights: impl Iterator<Item = (f32, usize)> + Clone,
    random: &mut Random,
) -> Option<(usize, f64)> {
    let total: f64 = weights.clone().map(|(weight, _)| f64::from(weight)).sum();
    let target = uniform(random) * total;
    let (mut sum, mut last) = (0.0, None);
    for (weight, token) in weights.filter(|(weight, _)| *weight > 0.0) {
        sum += f64::from(weight);
        last = Some((token, f64::from(weight) / total));
        if sum > target {
            break;
        }
    }
    last
}

/// Uniform in [0, 1), in steps of 2^-53.
pub(crate) fn uniform(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests;
