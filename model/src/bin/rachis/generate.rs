//! `generate`: text, or token ids, from prompts.

use core::ops::ControlFlow;

use rachis::generation::{
    BeamRule, BeamSearch, Choice, Generated, GenerationConfig, GenerationInputs, Progress, Sampler, Strategy,
    generate,
};
use rachis::loader::Preset;
use rachis::{Decoder, Session, Tokens};
use serde_json::{Value, json};

use crate::args::{BadUsage, GenerateArgs};
use crate::tokenizer::{self, Prompting, Tokenizer};
use crate::{Result, print};

pub fn run(args: &GenerateArgs) -> Result<()> {
    let (preset, backbone) = args.common.open(args.common.model()?)?;
    let model = backbone
        .decoder()
        .ok_or_else(|| BadUsage(format!("generate needs a model that writes, found {}", backbone.name())))?;
    let tokenizer = match (tokenizer::open(&preset, model.max_positions()), args.prompts.is_empty()) {
        (Ok(tokenizer), _) => Some(tokenizer),
        // Ids need none; the texts of the answer are missing then.
        (Err(_), true) => None,
        (Err(error), false) => return Err(error),
    };
    let prompts = prompts(args, tokenizer.as_ref())?;
    let prompting = tokenizer.as_ref().map(|tokenizer| tokenizer.prompting.clone()).unwrap_or_default();
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

/// The prompts' tokens, texts first.
fn prompts(args: &GenerateArgs, tokenizer: Option<&Tokenizer>) -> Result<Vec<Vec<u32>>> {
    let mut prompts = Vec::new();
    for text in &args.prompts {
        let tokenizer = tokenizer.ok_or("the model has no tokenizer")?;
        prompts.push(tokenizer.encode(text)?.get_ids().to_vec());
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
        // A decoder's prompt is not the caller's.
        let ids = if model.has_encoder() { &found.ids[..] } else { found.new_ids() };
        Ok(json!({ "ids": ids, "text": text(found.new_ids(), tokenizer)?, "score": found.score }))
    };
    found.iter().flatten().map(sequence).collect()
}

fn text(ids: &[u32], tokenizer: Option<&Tokenizer>) -> Result<Option<String>> {
    tokenizer.map(|tokenizer| tokenizer.decode(ids)).transpose()
}

fn list(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// `5,6,7`
fn parse_ids(flag: &str, text: &str) -> Result<Vec<u32>> {
    let id = |id: &str| {
        id.trim().parse().map_err(|_| BadUsage(format!("{flag} is {text}, expected ids such as 5,6,7")))
    };
    Ok(text.split(',').map(id).collect::<Result<_, _>>()?)
}

/// Tokens written to standard output as they come: as text, or as ids where there is no tokenizer.
struct Stream<'t> {
    tokenizer: Option<&'t Tokenizer>,
    ids: Vec<u32>,
    /// The text of the tokens so far that has been written.
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
            // A character may take several tokens; until it is whole, its text ends in a replacement character.
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
    /// The preset's defaults, its tokenizer's among them, with what the flags say.
    fn config(&self, preset: &Preset, prompting: &Prompting) -> Result<GenerationConfig> {
        let defaults = GenerationConfig::from_preset(preset)?;
        let eos_token_ids = match self.eos_ids.as_deref() {
            None if defaults.eos_token_ids.is_empty() => prompting.end.into_iter().collect(),
            None => defaults.eos_token_ids.clone(),
            Some("none") => Vec::new(),
            Some(ids) => parse_ids("--eos-ids", ids)?,
        };
        Ok(GenerationConfig {
            max_new_tokens: self.max_new_tokens.or(defaults.max_new_tokens),
            min_new_tokens: self.min_new_tokens.or(defaults.min_new_tokens),
            strategy: self.strategy(defaults.strategy)?,
            num_return_sequences: self.num_return_sequences.unwrap_or(defaults.num_return_sequences),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(defaults.no_repeat_ngram_size),
            forced_bos_token_id: self.forced_bos_id.map_or(defaults.forced_bos_token_id, |id| id.0),
            forced_eos_token_id: self.forced_eos_id.map_or(defaults.forced_eos_token_id, |id| id.0),
            decoder_start_token_id: self.decoder_start_id.or(defaults.decoder_start_token_id),
            eos_token_ids,
            ..defaults
        })
    }

    /// Flags of sampling make it a sampler's, beams a beam search; without either it is the preset's own.
    fn strategy(&self, default: Strategy) -> Result<Strategy> {
        let samples =
            self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some() || self.seed.is_some();
        let beams = match (self.num_beams, default) {
            (Some(beams), _) => beams,
            (None, Strategy::Beam(search)) if !samples => search.num_beams,
            (None, _) => 1,
        };
        match (samples, beams) {
            (true, 1) => {
                let sampler = match default {
                    Strategy::Sample(sampler) if sampler.choice != Choice::Greedy => sampler,
                    _ => Sampler::filtered(None, 1.0),
                };
                let choice = match sampler.choice {
                    Choice::Filtered { top_k, top_p } => {
                        Choice::Filtered { top_k: self.top_k.or(top_k), top_p: self.top_p.unwrap_or(top_p) }
                    }
                    _ if self.top_k.is_some() || self.top_p.is_some() => {
                        Choice::Filtered { top_k: self.top_k, top_p: self.top_p.unwrap_or(1.0) }
                    }
                    other => other,
                };
                let temperature = self.temperature.unwrap_or(sampler.temperature);
                Ok(Sampler { choice, temperature, seed: self.seed.unwrap_or(sampler.seed) }.into())
            }
            (true, _) => Err(BadUsage(
                "--num-beams cannot be sampled: leave out --temperature, --top-k, --top-p and --seed"
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
                Ok(BeamSearch { num_beams, rule }.into())
            }
        }
    }
}
