//! `generate`: text or token ids from prompts.

mod answer;

use core::ops::ControlFlow;
use std::io::{BufRead, IsTerminal};

use rachis::generation::{EarlyStopping, GenerationConfig, GenerationFields};
use rachis::loader::ConfigSource;
use rachis::{Backbone, Session};
use rachis_text::{GeneratedText, TextGenerator, visible};
use serde_json::{Value, json};

use crate::args::{BadUsage, GenerateArgs, IdOrNone};
use crate::{Result, print, requests};

pub fn run(args: &GenerateArgs) -> Result<()> {
    if args.requests.is_none() && args.prompts.is_empty() && args.prompt_ids.is_empty() {
        return Err(BadUsage("--prompt, --prompt-ids or --requests is missing".to_owned()).into());
    }
    let generator = open(args)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    if let Some(source) = &args.requests {
        return requests::answer(source, |request| answer::answer(&generator, &mut session, args, request));
    }
    let config = args.fields(generator.fields())?.config()?;
    let prompts = prompts(args, &generator)?;
    if !args.common.json && prompts.len() == 1 && config.num_return_sequences == 1 {
        return stream(&generator, &mut session, &prompts, &config);
    }
    let found = generator.generate_from_ids(&mut session, &prompts, &config)?;
    if args.common.json {
        let sequences: Vec<Value> = found.iter().flatten().map(|found| describe(&generator, found)).collect();
        return print(format_args!("{}\n", json!({ "sequences": sequences })));
    }
    for (prompt, found) in found.iter().enumerate() {
        for (sequence, found) in found.iter().enumerate() {
            let text = match generator.tokenizer() {
                Some(_) => shown(&found.text),
                None => list(found.sequence.new_ids()),
            };
            print(format_args!("{prompt}.{sequence}  {text}\n"))?;
        }
    }
    Ok(())
}

/// The generator of `--model`, with the task and the prefix of the flags. Prompts of ids need no tokenizer; the output
/// has no texts then.
fn open(args: &GenerateArgs) -> Result<TextGenerator> {
    let (preset, model) = args.common.open(args.common.model()?)?;
    if let Some(name) = needs_decoder(&model) {
        return Err(BadUsage(format!("generate needs a model with a decoder, found {name}")).into());
    }
    let ids_alone = args.prompts.is_empty() && args.requests.is_none();
    let mut generator = if ids_alone && rachis_text::Tokenizer::load(&preset).is_err() {
        TextGenerator::load_without_tokenizer(&preset, model)?
    } else {
        TextGenerator::load(&preset, model)?
    };
    if let Some(task) = &args.task {
        generator = generator.with_task(task)?;
    }
    Ok(match &args.prefix {
        Some(prefix) => generator.with_prefix(prefix),
        None => generator,
    })
}

/// The name of a model that has no decoder.
fn needs_decoder(model: &Backbone) -> Option<&str> {
    if model.decoder().is_none() { Some(model.name()) } else { None }
}

