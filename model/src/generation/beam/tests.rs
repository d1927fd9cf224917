use rachis_testkit::Rng;

use super::*;
use crate::generation::config::GenerationConfig;

mod plain;

/// A language model that is a table, or a function of all tokens.
#[derive(Debug)]
enum Model {
    /// A row of logits for each last token.
    Table(Vec<Vec<f32>>),
    /// Random logits for every sequence. Two sequences of equal score are unlikely here, while with a table they are
    /// common: they may have the same transitions in a different order.
    Random { seed: u64, vocabulary: usize },
}

impl Model {
    fn random(random: &mut Rng, vocabulary: usize) -> Model {
        Model::Random { seed: random.next_u64(), vocabulary }
    }

    fn row(&self, sequence: &[u32]) -> Vec<f32> {
        match self {
            Model::Table(rows) => rows[*sequence.last().unwrap() as usize].clone(),
            Model::Random { seed, vocabulary } => {
                let hash = |state, token: &u32| Rng::new(state ^ u64::from(*token)).next_u64();
                let mut random = Rng::new(sequence.iter().fold(*seed, hash));
                // Tokens 3 and 11 get a higher logit: the tests use them as end tokens.
                let bonus = |token: usize| if token % 8 == 3 { 2.0 } else { 0.0 };
                (0..*vocabulary).map(|token| bonus(token) + 3.0 * random.signed() as f32).collect()
            }
        }
    }

    fn log_probabilities(&self, sequence: &[u32]) -> Vec<f64> {
        let row: Vec<f64> = self.row(sequence).iter().map(|x| f64::from(*x)).collect();
        let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        row.iter().map(|x| x - log_sum).collect()
    }

    /// Runs a search to its end, at most 100 steps, and checks the parents of the beams at every step.
    fn search(
        &self,
        search: &BeamSearch,
        prompt: &[u32],
        limit: usize,
        config: &GenerationConfig,
    ) -> Vec<Hypothesis> {
        let mut beams = start(search, prompt, limit, config);
        let mut processors = LogitsProcessors::new(config, &[], prompt.len(), limit);
        for _ in 0..100 {
            let before: Vec<Vec<u32>> = (0..beams.running()).map(|i| beams.sequence(i).to_vec()).collect();
            let mut logits: Vec<f32> = before.iter().flat_map(|ids| self.row(ids)).collect();
            if beams.advance(&mut logits, &mut processors, None) {
                return beams.finalize();
            }
            assert!((1..=search.num_beams).contains(&beams.running()));
            assert_eq!(beams.parents().len(), beams.running());
            for (i, parent) in beams.parents().iter().enumerate() {
                assert_eq!(beams.sequence(i).split_last().unwrap().1, before[*parent]);
            }
        }
        panic!("the search does not end");
    }
}

fn hugging_face(num_beams: usize, length_penalty: f32, early_stopping: EarlyStopping) -> BeamSearch {
    BeamSearch::new(num_beams).with_rule(BeamRule::HuggingFace { length_penalty, early_stopping })
}

fn with_eos(eos: &[u32]) -> GenerationConfig {
    GenerationConfig { eos_token_ids: eos.to_vec(), ..Default::default() }
}

/// All complete sequences that continue `ids`, with the sums of their log-probabilities.
fn enumerate(model: &Model, ids: &[u32], sum: f64, limit: usize, eos: &[u32]) -> Vec<(Vec<u32>, f64)> {
    let continuations = model.log_probabilities(ids).into_iter().zip(0u32..);
    let extend = |(p, token): (f64, u32)| {
        let (extended, sum) = ([ids, &[token]].concat(), sum + p);
        if extended.len() == limit || eos.contains(&token) {
            vec![(extended, sum)]
        } else {
            enumerate(model, &extended, sum, limit, eos)
        }
    };
    continuations.flat_map(extend).collect()
}

