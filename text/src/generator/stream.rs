//! A generation in progress, in pieces of text.

use core::fmt;
use core::ops::ControlFlow;
use std::collections::VecDeque;

use rachis::generation::{Generation, GenerationConfig, Progress, StoppingCriterion};
use rachis::{Decoder, GenerationInputs, Session};

use super::{GeneratedText, TextGenerator};
use crate::error::Result;
use crate::tokenizer::{DecodeStream, SpecialTokens};

/// A piece of a generated text: what has become certain with a token, or the rest of the text at the end. It never ends
/// inside a character, and is empty while a token leaves the text uncertain, or has no text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextPiece {
    /// Index of the prompt.
    pub prompt: usize,
    /// Index of the sequence among those of the prompt.
    pub sequence: usize,
    /// The token; `None` for the rest of the text.
    pub token: Option<u32>,
    /// The text.
    pub text: String,
}

/// A generation in progress: an iterator of the pieces of its texts. A beam search yields all of its pieces at the end.
///
/// The iterator ends when all sequences have ended, or with an error. [`TextStream::finish`] gives the sequences as they
/// are, at any time.
pub struct TextStream<'g, 'p> {
    generator: &'g TextGenerator,
    generation: Generation<'g, 'p, dyn Decoder + 'g>,
    /// The texts of the sequences of each prompt.
    texts: Vec<Vec<DecodeStream<'g>>>,
    ready: VecDeque<TextPiece>,
    /// Scratch: the tokens of a step.
    tokens: Vec<(usize, usize, u32)>,
    over: bool,
}

impl fmt::Debug for TextStream<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextStream").field("over", &self.over).finish_non_exhaustive()
    }
}

impl<'g, 'p> TextStream<'g, 'p> {
    pub(super) fn start(
        generator: &'g TextGenerator,
        session: &'g mut Session<'p>,
        inputs: GenerationInputs<'_>,
        config: &'g GenerationConfig,
        stop: Option<Box<dyn StoppingCriterion + 'g>>,
    ) -> Result<TextStream<'g, 'p>> {
        let generation = Generation::start(generator.decoder()?, session, inputs, config, stop)?;
        let (ready, tokens) = (VecDeque::new(), Vec::new());
        Ok(TextStream { generator, generation, texts: Vec::new(), ready, tokens, over: false })
    }

    /// Sends all pieces to a callback, and returns the sequences. When the callback returns `Break`, the generation ends
    /// early, and the sequences are as they are.
    ///
    /// # Errors
    /// The errors of a call that the session ends, and of the tokenizer.
    pub fn run(
        mut self,
        mut each: impl FnMut(TextPiece) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<GeneratedText>>> {
        for piece in self.by_ref() {
            if each(piece?).is_break() {
                break;
            }
        }
        self.finish()
    }

    /// Generates to the end without pieces.
    pub(super) fn complete(mut self) -> Result<Vec<Vec<GeneratedText>>> {
        while self.generation.advance(&mut |_| ControlFlow::Continue(()))?.is_continue() {}
        self.finish()
    }

    /// The sequences as they are: for every prompt a list, best first.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn finish(self) -> Result<Vec<Vec<GeneratedText>>> {
        let tokenizer = self.generator.tokenizer();
        let text = |ids: &[u32]| match tokenizer {
            Some(tokenizer) => tokenizer.decode(ids, SpecialTokens::Without),
            None => Ok(String::new()),
        };
        let found = self.generation.finish().into_iter();
        found
            .map(|found| {
                let found = found.into_iter();
                found
                    .map(|sequence| Ok(GeneratedText { text: text(sequence.new_ids())?, sequence }))
                    .collect()
            })
            .collect()
    }

    /// Generates a token for each running sequence, and decodes them.
    fn advance(&mut self) -> Result<()> {
        let tokens = &mut self.tokens;
        let mut watch = |progress| {
            if let Progress::Token { prompt, sequence, token } = progress {
                tokens.push((prompt, sequence, token));
            }
            ControlFlow::Continue(())
        };
        self.over = self.generation.advance(&mut watch)?.is_break();
        for (prompt, sequence, token) in std::mem::take(&mut self.tokens) {
            let text = match self.text(prompt, sequence) {
                Some(text) => text.step(token)?.unwrap_or_default(),
                None => String::new(),
            };
            self.ready.push_back(TextPiece { prompt, sequence, token: Some(token), text });
        }
        if self.over {
            for (prompt, texts) in std::mem::take(&mut self.texts).into_iter().enumerate() {
                for (sequence, text) in texts.into_iter().enumerate() {
                    let text = text.finish();
                    if !text.is_empty() {
                        self.ready.push_back(TextPiece { prompt, sequence, token: None, text });
                    }
                }
            }
        }
        Ok(())
    }

    /// The text of a sequence; `None` where there is no tokenizer.
    fn text(&mut self, prompt: usize, sequence: usize) -> Option<&mut DecodeStream<'g>> {
        let tokenizer = self.generator.tokenizer()?;
        if self.texts.len() <= prompt {
            self.texts.resize_with(prompt + 1, Vec::new);
        }
        let texts = self.texts.get_mut(prompt)?;
        while texts.len() <= sequence {
            texts.push(tokenizer.decode_stream(SpecialTokens::Without));
        }
        texts.get_mut(sequence)
    }
}

impl Iterator for TextStream<'_, '_> {
    type Item = Result<TextPiece>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.over {
            if let Err(error) = self.advance() {
                self.over = true;
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}
