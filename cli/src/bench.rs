//! `bench`: latency, cold start and memory of one model on one workload.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rachis::generation::{BeamSearch, GenerationConfig, GenerationInputs, Sampler, generate};
use rachis::loader::Preset;
use rachis::{Backbone, BertInputs, CacheOptions, Session, Tokens};
use serde_json::json;

use crate::args::{BadUsage, BenchArgs};
use crate::{Result, print};

/// Calls are repeated for this time, but at least [`MIN_CALLS`] and at most [`MAX_CALLS`] times.
const DURATION: Duration = Duration::from_secs(3);
const MIN_CALLS: usize = 10;
const MAX_CALLS: usize = 2000;

/// The workload that is timed, as `--work` spells it.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// `encode:BATCH,SEQ`: a forward pass over `BATCH` sequences of `SEQ` tokens; of an encoder-decoder model, its
    /// encoder only.
    Encode(usize, usize),
    /// `generate:PROMPT,NEW`: greedy generation of `NEW` tokens after a prompt of `PROMPT` tokens.
    Generate(usize, usize),
    /// `seq2seq:SRC,NEW,BEAMS`: generation of `NEW` tokens from a source of `SRC` tokens, with `BEAMS` beams.
    Seq2Seq(usize, usize, usize),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Encode(batch, seq) => write!(f, "encode:{batch},{seq}"),
            Work::Generate(prompt, new) => write!(f, "generate:{prompt},{new}"),
            Work::Seq2Seq(source, new, beams) => write!(f, "seq2seq:{source},{new},{beams}"),
        }
    }
}

impl FromStr for Work {
    type Err = &'static str;

    fn from_str(work: &str) -> Result<Work, &'static str> {
        let (kind, sizes) = work.split_once(':').unwrap_or((work, ""));
        let sizes: Option<Vec<usize>> = sizes.split(',').map(|size| size.parse().ok()).collect();
        match (kind, sizes.as_deref()) {
            ("encode", Some([batch, seq])) => Ok(Work::Encode(*batch, *seq)),
            ("generate", Some([prompt, new])) => Ok(Work::Generate(*prompt, *new)),
            ("seq2seq", Some([source, new, beams])) => Ok(Work::Seq2Seq(*source, *new, *beams)),
            _ => Err("expected encode:BATCH,SEQ, generate:PROMPT,NEW or seq2seq:SRC,NEW,BEAMS"),
        }
    }
}

pub fn bench(args: &BenchArgs) -> Result<()> {
    let name = args.common.model()?;
    let pool = args.common.pool()?;

    let start = Instant::now();
    let (preset, model) = args.common.open(name)?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    let mut run = args.work.prepare(&preset, &model)?;
    let mut call = || -> Result<Duration> {
        let start = Instant::now();
        run(&mut session)?;
        Ok(start.elapsed())
    };
    call()?;
    let cold = start.elapsed();

    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < MIN_CALLS || (started.elapsed() < DURATION && times.len() < MAX_CALLS) {
        times.push(call()?);
    }
    times.sort_unstable();
    let level = session.ctx().level().name();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let quantile = |q: f64| ms(times[((times.len() - 1) as f64 * q).round() as usize]);
    let name = Path::new(name).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let report = json!({
        "engine": "rachis",
        "model": name,
        "work": args.work.to_string(),
        "threads": args.common.threads,
        "dtype": model.dtype().name(),
        "isa": level,
        "cold_ms": ms(cold),
        "p50": quantile(0.5),
        "p99": quantile(0.99),
        "min": quantile(0.0),
        "n": times.len(),
        "rss_mib": peak_resident_mib(),
        "bytes_copied": preset.bytes_copied(),
    });
    if args.common.json {
        print(format_args!("{report}\n"))?;
    } else if let Some(fields) = report.as_object() {
        for (key, value) in fields {
            print(format_args!("{key:>12}  {value}\n"))?;
        }
    }
    Ok(())
}

/// A timed call.
type Call<'m> = Box<dyn FnMut(&mut Session<'_>) -> Result<()> + 'm>;

impl Work {
    /// The call to time, of exactly these sizes: there are no end tokens, so generation does not end early.
    fn prepare<'m>(self, preset: &Preset, backbone: &'m Backbone) -> Result<Call<'m>> {
        let unfit = |needs: &str| BadUsage(format!("--work needs {needs}, found {}", backbone.name()));
        let (rows, seq, new, strategy) = match self {
            Work::Encode(batch, seq) => return encode(backbone, batch, seq),
            Work::Generate(prompt, new) => (1, prompt, new, Sampler::greedy().into()),
            Work::Seq2Seq(source, new, 1) => (1, source, new, Sampler::greedy().into()),
            Work::Seq2Seq(source, new, beams) => (1, source, new, BeamSearch::new(beams).into()),
        };
        let model = match (self, backbone.decoder()) {
            (Work::Generate(..), Some(model)) if !model.has_encoder() => model,
            (Work::Seq2Seq(..), Some(model)) if model.has_encoder() => model,
            (Work::Generate(..), _) => return Err(unfit("a decoder-only model").into()),
            _ => return Err(unfit("an encoder-decoder model").into()),
        };
        let start = GenerationConfig::from_preset(preset)?.decoder_start_token_id;
        let mut config = GenerationConfig::default();
        config.max_new_tokens = Some(new);
        config.strategy = strategy;
        config.decoder_start_token_id = start.or(Some(0));
        let ids = random_ids(rows, seq, model.vocabulary_size())?;
        Ok(Box::new(move |session| {
            let inputs = GenerationInputs { tokens: Tokens::padded(&ids, rows, seq), decoder_prompt: None };
            let found = generate(model, session, inputs, &config, None)?;
            match found.first().and_then(|found| found.first()).map(|found| found.new_ids().len()) {
                Some(len) if len == new => Ok(()),
                _ => Err("generation ended early".into()),
            }
        }))
    }
}

fn encode(backbone: &Backbone, batch: usize, seq: usize) -> Result<Call<'_>> {
    let vocabulary = backbone.token_embedding().table().rows();
    let ids = random_ids(batch, seq, vocabulary)?;
    Ok(Box::new(move |session| {
        let tokens = Tokens::padded(&ids, batch, seq);
        let output = match (backbone, backbone.decoder()) {
            (Backbone::Bert(model), _) => {
                model.forward(session, BertInputs { tokens, segment_ids: None })?.sequence_output
            }
            (_, Some(model)) => {
                session.start(model, CacheOptions::new(batch, seq))?;
                if model.has_encoder() {
                    model.encode(session, tokens)?
                } else {
                    let sequences: Vec<usize> = (0..batch).collect();
                    model.decode(session, &sequences, tokens)?
                }
            }
            (other, None) => return Err(format!("bench does not support {}", other.name()).into()),
        };
        std::hint::black_box(output);
        Ok(())
    }))
}

/// Pseudo-random token ids over the whole vocabulary, the same in every run.
fn random_ids(batch: usize, seq: usize, vocabulary: usize) -> Result<Vec<u32>> {
    let count = batch.checked_mul(seq).filter(|count| *count <= 1 << 24);
    let count =
        count.ok_or_else(|| BadUsage(format!("--work has {batch} x {seq} tokens, expected at most 2^24")))?;
    let mut state = 1u64;
    Ok((0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocabulary as u64) as u32
        })
        .collect())
}

/// The peak resident set of this process, on Linux.
fn peak_resident_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}
