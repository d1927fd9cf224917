use super::*;

/// The tokens that filters keep of a row with these probabilities, at least `min_keep`.
fn kept(probabilities: &[f64], filters: Filters, min_keep: usize) -> Vec<usize> {
    // A softmax does not see what is added to all scores.
    let mut row: Vec<f32> = probabilities.iter().map(|p| p.ln() as f32 - 3.0).collect();
    let before = row.clone();
    filters.apply(&mut row, min_keep, &mut Candidates::default());
    let kept: Vec<usize> = (0..row.len()).filter(|i| row[*i] > f32::NEG_INFINITY).collect();
    assert!(kept.iter().all(|i| row[*i] == before[*i]), "scores stay");
    kept
}

/// Its information is 1, 2, 3 and 3 bits, its entropy 1.75.
const HALVES: [f64; 4] = [0.5, 0.25, 0.125, 0.125];

#[test]
fn no_filter_keeps_all() {
    assert_eq!(kept(&HALVES, Filters::new(), 1), [0, 1, 2, 3]);
}

#[test]
fn top_k_keeps_tokens_as_probable_as_the_last() {
    let top = |k| Filters::new().with_top_k(k);
    assert_eq!(kept(&HALVES, top(1), 1), [0]);
    assert_eq!(kept(&HALVES, top(3), 1), [0, 1, 2, 3]);
    assert_eq!(kept(&HALVES, top(1), 2), [0, 1], "at least two stay");
    assert_eq!(kept(&HALVES, top(9), 1), [0, 1, 2, 3]);
    assert_eq!(kept(&[0.1, 0.3, 0.3, 0.3], top(2), 1), [1, 2, 3]);
}

#[test]
fn top_p_is_a_share_of_what_top_k_has_left() {
    let p = [0.4, 0.1, 0.3, 0.2];
    assert_eq!(kept(&p, Filters::new().with_top_p(0.55), 1), [0, 2]);
    // Of 0.4 + 0.3 the first has 0.57.
    assert_eq!(kept(&p, Filters::new().with_top_p(0.55).with_top_k(2), 1), [0]);
    assert_eq!(kept(&p, Filters::new().with_top_p(0.01), 3), [0, 2, 3]);
    assert_eq!(kept(&p, Filters::new().with_top_p(0.0), 1), [0]);
    assert_eq!(kept(&[0.5, 0.5], Filters::new().with_top_p(0.5), 1), [0], "a share that is reached");
}

#[test]
fn min_p_compares_with_the_most_probable_token() {
    let min = |p| Filters::new().with_min_p(p);
    assert_eq!(kept(&HALVES, min(0.4), 1), [0, 1]);
    assert_eq!(kept(&HALVES, min(0.2), 1), [0, 1, 2, 3]);
    assert_eq!(kept(&HALVES, min(1.0), 1), [0]);
    assert_eq!(kept(&HALVES, min(1.0), 2), [0, 1]);
    assert_eq!(kept(&HALVES, min(0.0), 1), [0, 1, 2, 3]);
}

#[test]
fn typical_p_keeps_what_is_nearest_to_the_entropy() {
    // The distances are 0.75, 0.25, 1.25 and 1.25 bits.
    let typical = |mass| Filters { typical_p: mass, ..Filters::new() };
    assert_eq!(kept(&HALVES, typical(0.2), 1), [1]);
    assert_eq!(kept(&HALVES, typical(0.5), 1), [0, 1]);
    assert_eq!(kept(&HALVES, typical(0.8), 1), [0, 1, 2, 3], "both of the equal ones");
    assert_eq!(kept(&HALVES, typical(0.2), 2), [0, 1]);
}

#[test]
fn cutoffs_are_probabilities() {
    let epsilon = |cutoff| Filters { epsilon_cutoff: cutoff, ..Filters::new() };
    assert_eq!(kept(&HALVES, epsilon(0.2), 1), [0, 1]);
    assert_eq!(kept(&HALVES, epsilon(0.9), 1), [0]);
    assert_eq!(kept(&HALVES, epsilon(0.9), 2), [0, 1]);
    // exp(-entropy) is 0.297: the cutoffs are min(0.04, 0.06) and min(0.2, 0.13).
    let eta = |cutoff| Filters { eta_cutoff: cutoff, ..Filters::new() };
    assert_eq!(kept(&HALVES, eta(0.04), 1), [0, 1, 2, 3]);
    assert_eq!(kept(&HALVES, eta(0.2), 1), [0, 1]);
}

#[test]
fn top_h_is_a_share_of_the_entropy() {
    // The tokens have 0.5, 0.5, 0.375 and 0.375 bits of the entropy.
    let top_h = |share| Filters { top_h: Some(share), ..Filters::new() };
    assert_eq!(kept(&HALVES, top_h(0.01), 1), [0]);
    assert_eq!(kept(&HALVES, top_h(0.3), 1), [0]);
    assert_eq!(kept(&HALVES, top_h(0.6), 1), [0, 1]);
    assert_eq!(kept(&HALVES, Filters { top_h: Some(0.6), ..Filters::new().with_top_k(1) }, 1), [0]);
    let even = [1.0 / 200.0; 200];
    assert_eq!(kept(&even, top_h(1.0), 1).len().max(99), 100, "at most the 100 most probable ones");
}

#[test]
fn filters_see_what_is_left() {
    // After top_k=2 the probabilities are 2/3 and 1/3.
    let filters = Filters { epsilon_cutoff: 0.3, ..Filters::new().with_top_k(2) };
    assert_eq!(kept(&HALVES, filters, 1), [0, 1]);
    assert_eq!(kept(&HALVES, Filters { epsilon_cutoff: 0.3, ..Filters::new() }, 1), [0]);
}

#[test]
fn scores_that_are_not_finite_are_no_candidates() {
    const INF: f32 = f32::INFINITY;
    let all = Filters {
        top_k: Some(3),
        top_h: Some(0.9),
        top_p: 0.9,
        min_p: Some(0.1),
        typical_p: 0.9,
        epsilon_cutoff: 0.1,
        eta_cutoff: 0.1,
    };
    let mut candidates = Candidates::default();
    for row in [&[][..], &[-INF, -INF], &[f32::NAN], &[INF, 0.0], &[f32::NAN, 0.0, -INF]] {
        for filters in [all, Filters { top_h: None, ..all }, Filters { top_k: None, top_h: None, ..all }] {
            candidates.collect(row, &filters, 2);
            assert!(candidates.list().iter().all(|(score, _)| *score > -INF), "{row:?}");
        }
    }
    candidates.collect(&[f32::NAN, 0.0, -INF], &all, 1);
    assert_eq!(candidates.list(), [(0.0, 1)]);
}