#[test]
fn enough_beams_find_every_sequence() {
    let mut random = Rng::new(1);
    let prompt = [2, 1];
    for (limit, eos) in [(3, vec![]), (6, vec![]), (6, vec![0]), (6, vec![2, 0])] {
        for (length_penalty, early) in [(0.0, 0), (0.5, 1), (1.0, 2), (2.0, 1), (-1.0, 2)] {
            let model = Model::random(&mut random, 3);
            let mut all = enumerate(&model, &prompt, 0.0, limit, &eos);
            let power = |ids: &[u32]| ((ids.len() - prompt.len()) as f64).powf(f64::from(length_penalty));
            all.iter_mut().for_each(|(ids, sum)| *sum /= power(ids));
            all.sort_by(|a, b| b.1.total_cmp(&a.1));

            // More beams than sequences: the finished hypotheses never fill up, so nothing stops the search early.
            let search = hugging_face(all.len() + 1, length_penalty, EarlyStopping::ALL[early]);
            let found = model.search(&search, &prompt, limit, &with_eos(&eos));
            assert_eq!(found.len(), all.len());
            for (found, (ids, score)) in found.iter().zip(&all) {
                assert!((f64::from(found.score) - score).abs() < 1e-5, "{found:?}, {score}");
                assert_eq!(found.end, None, "the last token ends it");
                assert!(
                    all.iter().any(|(ids, other)| *ids == found.ids && (other - score).abs() < 1e-5),
                    "{ids:?}"
                );
            }
        }
    }
}

/// Under KerasHub's rule all sequences have the same length, and are compared by the sum alone.
#[test]
fn keras_hub_extends_all_beams() {
    let mut random = Rng::new(2);
    for _ in 0..20 {
        let model = Model::random(&mut random, 3);
        let mut all = enumerate(&model, &[1], 0.0, 5, &[]);
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let found = model.search(&BeamSearch::keras(81), &[1], 5, &with_eos(&[]));
        assert_eq!(found.len(), 81);
        assert!(found.iter().zip(&all).all(|(found, (_, sum))| (f64::from(found.score) - sum).abs() < 1e-5));
        assert_eq!(found[0].ids, all[0].0);
    }
}

#[test]
fn keras_hub_ends_when_every_beam_has_an_end_token() {
    // After 0 the model prefers 1, after 1 it prefers 0; 1 is the end token.
    let model = Model::Table(vec![vec![0.0, 9.0, 5.0], vec![9.0, 0.0, 5.0], vec![0.0, 0.0, 0.0]]);
    let one = model.search(&BeamSearch::keras(1), &[1, 0], 10, &with_eos(&[1]));
    assert_eq!((one[0].ids.as_slice(), one[0].end), ([1, 0, 1].as_slice(), Some(3)));
    let prompt_does_not_count = model.search(&BeamSearch::keras(1), &[0, 1], 10, &with_eos(&[1]));
    assert_eq!(prompt_does_not_count[0].ids, [0, 1, 0, 1]);
    // With two beams the first is extended after its end token, until the second has one too.
    let two = model.search(&BeamSearch::keras(2), &[0], 10, &with_eos(&[1]));
    assert!(two.iter().all(|found| found.end.is_some() && found.ids.len() == two[0].ids.len()));
    assert!(two[0].ids.len() > 2 && two[0].ids[1] == 1);
    // The logits are divided by the temperature before anything else.
    let warm = BeamSearch::new(1).with_rule(BeamRule::KerasHub { temperature: 3.0 });
    let found = model.search(&warm, &[0], 2, &with_eos(&[]));
    let expected = 3.0 - (1.0 + 3f32.exp() + (5f32 / 3.0).exp()).ln();
    assert!((found[0].score - expected).abs() < 1e-6);
}

