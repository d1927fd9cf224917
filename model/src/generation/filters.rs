//! transformers' sampling filters, its logits warpers: which tokens stay candidates for a draw.
//!
//! They are applied in transformers' order: `top_h`, `top_k`, `top_p`, `min_p`, `typical_p`, `epsilon_cutoff`,
//! `eta_cutoff`. Each one sees the distribution of what the filters before it have left, normalised anew.
//!
//! # Numerics
//! Weights are `exp(score - maximum)` in f32, and their sums and entropies are f64. A token of score minus infinity or
//! NaN is no candidate. At least one candidate stays.

use super::scores::{Scored, TopKSelector, order};
use crate::config::{LARGEST_TABLE, field, rate, within};
use crate::error::Result;

/// Which tokens stay candidates for a draw: transformers' sampling arguments. The default keeps all.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Filters {
    /// `top_k`: the most probable tokens, and those as probable as the last of them. `None` is transformers' 0, no
    /// limit.
    pub top_k: Option<usize>,
    /// `top_h` (Potraghloo et al., 2025): of the 100 most probable tokens the most probable ones, while they have at
    /// most this share of the entropy.
    pub top_h: Option<f32>,
    /// `top_p`: the nucleus (Holtzman et al., 2020), the smallest set of tokens with at least this probability. 1 keeps
    /// all.
    pub top_p: f32,
    /// `min_p` (Nguyen et al., 2024): tokens with at least this share of the probability of the most probable one.
    pub min_p: Option<f32>,
    /// `typical_p` (Meister et al., 2022): the tokens whose information is nearest to the entropy, as many as have this
    /// probability. 1 keeps all.
    pub typical_p: f32,
    /// `epsilon_cutoff` (Hewitt et al., 2022): tokens of at least this probability. 0 keeps all.
    pub epsilon_cutoff: f32,
    /// `eta_cutoff` (Hewitt et al., 2022): tokens of at least the probability `min(eta, sqrt(eta) * exp(-entropy))`. 0
    /// keeps all.
    pub eta_cutoff: f32,
}

impl Default for Filters {
    fn default() -> Filters {
        Filters {
            top_k: None,
            top_h: None,
            top_p: 1.0,
            min_p: None,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
        }
    }
}

impl Filters {
    /// Filters that keep all tokens.
    pub fn new() -> Filters {
        Filters::default()
    }

    /// Sets [`Filters::top_k`].
    pub fn with_top_k(self, k: usize) -> Filters {
        Filters { top_k: Some(k), ..self }
    }

    /// Sets [`Filters::top_p`].
    pub fn with_top_p(self, p: f32) -> Filters {
        Filters { top_p: p, ..self }
    }

    /// Sets [`Filters::min_p`].
    pub fn with_min_p(self, p: f32) -> Filters {
        Filters { min_p: Some(p), ..self }
    }

    /// Whether the filters keep all tokens.
    pub(crate) fn keep_all(&self) -> bool {
        *self == Filters::default()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.top_k.map_or(Ok(()), |k| within("top_k", k, LARGEST_TABLE))?;
        share("top_h", self.top_h.unwrap_or(1.0))?;
        rate("top_p", self.top_p)?;
        rate("min_p", self.min_p.unwrap_or(0.0))?;
        share("typical_p", self.typical_p)?;
        cutoff("epsilon_cutoff", self.epsilon_cutoff)?;
        cutoff("eta_cutoff", self.eta_cutoff)
    }

    /// Filters a row of scores in place: those that do not stay become minus infinity. At least `min_keep` of the most
    /// probable tokens stay.
    pub(crate) fn apply(&self, scores: &mut [f32], min_keep: usize, candidates: &mut Candidates) {
        if self.keep_all() {
            return;
        }
        candidates.collect(scores, self, min_keep);
        scores.fill(f32::NEG_INFINITY);
        for (score, token) in candidates.list() {
            if let Some(to) = scores.get_mut(*token) {
                *to = *score;
            }
        }
    }
}

/// Checks a share that keeps something.
pub(crate) fn share(name: &'static str, value: f32) -> Result<()> {
    let fits = value > 0.0 && value <= 1.0;
    if fits { Ok(()) } else { Err(field(name, value, "more than 0, at most 1")) }
}

