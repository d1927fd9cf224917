//! `bench`: latency, cold start and memory of one model on one work.

use std::time::{Duration, Instant};

use rachis::{Backbone, BertInputs, Session, Tokens};
use serde_json::json;

use crate::Result;
use crate::args::{BadUsage, BenchArgs, open};

/// Calls are repeated for this long, and at least [`FEWEST`] times.
const DURATION: Duration = Duration::from_secs(3);
const FEWEST: usize = 10;
const MOST: usize = 2000;

pub fn bench(args: &BenchArgs) -> Result<()> {
    let (batch, seq) = parse(&args.work)?;
    let dir = args.common.model()?;
    let pool = args.common.pool()?;

    let start = Instant::now();
    let (preset, model) = open(dir)?;
    let policy = args.common.policy(model.dtype());
    let mut session = Session::new(args.common.ctx(pool.as_ref(), model.dtype())?);
    let Backbone::Bert(bert) = &model else {
        return Err(BadUsage(format!("--work encode needs an encoder, found {}", model.name())).into());
    };
    let ids = random_ids(batch, seq, bert.config().vocabulary_size)?;
    let mut call = || -> Result<Duration> {
        let start = Instant::now();
        let tokens = Tokens::padded(&ids, batch, seq);
        let output = bert.forward(&mut session, BertInputs { tokens, segment_ids: None })?;
        std::hint::black_box(output);
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
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let report = json!({
        "engine": "rachis",
        "model": name,
        "work": args.work,
        "threads": args.common.threads,
        "dtype": policy.name(),
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
        println!("{report}");
    } else if let Some(fields) = report.as_object() {
        for (key, value) in fields {
            println!("{key:>12}  {value}");
        }
    }
    Ok(())
}

/// `encode:BATCH,SEQ`
fn parse(work: &str) -> Result<(usize, usize)> {
    let sizes = work.strip_prefix("encode:").and_then(|sizes| sizes.split_once(','));
    let parsed = sizes.and_then(|(batch, seq)| Some((batch.parse().ok()?, seq.parse().ok()?)));
    Ok(parsed.ok_or_else(|| BadUsage(format!("--work is {work}, expected encode:BATCH,SEQ")))?)
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
