//! transformers' tokenizers in Python: ByT5's, whose tokens are bytes, and the Japanese one of BERT.
//!
//! Both first split a text at added tokens, which is done here as `PythonBackend` of transformers 5.24 does it: at the
//! longest token of those that start first.

use core::ops::Range;
use std::collections::{HashMap, HashSet};

use super::added::Added;
use super::decoder::Step;
use super::frame::Frame;
use super::japanese::Japanese;
use super::sequence::Tokens;
use super::settings::{CONFIG, Settings};
use super::vocabulary::Vocabulary;
use super::{Engine, Tokenizer};
use crate::error::{Error, Result, in_file};

/// A tokenizer in Python.
pub struct Python {
    /// The added tokens.
    added: Vocabulary,
    /// Their properties, by id.
    properties: HashMap<u32, Added>,
    special: HashSet<u32>,
    words: Words,
}

/// What is done with the text between added tokens.
pub enum Words {
    /// A token for each byte.
    Bytes,
    Japanese(Box<Japanese>),
}

/// ByT5's ids of bytes start here, after those of three special tokens.
const FIRST_BYTE: u32 = 3;

/// Upper limit of `extra_ids`.
const MAX_EXTRA_IDS: u64 = 1 << 16;

/// transformers' `ByT5Tokenizer`.
pub fn byt5(settings: &mut Settings) -> Result<Tokenizer> {
    let count = settings.count("extra_ids")?.unwrap_or(125);
    if count > MAX_EXTRA_IDS {
        return Err(in_file(CONFIG, format!("extra_ids is {count}, expected at most {MAX_EXTRA_IDS}")));
    }
    match settings
        .older_extra()
        .map(|listed| (listed, listed.iter().filter(|t| t.content.contains("extra_id"))))
    {
        None => {
            settings.set_older_extra((0..count).map(|i| Added::special(format!("<extra_id_{i}>"))).collect())
        }
        Some((listed, extra)) => {
            let found = extra.map(|token| &token.content).collect::<HashSet<_>>().len();
            if count > 0 && !listed.is_empty() && found as u64 != count {
                let message =
                    format!("extra_ids is {count}, but additional_special_tokens has {found} of them");
                return Err(in_file(CONFIG, message));
            }
        }
    }
    let first = (0..).zip(["pad_token", "eos_token", "unk_token"]).filter_map(|(id, name)| {
        let token = settings.token(name)?;
        let described = settings.describes(name);
        Some((id, if described { token } else { Added { lstrip: true, rstrip: true, ..token } }))
    });
    let python = Python::new(settings, first.collect(), Words::Bytes)?;
    let eos = settings.token_text("eos_token").and_then(|eos| python.added.id(&eos));
    let eos = eos.ok_or_else(|| in_file(CONFIG, "eos_token is null, expected a token"))?;
    let frame = Frame::ended(eos).ending_once();
    Ok(Tokenizer::new(Engine::Python(Box::new(python)), frame, vec![Step::Bytes]))
}

impl Words {
    /// Number of tokens.
    fn len(&self) -> usize {
        match self {
            Words::Bytes => 256,
            Words::Japanese(words) => words.len(),
        }
    }

    /// The id of a token. Those of bytes are spelled as the characters U+0000 to U+00FF.
    fn id(&self, token: &str) -> Option<u32> {
        match self {
            Words::Bytes => {
                let mut chars = token.chars();
                let byte = u8::try_from(u32::from(chars.next()?)).ok().filter(|_| chars.next().is_none());
                byte.map(|byte| FIRST_BYTE + u32::from(byte))
            }
            Words::Japanese(words) => words.known(token),
        }
    }
}

impl Python {
    /// A tokenizer with the added tokens of `first` and of the settings. Special tokens that neither lists get the ids
    /// of the vocabulary, or new ones.
    pub fn new(settings: &Settings, first: Vec<(u32, Added)>, words: Words) -> Result<Python> {
        let mut properties: HashMap<u32, Added> = first.into_iter().collect();
        properties.extend(settings.listed().iter().cloned());
        let mut ids: HashMap<String, u32> =
            properties.iter().map(|(id, token)| (token.content.clone(), *id)).collect();
        // transformers counts the different tokens for the next id.
        let new = ids.keys().filter(|token| words.id(token).is_none()).count();
        let mut next = (words.len() + new) as u32;
        let named = settings.special();
        for token in named.iter().filter(|token| !token.is_empty()) {
            if !ids.contains_key(token) {
                let id = words.id(token).unwrap_or_else(|| {
                    next += 1;
                    next - 1
                });
                ids.insert(token.clone(), id);
                properties.insert(id, Added { normalized: Some(false), ..Added::special(token.clone()) });
            }
        }
        let special = named.iter().filter_map(|token| ids.get(token).copied()).collect();
        let added =
            ids.iter().map(|(token, id)| (token.as_str(), *id)).filter(|(token, _)| !token.is_empty());
        let added = Vocabulary::new(added).map_err(|error| in_file(CONFIG, error))?;
        Ok(Python { added, properties, special, words })
    }

