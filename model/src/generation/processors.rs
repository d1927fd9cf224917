//! Logits processors: changes of the scores of the next token, given the sequence so far.
//!
//! The order is transformers': sequence bias, the penalty of diverse beams, repetition of the source, repetition penalty,
//! repeated n-grams, n-grams of the source, forbidden sequences, minimum lengths, forced first token, forced last token,
//! values that are not finite, the growing score of end tokens, suppressed tokens, tokens suppressed at the beginning.
//! Forcing sets the forced token's score to 0 and all others to minus infinity, whatever was suppressed before.
//! Suppression comes after it and also applies to a forced token.
//!
//! Scores are logits in sampling, and log-probabilities in a beam search, where they are normalised again afterwards with
//! `renormalize_logits` only.

mod sequences;

use super::config::GenerationConfig;
use sequences::{SequenceBias, suppress_ngrams, suppress_sequences};

/// The processors of the sequences of one prompt: transformers' `LogitsProcessorList`.
#[derive(Debug)]
pub(crate) struct LogitsProcessors<'c> {
    config: &'c GenerationConfig,
    bias: SequenceBias<'c>,
    /// The tokens that the encoder reads; of a decoder-only model, the prompt.
    source: Vec<u32>,
    max_length: usize,
    /// The length, prompt included, below which end tokens are suppressed.
    min_length: usize,
    /// The length, prompt included, from which the scores of end tokens grow.
    decay_start: usize,
    /// The length at which `begin_suppress_tokens` are suppressed: transformers' `begin_index`.
    begin_index: usize,
    /// Scratch: the penalised scores, in the order of the sequence.
    penalised: Vec<f32>,
}

impl<'c> LogitsProcessors<'c> {
    /// The processors of `config` for a prompt of `prompt_len` tokens. `source` is what the encoder reads; of a
    /// decoder-only model, the prompt.
    pub(crate) fn new(
        config: &'c GenerationConfig,
        source: &[u32],
        prompt_len: usize,
        max_length: usize,
    ) -> Self {
        let forced_first = prompt_len <= 1 && config.forced_bos_token_id.is_some();
        LogitsProcessors {
            config,
            bias: SequenceBias::new(&config.sequence_bias),
            source: source.to_vec(),
            max_length,
            min_length: config.min_total_length(prompt_len),
            decay_start: config
                .exponential_decay_length_penalty
                .map_or(usize::MAX, |(start, _)| prompt_len.saturating_add(start)),
            begin_index: prompt_len.saturating_add(usize::from(forced_first)),
            penalised: Vec::new(),
        }
    }

    /// Changes the scores of the token after `sequence` in place. Token ids beyond the vocabulary are ignored.
    pub(crate) fn apply(&mut self, sequence: &[u32], scores: &mut [f32]) {
        self.apply_with(sequence, scores, |_| ());
    }

    /// [`LogitsProcessors::apply`] with a processor of the caller in the place of the penalty of diverse beams.
    pub(crate) fn apply_with(
        &mut self,
        sequence: &[u32],
        scores: &mut [f32],
        diversity: impl FnOnce(&mut [f32]),
    ) {
        let config = self.config;
        self.bias.apply(sequence, scores);
        diversity(scores);
        // The inverse favours the tokens of the source.
        let encoder_penalty = (1.0 / f64::from(config.encoder_repetition_penalty)) as f32;
        penalise(&self.source, encoder_penalty, scores, &mut self.penalised);
        penalise(sequence, config.repetition_penalty, scores, &mut self.penalised);
        suppress_ngrams(sequence, sequence, config.no_repeat_ngram_size, scores);
        suppress_ngrams(&self.source, sequence, config.encoder_no_repeat_ngram_size, scores);
        suppress_sequences(&config.bad_words_ids, &config.eos_token_ids, sequence, scores);
        if sequence.len() < self.min_length {
            suppress(&config.eos_token_ids, scores);
        }
        if let (1, Some(token)) = (sequence.len(), config.forced_bos_token_id) {
            force(&[token], scores);
        }
        if sequence.len() + 1 == self.max_length && !config.forced_eos_token_ids.is_empty() {
            force(&config.forced_eos_token_ids, scores);
        }
        if config.remove_invalid_values {
            scores.iter_mut().for_each(|x| *x = if x.is_nan() { 0.0 } else { x.clamp(f32::MIN, f32::MAX) });
        }
        if let Some((_, factor)) = config.exponential_decay_length_penalty
            && let Some(steps) = sequence.len().checked_sub(self.decay_start)
        {
            raise(&config.eos_token_ids, factor.powf(steps as f64) - 1.0, scores);
        }
        suppress(&config.suppress_tokens, scores);
        if sequence.len() == self.begin_index {
            suppress(&config.begin_suppress_tokens, scores);
        }
    }
}

/// Divides the positive scores of tokens by `penalty`, and multiplies the negative ones. It applies to each token once,
/// however often it occurs: all scores are computed before the first is written.
fn penalise(tokens: &[u32], penalty: f32, scores: &mut [f32], scratch: &mut Vec<f32>) {
    if penalty == 1.0 {
        return;
    }
    let penalised = |token: &u32| {
        let score = scores.get(*token as usize).copied().unwrap_or(0.0);
        if score < 0.0 { score * penalty } else { score / penalty }
    };
    scratch.clear();
    scratch.extend(tokens.iter().map(penalised));
    for (token, score) in tokens.iter().zip(scratch) {
        set(*token, *score, scores);
    }
}

/// Adds to the scores of tokens, where they are finite, `share` of their magnitude.
fn raise(tokens: &[u32], share: f64, scores: &mut [f32]) {
    for (i, token) in tokens.iter().enumerate() {
        let again = tokens.iter().take(i).any(|earlier| earlier == token);
        if let Some(score) = scores.get_mut(*token as usize)
            && score.is_finite()
            && !again
        {
            *score += score.abs() * share as f32;
        }
    }
}

fn suppress(tokens: &[u32], scores: &mut [f32]) {
    tokens.iter().for_each(|token| set(*token, f32::NEG_INFINITY, scores));
}

/// Makes `tokens` the only possible ones.
fn force(tokens: &[u32], scores: &mut [f32]) {
    scores.fill(f32::NEG_INFINITY);
    tokens.iter().for_each(|token| set(*token, 0.0, scores));
}

fn set(token: u32, to: f32, scores: &mut [f32]) {
    if let Some(score) = scores.get_mut(token as usize) {
        *score = to;
    }
}

#[cfg(test)]
mod tests;
