//! `bench`: latency, cold start and memory of one model on one work.

use std::path::Path;
use std::time::{Duration, Instant};

use rachis::generation::{BeamSearch, GenerationConfig, GenerationInputs, Sampler, generate};
use rachis::loader::Preset;
use rachis::{Backbone, BertInputs, CacheOptions, Session, Tokens};
use serde_json::json;

use crate::args::{BadUsage, BenchArgs};
use crate::{Result, print};

/// Calls are repeated for this long, and at least [`FEWEST`] times.
const DURATION: Duration = Duration::from_secs(3);
const FEWEST: usize = 10;
const MOST: usize = 2000;

/// What is timed.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// A forward pass of so many sequences of so many tokens: of an encoder-decoder model, its encoder's.
    Encode(usize, usize),
    /// A prompt of so many tokens and so many new ones, greedily.
    Generate(usize, usize),
    /// A source of so many tokens and so many new ones, with so many beams.
    Seq2Seq(usize, usize, usize),
}

pub fn bench(args: &BenchArgs) -> Result<()> {
    let work = Work::parse(&args.work)?;
    let name = args.common.model()?;
    let pool = args.common.pool()?;

    let start = Instant::now();
    let (preset, model) = args.common.open(name)?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    let mut run = work.prepare(&preset, &model)?;
    let mut call = || -> Result<Duration> {
        let start = Instant::now();
        run(&mut session)?;
        Ok(start.elapsed())
    };
    call()?;
    let cold = start.elapsed();

    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < FEWEST || (started.elapsed() < DURATION && times.len() < MOST) {
        times.push(call()?);
    }
    times.sort_unstable();
    let level = session.ctx().level().name();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let at = |part: f64| ms(times[((times.len() - 1) as f64 * part).round() as usize]);
    let name = Path::new(name).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let report = json!({
        "engine": "rachis",
        "model": name,
        "work": args.work,
        "threads": args.common.threads,
        "dtype": model.dtype().name(),
        "isa": level,
        "cold_ms": ms(cold),
        "p50": at(0.5),
        "p99": at(0.99),
        "min": at(0.0),
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
    fn parse(work: &str) -> Result<Work> {
        let (kind, sizes) = work.split_once(':').unwrap_or((work, ""));
        let sizes: Option<Vec<usize>> = sizes.split(',').map(|size| size.parse().ok()).collect();
        let parsed = match (kind, sizes.as_deref()) {
            ("encode", Some([batch, seq])) => Some(Work::Encode(*batch, *seq)),
            ("generate", Some([prompt, new])) => Some(Work::Generate(*prompt, *new)),
            ("seq2seq", Some([source, new, beams])) => Some(Work::Seq2Seq(*source, *new, *beams)),
            _ => None,
        };
        let expected = "encode:BATCH,SEQ, generate:PROMPT,NEW or seq2seq:SRC,NEW,BEAMS";
        Ok(parsed.ok_or_else(|| BadUsage(format!("--work is {work}, expected {expected}")))?)
    }

    /// The call to time, at exactly these sizes: nothing ends early.
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
            (Work::Generate(..), _) => return Err(unfit("a decoder alone").into()),
            _ => return Err(unfit("an encoder and a decoder").into()),
        };
        let start = GenerationConfig::from_preset(preset)?.decoder_start_token_id;
        let config = GenerationConfig {
            max_new_tokens: Some(new),
            strategy,
            decoder_start_token_id: start.or(Some(0)),
            ..GenerationConfig::default()
        };
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
            (other, None) => return Err(format!("bench does not know {}", other.name()).into()),
        };
        std::hint::black_box(output);
        Ok(())
    }))
}

/// Token ids that are spread over the vocabulary, the same in every run.
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

/// The largest resident set that this process has had, where the system tells.
fn peak_resident_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}
