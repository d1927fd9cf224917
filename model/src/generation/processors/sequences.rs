//! Processors that look for sequences of tokens: biases, forbidden sequences, n-grams.

use super::set;

/// transformers' `sequence_bias`: a bias is added to the score of the last token of a sequence where its other tokens
/// are the last ones so far. Of a sequence that is listed twice the last bias counts.
#[derive(Debug)]
pub(super) struct SequenceBias<'c> {
    biases: Vec<(&'c [u32], u32, f32)>,
    /// Scratch: the sum of the biases of each token that has any.
    sums: Vec<(u32, f32)>,
}

impl<'c> SequenceBias<'c> {
    pub(super) fn new(listed: &'c [(Vec<u32>, f32)]) -> SequenceBias<'c> {
        let mut biases: Vec<(&[u32], u32, f32)> = listed
            .iter()
            .filter_map(|(sequence, bias)| sequence.split_last().map(|(last, before)| (before, *last, *bias)))
            .collect();
        // In the order of sequences; the sort is stable, so that the last of equal ones is the one that counts.
        biases.sort_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0)));
        biases.reverse();
        let mut counted = None;
        biases.retain(|(before, last, _)| counted.replace((*before, *last)) != Some((*before, *last)));
        SequenceBias { biases, sums: Vec::new() }
    }

    pub(super) fn apply(&mut self, sequence: &[u32], scores: &mut [f32]) {
        self.sums.clear();
        for (before, last, bias) in &self.biases {
            if !sequence.ends_with(before) {
                continue;
            }
            // Biases of one token are neighbours.
            match self.sums.last_mut() {
                Some((token, sum)) if token == last => *sum += bias,
                _ => self.sums.push((*last, *bias)),
            }
        }
        for (token, bias) in &self.sums {
            if let Some(score) = scores.get_mut(*token as usize) {
                *score += bias;
            }
        }
    }
}

/// transformers' `bad_words_ids`: suppresses the last token of a sequence where its other tokens are the last ones so
/// far. An end token alone is never forbidden.
pub(super) fn suppress_sequences(forbidden: &[Vec<u32>], eos: &[u32], sequence: &[u32], scores: &mut [f32]) {
    for words in forbidden {
        if let Some((last, before)) = words.split_last()
            && sequence.ends_with(before)
            && !(before.is_empty() && eos.contains(last))
        {
            set(*last, f32::NEG_INFINITY, scores);
        }
    }
}

/// Suppresses every token that would complete an n-gram of `text`: those that follow an occurrence in it of the last
/// `n - 1` tokens of `sequence`. 0 suppresses none.
pub(super) fn suppress_ngrams(text: &[u32], sequence: &[u32], n: usize, scores: &mut [f32]) {
    let Some(start) = n.checked_sub(1).and_then(|n| sequence.len().checked_sub(n)) else { return };
    let prefix = sequence.get(start..).unwrap_or_default();
    for window in text.windows(n) {
        if let Some((token, start)) = window.split_last()
            && start == prefix
        {
            set(*token, f32::NEG_INFINITY, scores);
        }
    }
}
