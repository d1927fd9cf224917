//! Stop strings: transformers' `StopStringCriteria`.
//!
//! A sequence ends with the token in which an occurrence of a stop string ends. Each token is spelled by itself, as it
//! would stand inside a text: as bytes where the tokenizer's tokens are made of bytes, so that a stop string may end
//! inside a character; else as its text. Special tokens are spelled too, and so are the last tokens of the prompt.

use core::cell::RefCell;
use std::collections::HashMap;

use rachis::generation::StoppingCriterion;

use crate::error::Result;
use crate::tokenizer::{CleanUpSpaces, DecodeOptions, EncodeOptions, SpecialTokens, Tokenizer};

/// Ends a sequence at stop strings.
#[derive(Debug)]
pub(super) struct StopStrings<'t> {
    tokenizer: &'t Tokenizer,
    strings: &'t [String],
    spelling: Spelling,
    /// The tokens of [`BEFORE`], behind which a token is decoded.
    before: Vec<u32>,
    /// The spelling of tokens that have occurred.
    spelled: RefCell<HashMap<u32, Vec<u8>>>,
}

/// What the tokens of a vocabulary are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// Characters that stand for bytes, as in GPT-2's vocabulary.
    ByteLevel,
    /// Text, or a byte such as `<0x0A>`.
    ByteFallback,
    /// Text.
    Text,
}

/// A text behind which every token has the spelling that it has inside a text.
const BEFORE: &str = "abcdef";

impl<'t> StopStrings<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, strings: &'t [String]) -> Result<StopStrings<'t>> {
        let options = EncodeOptions::new().with_special_tokens(SpecialTokens::Without);
        let before = tokenizer.encode_with(BEFORE, options)?.ids;
        let spelled = RefCell::default();
        let mut stop = StopStrings { tokenizer, strings, spelling: Spelling::Text, before, spelled };
        // The tokenizer tells how it spells a byte: these are a space in the two vocabularies of bytes.
        for (token, spelling) in [("\u{120}", Spelling::ByteLevel), ("<0x20>", Spelling::ByteFallback)] {
            if let Some(id) = tokenizer.token_to_id(token)
                && stop.decoded(id) == " "
            {
                stop.spelling = spelling;
                break;
            }
        }
        Ok(stop)
    }

    /// Calls `read` with the spelling of a token.
    fn spelled<T>(&self, id: u32, read: impl FnOnce(&[u8]) -> T) -> T {
        read(self.spelled.borrow_mut().entry(id).or_insert_with(|| self.spell(id)))
    }

    fn spell(&self, id: u32) -> Vec<u8> {
        let token = self.tokenizer.id_to_token(id).unwrap_or_default();
        let bytes = match self.spelling {
            Spelling::ByteLevel => token.chars().map(byte_of).collect(),
            Spelling::ByteFallback => byte_fallback(&token).map(|byte| vec![byte]),
            Spelling::Text => None,
        };
        bytes.unwrap_or_else(|| self.decoded(id).into_bytes())
    }

    /// The text of a token behind [`BEFORE`]; empty when it has none.
    fn decoded(&self, id: u32) -> String {
        let ids: Vec<u32> = self.before.iter().copied().chain([id]).collect();
        let options = DecodeOptions::new().with_clean_up(CleanUpSpaces::No);
        let text = self.tokenizer.decode(&ids, options).unwrap_or_default();
        text.split_once(BEFORE).map(|(_, after)| after.to_owned()).unwrap_or_default()
    }
}

impl StoppingCriterion for StopStrings<'_> {
    fn is_met(&self, ids: &[u32]) -> bool {
        let Some((last, earlier)) = ids.split_last() else { return false };
        // The text from back to front, as much of it as the longest string needs.
        let mut text: Vec<u8> = self.spelled(*last, |token| token.iter().rev().copied().collect());
        let last = text.len();
        let longest = self.strings.iter().map(String::len).max().unwrap_or_default();
        for id in earlier.iter().rev().take(longest) {
            if text.len() >= last + longest {
                break;
            }
            self.spelled(*id, |token| text.extend(token.iter().rev()));
        }
        self.strings.iter().any(|string| {
            let backwards: Vec<u8> = string.bytes().rev().collect();
            let ends = text.windows(backwards.len().max(1)).take(last);
            ends.into_iter().any(|window| window == backwards)
        })
    }
}

/// The byte that a character of GPT-2's vocabulary stands for: printable characters stand for themselves, and the other
/// bytes, in order, are U+0100 and what follows.
fn byte_of(c: char) -> Option<u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(|byte| printable(*byte)),
        code => (0..=0xff).filter(|byte| !printable(*byte)).nth(usize::try_from(code - 0x100).ok()?),
    }
}

/// The byte of a token such as `<0x0A>`.
fn byte_fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let two = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if two { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stand_for_bytes() {
        let bytes = |token: &str| token.chars().map(byte_of).collect::<Option<Vec<u8>>>();
        assert_eq!(bytes("\u{120}the").unwrap(), b" the");
        assert_eq!(
            bytes("\u{100}\u{10a}\u{121}\u{142}\u{143}\u{ac}").unwrap(),
            [0, 10, 0x7f, 0xa0, 0xad, 0xac]
        );
        assert_eq!(bytes("</s>").unwrap(), b"</s>");
        assert_eq!((bytes("\u{144}"), bytes("a b"), bytes("\u{ad}")), (None, None, None));
        let all: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert_eq!(all.len(), 256);
        assert_eq!((byte_fallback("<0x0a>"), byte_fallback("<0xAF>")), (Some(10), Some(0xaf)));
        assert_eq!(
            (byte_fallback("<0xA>"), byte_fallback("<0x+1>"), byte_fallback("0x0A")),
            (None, None, None)
        );
    }
}
