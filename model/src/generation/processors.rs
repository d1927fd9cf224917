//! Logits processors: changes of the scores of the next token, given the sequence so far.
//!
//! The order is transformers': repetition penalty, repeated n-grams, minimum lengths, forced first token, forced last
//! token, suppressed tokens, tokens suppressed at the beginning. Forcing sets the forced token's score to 0 and all
//! others to minus infinity, whatever was suppressed before. Suppression comes after it and also applies to a forced
//! token.
//!
//! Scores are logits in sampling, and log-probabilities in a beam search, where they are not normalised again
//! afterwards.

use super::config::GenerationConfig;

/// The processors of the sequences of one prompt: transformers' `LogitsProcessorList`.
#[derive(Debug)]
pub(crate) struct LogitsProcessors<'c> {
    config: &'c GenerationConfig,
    max_length: usize,
    /// The length, prompt included, below which end tokens are suppressed.
    min_length: usize,
    /// The length at which `begin_suppress_tokens` are suppressed: transformers' `begin_index`.
    begin_index: usize,
    /// Scratch: the penalised scores, in the order of the sequence.
    penalised: Vec<f32>,
}

impl<'c> LogitsProcessors<'c> {
    /// The processors of `config` for a prompt of `prompt_len` tokens.
    pub(crate) fn new(config: &'c GenerationConfig, prompt_len: usize, max_length: usize) -> Self {
        let min_length = config.min_total_length(prompt_len);
        let forced_first = prompt_len <= 1 && config.forced_bos_token_id.is_some();
        let begin_index = prompt_len.saturating_add(usize::from(forced_first));
        LogitsProcessors { config, max_length, min_length, begin_index, penalised: Vec::new() }
    }

    /// Changes the scores of the token after `sequence` in place. Token ids beyond the vocabulary are ignored.
    pub(crate) fn apply(&mut self, sequence: &[u32], scores: &mut [f32]) {
        let config = self.config;
        if config.repetition_penalty != 1.0 {
            self.penalise(sequence, scores);
        }
        suppress_repeated_ngrams(sequence, config.no_repeat_ngram_size, scores);
        if sequence.len() < self.min_length {
            suppress(&config.eos_token_ids, scores);
        }
        if let (1, Some(token)) = (sequence.len(), config.forced_bos_token_id) {
            force(token, scores);
        }
        if let (true, Some(token)) = (sequence.len() + 1 == self.max_length, config.forced_eos_token_id) {
            force(token, scores);
        }
        suppress(&config.suppress_tokens, scores);
        if sequence.len() == self.begin_index {
            suppress(&config.begin_suppress_tokens, scores);
        }
    }

    /// The repetition penalty. It applies to each token once, however often it occurs: all scores are computed before
    /// the first is written.
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

/// Suppresses every token that would complete an n-gram that the sequence already has: those that have followed an
/// earlier occurrence of the last `n - 1` tokens.
fn suppress_repeated_ngrams(sequence: &[u32], n: usize, scores: &mut [f32]) {
    let Some(start) = n.checked_sub(1).and_then(|n| sequence.len().checked_sub(n)) else { return };
    let prefix = sequence.get(start..).unwrap_or_default();
    for window in sequence.windows(n) {
        if let Some((token, start)) = window.split_last()
            && start == prefix
        {
            set(*token, f32::NEG_INFINITY, scores);
        }
    }
}

fn suppress(tokens: &[u32], scores: &mut [f32]) {
    tokens.iter().for_each(|token| set(*token, f32::NEG_INFINITY, scores));
}

/// Makes `token` the only possible one.
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

    /// The processed scores 1, -2, 3, -4, 5 after `sequence`, whose first `prompt` tokens are the prompt; the maximum
    /// length is 8.
    fn after(prompt: usize, sequence: &[u32], config: &GenerationConfig) -> [f32; 5] {
        let mut scores = [1.0, -2.0, 3.0, -4.0, 5.0];
        LogitsProcessors::new(config, prompt, 8).apply(sequence, &mut scores);
        scores
    }

    #[test]
    fn the_default_changes_nothing() {
        let config = GenerationConfig { eos_token_ids: vec![1], ..Default::default() };
        assert_eq!(after(2, &[0, 0, 0], &config), [1.0, -2.0, 3.0, -4.0, 5.0]);
    }

    #[test]
    fn repeated_tokens_are_penalised_once() {
        let config = GenerationConfig { repetition_penalty: 2.0, ..Default::default() };
        assert_eq!(after(1, &[1, 4, 1, 4, 4, 99], &config), [1.0, -4.0, 3.0, -4.0, 2.5]);
    }

    #[test]
    fn n_grams_are_not_repeated() {
        let after = |n, sequence: &[u32]| {
            let config = GenerationConfig { no_repeat_ngram_size: n, ..Default::default() };
            let row = after(1, sequence, &config);
            (0..5u32).filter(|i| row[*i as usize] == -INF).collect::<Vec<_>>()
        };
        assert_eq!(after(1, &[0, 3, 3]), [0, 3]);
        assert_eq!(after(2, &[0, 1, 0, 2, 0]), [1, 2]);
        assert_eq!(after(2, &[0, 0]), [0], "the last window may overlap the prefix");
        assert_eq!(after(3, &[0, 1, 2, 4, 0, 1]), [2]);
        assert_eq!(after(3, &[0, 1]), [0u32; 0]);
        assert_eq!(after(3, &[]), [0u32; 0]);
        assert_eq!(after(2, &[0, 77, 0]), [0u32; 0], "a token beyond the vocabulary");
        assert_eq!(after(usize::MAX, &[0, 1]), [0u32; 0]);
    }

    #[test]
    fn end_tokens_are_suppressed_below_the_minimum_length() {
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
        assert_eq!(
            ends(&new, 2, &[0; 3]),
            (false, false, false),
            "min_new_tokens takes precedence over min_length"
        );
    }

    #[test]
    fn forced_tokens_take_precedence_over_minimum_lengths() {
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
        assert_eq!(after(2, &[0; 2], &config)[2], 3.0, "a longer prompt already has a first token");
    }

    #[test]
    fn suppression_is_applied_last() {
        let config = GenerationConfig {
            suppress_tokens: vec![0, 77],
            begin_suppress_tokens: vec![4],
            ..GenerationConfig::default()
        };
        assert_eq!(after(2, &[0; 2], &config), [-INF, -2.0, 3.0, -4.0, -INF]);
        assert_eq!(after(2, &[0; 3], &config), [-INF, -2.0, 3.0, -4.0, 5.0]);
        let forced = GenerationConfig { forced_bos_token_id: Some(0), ..config };
        assert_eq!(after(1, &[3], &forced), [-INF; 5], "also a forced token");
        assert_eq!(
            after(1, &[3, 0], &forced),
            [-INF, -2.0, 3.0, -4.0, -INF],
            "the beginning is after the forced token"
        );
    }
}
