use super::*;

const INF: f32 = f32::INFINITY;

/// The processed scores 1, -2, 3, -4, 5 after `sequence`, whose first `prompt` tokens are the prompt; the maximum
/// length is 8.
fn after(prompt: usize, sequence: &[u32], config: &GenerationConfig) -> [f32; 5] {
    let mut scores = [1.0, -2.0, 3.0, -4.0, 5.0];
    LogitsProcessors::new(config, &[], prompt, 8).apply(sequence, &mut scores);
    scores
}

#[test]
fn the_default_changes_nothing() {
    let config = GenerationConfig { eos_token_ids: vec![1], ..Default::default() };
    assert_eq!(after(2, &[0, 0, 0], &config), [1.0, -2.0, 3.0, -4.0, 5.0]);
}

#[test]
fn repeated_tokens_are_penalised_once() {
    let config = GenerationConfig { repetition_penalty: 2.0, ..Default::default() };
    assert_eq!(after(1, &[1, 4, 1, 4, 4, 99], &config), [1.0, -4.0, 3.0, -4.0, 2.5]);
}

#[test]
fn n_grams_are_not_repeated() {
    let after = |n, sequence: &[u32]| {
        let config = GenerationConfig { no_repeat_ngram_size: n, ..Default::default() };
        let row = after(1, sequence, &config);
        (0..5u32).filter(|i| row[*i as usize] == -INF).collect::<Vec<_>>()
    };
    assert_eq!(after(1, &[0, 3, 3]), [0, 3]);
    assert_eq!(after(2, &[0, 1, 0, 2, 0]), [1, 2]);
    assert_eq!(after(2, &[0, 0]), [0], "the last window may overlap the prefix");
    assert_eq!(after(3, &[0, 1, 2, 4, 0, 1]), [2]);
    assert_eq!(after(3, &[0, 1]), [0u32; 0]);
    assert_eq!(after(3, &[]), [0u32; 0]);
    assert_eq!(after(2, &[0, 77, 0]), [0u32; 0], "a token beyond the vocabulary");
    assert_eq!(after(usize::MAX, &[0, 1]), [0u32; 0]);
}

#[test]
fn end_tokens_are_suppressed_below_the_minimum_length() {
    let ends = |config: &GenerationConfig, prompt, sequence: &[u32]| {
        let row = after(prompt, sequence, config);
        (row[1] == -INF, row[2] == -INF, row[3] == -INF)
    };
    let all = GenerationConfig { eos_token_ids: vec![1, 2], min_length: 4, ..GenerationConfig::default() };
    assert_eq!(ends(&all, 2, &[0; 3]), (true, true, false));
    assert_eq!(ends(&all, 2, &[0; 4]), (false, false, false));
    let new = GenerationConfig { min_new_tokens: Some(1), ..all };
    assert_eq!(ends(&new, 2, &[0; 2]), (true, true, false));
    assert_eq!(
        ends(&new, 2, &[0; 3]),
        (false, false, false),
        "min_new_tokens takes precedence over min_length"
    );
}

#[test]
fn forced_tokens_take_precedence_over_minimum_lengths() {
    let config = GenerationConfig {
        forced_bos_token_id: Some(2),
        forced_eos_token_ids: vec![3],
        eos_token_ids: vec![3],
        min_length: 8,
        ..Default::default()
    };
    assert_eq!(after(1, &[0], &config), [-INF, -INF, 0.0, -INF, -INF]);
    assert_eq!(after(1, &[0, 2], &config), [1.0, -2.0, 3.0, -INF, 5.0]);
    assert_eq!(after(1, &[0; 7], &config), [-INF, -INF, -INF, 0.0, -INF]);
    assert_eq!(after(2, &[0; 2], &config)[2], 3.0, "a longer prompt already has a first token");
}

#[test]
fn suppression_is_applied_last() {
    let config = GenerationConfig {
        suppress_tokens: vec![0, 77],
        begin_suppress_tokens: vec![4],
        ..GenerationConfig::default()
    };
    assert_eq!(after(2, &[0; 2], &config), [-INF, -2.0, 3.0, -4.0, -INF]);
    assert_eq!(after(2, &[0; 3], &config), [-INF, -2.0, 3.0, -4.0, 5.0]);
    let forced = GenerationConfig { forced_bos_token_id: Some(0), ..config };
    assert_eq!(after(1, &[3], &forced), [-INF; 5], "also a forced token");
    assert_eq!(
        after(1, &[3, 0], &forced),
        [-INF, -2.0, 3.0, -4.0, -INF],
        "the beginning is after the forced token"
    );
}

/// The scores after the processors of a sequence whose source is given.
fn after_source(source: &[u32], sequence: &[u32], config: &GenerationConfig) -> [f32; 5] {
    let mut scores = [1.0, -2.0, 3.0, -4.0, 5.0];
    LogitsProcessors::new(config, source, 1, 8).apply(sequence, &mut scores);
    scores
}

