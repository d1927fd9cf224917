//! Any small model of any architecture, from memory or random, through loading, a forward pass, decoding with a KV
//! cache and generation: a typed error or finite numbers, and the same bits where they are promised.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rachis::kernels::{Ctx, Level, Precision};
use rachis::{Backbone, BertInputs, Error, Result, Seq2SeqInputs, SequenceOutput, Session};
use rayon::{ThreadPool, ThreadPoolBuilder};

#[path = "forward_tiny/batches.rs"]
mod batches;
#[path = "forward_tiny/configs.rs"]
mod configs;
#[path = "forward_tiny/decoding.rs"]
mod decoding;
#[path = "forward_tiny/generating.rs"]
mod generating;
#[path = "forward_tiny/presets.rs"]
mod presets;

use batches::Batch;
use configs::Config;

/// Bytes in fixed places, so that a seed is easily written and a mutation changes one thing.
#[derive(Debug, Arbitrary)]
pub struct Input {
    architecture: u8,
    /// Random weights, or a preset.
    source: u8,
    sizes: [u8; 10],
    /// Flags and the activation.
    choices: [u8; 2],
    /// Which field becomes what.
    absurd: [u8; 2],
    /// What is wrong with the preset, and where.
    damage: [u8; 2],
    /// Storage of the weights and their size.
    dtypes: u8,
    /// Level; precision and threads.
    context: [u8; 2],
    /// Sequences, their length; padded or ragged.
    batch: [u8; 3],
    masks: u64,
    /// What is wrong with the tokens, in which batch; with calls of the session.
    request: [u8; 3],
    seed: u16,
    /// Capacity, storage, copies.
    cache: [u8; 3],
    /// Tokens a step.
    pieces: [u8; 4],
    generation: [u8; 10],
}

/// The bits of a sequence's rows.
type Bits = Vec<Vec<u32>>;

static POOL: LazyLock<ThreadPool> =
    LazyLock::new(|| ThreadPoolBuilder::new().num_threads(2).build().unwrap());

fuzz_target!(|input: Input| {
    let levels: Vec<Level> = Level::supported().collect();
    let [level, how] = input.context.map(usize::from);
    let precision = if how & 1 == 1 { Precision::Bf16 } else { Precision::Strict };
    let pool = (how & 2 == 2).then(|| &*POOL);
    let ctx = Ctx::new(levels[level % levels.len()]).unwrap().with_precision(precision).with_pool(pool);
    match model(&input) {
        Ok(Some((model, config))) => run(&input, &model, &config, ctx),
        Ok(None) => {}
        Err(error) => check(&error),
    }
});

/// The model and its configuration, unless it would be large.
fn model(input: &Input) -> Result<Option<(Backbone, Config)>> {
    let config = Config::new(input);
    if input.source % 2 == 1 {
        return presets::load(input, &config).map(Some);
    }
    let valid = config.validate();
    if valid.is_ok() && !config.is_small() {
        return Ok(None);
    }
    let model = config.random(input.seed.into());
    assert_eq!(model.is_ok(), valid.is_ok(), "{config:?}");
    Ok(Some((model?, config)))
}

