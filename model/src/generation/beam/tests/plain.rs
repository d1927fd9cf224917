//! transformers' rules of beam search for one prompt, stated plainly: every list is sorted whole, and no step is
//! shortened.

use super::*;

type Scored = (Vec<u32>, f32);

/// A finished hypothesis that is not filled yet: no sequence, the score -1e9.
fn unfilled() -> Scored {
    (Vec::new(), -1e9)
}

/// The finished hypotheses and whether the search ended before the maximum length. Unfilled hypotheses are left out, as
/// are copies of the first beam, which start with a score of -1e9.
pub(super) fn hugging_face(
    model: &Model,
    search: &BeamSearch,
    prompt: &[u32],
    limit: usize,
    config: &GenerationConfig,
) -> (Vec<Scored>, bool) {
    let BeamRule::HuggingFace { length_penalty, early_stopping } = search.rule else { panic!("{search:?}") };
    let (beams, eos) = (search.num_beams, &config.eos_token_ids);
    let power = |length: usize| f64::powf(length as f64, f64::from(length_penalty)) as f32;
    let mut running: Vec<Scored> = vec![(prompt.to_vec(), -1e9); beams];
    running[0].1 = 0.0;
    let mut finished: Vec<Scored> = vec![unfilled(); beams];

    for length in prompt.len() + 1..=limit {
        let mut candidates: Vec<Scored> = Vec::new();
        for (ids, sum) in &running {
            let mut row: Vec<f32> = model.log_probabilities(ids).iter().map(|x| *x as f32).collect();
            LogitsProcessors::new(config, &[], prompt.len(), limit).apply(ids, &mut row);
            candidates.extend(row.iter().zip(0..).map(|(x, token)| ([ids, &[token][..]].concat(), sum + x)));
        }
        sort(&mut candidates);
        candidates.truncate(beams * (1 + eos.len()).max(2));

        let ends = |ids: &[u32]| length == limit || eos.contains(ids.last().unwrap());
        running = candidates.clone();
        running.iter_mut().filter(|(ids, _)| ends(ids)).for_each(|(_, sum)| *sum += -1e9);
        sort(&mut running);
        running.truncate(beams);

        for (ids, sum) in candidates.iter().take(beams).filter(|(ids, _)| ends(ids)) {
            finished.push((ids.clone(), sum / power(length - prompt.len())));
        }
        sort(&mut finished);
        finished.truncate(beams);

        let full = finished.iter().all(|(ids, _)| !ids.is_empty());
        let at_limit = early_stopping == EarlyStopping::Never && length_penalty > 0.0;
        let attainable = running[0].1 / power(if at_limit { limit } else { length } - prompt.len());
        let hopeless = attainable <= finished[beams - 1].1;
        if hopeless || (full && early_stopping == EarlyStopping::True) {
            finished.retain(|(_, score)| *score > -1e6);
            return (finished, length < limit);
        }
    }
    finished.retain(|(_, score)| *score > -1e6);
    (finished, false)
}

/// The finished hypotheses of transformers 4.44's group search, best first: a list of finished hypotheses for each group,
/// as many running beams as a group has from the start (copies with a score of -1e9), and padding behind groups that are
/// done.
pub(super) fn diverse(
    model: &Model,
    search: &BeamSearch,
    prompt: &[u32],
    limit: usize,
    config: &GenerationConfig,
) -> Vec<Scored> {
    let BeamRule::HuggingFace { length_penalty, early_stopping } = search.rule else { panic!("{search:?}") };
    let Continuations::Diverse { groups, penalty } = search.continuations else { panic!("{search:?}") };
    let (size, eos) = (search.num_beams / groups, &config.eos_token_ids);
    let score_of = |sum: f32, length: usize| {
        (f64::from(sum) / f64::powf((length - prompt.len()) as f64, f64::from(length_penalty))) as f32
    };
    let add = |list: &mut Vec<Scored>, found: Scored| {
        let worst = list.iter().map(|(_, score)| *score).fold(f32::INFINITY, f32::min);
        if list.len() < size || found.1 > worst {
            list.push(found);
            if list.len() > size {
                let at = list.iter().position(|(_, score)| *score == worst).unwrap();
                list.remove(at);
            }
        }
    };
    let mut beams: Vec<Vec<Scored>> = vec![vec![(prompt.to_vec(), -1e9); size]; groups];
    beams.iter_mut().for_each(|group| group[0].1 = 0.0);
    let mut finished: Vec<Vec<Scored>> = vec![Vec::new(); groups];
    let mut done = vec![false; groups];
    let padding = config.pad_token_id.or(eos.first().copied());
    for length in prompt.len() + 1..=limit {
        let mut chosen: Vec<u32> = Vec::new();
        for group in 0..groups {
            if done[group] {
                chosen.extend(vec![padding.unwrap(); size]);
                continue;
            }
            let mut candidates: Vec<Scored> = Vec::new();
            for (ids, sum) in &beams[group] {
                let mut row: Vec<f32> = model.log_probabilities(ids).iter().map(|x| *x as f32).collect();
                for (x, token) in row.iter_mut().zip(0u32..) {
                    *x -= penalty * chosen.iter().filter(|other| **other == token).count() as f32;
                }
                LogitsProcessors::new(config, &[], prompt.len(), limit).apply(ids, &mut row);
                candidates
                    .extend(row.iter().zip(0..).map(|(x, token)| ([ids, &[token][..]].concat(), sum + x)));
            }
            sort(&mut candidates);
            candidates.truncate(size * (1 + eos.len()).max(2));
            let best = candidates[0].1;
            let mut next = Vec::new();
            for (rank, (ids, sum)) in candidates.into_iter().enumerate() {
                let (last, before) = ids.split_last().unwrap();
                if eos.contains(last) {
                    if rank < size {
                        let ended = [before, &eos[..1]].concat();
                        add(&mut finished[group], (ended, score_of(sum, length)));
                    }
                } else if next.len() < size {
                    next.push((ids, sum));
                }
            }
            beams[group] = next;
            chosen.extend(beams[group].iter().map(|(ids, _)| *ids.last().unwrap()));
            let at_limit = early_stopping == EarlyStopping::Never && length_penalty > 0.0;
            let attainable = score_of(best, if at_limit { limit } else { length });
            let worst = finished[group].iter().map(|(_, score)| *score).fold(f32::INFINITY, f32::min);
            done[group] = finished[group].len() == size
                && (early_stopping == EarlyStopping::True || worst >= attainable);
        }
        if done.iter().all(|done| *done) {
            break;
        }
    }
    for group in 0..groups {
        for (ids, sum) in beams[group].clone() {
            if !done[group] && sum > -1e8 {
                let score = score_of(sum, ids.len());
                add(&mut finished[group], (ids, score));
            }
        }
    }
    let mut all: Vec<Scored> = finished.concat();
    all.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap());
    all.reverse();
    all
}

/// Sorts from high to low; equal scores stay in order.
fn sort(list: &mut [Scored]) {
    list.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
}
