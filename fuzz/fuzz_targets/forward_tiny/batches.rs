//! Token batches, padded or ragged, at times such that no model takes them.

use rachis::Tokens;
use rachis_testkit::Rng;

use crate::Input;

#[derive(Debug, Clone)]
pub struct Batch {
    pub ids: Vec<u32>,
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Padded { batch: usize, seq: usize, mask: Option<Vec<u8>> },
    Ragged(Vec<usize>),
}

impl Batch {
    /// Sequences for a model of `vocabulary` tokens; those of a decoder and of an encoder differ in `salt`.
    pub fn new(input: &Input, vocabulary: usize, salt: u8) -> Batch {
        let mut rng = Rng::new(u64::from(input.seed) << 8 | u64::from(salt));
        let [batch, seq, kind] = input.batch.map(usize::from);
        let (batch, seq) = (1 + batch % 4, 1 + (seq + usize::from(salt)) % 12);
        let mut ids: Vec<u32> = (0..batch * seq).map(|_| rng.below(vocabulary) as u32).collect();
        let mut mask: Vec<u8> =
            (0..ids.len()).map(|i| (input.masks.rotate_left(salt.into()) >> i & 1) as u8).collect();
        let mut lengths: Vec<usize> = (0..batch).map(|_| 1 + rng.below(seq)).collect();
        let (mut rows, mut width) = (batch, seq);
        let at = rng.below(ids.len());
        // One of the two batches of a request is at fault, if any.
        match if input.request[1] % 2 == salt % 2 { input.request[0] % 32 } else { 0 } {
            1 => ids[at] = vocabulary as u32,
            2 => ids[at] = u32::MAX,
            3 => mask[at] = 2,
            4 => drop(ids.pop()),
            5 => lengths[at % batch] = 0,
            6 => (rows, lengths) = (0, Vec::new()),
            7 => (rows, lengths[0]) = (usize::MAX, usize::MAX),
            8 => (width, lengths[0]) = (usize::MAX, lengths[0] + 1),
            9 => mask.fill(0),
            10 => drop(mask.pop()),
            11 => (rows, width) = (usize::MAX, 0),
            _ => {}
        }
        let shape = match kind % 3 {
            0 => Shape::Padded { batch: rows, seq: width, mask: None },
            1 => Shape::Padded { batch: rows, seq: width, mask: Some(mask) },
            _ => {
                ids.truncate(lengths.iter().fold(0, |sum, len| usize::saturating_add(sum, *len)));
                Shape::Ragged(lengths)
            }
        };
        Batch { ids, shape }
    }

    pub fn ragged(sequences: &[Vec<u32>]) -> Batch {
        Batch { ids: sequences.concat(), shape: Shape::Ragged(sequences.iter().map(Vec::len).collect()) }
    }

    /// The first sequence of a batch that a model takes, padded as it is.
    pub fn first(&self) -> Batch {
        let len = match &self.shape {
            Shape::Padded { seq, .. } => *seq,
            Shape::Ragged(lengths) => lengths[0],
        };
        let shape = match &self.shape {
            Shape::Padded { seq, mask, .. } => {
                Shape::Padded { batch: 1, seq: *seq, mask: mask.as_ref().map(|mask| mask[..*seq].to_vec()) }
            }
            Shape::Ragged(_) => Shape::Ragged(vec![len]),
        };
        Batch { ids: self.ids[..len].to_vec(), shape }
    }

    pub fn tokens(&self) -> Tokens<'_> {
        match &self.shape {
            Shape::Padded { batch, seq, mask: None } => Tokens::padded(&self.ids, *batch, *seq),
            Shape::Padded { batch, seq, mask: Some(mask) } => {
                Tokens::with_mask(&self.ids, *batch, *seq, mask)
            }
            Shape::Ragged(lengths) => Tokens::ragged(&self.ids, lengths),
        }
    }

    /// The real tokens of each sequence, if a model of so many tokens and positions takes the batch. Some compute the
    /// first token even when it is padding.
    pub fn sequences(
        &self,
        (vocabulary, positions): (usize, usize),
        always_first: bool,
    ) -> Option<Vec<Vec<u32>>> {
        let lengths = match &self.shape {
            Shape::Padded { batch, seq, .. } if self.ids.is_empty() || *batch > 4 || *seq > 12 => {
                return None;
            }
            Shape::Padded { batch, seq, .. } => vec![*seq; *batch],
            Shape::Ragged(lengths) => lengths.clone(),
        };
        let total = lengths.iter().try_fold(0usize, |sum, len| sum.checked_add(*len))?;
        let mask = match &self.shape {
            Shape::Padded { mask: Some(mask), .. } => mask.clone(),
            _ => vec![1; self.ids.len()],
        };
        let fits = !lengths.is_empty()
            && total == self.ids.len()
            && total == mask.len()
            && lengths.iter().all(|len| *len <= positions)
            && mask.iter().all(|x| *x <= 1);
        if !fits {
            return None;
        }
        let mut start = 0;
        lengths
            .iter()
            .map(|len| {
                let range = start..start + len;
                start += len;
                let first = range.start;
                let looked_up = range.clone().filter(|i| mask[*i] == 1 || always_first && *i == first);
                let known = looked_up.clone().all(|i| (self.ids[i] as usize) < vocabulary);
                let real: Vec<u32> = range.filter(|i| mask[*i] == 1).map(|i| self.ids[i]).collect();
                (known && !real.is_empty()).then_some(real)
            })
            .collect()
    }
}
