//! The arguments of generation, by transformers' names.

mod fields;
mod judge;
mod parse;

use rachis_loader::Preset;

use super::strategy::{Strategy, finite, positive};
use crate::config::{LARGEST_TABLE, field, within};
use crate::error::{RequestError, Result};

pub use fields::GenerationFields;

/// The arguments of generation: transformers' `GenerationConfig`. The default is transformers' too: greedy search, 20
/// new tokens, no processors.
///
/// Lengths count the tokens of one sequence: prompt and new tokens of a decoder-only model, decoder tokens of an
/// encoder-decoder model. Padding never counts.
///
/// Code outside this crate sets fields on a default, or on a preset's configuration:
///
/// ```
/// use rachis::generation::{BeamSearch, GenerationConfig};
///
/// let mut config = GenerationConfig::default();
/// config.max_new_tokens = Some(40);
/// config.strategy = BeamSearch::new(4).into();
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// `max_length`: the maximum number of tokens of a sequence, prompt included. Without it and `max_new_tokens`, 20
    /// new tokens.
    pub max_length: Option<usize>,
    /// `max_new_tokens`: the maximum number of new tokens. It takes precedence over `max_length`.
    pub max_new_tokens: Option<usize>,
    /// `min_length`: end tokens are suppressed while the sequence, prompt included, is shorter.
    pub min_length: usize,
    /// `min_new_tokens`: end tokens are suppressed before this number of new tokens. It takes precedence over
    /// `min_length`.
    pub min_new_tokens: Option<usize>,
    /// The algorithm that chooses tokens: transformers' `do_sample`, `num_beams`, `temperature`, `top_k`, `top_p`,
    /// `length_penalty` and `early_stopping`, or a sampler of KerasHub.
    pub strategy: Strategy,
    /// `num_return_sequences`: number of sequences returned for each prompt. A beam search returns at most
    /// `num_beams`, a greedy or contrastive search 1, and a random sampler independent sequences.
    pub num_return_sequences: usize,
    /// `repetition_penalty` (Keskar et al., 2019): the score of each token that the sequence already has is divided
    /// by it if positive and multiplied by it if negative. 1 changes nothing.
    pub repetition_penalty: f32,
    /// `encoder_repetition_penalty`: the same with the inverse, for the tokens that the encoder reads (of a decoder-only
    /// model, those of the prompt). Above 1 it favours them.
    pub encoder_repetition_penalty: f32,
    /// `no_repeat_ngram_size`: no n-gram of this size occurs twice in a sequence. 0 allows repetition.
    pub no_repeat_ngram_size: usize,
    /// `encoder_no_repeat_ngram_size`: no n-gram of this size of the encoder's input (of a decoder-only model, of the
    /// prompt) occurs among the new tokens. 0 allows repetition.
    pub encoder_no_repeat_ngram_size: usize,
    /// `bad_words_ids`: sequences of tokens that are never completed. An end token alone is not forbidden.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// `sequence_bias`: sequences of tokens, and what is added to the score of the last one where the others are the last
    /// tokens so far.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// `forced_bos_token_id`: the first new token, if the prompt has one token.
    pub forced_bos_token_id: Option<u32>,
    /// `forced_eos_token_id`: the tokens of which one is the last of a sequence that reaches the maximum length.
    pub forced_eos_token_ids: Vec<u32>,
    /// `suppress_tokens`: tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// `begin_suppress_tokens`: tokens that are not generated first, or not right after `forced_bos_token_id`.
    pub begin_suppress_tokens: Vec<u32>,
    /// `exponential_decay_length_penalty`: `(start, factor)`. After `start` new tokens the score of an end token grows by
    /// `|score| * (factor^n - 1)`, where `n` is the number of tokens since.
    pub exponential_decay_length_penalty: Option<(usize, f64)>,
    /// `remove_invalid_values`: NaN becomes 0, and infinities become the largest and the least finite number.
    pub remove_invalid_values: bool,
    /// `renormalize_logits`: the log-probabilities of a beam search are normalised again after the processors. Other
    /// strategies do not change by it.
    pub renormalize_logits: bool,
    /// `stop_strings`: a sequence ends with the token that completes one of these texts. [`generate`](super::generate())
    /// knows no texts: it needs a [`StoppingCriterion`](super::StoppingCriterion) for them, and refuses them without.
    pub stop_strings: Vec<String>,
    /// Whether [`Generated::log_probabilities`](super::Generated::log_probabilities) is filled: transformers'
    /// `output_scores`.
    pub log_probabilities: LogProbabilities,
    /// `eos_token_id`: the tokens that end a sequence, KerasHub's `stop_token_ids`. Ids beyond the vocabulary end none.
    pub eos_token_ids: Vec<u32>,
    /// `pad_token_id`: the token that fills a batch behind sequences that ended earlier. Results are ragged, so only the
    /// groups of a diverse beam search use it, where the padding of a group that has ended counts as its tokens.
    pub pad_token_id: Option<u32>,
    /// `bos_token_id`: the decoder's prompt of an encoder-decoder model without `decoder_start_token_id`.
    pub bos_token_id: Option<u32>,
    /// `decoder_start_token_id`: the decoder's prompt of an encoder-decoder model.
    pub decoder_start_token_id: Option<u32>,
}

