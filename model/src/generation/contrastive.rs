//! The choice of a contrastive search: likely, and unlike what is there.
//!
//! Of the k likeliest tokens the one is taken that has the greatest `(1 - alpha) p - alpha s`, where p is its
//! probability and s the largest cosine of its hidden state with those of the sequence so far (Su et al., 2022, with
//! the probabilities of KerasHub: of the whole row, not of the k). Products are summed in f64.

use super::scores::argmax;

/// The index of the candidate to take, the first of equals. `candidates` has a hidden state of `width` numbers for
/// each of the `probabilities`, `previous` one for each token so far. The cosine with a zero vector, and that
/// without any token before, is 0; one that is NaN does not count.
pub(crate) fn contrast(
    probabilities: &[f32],
    candidates: &[f32],
    previous: &[f32],
    width: usize,
    alpha: f32,
) -> usize {
    let width = width.max(1);
    let score = |(probability, candidate): (&f32, &[f32])| {
        let cosines = previous.chunks_exact(width).map(|state| cosine(candidate, state));
        let most = cosines.fold(f64::NEG_INFINITY, f64::max);
        let most = if most.is_finite() { most } else { 0.0 };
        ((1.0 - f64::from(alpha)) * f64::from(*probability) - f64::from(alpha) * most) as f32
    };
    let scores: Vec<f32> = probabilities.iter().zip(candidates.chunks_exact(width)).map(score).collect();
    argmax(&scores)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [f32; 6] = [1.0, 0.0, 0.0, 2.0, 3.0, 3.0];

    #[test]
    fn likely_and_unlike() {
        let p = [0.5, 0.3, 0.2];
        let previous = [0.0, -1.0, 5.0, 0.0];
        assert_eq!(contrast(&p, &STATES, &previous, 2, 0.0), 0, "only likely");
        // The largest cosines are 1, 0 and 0.7.
        assert_eq!(contrast(&p, &STATES, &previous, 2, 1.0), 1, "only unlike");
        assert_eq!(contrast(&p, &STATES, &previous, 2, 0.6), 1);
        // 0.9 * 0.5 - 0.1 = 0.35, 0.9 * 0.3 = 0.27, 0.18 - 0.07 = 0.11
        assert_eq!(contrast(&p, &STATES, &previous, 2, 0.1), 0);
    }

    #[test]
    fn whatever_the_numbers() {
        assert_eq!(contrast(&[0.1, 0.2, 0.0], &STATES, &[], 2, 0.5), 1, "nothing before");
        assert_eq!(contrast(&[0.1, 0.2, 0.0], &STATES, &[0.0, 0.0], 2, 0.5), 1, "a zero vector");
        assert_eq!(contrast(&[f32::NAN, 0.0, 0.1], &STATES, &[f32::NAN, 1.0], 2, 0.5), 2);
        assert_eq!(contrast(&[0.1, 0.2], &[], &[], 0, 0.5), 0);
    }
}
