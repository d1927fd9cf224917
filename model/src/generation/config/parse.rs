//! From transformers' fields to a configuration.

use rachis_loader::{Config, ConfigSource};
use serde_json::Value;

use super::{GenerationConfig, LogProbabilities};
use crate::config::{LARGEST_TABLE, field};
use crate::error::{Error, Result};
use crate::generation::filters::Filters;
use crate::generation::keras_sampler::KerasSampler;
use crate::generation::strategy::{
    BeamRule, BeamSearch, Continuations, ContrastiveSearch, EarlyStopping, Sampler, SamplingMethod, Strategy,
};

/// Fields in order of precedence.
pub(super) struct Fields<'f> {
    given: Config,
    file: &'f Config,
}

impl<'f> Fields<'f> {
    /// Fields of a caller, and of files.
    pub(super) fn new(given: Config, file: &'f Config) -> Fields<'f> {
        Fields { given, file }
    }

    /// Where a field is stated. A `null` of the caller's counts.
    fn of(&self, name: &str) -> &Config {
        if self.given.fields().any(|(given, _)| given == name) { &self.given } else { self.file }
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.of(name).value(name)
    }

    fn usize(&self, name: &str) -> Result<Option<usize>> {
        Ok(self.of(name).opt_usize(name)?)
    }

    /// A size that counts where it is more than 0 only: a negative one is 0.
    fn size(&self, name: &str) -> Result<Option<usize>> {
        match self.value(name).and_then(Value::as_i64) {
            Some(..0) => Ok(Some(0)),
            _ => self.usize(name),
        }
    }

    fn f32(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.of(name).opt_f32(name)?.unwrap_or(default))
    }

    fn bool(&self, name: &str) -> Result<bool> {
        Ok(self.of(name).opt_bool(name)?.unwrap_or(false))
    }

    /// A token id that is used as it is.
    fn id(&self, name: &'static str) -> Result<Option<u32>> {
        let id = |id| u32::try_from(id).map_err(|_| field(name, id, "less than 2^32"));
        self.usize(name)?.map(id).transpose()
    }

    /// Token ids that are used as they are: an id, or a list.
    fn ids(&self, name: &'static str) -> Result<Vec<u32>> {
        let ids = self.of(name).opt_usizes(name)?.unwrap_or_default();
        ids.into_iter().map(|id| u32::try_from(id).map_err(|_| field(name, id, "less than 2^32"))).collect()
    }

