//! One generation by any strategy.

use core::ops::ControlFlow;

use rachis::generation::{
    BeamRule, BeamSearch, Continuations, ContrastiveSearch, EarlyStopping, Filters, Sampler, SamplingMethod,
    Strategy,
};
use rachis::{Decoder, Generated, GenerationConfig, GenerationInputs, Session, generate};
use rachis_testkit::Rng;

use crate::Input;
use crate::batches::Batch;
use crate::check;

/// Generates for a batch whose real tokens are `prompts`, if it is any good.
pub fn run(
    input: &Input,
    model: &dyn Decoder,
    session: &mut Session<'_>,
    (batch, prompts): (&Batch, Option<&[Vec<u32>]>),
) {
    let config = config(input, model.vocabulary_size());
    let start = [1, 0];
    let decoder_prompt = match input.generation[0] / 8 % 8 {
        0 => Some(&start[..0]),
        1 | 2 => Some(&start[..1]),
        3 => Some(&start[..]),
        _ => None,
    };
    let mut left = usize::from(input.generation[9]);
    let mut watch = |_| {
        left = left.saturating_sub(1);
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let watched = input.generation[9] > 0;
    let inputs = GenerationInputs { tokens: batch.tokens(), decoder_prompt };
    let found = generate(model, session, inputs, &config, if watched { Some(&mut watch) } else { None });
    let (found, prompts) = match (found, prompts) {
        (Err(error), _) => return check(&error),
        (Ok(_), None) => panic!("{batch:?} was accepted"),
        (Ok(found), Some(prompts)) => (found, prompts),
    };
    assert_eq!(found.len(), prompts.len());
    for (found, prompt) in found.iter().zip(prompts) {
        let most = config.num_return_sequences;
        assert!(!found.is_empty() && found.len() <= most, "{} of {most}", found.len());
        for Generated { ids, prompt_len: length, .. } in found {
            assert!(ids.iter().all(|id| (*id as usize) < model.vocabulary_size()), "{ids:?}");
            let limit = config.length_limit(*length, None).unwrap();
            assert!(ids.len() <= limit, "{ids:?} for a limit of {limit}");
            assert!(model.has_encoder() || ids.starts_with(prompt), "{ids:?} after {prompt:?}");
        }
    }
    if !watched && input.generation[0] & 1 == 1 {
        let first = batch.first();
        let inputs = GenerationInputs { tokens: first.tokens(), decoder_prompt };
        let alone = generate(model, session, inputs, &config, None).unwrap();
        assert_eq!(alone[0], found[0], "alone");
    }
}

fn config(input: &Input, vocabulary: usize) -> GenerationConfig {
    let [_, strategy, a, b, c, lengths, flags, ids, penalty, _] = input.generation.map(usize::from);
    let mut rng = Rng::new(ids as u64);
    let mut token = || rng.below(vocabulary + usize::from(ids == 255)) as u32;
    let float = |x: usize| FLOATS[x % FLOATS.len()];
    let is = |bit: usize| flags >> bit & 1 == 1;
    let sampler = |method| -> Strategy {
        Sampler::new(method).with_temperature(float(c)).with_seed(u64::from(input.seed)).into()
    };
    let k = [0, 1, 2, 3, 5, 50, 1 << 20, usize::MAX][b % 8];
    let mut filters = Filters::new().with_top_p(float(a));
    filters.top_k = (b > 127).then_some(k);
    filters.top_h = (a & 16 == 16).then(|| float(b));
    filters.min_p = (a & 32 == 32).then(|| float(b));
    filters.typical_p = if a & 64 == 64 { float(b) } else { 1.0 };
    filters.epsilon_cutoff = if a & 128 == 128 { float(c) } else { 0.0 };
    filters.eta_cutoff = if b & 16 == 16 { float(c / 16) } else { 0.0 };
    let continuations = match penalty % 4 {
        0 => Continuations::Drawn { temperature: float(c), filters, seed: u64::from(input.seed) },
        1 => Continuations::Diverse { groups: 1 + c % 3, penalty: float(c) },
        _ => Continuations::Best,
    };
    let beams = |rule| -> Strategy {
        let search = BeamSearch::new(if b == 255 { usize::MAX } else { b % 6 }).with_rule(rule);
        search.with_continuations(continuations).into()
    };
    let early_stopping = EarlyStopping::ALL[c / 16 % 3];
    let mut config = GenerationConfig::default();
    config.max_length = is(0).then_some(lengths % 20);
    config.max_new_tokens = match lengths {
        255 => Some(usize::MAX),
        _ => (!is(0) || is(1)).then_some(lengths % 9),
    };
    config.min_length = if is(2) { lengths / 9 } else { 0 };
    config.min_new_tokens = is(3).then_some(lengths / 16);
    config.strategy = match strategy % 10 {
        0 => sampler(SamplingMethod::Greedy),
        1 => sampler(SamplingMethod::Random),
        2 => sampler(SamplingMethod::TopK { k }),
        3 => sampler(SamplingMethod::TopP { p: float(a), k: (b > 127).then_some(k) }),
        4 => sampler(SamplingMethod::Filtered(filters)),
        5 | 6 => beams(BeamRule::HuggingFace { length_penalty: float(a), early_stopping }),
        7 => beams(BeamRule::KerasHub { temperature: float(c) }),
        _ => ContrastiveSearch::new(b % 8, float(a).min(1.0)).with_temperature(float(c)).into(),
    };
    config.num_return_sequences = match (strategy % 10, a / 16) {
        (0 | 8.., _) => 1,
        (5..=7, n) => 1 + n % (b % 6).max(1),
        (_, n) => 1 + n % 3,
    };
    config.repetition_penalty = float(penalty);
    config.no_repeat_ngram_size = [0, 0, 1, 2, 3, usize::MAX][penalty / 16 % 6];
    config.encoder_repetition_penalty = if lengths & 8 == 8 { float(penalty / 16) } else { 1.0 };
    config.encoder_no_repeat_ngram_size = [0, 0, 1, 2, usize::MAX][flags / 8 % 5];
    config.bad_words_ids = (0..ids % 4).map(|n| (0..n).map(|_| token()).collect()).collect();
    config.sequence_bias = (0..ids % 5).map(|n| ((0..=n % 3).map(|_| token()).collect(), float(a))).collect();
    config.exponential_decay_length_penalty = (lengths & 4 == 4).then(|| (b % 4, f64::from(float(a))));
    config.remove_invalid_values = lengths & 2 == 2;
    config.renormalize_logits = lengths & 16 == 16;
    config.forced_bos_token_id = is(4).then(&mut token);
    config.forced_eos_token_ids = is(5).then(&mut token).into_iter().collect();
    config.suppress_tokens = (0..if is(6) { ids % 64 } else { 0 }).map(|_| token()).collect();
    config.begin_suppress_tokens = (0..ids % 3).map(|_| token()).collect();
    config.eos_token_ids = (0..if is(7) { ids / 3 % 8 } else { 0 }).map(|_| token()).collect();
    config.decoder_start_token_id = (input.generation[0] < 250).then_some(0);
    config
}

const FLOATS: [f32; 16] = [
    1.0,
    0.5,
    0.1,
    0.9,
    1.5,
    2.0,
    1.0,
    0.7,
    1e-40,
    1e30,
    f32::MIN_POSITIVE,
    1.0,
    -1.0,
    0.0,
    f32::NAN,
    f32::INFINITY,
];
