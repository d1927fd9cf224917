//! `generate`: text or token ids from prompts.

use core::ops::ControlFlow;

use rachis::generation::{
    BeamRule, BeamSearch, Generated, GenerationConfig, GenerationInputs, Progress, Sampler, SamplingMethod,
    Strategy, generate,
};
use rachis::loader::Preset;
use rachis::{Decoder, Session, Tokens};
use rachis_text::{EncodeOptions, Prompting, SpecialTokens, Tokenizer, Truncation};
use serde_json::{Value, json};

use crate::args::{BadUsage, GenerateArgs};
use crate::{Result, print};

pub fn run(args: &GenerateArgs) -> Result<()> {
    let (preset, backbone) = args.common.open(args.common.model()?)?;
    let model = backbone.decoder().ok_or_else(|| {
        BadUsage(format!("generate needs a model with a decoder, found {}", backbone.name()))
    })?;
    let tokenizer = match (Tokenizer::load(&preset), args.prompts.is_empty()) {
        (Ok(tokenizer), _) => Some(tokenizer),
        // Prompts of ids need no tokenizer; the output has no texts then.
        (Err(_), true) => None,
        (Err(error), false) => return Err(error.into()),
    };
    let prompts = prompts(args, tokenizer.as_ref(), model.max_positions())?;
    let prompting = tokenizer.as_ref().map(|tokenizer| tokenizer.prompting().clone()).unwrap_or_default();
    let config = args.config(&preset, &prompting)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    let (ids, lengths) = (prompts.concat(), prompts.iter().map(Vec::len).collect::<Vec<_>>());
    let decoder_prompt = prompting.decoder.as_deref().filter(|_| config.decoder_start_token_id.is_none());
    let inputs = GenerationInputs { tokens: Tokens::ragged(&ids, &lengths), decoder_prompt };

    let single = prompts.len() == 1 && config.num_return_sequences == 1;
    let mut stream = (single && !args.common.json).then(|| Stream::new(tokenizer.as_ref()));
    let mut broken = None;
    let mut watch = |progress| {
        if let (Progress::Token { token, .. }, Some(stream)) = (progress, &mut stream)
            && let Err(error) = stream.write(token)
        {
            broken = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let found = generate(model, &mut session, inputs, &config, Some(&mut watch))?;
    if let Some(error) = broken {
        return Err(error);
    }
    if stream.is_some() {
        print("\n")?;
    } else if args.common.json {
        let sequences = sequences(model, &found, tokenizer.as_ref())?;
        print(format_args!("{}\n", json!({ "sequences": sequences })))?;
    } else {
        for (prompt, found) in found.iter().enumerate() {
            for (sequence, found) in found.iter().enumerate() {
                let text = match text(found.new_ids(), tokenizer.as_ref())? {
                    Some(text) => text,
                    None => list(found.new_ids()),
                };
                print(format_args!("{prompt}.{sequence}  {text}\n"))?;
            }
        }
    }
    Ok(())
}

/// The token ids of the prompts, those of texts first.
fn prompts(args: &GenerateArgs, tokenizer: Option<&Tokenizer>, max_tokens: usize) -> Result<Vec<Vec<u32>>> {
    let mut prompts = Vec::new();
    for text in &args.prompts {
        let tokenizer = tokenizer.ok_or("the model has no tokenizer")?;
        let options = EncodeOptions::new().with_truncation(Truncation::new(max_tokens));
        prompts.push(tokenizer.encode_with(text, options)?.ids);
    }
    for ids in &args.prompt_ids {
        prompts.push(parse_ids("--prompt-ids", ids)?);
    }
    if prompts.is_empty() {
        return Err(BadUsage("--prompt or --prompt-ids is missing".to_owned()).into());
    }
    Ok(prompts)
}

fn sequences(
    model: &dyn Decoder,
    found: &[Vec<Generated>],
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<Value>> {
    let sequence = |found: &Generated| -> Result<Value> {
        // The decoder's prompt is part of the output, as in transformers; a text prompt is not.
        let ids = if model.has_encoder() { &found.ids[..] } else { found.new_ids() };
        Ok(json!({ "ids": ids, "text": text(found.new_ids(), tokenizer)?, "score": found.score }))
    };
    found.iter().flatten().map(sequence).collect()
}

fn text(ids: &[u32], tokenizer: Option<&Tokenizer>) -> Result<Option<String>> {
    Ok(tokenizer.map(|tokenizer| tokenizer.decode(ids, SpecialTokens::Without)).transpose()?)
}

fn list(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Parses ids such as `5,6,7`.
fn parse_ids(flag: &str, text: &str) -> Result<Vec<u32>> {
    let id = |id: &str| {
        id.trim().parse().map_err(|_| BadUsage(format!("{flag} is {text}, expected ids such as 5,6,7")))
    };
    Ok(text.split(',').map(id).collect::<Result<_, _>>()?)
}

/// Writes tokens to standard output as they are generated: as text, or as ids when there is no tokenizer.
struct Stream<'t> {
    tokenizer: Option<&'t Tokenizer>,
    ids: Vec<u32>,
    /// The text that has been written.
    written: String,
}

impl<'t> Stream<'t> {
    fn new(tokenizer: Option<&'t Tokenizer>) -> Stream<'t> {
        Stream { tokenizer, ids: Vec::new(), written: String::new() }
    }

    fn write(&mut self, token: u32) -> Result<()> {
        self.ids.push(token);
        match text(&self.ids, self.tokenizer)? {
            None if self.ids.len() == 1 => print(token),
            None => print(format_args!(",{token}")),
            // A character may need several tokens; while it is incomplete, the text ends in a replacement character.
            Some(text) if text.ends_with('\u{fffd}') => Ok(()),
            Some(text) => {
                print(text.strip_prefix(&self.written).unwrap_or_default())?;
                self.written = text;
                Ok(())
            }
        }
    }
}

impl GenerateArgs {
    /// The configuration of the preset and its tokenizer, overridden by the flags.
    fn config(&self, preset: &Preset, prompting: &Prompting) -> Result<GenerationConfig> {
        let mut config = GenerationConfig::from_preset(preset)?;
        config.eos_token_ids = match self.eos_ids.as_deref() {
            None if config.eos_token_ids.is_empty() => prompting.end.into_iter().collect(),
            None => config.eos_token_ids,
            Some("none") => Vec::new(),
            Some(ids) => parse_ids("--eos-ids", ids)?,
        };
        config.max_new_tokens = self.max_new_tokens.or(config.max_new_tokens);
        config.min_new_tokens = self.min_new_tokens.or(config.min_new_tokens);
        config.strategy = self.strategy(config.strategy)?;
        config.num_return_sequences = self.num_return_sequences.unwrap_or(config.num_return_sequences);
        config.repetition_penalty = self.repetition_penalty.unwrap_or(config.repetition_penalty);
        config.no_repeat_ngram_size = self.no_repeat_ngram_size.unwrap_or(config.no_repeat_ngram_size);
        config.forced_bos_token_id = self.forced_bos_id.map_or(config.forced_bos_token_id, |id| id.0);
        config.forced_eos_token_id = self.forced_eos_id.map_or(config.forced_eos_token_id, |id| id.0);
        config.decoder_start_token_id = self.decoder_start_id.or(config.decoder_start_token_id);
        Ok(config)
    }

    /// Sampling, when a flag of sampling is given; beam search, when `--num-beams` is; else the preset's strategy,
    /// `default`.
    fn strategy(&self, default: Strategy) -> Result<Strategy> {
        let sampling =
            self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some() || self.seed.is_some();
        let beams = match (self.num_beams, default) {
            (Some(beams), _) => beams,
            (None, Strategy::Beam(search)) if !sampling => search.num_beams,
            (None, _) => 1,
        };
        match (sampling, beams) {
            (true, 1) => {
                let sampler = match default {
                    Strategy::Sample(sampler) if sampler.method != SamplingMethod::Greedy => sampler,
                    _ => Sampler::filtered(None, 1.0),
                };
                let method = match sampler.method {
                    SamplingMethod::Filtered { top_k, top_p } => {
                        SamplingMethod::Filtered { top_k: self.top_k.or(top_k), top_p: self.top_p.unwrap_or(top_p) }
                    }
                    _ if self.top_k.is_some() || self.top_p.is_some() => {
                        SamplingMethod::Filtered { top_k: self.top_k, top_p: self.top_p.unwrap_or(1.0) }
                    }
                    other => other,
                };
                let temperature = self.temperature.unwrap_or(sampler.temperature);
                let seed = self.seed.unwrap_or(sampler.seed);
                Ok(Sampler::new(method).with_temperature(temperature).with_seed(seed).into())
            }
            (true, _) => Err(BadUsage(
                "--num-beams cannot be combined with sampling: leave out --temperature, --top-k, --top-p and --seed"
                    .to_owned(),
            )
            .into()),
            (false, 1) if self.num_beams.is_some() && matches!(default, Strategy::Beam(_)) => {
                Ok(Sampler::greedy().into())
            }
            (false, 1) => Ok(default),
            (false, num_beams) => {
                let rule = match default {
                    Strategy::Beam(search) => search.rule,
                    _ => BeamSearch::new(num_beams).rule,
                };
                let rule = match rule {
                    BeamRule::HuggingFace { length_penalty, early_stopping } => BeamRule::HuggingFace {
                        length_penalty: self.length_penalty.unwrap_or(length_penalty),
                        early_stopping: self.early_stopping.unwrap_or(early_stopping),
                    },
                    other => other,
                };
                Ok(BeamSearch::new(num_beams).with_rule(rule).into())
            }
        }
    }
}
