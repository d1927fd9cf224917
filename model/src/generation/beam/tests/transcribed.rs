//! A plain transcription of transformers' beam search for one prompt: every list is sorted whole, and no step is
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
            LogitsProcessors::new(config, prompt.len(), limit).apply(ids, &mut row);
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

/// Sorts from high to low; equal scores stay in order.
fn sort(list: &mut [Scored]) {
    list.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
}
