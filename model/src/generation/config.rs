//! What a caller asks of generation, by transformers' names.

use rachis_loader::{Config, ConfigSource, Preset};

use super::strategy::{BeamRule, BeamSearch, Choice, EarlyStopping, Sampler, Strategy, positive};
use crate::config::{LARGEST_TABLE, field, within};
use crate::error::{Error, RequestError, Result};

/// How text is generated. The default is transformers': greedy, 20 new tokens, nothing forbidden or forced.
///
/// Lengths count the tokens of one sequence: prompt and new ones of a decoder-only model, decoder tokens of an
/// encoder-decoder model. Padding never counts.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// The most tokens of a sequence, prompt included; without it and `max_new_tokens`, 20 new ones.
    pub max_length: Option<usize>,
    /// The most new tokens; wins over `max_length`.
    pub max_new_tokens: Option<usize>,
    /// No end token while a sequence is shorter, prompt included.
    pub min_length: usize,
    /// No end token before so many new tokens; wins over `min_length`.
    pub min_new_tokens: Option<usize>,
    /// How tokens are chosen.
    pub strategy: Strategy,
    /// How many sequences of each prompt are returned: at most the number of beams of a beam search, 1 of a greedy
    /// or contrastive search, and independent ones of a random sampler.
    pub num_return_sequences: usize,
    /// The scores of tokens that are there already are divided by this when positive and multiplied by it when
    /// negative; 1 leaves them.
    pub repetition_penalty: f32,
    /// No sequence of so many tokens occurs twice; 0 allows all.
    pub no_repeat_ngram_size: usize,
    /// The first new token, where the prompt has one token.
    pub forced_bos_token_id: Option<u32>,
    /// The last token of a sequence that reaches the maximum length.
    pub forced_eos_token_id: Option<u32>,
    /// Tokens that never occur.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that do not occur first, or after the forced first one.
    pub begin_suppress_tokens: Vec<u32>,
    /// Tokens that end a sequence.
    pub eos_token_ids: Vec<u32>,
    /// What fills sequences that ended before others.
    pub pad_token_id: Option<u32>,
    /// What a prompt starts with.
    pub bos_token_id: Option<u32>,
    /// The prompt of a decoder that has an encoder.
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
    /// The defaults of a preset. Of Hugging Face's, what `generation_config.json` says, and where there is no such
    /// file what `config.json` does; unknown fields, and `task_specific_params`, do not count. Of Keras's, KerasHub's
    /// own: a top-k sampler and 1024 tokens, without special tokens, which the tokenizer knows.
    ///
    /// # Errors
    /// A field that is malformed or out of range; `do_sample` with several beams, which is not supported.
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

    /// Checks every field; `vocabulary_size` bounds the tokens.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that is out of range.
    pub fn validate(&self, vocabulary_size: usize) -> Result<()> {
        let length = |name, length: Option<usize>| length.map_or(Ok(()), |n| within(name, n, LARGEST_TABLE));
        length("max_length", self.max_length)?;
        length("max_new_tokens", self.max_new_tokens)?;
        self.strategy.validate()?;
        within("num_return_sequences", self.num_return_sequences, self.strategy.most_sequences())?;
        positive("repetition_penalty", self.repetition_penalty)?;
        within("number of end tokens", self.eos_token_ids.len() + 1, MOST_END_TOKENS)?;
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

    /// The most tokens of a sequence whose prompt has `prompt` tokens, for a model of so many `positions`, `None`
    /// when it has no limit. The last token needs no position, since nothing follows it.
    ///
    /// # Errors
    /// [`Error::Request`] when there is no room for a new token, or when more is asked for than the model's positions.
    pub fn length_limit(&self, prompt: usize, positions: Option<usize>) -> Result<usize> {
        let most = positions.map_or(usize::MAX, |positions| positions.saturating_add(1));
        let limit = match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => prompt.saturating_add(new),
            (None, Some(length)) => length,
            (None, None) => prompt.saturating_add(DEFAULT_NEW_TOKENS).min(positions.unwrap_or(usize::MAX)),
        };
        if limit > most {
            return Err(RequestError::MaxLength { found: limit, max: most }.into());
        }
        if limit <= prompt {
            return Err(RequestError::PromptLength { found: prompt, max: limit }.into());
        }
        Ok(limit)
    }

    /// The tokens, prompt included, before which no end token may come.
    pub(crate) fn shortest(&self, prompt: usize) -> usize {
        self.min_new_tokens.map_or(self.min_length, |new| prompt.saturating_add(new))
    }
}

const DEFAULT_NEW_TOKENS: usize = 20;
const MOST_END_TOKENS: usize = 1 << 10;

/// transformers' fields, of either file.
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
    let sample = config.opt_bool("do_sample")?.unwrap_or(false);
    let temperature = config.opt_f32("temperature")?.unwrap_or(1.0);
    let top_k = Some(config.opt_usize("top_k")?.unwrap_or(50)).filter(|k| *k > 0);
    let top_p = config.opt_f32("top_p")?.unwrap_or(1.0);
    let length_penalty = config.opt_f32("length_penalty")?.unwrap_or(1.0);
    let early_stopping = early_stopping(config)?;
    match (sample, num_beams) {
        (true, 0 | 1) => {
            Ok(Sampler { choice: Choice::Filtered { top_k, top_p }, temperature, seed: 0 }.into())
        }
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
        (Some(true), _) => Some(EarlyStopping::AtOnce),
        (Some(false), _) => Some(EarlyStopping::WhenUnlikely),
        (_, Some("never")) => Some(EarlyStopping::WhenImpossible),
        _ => None,
    };
    found.ok_or_else(|| field("early_stopping", "something else", "true, false or \"never\""))
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
