//! Byte-pair encoding (Sennrich et al., 2016): a word starts as its characters, and of all neighbours the pair that comes
//! first in the list of merges becomes one token, until no pair is in the list.
//!
//! The result is that of the `tokenizers` crate. Its model keeps a cache for each thread, which outlives the model; this
//! one keeps nothing, and a heap makes a word of n characters cost O(n log n).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use tokenizers::Token;

use super::json::{Merge, two_tokens};
use super::vocabulary::Vocabulary;
use crate::error::{Result, clip, in_file};

/// A BPE model.
pub struct Bpe {
    pub vocabulary: Vocabulary,
    /// The place in the list of merges, and the id that a pair of ids becomes.
    merges: HashMap<(u32, u32), (u32, u32)>,
    options: Options,
}

/// The options of a model.
#[derive(Debug, Default)]
pub struct Options {
    /// The token of a character that is not in the vocabulary; without it, the character is left out.
    pub unknown: Option<String>,
    /// The prefix of tokens that continue a word.
    pub prefix: String,
    /// The suffix of tokens that end a word.
    pub suffix: String,
    /// Whether unknown neighbours are one token.
    pub fuse_unknown: bool,
    /// Whether an unknown character becomes tokens that spell its bytes, such as `<0x0A>`.
    pub byte_fallback: bool,
    /// Whether a word that is a token is not merged from its characters.
    pub ignore_merges: bool,
}

/// The ids of a `vocab.json`, whose name in messages is `file`.
pub fn vocabulary(file: &str, text: &str) -> Result<Vocabulary> {
    let ids: HashMap<String, u32> = serde_json::from_str(text).map_err(|error| in_file(file, error))?;
    Vocabulary::new(ids.iter().map(|(token, id)| (token.as_str(), *id))).map_err(|error| in_file(file, error))
}

/// The merges of a `merges.txt`, with the numbers of their lines; `file` is its name in messages.
pub fn merges<'a>(file: &str, text: &'a str) -> Result<Vec<(usize, Merge<'a>)>> {
    let mut merges = Vec::new();
    for (line, merge) in (1..).zip(text.lines().map(str::trim_end)) {
        if merge.is_empty() || merge.starts_with("#version") {
            continue;
        }
        let Some((first, second)) = two_tokens(merge) else {
            return Err(in_file(file, format!("line {line} is {}, expected two tokens", clip(merge))));
        };
        merges.push((line, Merge(first.into(), second.into())));
    }
    Ok(merges)
}

/// A part of a word while it is merged. Parts that were merged into the one before them have no bytes.
#[derive(Clone, Copy)]
struct Part {
    id: u32,
    len: usize,
    before: Option<usize>,
    after: Option<usize>,
}

impl Bpe {
    /// The prefix of tokens that continue a word.
    pub fn prefix(&self) -> &str {
        &self.options.prefix
    }

    /// A model of a vocabulary and its merges. `place` names the place of a merge by its number, such as a line, in the
    /// file `file`.
    ///
    /// # Errors
    /// When a merge needs a token that the vocabulary has not.
    pub fn new(
        file: &str,
        place: &str,
        vocabulary: Vocabulary,
        merges: Vec<(usize, Merge<'_>)>,
        options: Options,
    ) -> Result<Bpe> {
        let mut of = HashMap::with_capacity(merges.len());
        let mut merged = String::new();
        for (rank, (number, Merge(first, second))) in (0..).zip(&merges) {
            let Some(rest) = second.get(options.prefix.len()..) else {
                let (second, prefix) = (clip(second), clip(&options.prefix));
                return Err(in_file(
                    file,
                    format!("{place} {number} has {second}, expected the prefix {prefix}"),
                ));
            };
            merged.clear();
            merged.extend([first.as_ref(), rest]);
            let id = |token: &str| {
                vocabulary.id(token).ok_or_else(|| {
                    let absent = clip(token);
                    let message =
                        format!("{place} {number} needs {absent}, which the vocabulary does not have");
                    in_file(file, message)
                })
            };
            of.insert((id(first)?, id(second)?), (rank, id(&merged)?));
        }
        Ok(Bpe { vocabulary, merges: of, options })
    }

    /// The tokens of a word.
    pub fn tokenize(&self, word: &str) -> Result<Vec<Token>, &'static str> {
        if self.options.ignore_merges
            && !word.is_empty()
            && let Some(id) = self.vocabulary.id(word)
        {
            return Ok(vec![Token::new(id, word.to_owned(), (0, word.len()))]);
        }
        let mut parts = self.parts(word)?;
        self.merge(&mut parts);
        let mut from = 0;
        let whole = parts.iter().filter(|part| part.len > 0);
        let token = whole.map(|part| {
            let offsets = (from, from + part.len);
            from = offsets.1;
            Token::new(part.id, self.vocabulary.token(part.id).unwrap_or_default().to_owned(), offsets)
        });
        Ok(token.collect())
    }