/// Prints text as it is generated: as ids where there is no tokenizer.
fn stream(
    generator: &TextGenerator,
    session: &mut Session<'_>,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
) -> Result<()> {
    let (mut first, mut failed) = (true, None);
    generator.stream_from_ids(session, prompts, config)?.run(|piece| {
        let printed = match (generator.tokenizer(), piece.token) {
            (Some(_), _) => print(shown(&piece.text)),
            (None, Some(token)) if first => print(token),
            (None, Some(token)) => print(format_args!(",{token}")),
            (None, None) => Ok(()),
        };
        first = false;
        failed = printed.err();
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failed.map_or_else(|| print("\n"), Err)
}

/// A text for standard output: on a terminal without control characters, else as it is.
fn shown(text: &str) -> String {
    if std::io::stdout().is_terminal() { printable(text) } else { text.to_owned() }
}

/// A text without control characters but line ends and tabs.
fn printable(text: &str) -> String {
    let parts = text.split_inclusive(['\n', '\t']);
    let safe = parts.map(|part| match part.strip_suffix(['\n', '\t']) {
        Some(line) => visible(line) + &part[line.len()..],
        None => visible(part),
    });
    safe.collect()
}

/// The token ids of the prompts, those of texts first: the lines of standard input for `-`.
fn prompts(args: &GenerateArgs, generator: &TextGenerator) -> Result<Vec<Vec<u32>>> {
    let lines: Vec<String> = match args.prompts.as_slice() {
        [one] if one == "-" => std::io::stdin().lock().lines().collect::<Result<_, _>>()?,
        texts => texts.to_vec(),
    };
    if !args.prompts.is_empty() && lines.is_empty() {
        return Err("standard input has no prompt".into());
    }
    let texts = lines.iter().map(|text| Ok(generator.encode(text)?));
    let ids = args.prompt_ids.iter().map(|ids| parse_ids("--prompt-ids", ids));
    texts.chain(ids).collect()
}

fn describe(generator: &TextGenerator, found: &GeneratedText) -> Value {
    let sequence = &found.sequence;
    let has_encoder = generator.model().decoder().is_some_and(rachis::Decoder::has_encoder);
    // The decoder's prompt is part of the output, as in transformers; a text prompt is not.
    let ids = if has_encoder { &sequence.ids[..] } else { sequence.new_ids() };
    let text = generator.tokenizer().map(|_| &found.text);
    let mut described = json!({ "ids": ids, "text": text, "score": sequence.score });
    if !sequence.log_probabilities.is_empty() {
        described["log_probabilities"] = json!(sequence.log_probabilities);
    }
    described
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

impl GenerateArgs {
    /// The arguments of generation, with those of the flags.
    fn fields(&self, fields: &GenerationFields) -> Result<GenerationFields> {
        let mut fields = fields.clone();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.set(name, value);
            }
        };
        set("max_new_tokens", self.max_new_tokens.map(Value::from));
        set("min_new_tokens", self.min_new_tokens.map(Value::from));
        set("num_beams", self.num_beams.map(Value::from));
        set("temperature", number("--temperature", self.temperature)?);
        set("top_k", self.top_k.map(Value::from));
        set("top_p", number("--top-p", self.top_p)?);
        set("seed", self.seed.map(Value::from));
        set("repetition_penalty", number("--repetition-penalty", self.repetition_penalty)?);
        set("no_repeat_ngram_size", self.no_repeat_ngram_size.map(Value::from));
        set("length_penalty", number("--length-penalty", self.length_penalty)?);
        set("early_stopping", self.early_stopping.map(early_stopping));
        set("num_return_sequences", self.num_return_sequences.map(Value::from));
        set("forced_bos_token_id", self.forced_bos_id.map(|IdOrNone(id)| id.into()));
        set("forced_eos_token_id", self.forced_eos_id.map(|IdOrNone(id)| id.into()));
        set("decoder_start_token_id", self.decoder_start_id.map(Value::from));
        set("stop_strings", Some(self.stop.clone()).filter(|stop| !stop.is_empty()).map(Value::from));
        match self.eos_ids.as_deref() {
            None => {}
            Some("none") => fields.set("eos_token_id", Value::Null),
            Some(ids) => fields.set("eos_token_id", parse_ids("--eos-ids", ids)?),
        }
        self.sample(&mut fields);
        Ok(fields)
    }

    /// A flag of sampling asks for sampling. Where the directory does not sample, its beams and its filters do not count
    /// then: without further flags, tokens are drawn from all.
    fn sample(&self, fields: &mut GenerationFields) {
        let asked =
            self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some() || self.seed.is_some();
        let keras = matches!(fields.source(), ConfigSource::Keras { .. });
        let samples = fields.value("do_sample").and_then(Value::as_bool) == Some(true);
        if !asked || keras || samples {
            return;
        }
        fields.set("do_sample", true);
        for (name, given, all) in [
            ("num_beams", self.num_beams.is_some(), json!(1)),
            ("temperature", self.temperature.is_some(), json!(1.0)),
            ("top_k", self.top_k.is_some(), json!(0)),
            ("top_p", self.top_p.is_some(), json!(1.0)),
        ] {
            if !given {
                fields.set(name, all);
            }
        }
    }
}

/// A number of a flag; JSON has no others than finite ones.
fn number(flag: &str, value: Option<f32>) -> Result<Option<Value>> {
    let Some(value) = value else { return Ok(None) };
    if !value.is_finite() {
        return Err(BadUsage(format!("{flag} is {value}, expected a finite number")).into());
    }
    Ok(Some(f64::from(value).into()))
}

fn early_stopping(when: EarlyStopping) -> Value {
    match when {
        EarlyStopping::True => true.into(),
        EarlyStopping::False => false.into(),
        other => other.name().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(printable("a\tb\n\nc"), "a\tb\n\nc");
        assert_eq!(
            printable("\u{1b}[31mred\r\n\u{7}\u{202e}x\u{9b}1m"),
            "\\u{1b}[31mred\\r\n\\u{7}\\u{202e}x\\u{9b}1m"
        );
        assert_eq!(printable(""), "");
    }
}