/// Compares with a plain transcription of transformers' rules, which sorts whole lists, copies sequences and uses
/// scores of -1e9.
#[test]
fn random_searches_equal_a_transcription_of_the_rules() {
    let mut random = Rng::new(5);
    let mut ended_early = 0;
    for round in 0..1500 {
        let model = Model::random(&mut random, 16);
        let eos: &[u32] = random.pick(&[&[][..], &[3], &[3, 11]]);
        let num_beams = 1 + random.below(5);
        let search = hugging_face(
            num_beams,
            random.pick(&[0.0, 0.5, 1.0, 2.0, -1.0]),
            random.pick(&EarlyStopping::ALL),
        );
        let prompt: Vec<u32> = (0..1 + random.below(3)).map(|_| random.below(16) as u32).collect();
        let limit = prompt.len() + 1 + random.below(9);
        let mut config = with_eos(eos);
        if random.below(3) == 0 {
            config.forced_eos_token_ids = random.pick(&[&[][..], &[3], &[4], &[3, 4]]).to_vec();
            config.forced_bos_token_id = random.pick(&[None, Some(5)]);
            config.no_repeat_ngram_size = random.below(4);
            config.min_new_tokens = random.pick(&[None, Some(3)]);
            config.repetition_penalty = random.pick(&[1.0, 1.5]);
        }
        let found = model.search(&search, &prompt, limit, &config);
        let (expected, ended) = plain::hugging_face(&model, &search, &prompt, limit, &config);
        ended_early += usize::from(ended);
        assert_eq!(found.len(), expected.len(), "{round}: {search:?} {config:?}");
        for (found, (ids, score)) in found.iter().zip(&expected) {
            assert_eq!(found.ids, *ids, "{round}: {search:?} {config:?}");
            assert!((found.score - score).abs() <= 1e-5 * score.abs().max(1.0), "{found:?}, {score}");
        }
    }
    assert!(ended_early > 300, "only {ended_early} searches ended before the maximum length");
}

/// A search finds the same when its steps alternate with the steps of other searches.
#[test]
fn searches_share_no_state() {
    let model = Model::random(&mut Rng::new(8), 16);
    let (search, config) = (hugging_face(3, 1.0, EarlyStopping::False), with_eos(&[3]));
    let mut rows: Vec<_> = (0..16u32)
        .map(|token| (start(&search, &[token], 9, &config), LogitsProcessors::new(&config, &[], 1, 9), false))
        .collect();
    while rows.iter().any(|(_, _, done)| !done) {
        for (beams, processors, done) in rows.iter_mut().rev().filter(|(_, _, done)| !done) {
            let mut logits: Vec<f32> =
                (0..beams.running()).flat_map(|i| model.row(beams.sequence(i))).collect();
            *done = beams.advance(&mut logits, processors, None);
        }
    }
    for ((beams, ..), token) in rows.into_iter().zip(0..) {
        assert_eq!(beams.finalize(), model.search(&search, &[token], 9, &config));
    }
}

#[test]
fn scores_that_are_not_finite() {
    const INF: f32 = f32::INFINITY;
    let rows = [[f32::NAN; 3], [-INF; 3], [INF; 3], [INF, 0.0, 1.0], [f32::NAN, 0.0, 1.0], [-INF, 2.0, -INF]];
    for rule in [
        BeamSearch::new(4),
        BeamSearch::keras(4),
        hugging_face(4, f32::MAX, EarlyStopping::ALL[0]),
        hugging_face(4, f32::MIN, EarlyStopping::ALL[2]),
    ] {
        for first in rows {
            for second in rows {
                let model = Model::Table(vec![first.to_vec(), second.to_vec(), vec![0.0, 1.0, 2.0]]);
                for eos in [&[][..], &[1], &[0, 1, 2]] {
                    for prompt in [0, 1, 2] {
                        let found = model.search(&rule, &[prompt], 6, &with_eos(eos));
                        assert!((1..=4).contains(&found.len()));
                        assert!(found.iter().all(|found| found.ids.len() <= 6 && found.ids[0] == prompt));
                    }
                }
            }
        }
    }
    // No token can follow, so the result is the prompt.
    let found = Model::Table(vec![vec![f32::NAN; 3]]).search(&BeamSearch::new(2), &[0], 6, &with_eos(&[]));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].ids.as_slice(), found[0].score), ([0].as_slice(), 0.0));
}