fn cutoff(name: &'static str, value: f32) -> Result<()> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(field(name, value, "0 or more, less than 1")) }
}

/// Tokens that may be drawn, with their scores, in a buffer that is reused. Their order means nothing.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    list: Vec<Scored>,
    selector: TopKSelector,
    /// Scratch of `typical_p`: the distance of the information from the entropy, and the weight and place of a token.
    distances: Vec<(f64, f64, usize)>,
}

impl Candidates {
    /// The tokens that `filters` keep of a row.
    pub(crate) fn collect(&mut self, scores: &[f32], filters: &Filters, min_keep: usize) {
        match (filters.top_h, filters.top_k) {
            (Some(top_h), _) => {
                self.select(scores, TOP_H_CANDIDATES);
                self.keep_top_h(top_h);
                if let Some(k) = filters.top_k {
                    self.keep_top_k(k.max(min_keep));
                }
            }
            (None, Some(k)) if k.max(min_keep) < scores.len() => {
                self.select(scores, k.max(min_keep));
                // Tokens as probable as the last one stay too.
                let threshold = self.list.last().map_or(f32::INFINITY, |(score, _)| *score);
                self.fill(scores, |score| score >= threshold);
            }
            (None, _) => self.take_all(scores),
        }
        if filters.top_p < 1.0 {
            let limit = f64::from(filters.top_p) * self.total();
            self.keep_nucleus(min_keep, |before| before < limit);
        }
        if let Some(min_p) = filters.min_p {
            let max = self.max();
            self.keep_best_and(min_keep, |score| weight(score, max) >= min_p);
        }
        if filters.typical_p < 1.0 {
            self.keep_typical(filters.typical_p, min_keep);
        }
        if filters.epsilon_cutoff > 0.0 {
            self.keep_above(f64::from(filters.epsilon_cutoff), min_keep);
        }
        if filters.eta_cutoff > 0.0 {
            let eta = f64::from(filters.eta_cutoff);
            self.keep_above(eta.min(eta.sqrt() * (-self.entropy()).exp()), min_keep);
        }
    }

    /// The `k` most probable tokens of a row, in descending order.
    pub(crate) fn select(&mut self, scores: &[f32], k: usize) {
        self.selector.reset(k);
        scores.iter().zip(0..).for_each(|(score, token)| self.selector.offer(*score, token));
        self.list.clear();
        self.list.extend_from_slice(self.selector.sorted());
    }

    /// Every token of a row whose probability is not 0.
    pub(crate) fn take_all(&mut self, scores: &[f32]) {
        self.fill(scores, |score| score > f32::NEG_INFINITY);
    }

    /// The candidates, with their scores.
    pub(crate) fn list(&self) -> &[Scored] {
        &self.list
    }

    /// Keeps, from the most to the least probable candidate, the first `min_keep` (at least one) and those for which
    /// `inside` is true of the sum of the weights before them. Few tokens usually hold most of the probability, so
    /// [`FIRST_SELECTION`] tokens are sorted first, and more only when the nucleus is larger.
    pub(crate) fn keep_nucleus(&mut self, min_keep: usize, inside: impl Fn(f64) -> bool) {
        let (len, max) = (self.list.len(), self.max());
        let mut sorted = FIRST_SELECTION.max(min_keep).min(len);
        loop {
            if let Some(last) = sorted.checked_sub(1).filter(|_| sorted < len) {
                self.list.select_nth_unstable_by(last, order);
            }
            let best = self.list.get_mut(..sorted).unwrap_or_default();
            best.sort_unstable_by(order);
            let mut before = 0.0;
            let end = best.iter().position(|(score, _)| {
                let outside = before > 0.0 && !inside(before);
                before += f64::from(weight(*score, max));
                outside
            });
            if let Some(end) = end {
                return self.list.truncate(end.max(min_keep));
            }
            if sorted == len {
                return;
            }
            sorted = sorted.saturating_mul(8).min(len);
        }
    }

