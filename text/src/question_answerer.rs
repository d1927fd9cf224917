//! Extractive question answering: the part of a context that answers a question.

mod spans;

use core::ops::Range;
use std::ffi::OsStr;

use rachis::heads::Classifier;
use rachis::loader::Preset;
use rachis::{Backbone, Heads, PresetOptions, Session};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::tokenizer::{
    EncodeOptions, Encoding, Side, SpecialToken, TextInput, Tokenizer, TruncateWhich, Truncation,
};
use spans::Spans;

/// Answers from contexts: the question-answering pipeline of transformers 4.44 on a `BertForQuestionAnswering`. Version 5
/// has no such pipeline.
///
/// Later releases of version 4 add up the scores of answers that read the same; here, as in 4.44, each keeps its own.
/// `max_question_len` has no effect with a tokenizer of the `tokenizers` library, and is not offered.
#[derive(Debug)]
pub struct QuestionAnswerer {
    backbone: Backbone,
    head: Classifier,
    tokenizer: Tokenizer,
    order: Order,
}

/// Which of the two texts comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    QuestionFirst,
    /// Of a tokenizer that pads on the left.
    ContextFirst,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The part of the context; empty when there is none.
    pub answer: String,
    /// The product of the probabilities that it starts and ends there.
    pub score: f32,
    /// Where it stands in the context, in bytes.
    pub span: Range<usize>,
}

/// How to answer: one answer of up to 15 tokens, in words of the context, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnswerOptions {
    /// Number of answers.
    pub top_k: usize,
    /// Maximum number of tokens of an answer.
    pub max_answer_len: usize,
    /// Maximum number of tokens of a window: question, a part of the context and special tokens. By default 384, or the
    /// tokenizer's `model_max_length` if that is less.
    pub max_seq_len: Option<usize>,
    /// Tokens of the context that two windows have in common. By default 128, or half of `max_seq_len` if that is less.
    pub doc_stride: Option<usize>,
    /// Whether the empty answer counts.
    pub impossible: Impossible,
    /// Where an answer starts and ends.
    pub align: Align,
}

/// Whether "no answer" is an answer: the pipeline's `handle_impossible_answer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Impossible {
    /// It is not.
    #[default]
    Refused,
    /// It is, with the score that the first token gives it.
    Accepted,
}

/// Where an answer starts and ends: the pipeline's `align_to_words`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Align {
    /// At words, as the tokenizer splits them.
    #[default]
    Words,
    /// At tokens.
    Tokens,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        AnswerOptions {
            top_k: 1,
            max_answer_len: 15,
            max_seq_len: None,
            doc_stride: None,
            impossible: Impossible::default(),
            align: Align::default(),
        }
    }
}

impl AnswerOptions {
    /// One answer of up to 15 tokens, in words of the context.
    pub fn new() -> AnswerOptions {
        AnswerOptions::default()
    }

    /// Sets [`AnswerOptions::top_k`].
    pub fn with_top_k(self, top_k: usize) -> AnswerOptions {
        AnswerOptions { top_k, ..self }
    }

    /// Sets [`AnswerOptions::max_answer_len`].
    pub fn with_max_answer_len(self, max_answer_len: usize) -> AnswerOptions {
        AnswerOptions { max_answer_len, ..self }
    }

    /// Sets [`AnswerOptions::max_seq_len`].
    pub fn with_max_seq_len(self, max_seq_len: usize) -> AnswerOptions {
        AnswerOptions { max_seq_len: Some(max_seq_len), ..self }
    }

    /// Sets [`AnswerOptions::doc_stride`].
    pub fn with_doc_stride(self, doc_stride: usize) -> AnswerOptions {
        AnswerOptions { doc_stride: Some(doc_stride), ..self }
    }

    /// Sets [`AnswerOptions::impossible`].
    pub fn with_impossible(self, impossible: Impossible) -> AnswerOptions {
        AnswerOptions { impossible, ..self }
    }

    /// Sets [`AnswerOptions::align`].
    pub fn with_align(self, align: Align) -> AnswerOptions {
        AnswerOptions { align, ..self }
    }
}

