//! A session that decodes: its rows are those of a forward pass, its errors change nothing.

use rachis::kernels::MatRef;
use rachis::{CacheOptions, Decoder, Dtype, Result, SequenceOutput, Session, Tokens};

use crate::Input;
use crate::batches::Batch;
use crate::{Bits, check, finite};

pub struct Run<'a> {
    pub input: &'a Input,
    pub model: &'a dyn Decoder,
    /// Of each sequence its source.
    pub sources: &'a [Vec<u32>],
    pub sequences: &'a [Vec<u32>],
    /// The rows of a forward pass over each sequence.
    pub expected: &'a [Bits],
    /// Whether outputs are finite.
    pub sound: bool,
}

impl Run<'_> {
    pub fn decode(&self, session: &mut Session<'_>) {
        let [capacity, dtype, copies] = self.input.cache.map(usize::from);
        let (count, copies) = (self.sequences.len(), 1 + copies % 2);
        let dtype = [None, Some(Dtype::Float32), Some(Dtype::Bfloat16), Some(Dtype::Float16)][dtype % 4];
        let capacity = capacity % 20;
        self.refuse_absurd(session);
        let options = {
            let mut options = CacheOptions::new(count * copies, capacity);
            options.dtype = dtype;
            options
        };
        let started = session.start(self.model, options);
        started.as_ref().err().iter().for_each(|error| check(error));
        let fits = (1..=self.model.max_positions()).contains(&capacity);
        assert_eq!(started.is_ok(), fits, "{options:?}: {started:?}");
        if !fits {
            return;
        }
        if self.model.has_encoder() {
            let sources = Batch::ragged(self.sources);
            finite(self.model.encode(session, sources.tokens()).unwrap(), self.sound);
        }
        let mut done = vec![0; count];
        for (step, piece) in self.input.pieces.into_iter().map(usize::from).enumerate() {
            let piece = if step == 0 { 1 + piece % 12 } else { 1 };
            let new: Vec<(usize, &[u32])> = (0..count)
                .filter(|i| step == 0 || piece % 3 != i % 3)
                .map(|i| (i, &self.sequences[i][done[i]..]))
                .map(|(i, rest)| (i, &rest[..piece.min(rest.len())]))
                .filter(|(_, ids)| !ids.is_empty())
                .collect();
            if new.is_empty() {
                break;
            }
            if step == 1 {
                self.refuse_bad(session, capacity, copies);
            }
            let fits = new.iter().all(|(i, ids)| done[*i] + ids.len() <= capacity);
            let slots: Vec<usize> = new.iter().map(|(i, _)| i * copies).collect();
            let batch = Batch::ragged(&new.iter().map(|(_, ids)| ids.to_vec()).collect::<Vec<_>>());
            match self.model.decode(session, &slots, batch.tokens()) {
                Err(error) => {
                    check(&error);
                    assert!(!fits, "{error}");
                    break;
                }
                Ok(output) => {
                    assert!(fits, "more than {capacity} tokens");
                    let found = finite(output, self.sound);
                    for ((i, ids), found) in new.iter().zip(found) {
                        if dtype.is_none() {
                            assert_eq!(
                                found,
                                self.expected[*i][done[*i]..][..ids.len()],
                                "sequence {i} from {}",
                                done[*i]
                            );
                        }
                        done[*i] += ids.len();
                    }
                }
            }
        }
        self.logits(session);
        self.copy(session, &done, (capacity, copies));
    }

    /// A copy of a sequence goes on like the sequence, and what is cleared begins again.
    fn copy(&self, session: &mut Session<'_>, done: &[usize], (capacity, copies): (usize, usize)) {
        let slots = done.len() * copies;
        if done[0] < capacity && copies == 2 {
            session.copy_sequence(0, 1).unwrap();
            let both = [self.sequences[0][0]; 2];
            let found =
                finite(self.model.decode(session, &[1, 0], Tokens::padded(&both, 2, 1)).unwrap(), self.sound);
            assert_eq!(found[0], found[1], "a copy");
        }
        if done.len() > 1 {
            // Another source is another sequence.
            let copied = session.copy_sequence(0, (done.len() - 1) * copies);
            assert_eq!(copied.is_ok(), !self.model.has_encoder(), "{copied:?}");
        }
        for result in [session.copy_sequence(0, slots), session.copy_sequence(usize::MAX, 0)] {
            check(&result.unwrap_err());
        }
        check(&session.clear_sequence(slots).unwrap_err());
        session.clear_sequence(0).unwrap();
        let again = Tokens::padded(&self.sequences[0][..1], 1, 1);
        let again = finite(self.model.decode(session, &[0], again).unwrap(), self.sound);
        if self.input.cache[1] % 4 == 0 {
            assert_eq!(again[0], self.expected[0][..1], "after clearing");
        }
    }

    fn logits(&self, session: &mut Session<'_>) {
        let row = self.expected[0].last().unwrap();
        let row: Vec<f32> = row.iter().map(|bits| f32::from_bits(*bits)).collect();
        let mut logits = vec![f32::NAN; self.model.vocabulary_size()];
        let states = MatRef::new(&row, 1, row.len()).unwrap();
        self.model.logits(session, states, &mut logits).unwrap();
        assert!(!self.sound || logits.iter().all(|x| x.is_finite()), "{logits:?}");
        check(&self.model.logits(session, states, &mut logits[1..]).unwrap_err());
    }

    fn refuse_absurd(&self, session: &mut Session<'_>) {
        let options =
            [(usize::MAX, 1), (1, usize::MAX), (usize::MAX, 0), (0, 1), (1 << 40, 16), (1, 1 << 30)];
        let (sequences, capacity) = options[usize::from(self.input.request[2]) % options.len()];
        let options = CacheOptions::new(sequences, capacity);
        check(&session.start(self.model, options).unwrap_err());
        let one = Tokens::padded(&[0], 1, 1);
        check(&self.model.decode(session, &[0], one).unwrap_err());
        check(&self.model.encode(session, one).unwrap_err());
    }

    fn refuse_bad(&self, session: &mut Session<'_>, capacity: usize, copies: usize) {
        let (model, last) = (self.model, self.sequences.len() * copies - 1);
        let refuse = |result: Result<SequenceOutput<'_>>| match result {
            Ok(output) => panic!("{output:?}"),
            Err(error) => check(&error),
        };
        let (one, two) = (Tokens::padded(&[0], 1, 1), Tokens::padded(&[1, 1], 2, 1));
        let unknown = [model.vocabulary_size() as u32];
        let many = vec![0; capacity + 1];
        match self.input.request[2] % 8 {
            0 => refuse(model.decode(session, &[last, last], two)),
            1 => refuse(model.decode(session, &[last + 1], one)),
            2 => refuse(model.decode(session, &[0, usize::MAX], two)),
            3 => refuse(model.decode(session, &[], one)),
            4 => refuse(model.decode(session, &[0], two)),
            5 => refuse(model.decode(session, &[0], Tokens::padded(&unknown, 1, 1))),
            6 => refuse(model.decode(session, &[0], Tokens::padded(&many, 1, many.len()))),
            _ => refuse(model.decode(session, &[0], Tokens::ragged(&[], &[0]))),
        }
        if model.has_encoder() && last > 0 {
            let sources = vec![0; last + 2];
            refuse(model.encode(session, Tokens::padded(&sources, last + 2, 1)));
        }
    }
}