    fn fill(&mut self, scores: &[f32], keep: impl Fn(f32) -> bool) {
        self.list.clear();
        self.list.extend(scores.iter().copied().zip(0..).filter(|(score, _)| keep(*score)));
    }

    /// Of candidates in descending order the first, and those up to which the entropy is within its share.
    fn keep_top_h(&mut self, share: f32) {
        let limit = f64::from(share) * self.entropy();
        let (max, total) = (self.max(), self.total());
        let mut sum = 0.0;
        let end = self.list.iter().position(|(score, _)| {
            sum += entropy_of(weight(*score, max), total);
            sum > limit
        });
        self.list.truncate(end.unwrap_or(self.list.len()).max(1));
    }

    fn keep_top_k(&mut self, k: usize) {
        if let Some(threshold) = self.rank(k) {
            self.list.retain(|(score, _)| *score >= threshold);
        }
    }

    fn keep_typical(&mut self, mass: f32, min_keep: usize) {
        let (max, total, entropy) = (self.max(), self.total(), self.entropy());
        self.distances.clear();
        self.distances.extend(self.list.iter().zip(0..).map(|((score, _), place)| {
            let information = total.ln() - f64::from(score - max);
            ((information - entropy).abs(), f64::from(weight(*score, max)), place)
        }));
        self.distances.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
        let mut sum = 0.0;
        let last = self.distances.iter().position(|(_, weight, _)| {
            sum += weight;
            sum >= f64::from(mass) * total
        });
        let last = last.unwrap_or(self.distances.len().saturating_sub(1));
        let threshold = self.distances.get(last).map_or(f64::INFINITY, |(distance, ..)| *distance);
        let kept = self.distances.iter().enumerate();
        let kept = kept.take_while(|(rank, (distance, ..))| *rank < min_keep || *distance <= threshold);
        let kept: Vec<Scored> = kept.filter_map(|(_, (.., place))| self.list.get(*place).copied()).collect();
        self.list = kept;
    }

    /// Keeps tokens of at least this probability.
    fn keep_above(&mut self, probability: f64, min_keep: usize) {
        let (max, limit) = (self.max(), probability * self.total());
        self.keep_best_and(min_keep, |score| f64::from(weight(score, max)) >= limit);
    }

    /// Keeps the `min_keep` best tokens, and those for which `keep` is true of the score.
    fn keep_best_and(&mut self, min_keep: usize, keep: impl Fn(f32) -> bool) {
        if let Some(threshold) = self.rank(min_keep) {
            self.list.retain(|(score, _)| keep(*score) || *score >= threshold);
        }
    }

    /// The `k`-th highest score; `None` when there are not more candidates than that.
    fn rank(&mut self, k: usize) -> Option<f32> {
        let last = k.max(1) - 1;
        if last + 1 >= self.list.len() {
            return None;
        }
        let (_, (score, _), _) = self.list.select_nth_unstable_by(last, order);
        Some(*score)
    }

    fn max(&self) -> f32 {
        self.list.iter().fold(f32::NEG_INFINITY, |max, (score, _)| max.max(*score))
    }

    /// The sum of the weights.
    fn total(&self) -> f64 {
        let max = self.max();
        self.list.iter().map(|(score, _)| f64::from(weight(*score, max))).sum()
    }

    fn entropy(&self) -> f64 {
        let (max, total) = (self.max(), self.total());
        self.list.iter().map(|(score, _)| entropy_of(weight(*score, max), total)).sum()
    }
}

/// Number of tokens that transformers' `top_h` considers.
const TOP_H_CANDIDATES: usize = 100;

/// Number of tokens that are sorted first to find a nucleus.
const FIRST_SELECTION: usize = 256;

/// `exp(score - max)`; 0 where one of the two is not finite.
pub(crate) fn weight(score: f32, max: f32) -> f32 {
    // NaN where the score or the maximum is not finite; `max` makes it 0.
    (score - max).exp().max(0.0)
}

/// The part of the entropy of a token of this weight: `-p ln p`.
fn entropy_of(weight: f32, total: f64) -> f64 {
    let p = f64::from(weight) / total;
    if p > 0.0 { -p * p.ln() } else { 0.0 }
}

#[cfg(test)]
mod tests;