    /// The characters of a word.
    fn parts(&self, word: &str) -> Result<Vec<Part>, &'static str> {
        let Options { unknown, prefix, suffix, fuse_unknown, byte_fallback, .. } = &self.options;
        let mut parts: Vec<Part> = Vec::new();
        let push = |parts: &mut Vec<Part>, id, len| {
            let before = parts.len().checked_sub(1);
            if let Some(before) = before {
                parts[before].after = Some(before + 1);
            }
            parts.push(Part { id, len, before, after: None });
        };
        // The bytes of unknown characters that are one token.
        let mut pending = None;
        let mut spelled = String::new();
        for (at, c) in word.char_indices() {
            let len = c.len_utf8();
            spelled.clear();
            if at > 0 {
                spelled.push_str(prefix);
            }
            spelled.push(c);
            if at + len == word.len() {
                spelled.push_str(suffix);
            }
            if let Some(id) = self.vocabulary.id(&spelled) {
                if let Some((id, len)) = pending.take() {
                    push(&mut parts, id, len);
                }
                push(&mut parts, id, len);
                continue;
            }
            if *byte_fallback {
                let byte = |byte| self.vocabulary.id(&format!("<0x{byte:02X}>"));
                if let Some(bytes) = spelled.bytes().map(byte).collect::<Option<Vec<u32>>>() {
                    bytes.into_iter().for_each(|id| push(&mut parts, id, 1));
                    continue;
                }
            }
            if let Some(unknown) = unknown {
                let id = self.vocabulary.id(unknown).ok_or("the vocabulary lacks the unknown token")?;
                pending = match pending {
                    Some((id, before)) if *fuse_unknown => Some((id, before + len)),
                    before => {
                        if let Some((id, len)) = before {
                            push(&mut parts, id, len);
                        }
                        Some((id, len))
                    }
                };
            }
        }
        if let Some((id, len)) = pending {
            push(&mut parts, id, len);
        }
        Ok(parts)
    }

    /// Merges parts in the order of the list; of equal pairs, the first one in the word.
    fn merge(&self, parts: &mut [Part]) {
        let mut queue = BinaryHeap::new();
        let pair = |parts: &[Part], at: usize| {
            let after = parts[at].after?;
            let (rank, id) = self.merges.get(&(parts[at].id, parts[after].id))?;
            Some(Reverse((*rank, at, *id)))
        };
        queue.extend((0..parts.len()).filter_map(|at| pair(parts, at)));
        while let Some(Reverse((_, at, id))) = queue.pop() {
            // The pair may have changed since.
            let current =
                pair(parts, at).filter(|Reverse((.., current))| parts[at].len > 0 && *current == id);
            let (Some(_), Some(after)) = (current, parts[at].after) else { continue };
            let right = parts[after];
            parts[at] = Part { id, len: parts[at].len + right.len, after: right.after, ..parts[at] };
            parts[after].len = 0;
            if let Some(next) = right.after {
                parts[next].before = Some(at);
            }
            queue.extend(parts[at].before.and_then(|before| pair(parts, before)));
            queue.extend(pair(parts, at));
        }
    }
}
