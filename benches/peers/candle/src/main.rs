//! candle on one work: times it, and prints one JSON object with the keys of `rachis bench --json`.
//!
//! Arguments: model directory, work, seconds, calls, file of `token_ids`, file for the result. What candle has of
//! the five architectures as the others run them is BERT's encoder, and T5 with greedy decoding.

use std::collections::HashMap;
use std::fs::{File, read_to_string};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, IndexOp, Tensor, safetensors};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, t5};

/// A call: it returns the name and the data of its result, on the host.
type Call = Box<dyn FnMut() -> Result<(&'static str, Tensor)>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, work, seconds, calls, ids, output] = &arguments[..] else {
        bail!("expected: MODEL_DIR WORK SECONDS CALLS IDS OUTPUT");
    };
    let (duration, fewest) = (Duration::try_from_secs_f64(seconds.parse()?)?, calls.parse::<usize>()?);
    let ids = safetensors::load(ids, &Device::Cpu)?.remove("token_ids").context("no token_ids")?;
    let ids = ids.to_dtype(DType::U32)?;

    let start = Instant::now();
    let mut call = open(directory, work, ids)?;
    call()?;
    let cold = start.elapsed();

    let started = Instant::now();
    let mut times = Vec::new();
    let mut result = None;
    while times.len() < fewest || (started.elapsed() < duration && times.len() < 2000) {
        let start = Instant::now();
        result = Some(call()?);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    if let Some((name, tensor)) = result {
        safetensors::save(&HashMap::from([(name, tensor)]), output)?;
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let at = |part: f64| ms(times[((times.len() - 1) as f64 * part).round() as usize]);
    let report = serde_json::json!({
        "engine": "candle", "work": work, "dtype": "float32", "cold_ms": ms(cold),
        "p50": at(0.5), "p99": at(0.99), "min": at(0.0), "n": times.len(), "rss_mib": peak_resident_mib(),
    });
    println!("{report}");
    Ok(())
}

/// The model of the directory and what it does on each call.
fn open(directory: &str, work: &str, ids: Tensor) -> Result<Call> {
    let config = || File::open(format!("{directory}/config.json"));
    let files = [format!("{directory}/model.safetensors")];
    // SAFETY: nobody writes to the weights while this process runs; the harness made them before.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, DType::F32, &Device::Cpu)? };
    let (kind, sizes) = work.split_once(':').context("a work is KIND:SIZES")?;
    let sizes = sizes.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    match (kind, &sizes[..]) {
        ("encode", _) => {
            let model = bert::BertModel::load(weights, &serde_json::from_reader(config()?)?)?;
            let segments = ids.zeros_like()?;
            Ok(Box::new(move || Ok(("sequence_output", model.forward(&ids, &segments, None)?))))
        }
        ("seq2seq", [_, new, 1]) => {
            let config: t5::Config = serde_json::from_reader(config()?)?;
            let start = config.decoder_start_token_id.unwrap_or(config.pad_token_id) as u32;
            let banned = config.eos_token_id as u32;
            let mut model = t5::T5ForConditionalGeneration::load(weights, &config)?;
            let new = *new;
            Ok(Box::new(move || Ok(("ids", greedy(&mut model, &ids, start, banned, new)?))))
        }
        _ => bail!("candle is not measured on {work}"),
    }
}

/// `new` tokens after `start`, each the likeliest but for the one that would end the sequence.
fn greedy(
    model: &mut t5::T5ForConditionalGeneration,
    ids: &Tensor,
    start: u32,
    banned: u32,
    new: usize,
) -> Result<Tensor> {
    model.clear_kv_cache();
    let encoded = model.encode(ids)?;
    let mut found = vec![start];
    for _ in 0..new {
        let last = Tensor::new(&found[found.len() - 1..], &Device::Cpu)?.unsqueeze(0)?;
        let mut logits = model.decode(&last, &encoded)?.i(0)?.to_vec1::<f32>()?;
        logits[banned as usize] = f32::NEG_INFINITY;
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).context("no logits")?;
        found.push(best as u32);
    }
    let ids: Vec<i64> = found[1..].iter().map(|id| (*id).into()).collect();
    Ok(Tensor::from_vec(ids, new, &Device::Cpu)?)
}

/// The largest resident set that this process has had, where the system tells.
fn peak_resident_mib() -> Option<f64> {
    let status = read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}
