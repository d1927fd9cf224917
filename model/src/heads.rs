//! The heads of tasks: the layers from a backbone's output to logits.
//!
//! [`Heads::load`] finds those that a preset's files have. A head of an architecture is a choice of names, of a
//! [`Classifier`] or a [`MaskedLmHead`], and of the vector that stands for a sequence. The language-model head of a
//! model that writes is part of the model: [`Decoder::logits`](crate::Decoder::logits).

use rachis_kernels::MatRef;
use rachis_loader::Preset;

use crate::architectures::bert::BertInputs;
use crate::architectures::seq2seq::Seq2SeqInputs;
use crate::architectures::{bart, bert};
use crate::backbone::Backbone;
use crate::error::{Error, RequestError, Result, check_len};
pub use crate::layers::{Classifier, MaskedLmHead};
use crate::session::{SequenceOutput, Session, Tokens};

/// The heads that a preset's files have.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Heads {
    /// Logits of tokens, for text with masks: transformers' `BertForMaskedLM`, KerasHub's `BertMaskedLM`.
    pub masked_lm: Option<MaskedLmHead>,
    /// Two logits of the pooled output: the second sentence continues the first, or does not. transformers'
    /// `BertForNextSentencePrediction`.
    pub next_sentence: Option<Classifier>,
    /// Logits of classes of a sequence: transformers' `BertForSequenceClassification` and
    /// `BartForSequenceClassification`, KerasHub's `BertTextClassifier`.
    pub sequence: Option<SequenceHead>,
    /// Logits of classes of each token: transformers' `BertForTokenClassification`.
    pub token: Option<Classifier>,
    /// Two logits of each token: an answer starts there, and it ends there. transformers' `BertForQuestionAnswering`.
    pub span: Option<Classifier>,
}

impl Heads {
    /// The heads of a preset, whose backbone is `backbone`.
    ///
    /// # Errors
    /// When a weight of a head is missing or has another shape.
    pub fn load(preset: &Preset, backbone: &Backbone) -> Result<Heads> {
        match backbone {
            Backbone::Bart(backbone) => bart::load_heads(preset, backbone),
            Backbone::Bert(backbone) => bert::load_heads(preset, backbone),
            _ => Ok(Heads::default()),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        let Heads { masked_lm, next_sentence, sequence, token, span } = self;
        masked_lm.is_none()
            && next_sentence.is_none()
            && sequence.is_none()
            && token.is_none()
            && span.is_none()
    }
}

/// A classifier of sequences.
#[derive(Debug)]
pub struct SequenceHead {
    classifier: Classifier,
    summary: Summary,
}

/// Which vector stands for a sequence.
#[derive(Debug, Clone, Copy)]
enum Summary {
    /// The pooled output.
    Pooled,
    /// The decoder's state at the last token `end`. The decoder reads the tokens themselves, each a position later,
    /// behind the token `start`.
    LastEnd { start: u32, end: u32 },
}

impl SequenceHead {
    /// A classifier of the pooled output.
    pub(crate) fn of_pooled(classifier: Classifier) -> SequenceHead {
        SequenceHead { classifier, summary: Summary::Pooled }
    }

    /// A classifier of the decoder's state at the last token `end` of a sequence, where the decoder reads the sequence
    /// behind the token `start`.
    pub(crate) fn of_last_end(classifier: Classifier, start: u32, end: u32) -> SequenceHead {
        SequenceHead { classifier, summary: Summary::LastEnd { start, end } }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classifier.classes()
    }