    /// Token ids that only compare with others: an id, or a list. Those that no token has, such as -1, are left out.
    fn any_ids(&self, name: &'static str) -> Result<Vec<u32>> {
        let ids = match self.value(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(single) => std::slice::from_ref(single),
        };
        let ids: Option<Vec<i64>> = ids.iter().map(Value::as_i64).collect();
        let ids = ids.ok_or_else(|| self.wrong(name, "a token id or a list of them"))?;
        Ok(ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
    }

    /// The error of a field of another form, which says where the field is stated.
    fn wrong(&self, name: &str, expected: &'static str) -> Error {
        self.of(name).unexpected(name, expected).into()
    }

    /// A list of lists of token ids.
    fn sequences(&self, name: &'static str) -> Result<Vec<Vec<u32>>> {
        let Some(value) = self.value(name) else { return Ok(Vec::new()) };
        let lists = value.as_array().and_then(|lists| lists.iter().map(sequence).collect());
        lists.ok_or_else(|| self.wrong(name, "a list of lists of token ids"))
    }
}

fn sequence(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

/// The configuration that fields make.
pub(super) fn parse(fields: &Fields<'_>) -> Result<GenerationConfig> {
    Ok(GenerationConfig {
        max_length: fields.usize("max_length")?,
        max_new_tokens: fields.usize("max_new_tokens")?,
        min_length: fields.size("min_length")?.unwrap_or(0),
        min_new_tokens: fields.size("min_new_tokens")?,
        strategy: match fields.file.source() {
            ConfigSource::HuggingFace { .. } => strategy(fields)?,
            ConfigSource::Keras { .. } => keras_strategy(fields)?,
        },
        num_return_sequences: fields.usize("num_return_sequences")?.unwrap_or(1),
        repetition_penalty: fields.f32("repetition_penalty", 1.0)?,
        encoder_repetition_penalty: fields.f32("encoder_repetition_penalty", 1.0)?,
        no_repeat_ngram_size: fields.size("no_repeat_ngram_size")?.unwrap_or(0),
        encoder_no_repeat_ngram_size: fields.size("encoder_no_repeat_ngram_size")?.unwrap_or(0),
        bad_words_ids: fields.sequences("bad_words_ids")?,
        sequence_bias: sequence_bias(fields)?,
        forced_bos_token_id: fields.id("forced_bos_token_id")?,
        forced_eos_token_ids: fields.ids("forced_eos_token_id")?,
        suppress_tokens: fields.any_ids("suppress_tokens")?,
        begin_suppress_tokens: fields.any_ids("begin_suppress_tokens")?,
        exponential_decay_length_penalty: exponential_decay(fields)?,
        remove_invalid_values: fields.bool("remove_invalid_values")?,
        renormalize_logits: fields.bool("renormalize_logits")?,
        stop_strings: stop_strings(fields)?,
        log_probabilities: match fields.bool("output_scores")? {
            true => LogProbabilities::Chosen,
            false => LogProbabilities::Skip,
        },
        eos_token_ids: fields.any_ids("eos_token_id")?,
        pad_token_id: fields.any_ids("pad_token_id")?.first().copied(),
        bos_token_id: fields.any_ids("bos_token_id")?.first().copied(),
        decoder_start_token_id: fields.id("decoder_start_token_id")?,
        ..GenerationConfig::default()
    })
}

/// transformers' generation mode.
fn strategy(fields: &Fields<'_>) -> Result<Strategy> {
    let num_beams = fields.usize("num_beams")?.unwrap_or(1);
    let groups = fields.usize("num_beam_groups")?.unwrap_or(1);
    let do_sample = fields.bool("do_sample")?;
    let early_stopping = early_stopping(fields)?;
    if num_beams == 1 {
        if do_sample {
            let sampler = Sampler::filtered(filters(fields)?).with_seed(seed(fields)?);
            return Ok(sampler.with_temperature(fields.f32("temperature", 1.0)?).into());
        }
        let (alpha, k) = (fields.f32("penalty_alpha", 0.0)?, top_k(fields)?.unwrap_or(0));
        if alpha > 0.0 && k > 1 {
            return Ok(ContrastiveSearch::new(k, alpha).into());
        }
        return Ok(Sampler::greedy().into());
    }
    let rule = BeamRule::HuggingFace { length_penalty: fields.f32("length_penalty", 1.0)?, early_stopping };
    let continuations = match (groups, do_sample) {
        (0 | 1, false) => Continuations::Best,
        (0 | 1, true) => Continuations::Drawn {
            temperature: fields.f32("temperature", 1.0)?,
            filters: filters(fields)?,
            seed: seed(fields)?,
        },
        (groups, false) => Continuations::Diverse { groups, penalty: fields.f32("diversity_penalty", 0.0)? },
        (groups, true) => return Err(field("num_beam_groups", groups, "1 with do_sample")),
    };
    Ok(BeamSearch::new(num_beams).with_rule(rule).with_continuations(continuations).into())
}

/// The sampler of KerasHub: the one of the field `sampler`, else the one that the other fields imply.
fn keras_strategy(fields: &Fields<'_>) -> Result<Strategy> {
    let num_beams = fields.usize("num_beams")?;
    let (k, p) =
        (fields.usize("top_k")?, fields.value("top_p").map(|_| fields.f32("top_p", 1.0)).transpose()?);
    let implied = match (fields.value("do_sample").and_then(Value::as_bool), num_beams, p) {
        (_, Some(2..), _) => KerasSampler::Beam,
        (Some(false), ..) => KerasSampler::Greedy,
        (.., Some(_)) => KerasSampler::TopP,
        _ => KerasSampler::TopK,
    };
    let sampler = match fields.value("sampler") {
        None => implied,
        Some(Value::String(name)) => name.parse()?,
        Some(_) => return Err(fields.wrong("sampler", "the name of a sampler")),
    };
    let temperature = fields.f32("temperature", 1.0)?;
    Ok(match sampler.into() {
        Strategy::Sample(Sampler { method, .. }) => {
            let method = match method {
                SamplingMethod::TopK { k: default } => SamplingMethod::TopK { k: k.unwrap_or(default) },
                SamplingMethod::TopP { p: default, .. } => {
                    SamplingMethod::TopP { p: p.unwrap_or(default), k }
                }
                other => other,
            };
            Sampler::new(method).with_temperature(temperature).with_seed(seed(fields)?).into()
        }
        Strategy::Beam(search) => {
            let search = BeamSearch::keras(num_beams.unwrap_or(search.num_beams));
            search.with_rule(BeamRule::KerasHub { temperature }).into()
        }
        Strategy::Contrastive(search) => {
            let alpha = fields.f32("penalty_alpha", search.alpha)?;
            ContrastiveSearch::new(k.unwrap_or(search.k), alpha).with_temperature(temperature).into()
        }
    })
}

/// Values at which transformers leaves a filter out keep all tokens here.
fn filters(fields: &Fields<'_>) -> Result<Filters> {
    let optional = |name| fields.value(name).map(|_| fields.f32(name, 1.0)).transpose();
    let inside = |cutoff: f32| if cutoff > 0.0 && cutoff < 1.0 { cutoff } else { 0.0 };
    Ok(Filters {
        top_k: top_k(fields)?,
        top_h: optional("top_h")?,
        top_p: fields.f32("top_p", 1.0)?.min(1.0),
        min_p: optional("min_p")?,
        typical_p: fields.f32("typical_p", 1.0)?.min(1.0),
        epsilon_cutoff: inside(fields.f32("epsilon_cutoff", 0.0)?),
        eta_cutoff: inside(fields.f32("eta_cutoff", 0.0)?),
    })
}

/// transformers' default is 50. A caller's `null` is no limit.
fn top_k(fields: &Fields<'_>) -> Result<Option<usize>> {
    let default = if fields.given.fields().any(|(name, _)| name == "top_k") { 0 } else { 50 };
    let k = fields.usize("top_k")?.unwrap_or(default);
    // More than any vocabulary has: no limit.
    Ok(Some(k).filter(|k| (1..=LARGEST_TABLE).contains(k)))
}

/// Not a field of transformers: its random numbers are seeded for the whole process.
fn seed(fields: &Fields<'_>) -> Result<u64> {
    match fields.value("seed") {
        None => Ok(0),
        Some(seed) => seed.as_u64().ok_or_else(|| fields.wrong("seed", "an integer, 0 or more")),
    }
}

fn early_stopping(fields: &Fields<'_>) -> Result<EarlyStopping> {
    let Some(value) = fields.value("early_stopping") else { return Ok(EarlyStopping::default()) };
    let found = match (value.as_bool(), value.as_str()) {
        (Some(true), _) => Some(EarlyStopping::True),
        (Some(false), _) => Some(EarlyStopping::False),
        (_, Some("never")) => Some(EarlyStopping::Never),
        _ => None,
    };
    found.ok_or_else(|| fields.wrong("early_stopping", "true, false or \"never\""))
}

/// Pairs of a list of token ids and a number.
fn sequence_bias(fields: &Fields<'_>) -> Result<Vec<(Vec<u32>, f32)>> {
    let Some(value) = fields.value("sequence_bias") else { return Ok(Vec::new()) };
    let pair = |pair: &Value| match pair.as_array()?.as_slice() {
        [ids, bias] => Some((sequence(ids)?, bias.as_f64()? as f32)),
        _ => None,
    };
    let pairs = value.as_array().and_then(|pairs| pairs.iter().map(pair).collect());
    pairs.ok_or_else(|| fields.wrong("sequence_bias", "a list of pairs of token ids and a number"))
}

fn exponential_decay(fields: &Fields<'_>) -> Result<Option<(usize, f64)>> {
    const NAME: &str = "exponential_decay_length_penalty";
    let Some(value) = fields.value(NAME) else { return Ok(None) };
    let found = match value.as_array().map(Vec::as_slice) {
        Some([start, factor]) => {
            start.as_u64().and_then(|start| usize::try_from(start).ok()).zip(factor.as_f64())
        }
        _ => None,
    };
    found.map(Some).ok_or_else(|| fields.wrong(NAME, "a number of tokens and a factor"))
}

fn stop_strings(fields: &Fields<'_>) -> Result<Vec<String>> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let Some(value) = fields.value("stop_strings") else { return Ok(Vec::new()) };
    let found = match value {
        Value::Array(texts) => texts.iter().map(text).collect(),
        single => text(single).map(|text| vec![text]),
    };
    found.ok_or_else(|| fields.wrong("stop_strings", "a text or a list of texts, none of them empty"))
}
