//! What may not come next, and what must: changes of a row of scores, given the sequence so far.
//!
//! The order is transformers': repetition penalty, repeated n-grams, minimum lengths, forced first token, forced
//! last token, suppressed tokens, tokens suppressed at the beginning. Forcing makes all other scores minus infinity
//! and the forced one 0, whatever was forbidden before; suppression comes after it and also hits what was forced.
//! Scores are logits when sampling and log-probabilities in a beam search, which are not normalised again.

use super::config::GenerationConfig;

/// The processors of one prompt's sequences.
#[derive(Debug)]
pub(crate) struct Processors<'c> {
    config: &'c GenerationConfig,
    max_length: usize,
    /// The length up to which no end token may come.
    min_length: usize,
    /// The length at which tokens are suppressed that may not begin.
    begin: usize,
    /// The penalised scores, in the order of the sequence.
    penalised: Vec<f32>,
}

impl<'c> Processors<'c> {
    /// The processors that `config` asks for, for a prompt of `prompt` tokens.
    pub(crate) fn new(config: &'c GenerationConfig, prompt: usize, max_length: usize) -> Self {
        let min_length = config.shortest(prompt);
        let forced_first = prompt <= 1 && config.forced_bos_token_id.is_some();
        let begin = prompt.saturating_add(usize::from(forced_first));
        Processors { config, max_length, min_length, begin, penalised: Vec::new() }
    }

    /// Changes the scores of what may follow `sequence`. Tokens that the row does not have are ignored.
    pub(crate) fn apply(&mut self, sequence: &[u32], scores: &mut [f32]) {
        let config = self.config;
        if config.repetition_penalty != 1.0 {
            self.penalise(sequence, scores);
        }
        forbid_repeated(sequence, config.no_repeat_ngram_size, scores);
        if sequence.len() < self.min_length {
            forbid(&config.eos_token_ids, scores);
        }
        if let (1, Some(token)) = (sequence.len(), config.forced_bos_token_id) {
            force(token, scores);
        }
        if let (true, Some(token)) = (sequence.len() + 1 == self.max_length, config.forced_eos_token_id) {
            force(token, scores);
        }
        forbid(&config.suppress_tokens, scores);
        if sequence.len() == self.begin {
            forbid(&config.begin_suppress_tokens, scores);
        }
    }

    /// Penalises each token of the sequence once: all scores are computed before the first is written.
    fn penalise(&mut self, sequence: &[u32], scores: &mut [f32]) {
        let penalty = self.config.repetition_penalty;
        let penalised = |token: &u32| {
            let score = scores.get(*token as usize).copied().unwrap_or(0.0);
            if score < 0.0 { score * penalty } else { score / penalty }
        };
        self.penalised.clear();
        self.penalised.extend(sequence.iter().map(penalised));
        for (token, score) in sequence.iter().zip(&self.penalised) {
            set(*token, *score, scores);
        }
    }
}

/// Forbids what would repeat `n` tokens in a row: whatever has followed the last `n - 1` tokens before.
fn forbid_repeated(sequence: &[u32], n: usize, scores: &mut [f32]) {
    let Some(begun) = n.checked_sub(1).and_then(|n| sequence.len().checked_sub(n)) else { return };
    let begun = sequence.get(begun..).unwrap_or_default();
    for window in sequence.windows(n) {
        if let Some((token, before)) = window.split_last()
            && before == begun
        {
            set(*token, f32::NEG_INFINITY, scores);
        }
    }
}

fn forbid(tokens: &[u32], scores: &mut [f32]) {
    tokens.iter().for_each(|token| set(*token, f32::NEG_INFINITY, scores));
}

fn force(token: u32, scores: &mut [f32]) {
    scores.fill(f32::NEG_INFINITY);
    set(token, 0.0, scores);
}

