//! Rows of scores: the best of them, and their logarithms as probabilities.
//!
//! Scores are ordered from high to low, equal ones by index, and NaN is below everything. So the result does not
//! depend on how the selection goes about it.

use core::cmp::Ordering;

/// The index of the first maximum; NaN counts only when all are NaN. 0 for an empty row.
pub(crate) fn argmax(scores: &[f32]) -> usize {
    let mut best = (f32::NAN, 0);
    for (i, &score) in scores.iter().enumerate() {
        if score > best.0 || (best.0.is_nan() && !score.is_nan()) {
            best = (score, i);
        }
    }
    best.1
}

/// Logits to log-probabilities, in f32 but for the sum, which is in f64. A row without a finite maximum has no
/// probabilities and becomes NaN, as does a row with a NaN.
pub(crate) fn log_softmax(scores: &mut [f32]) {
    let max = scores.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
    let sum: f64 = scores.iter().map(|x| f64::from((x - max).exp())).sum();
    let log_sum = sum.ln() as f32;
    scores.iter_mut().for_each(|x| *x = (*x - max) - log_sum);
}

/// The best `n` of the scores that are offered in the order of their indices, in memory that is reused.
///
/// Candidates are collected until there are 2 n of them and then cut down to n, which also raises the bar for the
/// next ones: linear time for any n, and a compare per score once the bar is high.
#[derive(Debug, Default)]
pub(crate) struct Best {
    n: usize,
    bar: f32,
    kept: Vec<(f32, usize)>,
}

impl Best {
    /// Forgets everything and keeps `n` from now on.
    pub(crate) fn reset(&mut self, n: usize) {
        (self.n, self.bar) = (n, f32::NEG_INFINITY);
        self.kept.clear();
    }

    /// Offers a score. Minus infinity and NaN are not candidates.
    #[inline]
    pub(crate) fn offer(&mut self, score: f32, index: usize) {
        // Of equal scores the earlier is kept.
        if score > self.bar {
            self.kept.push((score, index));
            if self.kept.len() >= self.n.saturating_mul(2) {
                self.cut();
            }
        }
    }

    /// The best, in order.
    pub(crate) fn sorted(&mut self) -> &[(f32, usize)] {
        self.cut();
        self.kept.sort_unstable_by(order);
        &self.kept
    }

    fn cut(&mut self) {
        if self.kept.len() < self.n {
            return;
        }
        if let Some(last) = self.n.checked_sub(1) {
            let (_, (bar, _), _) = self.kept.select_nth_unstable_by(last, order);
            self.bar = *bar;
        }
        self.kept.truncate(self.n);
    }
}

fn order(a: &(f32, usize), b: &(f32, usize)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use rachis_testkit::Rng;

    use super::*;

    const INF: f32 = f32::INFINITY;

    #[test]
    fn the_first_maximum() {
        assert_eq!(argmax(&[1.0, 3.0, 2.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -INF, -5.0, f32::NAN]), 2);
        assert_eq!(argmax(&[f32::NAN, -INF, -INF]), 1);
        assert_eq!(argmax(&[f32::NAN, f32::NAN]), 0);
        assert_eq!(argmax(&[0.0, INF, INF]), 1);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn log_probabilities() {
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
    fn the_best_are_those_of_a_full_sort() {
        let mut random = Rng::new(7);
        let mut best = Best::default();
        for len in [0, 1, 2, 5, 64, 300] {
            // Few values, so that many are equal.
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
            for n in [0, 1, 2, 3, 7, 64, 299, 300, 1000, usize::MAX] {
                best.reset(n);
                scores.iter().zip(0..).for_each(|(score, i)| best.offer(*score, i));
                assert_eq!(best.sorted(), &all[..n.min(all.len())], "{n} of {len}");
            }
        }
    }
}