impl QuestionAnswerer {
    /// The answerer of a preset: a directory, or a name as [`Preset::named`] takes it.
    ///
    /// # Errors
    /// When a file is missing, malformed or not implemented, or the model has no head for spans.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<QuestionAnswerer> {
        QuestionAnswerer::from_preset_with(name, PresetOptions::default())
    }

    /// The answerer of a preset, whose model is loaded as `options` say.
    ///
    /// # Errors
    /// As [`QuestionAnswerer::from_preset`].
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<QuestionAnswerer> {
        let preset = options.open(name)?;
        QuestionAnswerer::load(&preset, Backbone::load_with(&preset, options)?)
    }

    /// The answerer of an open preset and its model.
    ///
    /// # Errors
    /// As [`QuestionAnswerer::from_preset`].
    pub fn load(preset: &Preset, backbone: Backbone) -> Result<QuestionAnswerer> {
        let needs = |found: String| {
            let expected = "a BERT with a head for spans".to_owned();
            Error::Task { task: "answer", expected, found }
        };
        let head = Heads::load(preset, &backbone)?.span;
        let head = head.ok_or_else(|| needs(format!("{} without one", backbone.name())))?;
        if head.classes() != 2 {
            return Err(needs(format!("a head with {} outputs, not start and end", head.classes())));
        }
        let tokenizer = Tokenizer::load(preset)?;
        if !tokenizer.has_offsets() {
            return Err(needs("a tokenizer that does not say where tokens stand".to_owned()));
        }
        let order = match tokenizer.padding_side() {
            Side::Right => Order::QuestionFirst,
            Side::Left => Order::ContextFirst,
        };
        Ok(QuestionAnswerer { backbone, head, tokenizer, order })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The best answers to a question, the best first. There may be fewer than are asked for, or none.
    ///
    /// # Errors
    /// When the question or the context is empty, an option is out of range, or the question leaves no room for the
    /// context in a window.
    pub fn answer(
        &self,
        session: &mut Session<'_>,
        question: &str,
        context: &str,
        options: AnswerOptions,
    ) -> Result<Vec<Answer>> {
        for (what, text) in [("question", question), ("context", context)] {
            at_least_one(what, text.len())?;
        }
        at_least_one("top_k", options.top_k)?;
        at_least_one("max_answer_len", options.max_answer_len)?;
        let windows = self.windows(question, context, options)?;
        let mut spans = Spans::new(options.top_k, options.max_answer_len);
        let (mut batch, mut first) = (Batch::default(), 0);
        for (i, window) in windows.iter().enumerate() {
            batch.push(window);
            if batch.is_full() || i + 1 == windows.len() {
                let mut logits = vec![0.0; batch.tokens() * 2];
                self.head.token_logits(session, &self.backbone, batch.inputs(), &mut logits)?;
                let mut rest = logits.as_slice();
                for (number, window) in windows.iter().enumerate().take(i + 1).skip(first) {
                    let (logits, after) = rest.split_at(window.len() * 2);
                    rest = after;
                    let context: Vec<bool> =
                        window.sequences.iter().map(|text| *text == Some(self.context())).collect();
                    spans.add(number, logits, (&self.counts(window), &context));
                }
                batch.clear();
                first = i + 1;
            }
        }
        let (best, none) = spans.finish();
        let mut answers: Vec<Answer> = Vec::with_capacity(best.len() + 1);
        for span in best {
            let place = self.place(&windows[span.window], (span.start, span.end), options.align);
            let answer = context.get(place.clone()).unwrap_or_default().to_owned();
            answers.push(Answer { answer, score: span.score as f32, span: place });
        }
        if options.impossible == Impossible::Accepted {
            let at = answers.partition_point(|answer| answer.score >= none as f32);
            answers.insert(at, Answer { answer: String::new(), score: none as f32, span: 0..0 });
        }
        answers.truncate(options.top_k);
        Ok(answers)
    }

    /// The question with each part of the context.
    fn windows(&self, question: &str, context: &str, options: AnswerOptions) -> Result<Vec<Encoding>> {
        let limit = self.tokenizer.model_max_length().unwrap_or(usize::MAX);
        let length = options.max_seq_len.unwrap_or(limit.min(384));
        let stride = options.doc_stride.unwrap_or((length / 2).min(128));
        if stride > length {
            return Err(Error::Request {
                what: "doc_stride",
                found: stride.to_string(),
                expected: format!("at most max_seq_len, which is {length}"),
            });
        }
        let (input, strategy) = match self.order {
            Order::QuestionFirst => (TextInput::Pair(question, context), TruncateWhich::OnlySecond),
            Order::ContextFirst => (TextInput::Pair(context, question), TruncateWhich::OnlyFirst),
        };
        let truncation = Truncation::new(length).with_strategy(strategy).with_stride(stride);
        let encoding = self.tokenizer.encode_with(input, EncodeOptions::new().with_truncation(truncation));
        let mut first = encoding?;
        let rest = std::mem::take(&mut first.overflowing);
        Ok([first].into_iter().chain(rest).collect())
    }

    /// The number of the context among the two texts.
    fn context(&self) -> usize {
        match self.order {
            Order::QuestionFirst => 1,
            Order::ContextFirst => 0,
        }
    }

    /// Which tokens of a window have probabilities: those of the context, and every first token. Where the context comes
    /// first the pipeline counts all of them.
    fn counts(&self, window: &Encoding) -> Vec<bool> {
        let first = self.tokenizer.special_token(SpecialToken::Cls);
        let tokens = window.sequences.iter().zip(&window.ids);
        let counts = |(text, id): (&Option<usize>, &u32)| {
            self.order == Order::ContextFirst || *text == Some(1) || Some(*id) == first
        };
        tokens.map(counts).collect()
    }

    /// Where the tokens from `start` to `end` stand in the context, in bytes.
    fn place(&self, window: &Encoding, (start, end): (usize, usize), align: Align) -> Range<usize> {
        let tokens = window.offsets[start].start..window.offsets[end].end;
        if align == Align::Tokens {
            return tokens;
        }
        let context = self.context();
        let word = |token: usize| {
            let word = window.words[token]?;
            let of_word =
                |at: &usize| window.sequences[*at] == Some(context) && window.words[*at] == Some(word);
            let first = (0..window.len()).find(of_word)?;
            let last = (0..window.len()).rfind(of_word)?;
            Some(window.offsets[first].start..window.offsets[last].end)
        };
        match (word(start), word(end)) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => tokens,
        }
    }
}

fn at_least_one(what: &'static str, found: usize) -> Result<()> {
    if found > 0 {
        return Ok(());
    }
    let empty = matches!(what, "question" | "context");
    let (found, expected) = if empty { ("empty", "a text") } else { ("0", "1 or more") };
    Err(Error::Request { what, found: found.to_owned(), expected: expected.to_owned() })
}