#[test]
fn tokens_of_the_source_are_favoured_once() {
    let config = GenerationConfig { encoder_repetition_penalty: 2.0, ..Default::default() };
    // Positive scores are multiplied by 2, negative ones divided.
    assert_eq!(after_source(&[1, 2, 1, 99], &[0], &config), [1.0, -1.0, 6.0, -4.0, 5.0]);
    assert_eq!(after_source(&[], &[0], &config), [1.0, -2.0, 3.0, -4.0, 5.0]);
    let both = GenerationConfig { repetition_penalty: 4.0, ..config };
    // First the source's, then the sequence's.
    assert_eq!(after_source(&[2, 3], &[2], &both), [1.0, -2.0, 1.5, -2.0, 5.0]);
}

#[test]
fn n_grams_of_the_source_are_not_repeated() {
    let after = |n, sequence: &[u32]| {
        let config = GenerationConfig { encoder_no_repeat_ngram_size: n, ..Default::default() };
        let row = after_source(&[0, 1, 2, 1, 3], sequence, &config);
        (0..5u32).filter(|i| row[*i as usize] == -INF).collect::<Vec<_>>()
    };
    assert_eq!(after(1, &[4]), [0, 1, 2, 3]);
    assert_eq!(after(2, &[4, 1]), [2, 3]);
    assert_eq!(after(2, &[4]), [0u32; 0]);
    assert_eq!(after(3, &[4, 2, 1]), [3]);
    assert_eq!(after(3, &[1]), [0u32; 0], "too short for an n-gram");
    assert_eq!(after(9, &[1]), [0u32; 0]);
}

#[test]
fn forbidden_sequences_lose_their_last_token() {
    let config = GenerationConfig {
        bad_words_ids: vec![vec![0], vec![2, 3], vec![1, 2, 4], vec![1], vec![77]],
        eos_token_ids: vec![1],
        ..GenerationConfig::default()
    };
    assert_eq!(after(1, &[4], &config), [-INF, -2.0, 3.0, -4.0, 5.0], "an end token alone stays");
    assert_eq!(after(1, &[2], &config), [-INF, -2.0, 3.0, -INF, 5.0]);
    assert_eq!(after(1, &[1, 2], &config), [-INF, -2.0, 3.0, -INF, -INF]);
}

#[test]
fn biases_of_a_token_are_added_up() {
    let config = GenerationConfig {
        sequence_bias: vec![
            (vec![0], 9.0),
            (vec![0], -1.0),
            (vec![3, 0], 0.5),
            (vec![2, 3, 0], 0.25),
            (vec![4, 4], 2.0),
        ],
        ..GenerationConfig::default()
    };
    assert_eq!(after(1, &[1], &config), [0.0, -2.0, 3.0, -4.0, 5.0], "the last of equal sequences counts");
    assert_eq!(after(1, &[1, 3], &config)[0], 0.5);
    assert_eq!(after(1, &[2, 3], &config)[0], 0.75);
    assert_eq!(after(1, &[4], &config)[4], 7.0);
}

#[test]
fn several_last_tokens_may_be_forced() {
    let config = GenerationConfig { forced_eos_token_ids: vec![1, 3], ..Default::default() };
    assert_eq!(after(1, &[0; 7], &config), [-INF, 0.0, -INF, 0.0, -INF]);
    assert_eq!(after(1, &[0; 6], &config), [1.0, -2.0, 3.0, -4.0, 5.0]);
}

#[test]
fn end_tokens_grow_exponentially() {
    let config = GenerationConfig {
        exponential_decay_length_penalty: Some((2, 1.5)),
        eos_token_ids: vec![1, 4, 1],
        ..GenerationConfig::default()
    };
    // From 2 new tokens on: score + |score| * (1.5^n - 1), n counted from there.
    assert_eq!(after(1, &[0; 3], &config), [1.0, -2.0, 3.0, -4.0, 5.0]);
    assert_eq!(after(1, &[0; 4], &config), [1.0, -1.0, 3.0, -4.0, 7.5]);
    assert_eq!(after(1, &[0; 5], &config), [1.0, 0.5, 3.0, -4.0, 11.25]);
    let suppressed = GenerationConfig { min_length: 8, ..config };
    assert_eq!(after(1, &[0; 5], &suppressed)[4], -INF, "a score that is not finite stays");
}

#[test]
fn invalid_values_become_finite() {
    let config = GenerationConfig { remove_invalid_values: true, ..Default::default() };
    let mut scores = [f32::NAN, INF, -INF, 2.0];
    LogitsProcessors::new(&config, &[], 1, 8).apply(&[0], &mut scores);
    assert_eq!(scores, [0.0, f32::MAX, f32::MIN, 2.0]);
}
