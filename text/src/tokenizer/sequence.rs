//! From the tokens of texts to the sequence that a model gets.

use core::ops::Range;

use super::encoding::Encoding;
use super::frame::{Frame, Part};

/// The tokens of one text, without special ones. All lists have one entry a token.
#[derive(Debug, Default)]
pub struct Tokens {
    pub ids: Vec<u32>,
    /// In bytes of the text.
    pub offsets: Vec<Range<usize>>,
    pub words: Vec<Option<u32>>,
    /// The spaces at the ends of tokens; empty where offsets are not trimmed.
    pub blanks: Vec<Blank>,
}

/// The spaces at the ends of a token.
#[derive(Debug, Default, Clone, Copy)]
pub struct Blank {
    /// Number of spaces at the start, in characters.
    chars: usize,
    /// Bytes of the text at the start that are spaces.
    start: usize,
    /// Bytes of the text at the end that are spaces.
    end: usize,
}

impl Tokens {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Appends a token of no word.
    pub fn push(&mut self, id: u32, offsets: Range<usize>) {
        self.ids.push(id);
        self.offsets.push(offsets);
        self.words.push(None);
    }
}

impl Blank {
    /// The spaces of a token that stands for `text`. In byte-level vocabularies `Ġ` is a space.
    pub fn of(token: &str, text: &str) -> Blank {
        let blank = |c: &char| *c == 'Ġ' || c.is_whitespace();
        let chars = token.chars().take_while(blank).count();
        let last = token.chars().rev().take_while(blank).count();
        let bytes = |chars: &mut dyn Iterator<Item = char>| chars.map(char::len_utf8).sum();
        Blank {
            chars,
            start: bytes(&mut text.chars().take(chars)),
            end: bytes(&mut text.chars().rev().take(last)),
        }
    }

    /// The offsets of a token without its spaces. The space that a tokenizer puts in front of a text is none of the
    /// text's.
    fn trim(self, offsets: Range<usize>, first: bool, space_in_front: bool) -> Range<usize> {
        let keep = first && space_in_front && self.chars == 1;
        let start = if keep { offsets.start } else { (offsets.start + self.start).min(offsets.end) };
        start..offsets.end.saturating_sub(self.end).max(start)
    }
}

/// The sequence of windows of texts; without special tokens if not `add`.
pub fn assemble(frame: &Frame, texts: &[Tokens], windows: [&Range<usize>; 2], add: bool) -> Encoding {
    let mut sequence = Encoding::default();
    for part in frame.parts(texts.len() > 1) {
        match *part {
            // An end that the text has is not added again.
            Part::Token { id, .. } if frame.ends_once && sequence.ends_in_text_with(id) => {}
            Part::Token { id, segment } if add => sequence.push(id, segment, 0..0, None, None),
            Part::Token { .. } => {}
            Part::Text { number, segment } => {
                let Some(text) = texts.get(number) else { continue };
                for (i, at) in windows[number].clone().enumerate() {
                    let mut offsets = text.offsets[at].clone();
                    if let (Some(trim), Some(blank)) = (frame.trim, text.blanks.get(at)) {
                        offsets =
                            blank.trim(offsets.clone(), i == 0 || offsets.start == 0, trim.space_in_front);
                    }
                    sequence.push(text.ids[at], segment, offsets, Some(number), text.words[at]);
                }
            }
        }
    }
    sequence
}