fn run(input: &Input, model: &Backbone, config: &Config, ctx: Ctx<'_>) {
    let sound = config.has_norms();
    let mut session = Session::new(ctx);
    let positions = match (model, model.decoder()) {
        (_, Some(decoder)) => decoder.max_positions(),
        (Backbone::Bert(bert), None) => bert.config().max_sequence_length,
        _ => unreachable!("all others decode"),
    };
    let vocabulary = match config {
        Config::Bert(config) => config.vocabulary_size,
        Config::Opt(config) => config.vocabulary_size,
        Config::Bart(config) => config.vocabulary_size,
        Config::T5(config) => config.vocabulary_size,
        Config::Falcon(config) => config.vocabulary_size,
    };
    let limits = (vocabulary, positions);
    let [source, target] = [0, 1].map(|salt| Batch::new(input, vocabulary, salt));
    let bert = matches!(model, Backbone::Bert(_));
    let seq2seq = model.decoder().is_some_and(|decoder| decoder.has_encoder());
    let [sources, targets] = [&source, &target].map(|batch| batch.sequences(limits, bert));
    let fits = match (&sources, &targets) {
        (Some(sources), Some(targets)) if seq2seq => sources.len() == targets.len(),
        (_, targets) => !seq2seq && targets.is_some(),
    };
    match forward(input, model, &mut session, (&source, &target), sound) {
        Ok(rows) => assert!(fits && rows.iter().all(|rows| !rows.is_empty())),
        Err(error) => {
            check(&error);
            assert!(!fits, "{error}");
        }
    }
    let Some(decoder) = model.decoder() else { return };

    // The same tokens without padding, as they are decoded.
    if let (Some(targets), true) = (&targets, fits) {
        let whole: Vec<Vec<u32>> = sources.clone().filter(|_| seq2seq).unwrap_or_default();
        let batches = (&Batch::ragged(&whole), &Batch::ragged(targets));
        let expected = forward(input, model, &mut session, batches, sound).unwrap();
        let (sources, sequences) = (&whole[..], &targets[..]);
        let run = decoding::Run { input, model: decoder, sources, sequences, expected: &expected, sound };
        run.decode(&mut session);
    }
    // Padding of prompts is dropped, and takes no position.
    let prompts = target.sequences((vocabulary, usize::MAX), false);
    let (batch, prompts) = if seq2seq { (&source, sources) } else { (&target, prompts) };
    generating::run(input, decoder, &mut session, (batch, prompts.as_deref()));
}

/// The rows of a forward pass.
fn forward(
    input: &Input,
    model: &Backbone,
    session: &mut Session<'_>,
    (source, target): (&Batch, &Batch),
    sound: bool,
) -> Result<Vec<Bits>> {
    let (encoder, tokens) = (source.tokens(), target.tokens());
    let inputs = Seq2SeqInputs { encoder, decoder: tokens };
    let output = match model {
        Backbone::Bert(bert) => {
            let segments: Vec<u32> =
                (0..target.ids.len()).map(|i| (i % bert.config().num_segments) as u32).collect();
            let segment_ids = (input.request[1] & 2 == 2).then_some(&segments[..]);
            let output = bert.forward(session, BertInputs { tokens, segment_ids })?;
            let pooled = output.pooled_output.into_iter();
            for row in pooled.flat_map(|pooled| (0..pooled.rows()).map(move |i| pooled.row(i))) {
                assert!(!sound || row.iter().all(|x| x.is_finite()));
            }
            output.sequence_output
        }
        Backbone::Opt(model) => model.forward(session, tokens)?,
        Backbone::BartEncoder(model) => model.forward(session, tokens)?,
        Backbone::T5Encoder(model) => model.forward(session, tokens)?,
        Backbone::Falcon(model) => model.forward(session, tokens)?,
        Backbone::Bart(model) => {
            let output = model.forward(session, inputs)?;
            finite(output.encoder_sequence_output, sound);
            output.decoder_sequence_output
        }
        Backbone::T5(model) => {
            let output = model.forward(session, inputs)?;
            finite(output.encoder_sequence_output, sound);
            output.decoder_sequence_output
        }
        _ => unreachable!("all are above"),
    };
    let mut padded = vec![f32::NAN; target.ids.len() * output.hidden_dim()];
    output.write_padded(&mut padded).unwrap();
    assert!(!sound || padded.iter().all(|x| x.is_finite()));
    Ok(finite(output, sound))
}

/// The bits of every sequence, which are finite if that is promised.
fn finite(output: SequenceOutput<'_>, sound: bool) -> Vec<Bits> {
    let bits = |i: usize| -> Bits {
        let rows = output.sequence(i);
        (0..rows.rows())
            .map(|row| {
                let row = rows.row(row);
                assert!(!sound || row.iter().all(|x| x.is_finite()), "{row:?}");
                row.iter().map(|x| x.to_bits()).collect()
            })
            .collect()
    };
    (0..output.batch()).map(bits).collect()
}

fn check(error: &Error) {
    let message = error.to_string();
    assert!(!message.contains('\n') && message.len() < 4000, "{message:?}");
}
