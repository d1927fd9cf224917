//! Operations on a row of scores: argmax, log-softmax, top-k selection.
//!
//! Scores are ordered from high to low, equal ones by index, and NaN is below everything. This order is total, so
//! results do not depend on the selection algorithm.

use core::cmp::Ordering;

/// The index of the first maximum, ignoring NaN; 0 for a row that is empty or all NaN.
pub(crate) fn argmax(scores: &[f32]) -> usize {
    let mut best = (f32::NAN, 0);
    for (i, &score) in scores.iter().enumerate() {
        if score > best.0 || (best.0.is_nan() && !score.is_nan()) {
            best = (score, i);
        }
    }
    best.1
}

/// Log-softmax in place: logits become log-probabilities. It computes in f32, but sums the exponentials in f64. A row
/// without a finite maximum has no probabilities and becomes NaN, as does a row with a NaN.
pub(crate) fn log_softmax(scores: &mut [f32]) {
    let (max, log_sum) = log_sum_exp(scores);
    scores.iter_mut().for_each(|x| *x = (*x - max) - log_sum);
}

/// The entry of [`log_softmax`] at one index.
pub(crate) fn log_softmax_at(scores: &[f32], index: usize) -> f32 {
    let (max, log_sum) = log_sum_exp(scores);
    scores.get(index).map_or(f32::NEG_INFINITY, |x| (x - max) - log_sum)
}

/// The maximum, and the logarithm of the sum of the exponentials of the differences from it.
pub(crate) fn log_sum_exp(scores: &[f32]) -> (f32, f32) {
    let max = scores.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
    let sum: f64 = scores.iter().map(|x| f64::from((x - max).exp())).sum();
    (max, sum.ln() as f32)
}

/// A score and its index.
pub(crate) type Scored = (f32, usize);

/// Selects the `k` highest of scores that are offered in the order of their indices, in a buffer that is reused.
///
/// Candidates are collected until there are 2 k of them and then pruned to k, which also raises the threshold for the
/// next ones: linear time for any k, and one comparison per score once the threshold is high.
#[derive(Debug, Default)]
pub(crate) struct TopKSelector {
    k: usize,
    threshold: f32,
    candidates: Vec<Scored>,
}

impl TopKSelector {
    /// Drops all candidates and selects `k` scores from now on.
    pub(crate) fn reset(&mut self, k: usize) {
        (self.k, self.threshold) = (k, f32::NEG_INFINITY);
        self.candidates.clear();
    }

    /// Offers a score. Minus infinity and NaN are never selected.
    #[inline]
    pub(crate) fn offer(&mut self, score: f32, index: usize) {
        // Not `>=`: of equal scores the one of the lower index is selected.
        if score > self.threshold {
            self.candidates.push((score, index));
            if self.candidates.len() >= self.k.saturating_mul(2) {
                self.prune();
            }
        }
    }

    /// The selected scores and their indices, highest score first.
    pub(crate) fn sorted(&mut self) -> &[Scored] {
        self.prune();
        self.candidates.sort_unstable_by(order);
        &self.candidates
    }

    fn prune(&mut self) {
        if self.candidates.len() < self.k {
            return;
        }
        if let Some(last) = self.k.checked_sub(1) {
            let (_, (threshold, _), _) = self.candidates.select_nth_unstable_by(last, order);
            self.threshold = *threshold;
        }
        self.candidates.truncate(self.k);
    }
}

/// The order of the module's head, for scores that are not NaN.
pub(crate) fn order(a: &Scored, b: &Scored) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use rachis_testkit::Rng;

    use super::*;

    const INF: f32 = f32::INFINITY;

    #[test]
    fn argmax_is_the_first_maximum() {
        assert_eq!(argmax(&[1.0, 3.0, 2.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -INF, -5.0, f32::NAN]), 2);
        assert_eq!(argmax(&[f32::NAN, -INF, -INF]), 1);
        assert_eq!(argmax(&[f32::NAN, f32::NAN]), 0);
        assert_eq!(argmax(&[0.0, INF, INF]), 1);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn log_softmax_gives_log_probabilities() {
        let mut row = [1000.0, 1000.0, -INF, 999.0];
        log_softmax(&mut row);
        let sum = 2.0 + (-1.0f64).exp();
        for (found, expected) in row.iter().zip([-sum.ln(), -sum.ln(), f64::NEG_INFINITY, -1.0 - sum.ln()]) {
            assert!(f64::from(*found) == expected || (f64::from(*found) - expected).abs() < 1e-6, "{row:?}");
        }
        for mut row in [vec![-INF; 3], vec![INF, 1.0], vec![f32::NAN, 1.0]] {
            log_softmax(&mut row);
            assert!(row.iter().all(|x| x.is_nan()), "{row:?}");
        }
        log_softmax(&mut []);
    }

    #[test]
    fn the_selection_equals_a_full_sort() {
        let mut random = Rng::new(7);
        let mut selector = TopKSelector::default();
        for len in [0, 1, 2, 5, 64, 300] {
            // Few distinct values, so that many scores are equal.
            let scores: Vec<f32> = (0..len)
                .map(|_| match random.below(12) {
                    0 => f32::NAN,
                    1 => -INF,
                    2 => INF,
                    x => x as f32,
                })
                .collect();
            let mut all: Vec<(f32, usize)> = scores.iter().copied().zip(0..).collect();
            all.retain(|(score, _)| *score > -INF);
            all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap());
            for k in [0, 1, 2, 3, 7, 64, 299, 300, 1000, usize::MAX] {
                selector.reset(k);
                scores.iter().zip(0..).for_each(|(score, i)| selector.offer(*score, i));
                assert_eq!(selector.sorted(), &all[..k.min(all.len())], "{k} of {len}");
            }
        }
    }
}