fn set(token: u32, to: f32, scores: &mut [f32]) {
    if let Some(score) = scores.get_mut(token as usize) {
        *score = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f32 = f32::INFINITY;

    /// The row 1, -2, 3, -4, 5 after `sequence`, whose first `prompt` tokens are the prompt, of at most 8.
    fn after(prompt: usize, sequence: &[u32], config: &GenerationConfig) -> [f32; 5] {
        let mut scores = [1.0, -2.0, 3.0, -4.0, 5.0];
        Processors::new(config, prompt, 8).apply(sequence, &mut scores);
        scores
    }

    #[test]
    fn nothing_is_changed_unasked() {
        let config = GenerationConfig { eos_token_ids: vec![1], ..Default::default() };
        assert_eq!(after(2, &[0, 0, 0], &config), [1.0, -2.0, 3.0, -4.0, 5.0]);
    }

    #[test]
    fn repeated_tokens_are_penalised_once() {
        let config = GenerationConfig { repetition_penalty: 2.0, ..Default::default() };
        assert_eq!(after(1, &[1, 4, 1, 4, 4, 99], &config), [1.0, -4.0, 3.0, -4.0, 2.5]);
    }

    #[test]
    fn n_grams_do_not_repeat() {
        let after = |n, sequence: &[u32]| {
            let config = GenerationConfig { no_repeat_ngram_size: n, ..Default::default() };
            let row = after(1, sequence, &config);
            (0..5u32).filter(|i| row[*i as usize] == -INF).collect::<Vec<_>>()
        };
        assert_eq!(after(1, &[0, 3, 3]), [0, 3]);
        assert_eq!(after(2, &[0, 1, 0, 2, 0]), [1, 2]);
        assert_eq!(after(2, &[0, 0]), [0], "the last window may overlap what is begun");
        assert_eq!(after(3, &[0, 1, 2, 4, 0, 1]), [2]);
        assert_eq!(after(3, &[0, 1]), [0u32; 0]);
        assert_eq!(after(3, &[]), [0u32; 0]);
        assert_eq!(after(2, &[0, 77, 0]), [0u32; 0], "a token that the row does not have");
        assert_eq!(after(usize::MAX, &[0, 1]), [0u32; 0]);
    }

    #[test]
    fn ends_are_forbidden_until_the_minimum() {
        let ends = |config: &GenerationConfig, prompt, sequence: &[u32]| {
            let row = after(prompt, sequence, config);
            (row[1] == -INF, row[2] == -INF, row[3] == -INF)
        };
        let all =
            GenerationConfig { eos_token_ids: vec![1, 2], min_length: 4, ..GenerationConfig::default() };
        assert_eq!(ends(&all, 2, &[0; 3]), (true, true, false));
        assert_eq!(ends(&all, 2, &[0; 4]), (false, false, false));
        let new = GenerationConfig { min_new_tokens: Some(1), ..all };
        assert_eq!(ends(&new, 2, &[0; 2]), (true, true, false));
        assert_eq!(ends(&new, 2, &[0; 3]), (false, false, false), "new tokens win over the length");
    }

    #[test]
    fn forced_tokens_win_over_minimum_lengths() {
        let config = GenerationConfig {
            forced_bos_token_id: Some(2),
            forced_eos_token_id: Some(3),
            eos_token_ids: vec![3],
            min_length: 8,
            ..Default::default()
        };
        assert_eq!(after(1, &[0], &config), [-INF, -INF, 0.0, -INF, -INF]);
        assert_eq!(after(1, &[0, 2], &config), [1.0, -2.0, 3.0, -INF, 5.0]);
        assert_eq!(after(1, &[0; 7], &config), [-INF, -INF, -INF, 0.0, -INF]);
        assert_eq!(after(2, &[0; 2], &config)[2], 3.0, "a longer prompt has begun already");
    }

    #[test]
    fn suppression_comes_last() {
        let config = GenerationConfig {
            suppress_tokens: vec![0, 77],
            begin_suppress_tokens: vec![4],
            ..GenerationConfig::default()
        };
        assert_eq!(after(2, &[0; 2], &config), [-INF, -2.0, 3.0, -4.0, -INF]);
        assert_eq!(after(2, &[0; 3], &config), [-INF, -2.0, 3.0, -4.0, 5.0]);
        let forced = GenerationConfig { forced_bos_token_id: Some(0), ..config };
        assert_eq!(after(1, &[3], &forced), [-INF; 5], "also what is forced");
        assert_eq!(after(1, &[3, 0], &forced), [-INF, -2.0, 3.0, -4.0, -INF], "the beginning is after it");
    }
}