#[test]
fn degenerate_searches_end_at_once() {
    let config = with_eos(&[]);
    let mut processors = LogitsProcessors::new(&config, &[], 1, 2);
    for continuations in [Continuations::Best, Continuations::Diverse { groups: 2, penalty: 1.0 }] {
        let search = |num_beams| BeamSearch::new(num_beams).with_continuations(continuations);
        let mut over = start(&search(2), &[1, 2], 2, &config);
        assert!(over.advance(&mut [0.0; 4], &mut processors, None));
        assert_eq!(over.finalize()[0].ids, [1, 2]);
        let mut none = start(&search(0), &[1], 5, &config);
        assert!(none.advance(&mut [0.0; 4], &mut processors, None));
        let mut empty = start(&search(2), &[], 5, &config);
        assert!(!empty.advance(&mut [0.0; 4], &mut processors, None));
        assert_eq!((empty.running(), empty.sequence(0), empty.sequence(9)), (2, &[0][..], &[][..]));
        assert!(empty.advance(&mut [], &mut processors, None));
    }
}

/// A criterion that is met at one token.
#[derive(Debug)]
struct At(u32);

impl StoppingCriterion for At {
    fn is_met(&self, ids: &[u32]) -> bool {
        ids.last() == Some(&self.0)
    }
}

/// What a search finds with a criterion.
fn search_until(model: &Model, search: &BeamSearch, config: &GenerationConfig, stop: u32) -> Vec<Hypothesis> {
    let mut beams = start(search, &[1], 12, config);
    let mut processors = LogitsProcessors::new(config, &[], 1, 12);
    loop {
        let mut logits: Vec<f32> = (0..beams.running()).flat_map(|i| model.row(beams.sequence(i))).collect();
        if beams.advance(&mut logits, &mut processors, Some(&At(stop))) {
            return beams.finalize();
        }
    }
}

/// A criterion ends hypotheses as an end token does. More end tokens mean more candidates, which makes no difference
/// here: the best hypotheses are the same.
#[test]
fn a_criterion_ends_hypotheses() {
    let mut random = Rng::new(11);
    let mut ended = 0;
    for _ in 0..100 {
        let model = Model::random(&mut random, 16);
        for search in [BeamSearch::new(3), BeamSearch::keras(3)] {
            let stopped = search_until(&model, &search, &with_eos(&[11]), 3);
            let expected = model.search(&search, &[1], 12, &with_eos(&[11, 3]));
            let ids = |found: &Hypothesis| found.ids[..found.end.unwrap_or(found.ids.len())].to_vec();
            assert_eq!(ids(&stopped[0]), ids(&expected[0]));
            ended += usize::from(ids(&stopped[0]).ends_with(&[3]));
        }
    }
    assert!(ended > 20, "only {ended} hypotheses ended by the criterion");
}

#[test]
fn log_probabilities_add_up_to_the_score() {
    let mut random = Rng::new(12);
    let config = GenerationConfig { log_probabilities: LogProbabilities::Chosen, ..with_eos(&[3]) };
    let plain = hugging_face(3, 0.0, EarlyStopping::False);
    let diverse = Continuations::Diverse { groups: 3, penalty: 1e-9 };
    for search in [plain, plain.with_continuations(diverse), BeamSearch::keras(3)] {
        for _ in 0..20 {
            for found in Model::random(&mut random, 16).search(&search, &[1, 2], 9, &config) {
                assert_eq!(found.log_probabilities.len(), found.ids.len() - 2);
                let sum: f32 = found.log_probabilities.iter().sum();
                assert!((sum - found.score).abs() < 1e-5, "{found:?}");
            }
        }
    }
}

#[test]
fn renormalised_scores_are_log_probabilities() {
    let model = Model::random(&mut Rng::new(13), 8);
    let search = hugging_face(2, 0.0, EarlyStopping::False);
    let config = GenerationConfig { suppress_tokens: vec![0, 1, 2, 3, 4, 5], ..with_eos(&[]) };
    let sum = |config: &GenerationConfig| -> f64 {
        model.search(&search, &[1], 2, config).iter().map(|found| f64::from(found.score).exp()).sum()
    };
    assert!(sum(&config) < 0.99);
    assert!((sum(&GenerationConfig { renormalize_logits: true, ..config }) - 1.0).abs() < 1e-6);
}

