//! The choice among the candidates of a contrastive search (Su et al., "A Contrastive Framework for Neural Text
//! Generation", 2022).
//!
//! Of the k most probable tokens V it takes
//!
//! ```text
//! argmax over v in V of (1 - alpha) * p(v) - alpha * max_j cos(h_v, h_j)
//! ```
//!
//! where p is the model's probability, h_v the hidden state of the candidate and h_j the hidden states of the context.
//! p is a share of the whole vocabulary, as in KerasHub, not of the k. Dot products are summed in f64.

use super::scores::argmax;

/// The index of the candidate to take, the first of equal ones.
///
/// `candidate_states` is `[probabilities.len(), hidden]`, `context_states` is `[tokens so far, hidden]`. The cosine
/// with a zero vector is 0, as is the maximum over an empty context; a cosine that is NaN is ignored.
pub(crate) fn select_candidate(
    probabilities: &[f32],
    candidate_states: &[f32],
    context_states: &[f32],
    hidden: usize,
    alpha: f32,
) -> usize {
    let hidden = hidden.max(1);
    let score = |(probability, candidate): (&f32, &[f32])| {
        let cosines = context_states.chunks_exact(hidden).map(|state| cosine(candidate, state));
        let penalty = cosines.fold(f64::NEG_INFINITY, f64::max);
        let penalty = if penalty.is_finite() { penalty } else { 0.0 };
        ((1.0 - f64::from(alpha)) * f64::from(*probability) - f64::from(alpha) * penalty) as f32
    };
    let scores: Vec<f32> =
        probabilities.iter().zip(candidate_states.chunks_exact(hidden)).map(score).collect();
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
    fn alpha_weighs_probability_against_similarity() {
        let p = [0.5, 0.3, 0.2];
        let context = [0.0, -1.0, 5.0, 0.0];
        assert_eq!(select_candidate(&p, &STATES, &context, 2, 0.0), 0, "probability only");
        // The largest cosines are 1, 0 and 0.7.
        assert_eq!(select_candidate(&p, &STATES, &context, 2, 1.0), 1, "similarity only");
        assert_eq!(select_candidate(&p, &STATES, &context, 2, 0.6), 1);
        // 0.9 * 0.5 - 0.1 = 0.35, 0.9 * 0.3 = 0.27, 0.18 - 0.07 = 0.11
        assert_eq!(select_candidate(&p, &STATES, &context, 2, 0.1), 0);
    }

    #[test]
    fn empty_zero_and_nan_states_are_handled() {
        assert_eq!(select_candidate(&[0.1, 0.2, 0.0], &STATES, &[], 2, 0.5), 1, "no context");
        assert_eq!(select_candidate(&[0.1, 0.2, 0.0], &STATES, &[0.0, 0.0], 2, 0.5), 1, "a zero vector");
        assert_eq!(select_candidate(&[f32::NAN, 0.0, 0.1], &STATES, &[f32::NAN, 1.0], 2, 0.5), 2);
        assert_eq!(select_candidate(&[0.1, 0.2], &[], &[], 0, 0.5), 0);
    }
}
