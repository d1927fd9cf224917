//! The arguments of generation, by transformers' names.

use rachis_loader::{Config, ConfigSource, Preset};

use super::strategy::{BeamRule, BeamSearch, EarlyStopping, Sampler, Strategy, positive};
use crate::config::{LARGEST_TABLE, field, within};
use crate::error::{Error, RequestError, Result};

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
    /// `no_repeat_ngram_size`: no n-gram of this size occurs twice in a sequence. 0 allows repetition.
    pub no_repeat_ngram_size: usize,
    /// `forced_bos_token_id`: the first new token, if the prompt has one token.
    pub forced_bos_token_id: Option<u32>,
    /// `forced_eos_token_id`: the last token of a sequence that reaches the maximum length.
    pub forced_eos_token_id: Option<u32>,
    /// `suppress_tokens`: tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// `begin_suppress_tokens`: tokens that are not generated first, or not right after `forced_bos_token_id`.
    pub begin_suppress_tokens: Vec<u32>,
    /// `eos_token_id`: the tokens that end a sequence, KerasHub's `stop_token_ids`.
    pub eos_token_ids: Vec<u32>,
    /// `pad_token_id`: the token that fills a batch behind sequences that ended earlier. Results are ragged, so nothing
    /// here uses it; it is there for code that pads them.
    pub pad_token_id: Option<u32>,
    /// `bos_token_id`: the decoder's prompt of an encoder-decoder model without `decoder_start_token_id`.
    pub bos_token_id: Option<u32>,
    /// `decoder_start_token_id`: the decoder's prompt of an encoder-decoder model.
    pub decoder_start_token_id: Option<u32>,
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
            no_repeat_ngram_size: 0,
            forced_bos_token_id: None,
            forced_eos_token_id: None,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            eos_token_ids: Vec::new(),
            pad_token_id: None,
            bos_token_id: None,
            decoder_start_token_id: None,
        }
    }
}

impl GenerationConfig {
    /// The configuration of a preset.
    ///
    /// A Hugging Face preset's is in `generation_config.json`, or without this file in `config.json`. Unknown fields
    /// and `task_specific_params` are ignored. A Keras preset has none, so this is KerasHub's default: top-k sampling
    /// up to 1024 tokens. It has no special tokens, since only KerasHub's tokenizer knows them.
    ///
    /// # Errors
    /// [`Error::Config`] when a field is out of range, or when `do_sample` is set with several beams, which is not
    /// supported; [`Error::Load`] when the file cannot be read or a field is malformed.
    pub fn from_preset(preset: &Preset) -> Result<GenerationConfig> {
        let parsed = match preset.config().source() {
            ConfigSource::Keras { .. } => GenerationConfig {
                max_length: Some(1024),
                strategy: Sampler::top_k(5).into(),
                ..GenerationConfig::default()
            },
            ConfigSource::HuggingFace { .. } => match preset.read_config("generation_config.json")? {
                Some(config) => parse(&config)?,
                None => parse(preset.config())?,
            },
        };
        parsed.validate(usize::MAX)?;
        Ok(parsed)
    }