/// With so few candidates that all are drawn, nothing is left to chance: the search is that of the filtered scores.
#[test]
fn drawn_continuations_are_all_when_few_are_left() {
    let mut random = Rng::new(14);
    for _ in 0..50 {
        let model = Model::random(&mut random, 16);
        let search = hugging_face(2, 1.0, EarlyStopping::False);
        let filters = crate::generation::Filters::new().with_top_k(1);
        let found = |seed| {
            let drawn = Continuations::Drawn { temperature: 1.0, filters, seed };
            model.search(&search.with_continuations(drawn), &[1], 8, &with_eos(&[3]))
        };
        assert_eq!(found(1), found(2));
    }
}

#[test]
fn drawn_continuations_follow_their_probabilities() {
    let rows = vec![[0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect(); 4];
    let model = Model::Table(rows);
    let mut counts = [0usize; 4];
    for seed in 0..4000 {
        let filters = crate::generation::Filters::new();
        let drawn = Continuations::Drawn { temperature: 1.0, filters, seed };
        // One token; of the two that are drawn the better one is first, so the best is 0 unless it was not drawn.
        let search = hugging_face(1, 0.0, EarlyStopping::False).with_continuations(drawn);
        let found = model.search(&search, &[0], 2, &with_eos(&[]));
        counts[found[0].ids[1] as usize] += 1;
    }
    // Two of four without replacement: the chance that the first is among them, and that the second is the best.
    let pair = |a: f64, b: f64| a * b / (1.0 - a) + b * a / (1.0 - b);
    let first = pair(0.5, 0.3) + pair(0.5, 0.15) + pair(0.5, 0.05);
    let second = pair(0.3, 0.15) + pair(0.3, 0.05);
    for (count, expected) in counts.iter().zip([first, second, pair(0.15, 0.05), 0.0]) {
        let expected = expected * 4000.0;
        assert!((*count as f64 - expected).abs() <= 4.0 * expected.sqrt(), "{counts:?}, expected {expected}");
    }
}

/// Compares with a plain transcription of transformers 4.44's group search.
#[test]
fn diverse_searches_equal_a_transcription_of_the_rules() {
    let mut random = Rng::new(6);
    let mut several = 0;
    for round in 0..600 {
        let model = Model::random(&mut random, 16);
        let (groups, group_size) = (2 + random.below(2), 1 + random.below(3));
        let continuations = Continuations::Diverse { groups, penalty: random.pick(&[0.2, 1.0, 5.0]) };
        let search = hugging_face(
            groups * group_size,
            random.pick(&[0.0, 0.5, 1.0, 2.0, -1.0]),
            random.pick(&EarlyStopping::ALL),
        )
        .with_continuations(continuations);
        let prompt: Vec<u32> = (0..1 + random.below(3)).map(|_| random.below(16) as u32).collect();
        let limit = prompt.len() + 1 + random.below(9);
        let mut config = with_eos(random.pick(&[&[][..], &[3], &[3, 11]]));
        config.pad_token_id = random.pick(&[None, Some(0), Some(7)]);
        config.repetition_penalty = random.pick(&[1.0, 1.5]);
        let found = model.search(&search, &prompt, limit, &config);
        let expected = plain::diverse(&model, &search, &prompt, limit, &config);
        assert_eq!(found.len(), expected.len(), "{round}: {search:?} {config:?}");
        for (found, (ids, score)) in found.iter().zip(&expected) {
            assert_eq!(found.ids, *ids, "{round}: {search:?} {config:?}");
            assert!((found.score - score).abs() <= 1e-5 * score.abs().max(1.0), "{found:?}, {score}");
        }
        several += usize::from(found.len() > group_size);
    }
    assert!(several > 300, "only {several} searches found hypotheses of several groups");
}
