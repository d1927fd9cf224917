use rachis_testkit::Rng;

use super::*;
use crate::generation::filters::Filters;
use crate::generation::scores::{log_softmax, order};

const INF: f32 = f32::INFINITY;

/// Logits of these probabilities.
fn logits(probabilities: &[f64]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln() as f32).collect()
}

/// How often each token is chosen in `n` draws of one sequence.
fn counts(logits: &[f32], sampler: Sampler, n: usize) -> Vec<usize> {
    let (mut token_sampler, mut random) = (TokenSampler::default(), Random::stream(sampler.seed, 0));
    let mut counts = vec![0; logits.len()];
    for _ in 0..n {
        counts[token_sampler.sample(logits, &sampler, &mut random).token as usize] += 1;
    }
    counts
}

/// Compares counts with probabilities: no count where the probability is 0, and a chi-square statistic below a bound
/// that is exceeded by chance about once in 10^6 (mean k, variance 2 k for k degrees of freedom; the bound is
/// generous for small k).
fn check(logits: &[f32], sampler: Sampler, expected: &[f64]) {
    let n = 20_000;
    let total: f64 = expected.iter().sum();
    for seed in [0, 1, u64::MAX] {
        let (mut chi, mut degrees) = (0.0, 0.0);
        for (count, p) in counts(logits, Sampler { seed, ..sampler }, n).iter().zip(expected) {
            let mean = n as f64 * p / total;
            if *p == 0.0 {
                assert_eq!(*count, 0, "{sampler:?}");
            } else {
                chi += (*count as f64 - mean).powi(2) / mean;
                degrees += 1.0;
            }
        }
        let bound = degrees + 5.0 * f64::sqrt(2.0 * degrees) + 15.0;
        assert!(chi < bound, "{sampler:?}: chi square {chi} with {degrees} tokens");
    }
}