    /// Runs the model on sequences and writes their logits, `[batch, classes]`. Segment ids have no effect on a model
    /// without segments.
    ///
    /// # Errors
    /// When the inputs do not fit the model, `logits` has another length, or the head is another backbone's; for BART
    /// also when a sequence has no end token.
    pub fn logits(
        &self,
        session: &mut Session<'_>,
        backbone: &Backbone,
        inputs: BertInputs<'_>,
        logits: &mut [f32],
    ) -> Result<()> {
        let batch = inputs.tokens.batch();
        check_len("the logits", logits.len(), batch.saturating_mul(self.classes()))?;
        let vectors = match (self.summary, backbone) {
            (Summary::Pooled, Backbone::Bert(model)) => {
                let pooled = model.forward(session, inputs)?.pooled_output;
                let pooled = pooled.ok_or_else(|| Error::MissingWeight { name: POOLER.to_owned() })?;
                (0..batch).flat_map(|i| pooled.row(i).iter().copied()).collect::<Vec<f32>>()
            }
            (Summary::LastEnd { start, end }, Backbone::Bart(model)) => {
                let sequences = Sequences::of(inputs.tokens)?;
                let ends = sequences.last(end)?;
                let encoder = Tokens::ragged(&sequences.ids, &sequences.lengths);
                let shifted = sequences.shifted(start);
                let decoder = Tokens::ragged(&shifted, &sequences.lengths);
                let output = model.forward(session, Seq2SeqInputs { encoder, decoder })?;
                let states = |(i, end)| output.decoder_sequence_output.sequence(i).row(end).iter().copied();
                ends.into_iter().enumerate().flat_map(states).collect()
            }
            _ => return Err(RequestError::OtherBackbone { found: backbone.name() }.into()),
        };
        let width = vectors.len().checked_div(batch).unwrap_or(0);
        self.classifier.logits(session, MatRef::new(&vectors, batch, width)?, logits)
    }
}

const POOLER: &str = "pooler.dense.weight";

impl Classifier {
    /// Runs the model on sequences and writes the logits of their tokens, `[tokens, classes]`: real tokens, one
    /// sequence after another.
    ///
    /// # Errors
    /// When the inputs do not fit the model, or `logits` has another length.
    pub fn token_logits(
        &self,
        session: &mut Session<'_>,
        backbone: &Backbone,
        inputs: BertInputs<'_>,
        logits: &mut [f32],
    ) -> Result<()> {
        let output = backbone.forward(session, inputs)?.sequence_output();
        let (rows, width) = (copied(output), output.hidden_dim());
        let count = rows.len().checked_div(width).unwrap_or(0);
        self.logits(session, MatRef::new(&rows, count, width)?, logits)
    }
}

/// The vectors of all real tokens.
fn copied(output: SequenceOutput<'_>) -> Vec<f32> {
    let sequences = (0..output.batch()).map(|i| output.sequence(i));
    sequences.flat_map(|rows| (0..rows.rows()).flat_map(move |r| rows.row(r).iter().copied())).collect()
}

/// The real tokens of a batch.
#[derive(Debug, Default)]
struct Sequences {
    /// One sequence after another.
    ids: Vec<u32>,
    lengths: Vec<usize>,
}

impl Sequences {
    fn of(tokens: Tokens<'_>) -> Result<Sequences> {
        let mut all = Sequences::default();
        tokens.for_each(|range, mask| {
            let before = all.ids.len();
            let real = |at: &usize| mask.is_none_or(|mask| mask[*at] != 0);
            let ids = tokens.ids()[range].iter().enumerate().filter(|(at, _)| real(at)).map(|(_, id)| *id);
            all.ids.extend(ids);
            all.lengths.push(all.ids.len() - before);
            Ok(())
        })?;
        Ok(all)
    }

    /// The position of the last token `id` in each sequence.
    fn last(&self, id: u32) -> Result<Vec<usize>> {
        let mut rest = self.ids.as_slice();
        let position = |(sequence, length): (usize, &usize)| {
            let (ids, after) = rest.split_at(*length);
            rest = after;
            let last = ids.iter().rposition(|found| *found == id);
            last.ok_or_else(|| RequestError::NoEndToken { sequence, id }.into())
        };
        self.lengths.iter().enumerate().map(position).collect()
    }

    /// The ids, each sequence behind `start` and without its last token.
    fn shifted(&self, start: u32) -> Vec<u32> {
        let mut shifted = self.ids.clone();
        let mut rest = shifted.as_mut_slice();
        for length in &self.lengths {
            let (ids, after) = rest.split_at_mut(*length);
            ids.rotate_right(usize::from(!ids.is_empty()));
            if let Some(first) = ids.first_mut() {
                *first = start;
            }
            rest = after;
        }
        shifted
    }
}
