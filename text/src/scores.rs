//! From logits to scores.

/// What turns the logits of a classifier into scores: transformers' `function_to_apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScoreFunction {
    /// `exp(x) / sum(exp)`: probabilities of which one is right.
    Softmax,
    /// `1 / (1 + exp(-x))`: the probability of each class by itself.
    Sigmoid,
    /// The logits as they are.
    Identity,
}

impl ScoreFunction {
    /// The scores of one row of logits.
    pub(crate) fn apply(self, logits: &[f32]) -> Vec<f32> {
        match self {
            ScoreFunction::Softmax => softmax(logits).map(|x| x as f32).collect(),
            ScoreFunction::Sigmoid => {
                logits.iter().map(|x| (1.0 / (1.0 + (-f64::from(*x)).exp())) as f32).collect()
            }
            ScoreFunction::Identity => logits.to_vec(),
        }
    }
}

/// `exp(x) / sum(exp)`, in f64: a vocabulary has many terms.
pub(crate) fn softmax(logits: &[f32]) -> impl ExactSizeIterator<Item = f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = move |x: &f32| f64::from(*x - largest).exp();
    let sum: f64 = logits.iter().map(exp).sum();
    logits.iter().map(move |x| exp(x) / sum)
}

/// The first of the largest values; 0 when there is none.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let best = |best: (usize, f32), (i, x): (usize, &f32)| if *x > best.1 { (i, *x) } else { best };
    values.iter().enumerate().fold((0, f32::NEG_INFINITY), best).0
}