/// Whether the log-probabilities of the chosen tokens are wanted. They cost a pass over the logits of each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LogProbabilities {
    /// They are not computed.
    #[default]
    Skip,
    /// They are computed for each new token.
    Chosen,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        GenerationConfig {
            max_length: None,
            max_new_tokens: None,
            min_length: 0,
            min_new_tokens: None,
            strategy: Strategy::default(),
            num_return_sequences: 1,
            repetition_penalty: 1.0,
            encoder_repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            encoder_no_repeat_ngram_size: 0,
            bad_words_ids: Vec::new(),
            sequence_bias: Vec::new(),
            forced_bos_token_id: None,
            forced_eos_token_ids: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            exponential_decay_length_penalty: None,
            remove_invalid_values: false,
            renormalize_logits: false,
            stop_strings: Vec::new(),
            log_probabilities: LogProbabilities::Skip,
            eos_token_ids: Vec::new(),
            pad_token_id: None,
            bos_token_id: None,
            decoder_start_token_id: None,
        }
    }
}

impl GenerationConfig {
    /// The configuration of a preset: [`GenerationFields`] of its files, without other values.
    ///
    /// # Errors
    /// As [`GenerationFields::from_preset`] and [`GenerationFields::config`].
    pub fn from_preset(preset: &Preset) -> Result<GenerationConfig> {
        GenerationFields::from_preset(preset)?.config()
    }

    /// Checks every field; token ids must be less than `vocabulary_size`. Ids that only compare with generated ones are
    /// not checked: end tokens, suppressed tokens and padding.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the first field that is out of range.
    pub fn validate(&self, vocabulary_size: usize) -> Result<()> {
        let length = |name, length: Option<usize>| length.map_or(Ok(()), |n| within(name, n, LARGEST_TABLE));
        length("max_new_tokens", self.max_new_tokens)?;
        // It does not count beside `max_new_tokens`.
        length("max_length", self.max_length.filter(|_| self.max_new_tokens.is_none()))?;
        self.strategy.validate()?;
        within("num_return_sequences", self.num_return_sequences, self.strategy.max_return_sequences())?;
        positive("repetition_penalty", self.repetition_penalty)?;
        positive("encoder_repetition_penalty", self.encoder_repetition_penalty)?;
        within("number of end tokens", self.eos_token_ids.len() + 1, MAX_END_TOKENS)?;
        self.sequence_bias.iter().try_for_each(|(_, bias)| finite("sequence_bias", *bias))?;
        if let Some((_, factor)) = self.exponential_decay_length_penalty {
            if !(factor.is_finite() && factor > 0.0) {
                return Err(field(
                    "exponential_decay_length_penalty",
                    factor,
                    "a finite factor, more than 0",
                ));
            }
            if self.eos_token_ids.is_empty() {
                return Err(field("exponential_decay_length_penalty", factor, "null without eos_token_id"));
            }
        }
        let listed = self.bad_words_ids.iter().map(|ids| ("bad_words_ids", ids.as_slice()));
        let listed =
            listed.chain(self.sequence_bias.iter().map(|(ids, _)| ("sequence_bias", ids.as_slice())));
        if let Some((name, _)) = listed.clone().find(|(_, ids)| ids.is_empty()) {
            return Err(field(name, "an empty sequence", "sequences of one token or more"));
        }
        let forced = [
            ("forced_bos_token_id", self.forced_bos_token_id.as_slice()),
            ("forced_eos_token_id", &self.forced_eos_token_ids),
        ];
        for (name, ids) in listed.chain(forced) {
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary_size) {
                return Err(field(name, id, format!("less than {vocabulary_size}")));
            }
        }
        Ok(())
    }

    /// The maximum length, prompt included, of a sequence whose prompt has `prompt_len` tokens: `prompt_len +
    /// max_new_tokens`, else `max_length`, else `prompt_len + 20` cut to the model's `positions`, which is `None` for a
    /// model without a limit. The last token needs no position, since it is not fed back.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) when the prompt already has this length, or when the length exceeds `positions + 1`.
    pub fn length_limit(&self, prompt_len: usize, positions: Option<usize>) -> Result<usize> {
        let largest = positions.map_or(usize::MAX, |positions| positions.saturating_add(1));
        let limit = match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => prompt_len.saturating_add(new),
            (None, Some(length)) => length,
            (None, None) => {
                prompt_len.saturating_add(DEFAULT_NEW_TOKENS).min(positions.unwrap_or(usize::MAX))
            }
        };
        if limit > largest {
            return Err(RequestError::MaxLength { found: limit, max: largest }.into());
        }
        if limit <= prompt_len {
            return Err(RequestError::PromptLength { found: prompt_len, max: limit }.into());
        }
        Ok(limit)
    }

    /// The minimum length, prompt included, below which end tokens are suppressed.
    pub(crate) fn min_total_length(&self, prompt_len: usize) -> usize {
        self.min_new_tokens.map_or(self.min_length, |new| prompt_len.saturating_add(new))
    }
}

/// transformers' default `max_length`, which counts from the end of the prompt when it is not set explicitly.
const DEFAULT_NEW_TOKENS: usize = 20;

/// Upper limit of the number of end tokens, which multiplies the candidates of a beam search.
const MAX_END_TOKENS: usize = 1 << 10;

#[cfg(test)]
mod tests;