#[test]
fn each_method_has_its_distribution() {
    let p = [0.05, 0.4, 0.1, 0.25, 0.2];
    let row = logits(&p);
    check(&row, Sampler::greedy(), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    check(&row, Sampler::random(), &p);
    check(&row, Sampler::top_k(1), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    check(&row, Sampler::top_k(3), &[0.0, 0.4, 0.0, 0.25, 0.2]);
    check(&row, Sampler::top_k(99), &p);
    // Before 0.2 there are 0.4 + 0.25, before 0.1 there are 0.85.
    check(&row, Sampler::top_p(0.7), &[0.0, 0.4, 0.0, 0.25, 0.2]);
    check(&row, Sampler::filtered(Filters::new().with_top_p(0.7)), &[0.0, 0.4, 0.0, 0.25, 0.2]);
    check(&row, Sampler::top_p(0.01), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    check(&row, Sampler::filtered(Filters::new().with_top_p(0.01)), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    check(&row, Sampler::top_p(1.0), &p);
    check(&row, Sampler::filtered(Filters::new().with_top_k(4)), &[0.0, 0.4, 0.1, 0.25, 0.2]);
}

#[test]
fn temperature_sharpens_and_flattens() {
    let p: [f64; 3] = [0.5, 0.3, 0.2];
    for temperature in [0.5, 2.0] {
        let expected = p.map(|p| p.powf(1.0 / f64::from(temperature)));
        check(&logits(&p), Sampler { temperature, ..Sampler::random() }, &expected);
        check(
            &logits(&p),
            Sampler { temperature, ..Sampler::filtered(Filters::new().with_top_k(3)) },
            &expected,
        );
    }
    check(&logits(&p), Sampler { temperature: 1e-40, ..Sampler::random() }, &[1.0, 0.0, 0.0]);
}

/// With both k and p, transformers takes p of the k most probable tokens and KerasHub takes p of all.
#[test]
fn top_p_after_top_k() {
    let p = [0.4, 0.3, 0.2, 0.1];
    // Of 0.4 + 0.3 the first has 0.57.
    check(
        &logits(&p),
        Sampler::filtered(Filters::new().with_top_k(2).with_top_p(0.55)),
        &[1.0, 0.0, 0.0, 0.0],
    );
    let keras = Sampler::new(SamplingMethod::TopP { p: 0.55, k: Some(2) });
    check(&logits(&p), keras, &[0.4, 0.3, 0.0, 0.0]);
    // A token with exactly p before it is kept by KerasHub only.
    let halves = [0.0f32, 0.0];
    check(&halves, Sampler::top_p(0.5), &[0.5, 0.5]);
    check(&halves, Sampler::filtered(Filters::new().with_top_p(0.5)), &[1.0, 0.0]);
}

/// The nucleus of rows that need more tokens than are sorted first.
#[test]
fn a_nucleus_of_any_size() {
    let mut random = Rng::new(3);
    for len in [1, 255, 256, 257, 5000] {
        let row: Vec<f32> = (0..len).map(|_| random.signed() as f32).collect();
        let mut sorted = row.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let total: f64 = sorted.iter().map(|x| f64::from(*x).exp()).sum();
        for p in [0.03f32, 0.5, 0.97, 0.999_999] {
            let (mut before, mut expected) = (0.0, 0);
            while expected < len && (expected == 0 || before < f64::from(p) * total) {
                before += f64::from(sorted[expected]).exp();
                expected += 1;
            }
            let mut candidates = Candidates::default();
            candidates.collect(&row, &Filters::new().with_top_p(p), 1);
            let mut kept = candidates.list().to_vec();
            kept.sort_unstable_by(order);
            // One token more or less where the sums round differently.
            assert!(kept.len().abs_diff(expected) <= 1, "{} not {expected} of {len}", kept.len());
            assert!(kept.iter().zip(&sorted).all(|(a, b)| a.0 == *b));
        }
    }
}

#[test]
fn each_sequence_has_its_own_random_numbers() {
    let row = vec![0.0; 1000];
    let sampler = Sampler { seed: 9, ..Sampler::random() };
    let picks = |sequence: usize, seed: u64| -> Vec<u32> {
        let (mut token_sampler, mut random) = (TokenSampler::default(), Random::stream(seed, sequence));
        (0..20).map(|_| token_sampler.sample(&row, &sampler, &mut random).token).collect()
    };
    assert_eq!(picks(3, 9), picks(3, 9));
    let others: Vec<_> =
        [(0, 9), (1, 9), (2, 9), (3, 8), (9, 3)].iter().map(|(s, x)| picks(*s, *x)).collect();
    for (i, a) in others.iter().enumerate() {
        assert!(others[..i].iter().all(|b| a.iter().zip(b).filter(|(a, b)| a == b).count() < 5));
    }
    // Each token takes one random number, whatever the method.
    let (mut token_sampler, mut a, mut b) =
        (TokenSampler::default(), Random::stream(1, 1), Random::stream(1, 1));
    token_sampler.sample(&[0.0, 1.0, 2.0], &Sampler::top_k(2), &mut a);
    token_sampler.sample(&row, &Sampler::filtered(Filters::new().with_top_k(7).with_top_p(0.3)), &mut b);
    assert_eq!(a.next(), b.next());
}

#[test]
fn scores_that_are_not_finite() {
    let samplers = [
        Sampler::greedy(),
        Sampler::random(),
        Sampler::top_k(2),
        Sampler::top_p(0.9),
        Sampler::filtered(Filters::new().with_top_k(2).with_top_p(0.9)),
        Sampler::filtered(Filters::new().with_top_p(0.9)),
    ];
    for sampler in samplers {
        check(&[f32::NAN, -INF, 1.0, f32::NAN], sampler, &[0.0, 0.0, 1.0, 0.0]);
        check(&[0.0, INF, 1.0, INF], sampler, &[0.0, 1.0, 0.0, 0.0]);
        check(&[-INF, -INF], sampler, &[1.0, 0.0]);
        check(&[f32::NAN, f32::NAN], sampler, &[1.0, 0.0]);
        assert_eq!(TokenSampler::default().sample(&[], &sampler, &mut Random::stream(0, 0)).token, 0);
    }
}

#[test]
fn top_k_has_probabilities_of_the_whole_row() {
    let row = [1.0, 3.0, -INF, 2.0, 3.0];
    let mut expected = row.map(|x| x / 2.0);
    log_softmax(&mut expected);
    let found = TokenSampler::default().top_k(&row, 3, 2.0);
    assert_eq!(found.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 4, 3]);
    for (token, p) in found {
        assert!((p - expected[token as usize].exp()).abs() < 1e-6);
    }
    assert_eq!(TokenSampler::default().top_k(&row, 99, 1.0).len(), 4);
}