    /// The tokens of a text, without special ones.
    pub fn encode(&self, text: &str) -> Tokens {
        let mut tokens = Tokens::default();
        for range in self.split(text) {
            let part = &text[range.clone()];
            match (self.added.id(part), &self.words) {
                _ if part.is_empty() => {}
                (Some(id), _) => tokens.push(id, self.offsets(range)),
                (None, Words::Bytes) => {
                    for (at, c) in part.char_indices() {
                        let start = range.start + at;
                        let offsets = start..start + c.len_utf8();
                        let bytes = part[at..at + c.len_utf8()].bytes();
                        bytes.for_each(|byte| tokens.push(FIRST_BYTE + u32::from(byte), offsets.clone()));
                    }
                }
                (None, Words::Japanese(words)) => {
                    let id = |token: &str| self.added.id(token).unwrap_or_else(|| words.id(token));
                    words.tokens(part, &mut |token| tokens.push(id(token), 0..0));
                }
            }
        }
        tokens
    }

    /// Whether tokens have offsets.
    pub fn has_offsets(&self) -> bool {
        matches!(self.words, Words::Bytes)
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Number of different tokens.
    pub fn len(&self) -> usize {
        let new = |token: &&Added| self.words.id(&token.content).is_none();
        self.words.len() + self.properties.values().filter(new).count()
    }

    pub fn id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.words.id(token))
    }

    pub fn token(&self, id: u32) -> Option<String> {
        let added = self.properties.get(&id).map(|token| token.content.clone());
        added.or_else(|| match &self.words {
            Words::Bytes => {
                let byte = id.checked_sub(FIRST_BYTE).and_then(|byte| u8::try_from(byte).ok());
                byte.map(|byte| char::from(byte).to_string())
            }
            Words::Japanese(words) => words.token(id).map(str::to_owned),
        })
    }

    /// The token that decoding shows for an id.
    pub fn shown(&self, id: u32) -> Result<String> {
        match (self.token(id), &self.words) {
            (Some(token), _) => Ok(token),
            (None, Words::Japanese(words)) => Ok(words.unknown().to_owned()),
            (None, Words::Bytes) => Err(Error::Request {
                what: "token id",
                found: id.to_string(),
                expected: "the id of a token".to_owned(),
            }),
        }
    }

    fn offsets(&self, range: Range<usize>) -> Range<usize> {
        if self.has_offsets() { range } else { 0..0 }
    }

    /// The parts of a text: added tokens, and what is between them. Parts may be empty, and what they leave out is
    /// whitespace that belongs to an added token.
    fn split(&self, text: &str) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            match self.added.prefixes("", &text[at..]).last() {
                Some((len, _)) => {
                    parts.extend([from..at, at..at + len].into_iter().filter(|part| !part.is_empty()));
                    (from, at) = (at + len, at + len);
                }
                None => at += c.len_utf8(),
            }
        }
        parts.extend(Some(from..at).filter(|part| !part.is_empty()));
        for i in 0..parts.len() {
            let token = text[parts[i].clone()].to_owned();
            let Some(properties) = self.added.id(&token).and_then(|id| self.properties.get(&id)) else {
                continue;
            };
            let part = |parts: &[Range<usize>], i: Option<usize>| {
                let part = i.and_then(|i| parts.get(i)).map(|part| &text[part.clone()]);
                part.filter(|part| !part.is_empty())
            };
            let before = i.checked_sub(1);
            let (left, right) = (part(&parts, before), part(&parts, Some(i + 1)));
            if let (true, Some(right)) = (properties.rstrip, right) {
                parts[i + 1].start += right.len() - right.trim_start_matches(is_space).len();
            }
            if let (true, Some(left), Some(before)) = (properties.lstrip, left, before) {
                parts[before].end -= left.len() - left.trim_end_matches(is_space).len();
            }
            if properties.single_word {
                if let (Some(before), true) = (before, left.is_some_and(|left| !left.ends_with(' '))) {
                    parts[before].end = parts[i].end;
                    parts[i].start = parts[i].end;
                } else if right.is_some_and(|right| !right.starts_with(' ')) {
                    parts[i + 1].start = parts[i].start;
                    parts[i].end = parts[i].start;
                }
            }
        }
        parts
    }
}

/// Whitespace of Python's `str.strip`.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}