    /// Checks every field; token ids must be less than `vocabulary_size`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that is out of range.
    pub fn validate(&self, vocabulary_size: usize) -> Result<()> {
        let length = |name, length: Option<usize>| length.map_or(Ok(()), |n| within(name, n, LARGEST_TABLE));
        length("max_length", self.max_length)?;
        length("max_new_tokens", self.max_new_tokens)?;
        self.strategy.validate()?;
        within("num_return_sequences", self.num_return_sequences, self.strategy.max_return_sequences())?;
        positive("repetition_penalty", self.repetition_penalty)?;
        within("number of end tokens", self.eos_token_ids.len() + 1, MAX_END_TOKENS)?;
        let tokens: [(&'static str, &[u32]); 8] = [
            ("forced_bos_token_id", self.forced_bos_token_id.as_slice()),
            ("forced_eos_token_id", self.forced_eos_token_id.as_slice()),
            ("suppress_tokens", &self.suppress_tokens),
            ("begin_suppress_tokens", &self.begin_suppress_tokens),
            ("eos_token_id", &self.eos_token_ids),
            ("pad_token_id", self.pad_token_id.as_slice()),
            ("bos_token_id", self.bos_token_id.as_slice()),
            ("decoder_start_token_id", self.decoder_start_token_id.as_slice()),
        ];
        for (name, ids) in tokens {
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
    /// [`Error::Request`] when the prompt already has this length, or when the length exceeds `positions + 1`.
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

/// Parses transformers' fields, of `generation_config.json` or `config.json`.
fn parse(config: &Config) -> Result<GenerationConfig> {
    let defaults = GenerationConfig::default();
    let forced_eos = ids(config, "forced_eos_token_id")?;
    if forced_eos.len() > 1 {
        return Err(field("forced_eos_token_id", format!("{} tokens", forced_eos.len()), "one token"));
    }
    Ok(GenerationConfig {
        max_length: config.opt_usize("max_length")?,
        max_new_tokens: config.opt_usize("max_new_tokens")?,
        min_length: config.opt_usize("min_length")?.unwrap_or(0),
        min_new_tokens: config.opt_usize("min_new_tokens")?,
        strategy: strategy(config)?,
        num_return_sequences: config.opt_usize("num_return_sequences")?.unwrap_or(1),
        repetition_penalty: config.opt_f32("repetition_penalty")?.unwrap_or(defaults.repetition_penalty),
        no_repeat_ngram_size: config.opt_usize("no_repeat_ngram_size")?.unwrap_or(0),
        forced_bos_token_id: id(config, "forced_bos_token_id")?,
        forced_eos_token_id: forced_eos.first().copied(),
        suppress_tokens: ids(config, "suppress_tokens")?,
        begin_suppress_tokens: ids(config, "begin_suppress_tokens")?,
        eos_token_ids: ids(config, "eos_token_id")?,
        pad_token_id: id(config, "pad_token_id")?,
        bos_token_id: id(config, "bos_token_id")?,
        decoder_start_token_id: id(config, "decoder_start_token_id")?,
    })
}

fn strategy(config: &Config) -> Result<Strategy> {
    let num_beams = config.opt_usize("num_beams")?.unwrap_or(1);
    let do_sample = config.opt_bool("do_sample")?.unwrap_or(false);
    let temperature = config.opt_f32("temperature")?.unwrap_or(1.0);
    let top_k = Some(config.opt_usize("top_k")?.unwrap_or(50)).filter(|k| *k > 0);
    let top_p = config.opt_f32("top_p")?.unwrap_or(1.0);
    let length_penalty = config.opt_f32("length_penalty")?.unwrap_or(1.0);
    let early_stopping = early_stopping(config)?;
    match (do_sample, num_beams) {
        (true, 0 | 1) => Ok(Sampler::filtered(top_k, top_p).with_temperature(temperature).into()),
        (true, _) => Err(field("num_beams", num_beams, "1 with do_sample: sampled beams are not supported")),
        (false, 1) => Ok(Sampler::greedy().into()),
        (false, _) => {
            let rule = BeamRule::HuggingFace { length_penalty, early_stopping };
            Ok(BeamSearch { num_beams, rule }.into())
        }
    }
}

fn early_stopping(config: &Config) -> Result<EarlyStopping> {
    let Some(value) = config.value("early_stopping") else { return Ok(EarlyStopping::default()) };
    let found = match (value.as_bool(), value.as_str()) {
        (Some(true), _) => Some(EarlyStopping::True),
        (Some(false), _) => Some(EarlyStopping::False),
        (_, Some("never")) => Some(EarlyStopping::Never),
        _ => None,
    };
    found.ok_or_else(|| field("early_stopping", value, "true, false or \"never\""))
}

fn id(config: &Config, name: &'static str) -> Result<Option<u32>> {
    config.opt_usize(name)?.map(|id| token(name, id)).transpose()
}

fn ids(config: &Config, name: &'static str) -> Result<Vec<u32>> {
    config.opt_usizes(name)?.unwrap_or_default().into_iter().map(|id| token(name, id)).collect()
}

fn token(name: &'static str, id: usize) -> Result<u32, Error> {
    u32::try_from(id).map_err(|_| field(name, id, "less than 2^32"))
}

#[cfg(test)]
mod tests;
